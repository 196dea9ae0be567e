// Stock phoenix clients whose connections are cut, fall silent, or lose their server every two seconds, while others send. Those that
// resume get everything, in order and once, or are told where something is missing; those that don't lose what was sent meanwhile.

import assert from "node:assert/strict"
import { describe, test } from "node:test"

import { LINES, TRANSPORTS } from "./support/queues.js"
import { startRelay } from "./support/relay.js"
import { listen, Publisher, startHistory } from "./support/resuming.js"
import { finallyDo, until } from "./support/waiting.js"

/** How long it goes on. */
const SECONDS = Number(process.env.RESUME_SECONDS ?? 60)
const CUT_EVERY_MS = 2_000
/** How long clients may take to have the rest. */
const PATIENCE_MS = 60_000
const ONE_TEST = { timeout: SECONDS * 1_000 + 2 * PATIENCE_MS }
/** How long a silent connection stays one. phoenix.js 1.5 waits for its end, and no line gives up a handshake. */
const SILENT_MS = 3_000
/** By what others notice it sooner. */
const NOTICING = { heartbeatIntervalMs: 300, longpollerTimeout: 1_000 }
/** More than is sent while a client is away, however slow the machine. */
const AMPLE = { messages_max: 10_000, bytes_max: 16_777_216 }

const RESUMING = [
  ...Object.entries(LINES).flatMap(([line, Phoenix]) => [
    [`phoenix ${line}, withResume`, "withResume", { Phoenix }],
    [`phoenix ${line}, ten lines`, "tenLines", { Phoenix }],
  ]),
  ["long poll, withResume", "withResume", TRANSPORTS["long poll"]],
  ["long poll, ten lines", "tenLines", TRANSPORTS["long poll"]],
]
const PLAIN = [
  ["phoenix 1.8, plain", "plain", {}],
  ["phoenix 1.5, plain", "plain", { Phoenix: LINES[1.5] }],
  ["long poll, plain", "plain", TRANSPORTS["long poll"]],
]

const pass = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Clients of all kinds behind a relay, and publishers that are not. */
async function open(t, server, topic) {
  const relay = await startRelay(server.port)
  finallyDo(t, () => relay.close())
  const endpoint = `ws://localhost:${relay.port}/socket`
  const openAll = (kinds) =>
    Promise.all(kinds.map(async ([name, way, options]) => ({ name, ...(await listen(t, endpoint, topic, way, { ...NOTICING, ...options })) })))
  const [resuming, plain] = [await openAll(RESUMING), await openAll(PLAIN)]
  const publishers = await Promise.all(["ann", "bob"].map((by) => Publisher.open(t, server.endpoint, topic, by)))
  return { relay, resuming, plain, publishers }
}

async function everyTwoSeconds(cut) {
  let cuts = 0
  for (const end = Date.now() + SECONDS * 1_000; Date.now() < end; cuts++) {
    await pass(CUT_EVERY_MS)
    await cut()
  }
  return cuts
}

/**
 * Ends the sending, and waits until all of `clients`, which resume, have the last message. They have to be back before it is sent: a history
 * that began anew meanwhile is a gap.
 */
async function settle(publishers, clients) {
  for (const publisher of publishers) {
    const has = (n, { log }) => log.messages.some((message) => message.by === publisher.by && message.n >= n)
    const { length } = publisher.accepted
    await publisher.more(1)
    for (const client of clients) {
      await until(() => has(publisher.accepted[length], client), `${client.name} to be back`, PATIENCE_MS)
    }
    await publisher.stop()
    // What was not answered may have been sent to the others, but before this.
    while (!(await publisher.send())) await pass(100)
    const last = publisher.accepted.at(-1)
    for (const client of clients) {
      await until(() => has(last, client), `${client.name} to have ${publisher.by}'s last message`, PATIENCE_MS)
    }
  }
}

const keyOf = ({ by, n }) => `${by} ${n}`
const keysOf = (log) => log.messages.map(keyOf)
const acceptedKeys = (publishers) => publishers.flatMap(({ by, accepted }) => accepted.map((n) => keyOf({ by, n })))
const without = (keys, others) => keys.filter((key) => !others.has(key))

/** What a client lost without a gap at that place, and what came again or late. */
function faultsOf({ entries }, publishers) {
  const faults = []
  for (const { by, accepted } of publishers) {
    let next = 0
    let last = -1
    let isGap = false
    for (const { gap, by: sender, n } of entries) {
      if (gap) isGap = true
      if (sender !== by) continue
      if (n <= last) faults.push(`${by} ${n} came after ${last}`)
      const first = next
      while (accepted[next] < n) next += 1
      if (next > first && !isGap) faults.push(`${by} ${accepted[first]} to ${accepted[next - 1]} missing before ${n}`)
      if (accepted[next] === n) next += 1
      last = n
      isGap = false
    }
  }
  return faults
}

function report(t, cuts, publishers, clients) {
  const accepted = acceptedKeys(publishers)
  t.diagnostic(`${accepted.length} messages, ${cuts} cuts`)
  for (const { name, log } of clients) {
    const keys = keysOf(log)
    const lost = without(accepted, new Set(keys)).length
    t.diagnostic(`${name}: ${log.joins} joins, ${lost} lost, ${keys.length - new Set(keys).size} twice, ${log.gaps.length} gaps`)
  }
}

describe("connections that are lost every two seconds", { concurrency: true }, () => {
  const WAYS = {
    // What is sent before the clients can come back is missed for certain.
    "cut by a reset": ({ relay, publishers }) => relay.block(() => publishers[0].more(3)),
    "silent without an end": ({ relay, publishers }) => {
      relay.silence(SILENT_MS)
      return publishers[0].more(3)
    },
  }
  for (const [way, lose] of Object.entries(WAYS)) {
    test(`lose nothing where clients resume: ${way}`, ONE_TEST, async (t) => {
      const server = await startHistory(t, AMPLE)
      const topic = "room:drops"
      // What it sees is the topic's order.
      const witness = { name: "witness", ...(await listen(t, server.endpoint, topic, "plain")) }
      const { relay, resuming, plain, publishers } = await open(t, server, topic)
      for (const publisher of publishers) publisher.start()

      const cuts = await everyTwoSeconds(() => lose({ relay, publishers }))
      await settle(publishers, [witness, ...resuming])

      report(t, cuts, publishers, [...resuming, ...plain])
      const sent = keysOf(witness.log)
      assert.deepEqual(without(acceptedKeys(publishers), new Set(sent)), [])
      for (const { name, log } of resuming) {
        assert.deepEqual(log.gaps, [], name)
        assert.deepEqual(keysOf(log), sent, name)
      }
      for (const { name, log } of [...resuming, ...plain]) assert.ok(log.joins > cuts / 3, `${name}: ${log.joins} joins`)
      for (const { name, log } of plain) assert.ok(log.messages.length < sent.length, `${name} lost nothing`)
    })
  }

  test("lose nothing where the server is stopped and started again and keeps what topics have", ONE_TEST, async (t) => {
    const server = await startHistory(t, { ...AMPLE, durability: "restart" })
    const { resuming, plain, publishers } = await open(t, server, "room:kept")
    for (const publisher of publishers) publisher.start()

    const restarts = await everyTwoSeconds(() => server.process.restart())
    await settle(publishers, resuming)

    report(t, restarts, publishers, [...resuming, ...plain])
    // Of what was not answered nobody knows, but all have the same of it.
    const [{ log: first }] = resuming
    assert.deepEqual(without(acceptedKeys(publishers), new Set(keysOf(first))), [])
    for (const { name, log } of resuming) {
      assert.deepEqual(log.gaps, [], name)
      assert.deepEqual(faultsOf(log, publishers), [], name)
      assert.deepEqual(keysOf(log), keysOf(first), name)
      assert.ok(log.joins > restarts / 3, `${name}: ${log.joins} joins`)
    }
  })

  test("leave no silent hole where it is the server that is stopped and started again", ONE_TEST, async (t) => {
    const server = await startHistory(t, AMPLE)
    const { resuming, plain, publishers } = await open(t, server, "room:restarts")
    for (const publisher of publishers) publisher.start()

    const restarts = await everyTwoSeconds(() => server.process.restart())
    await settle(publishers, resuming)

    report(t, restarts, publishers, [...resuming, ...plain])
    for (const { name, log } of resuming) {
      assert.deepEqual(faultsOf(log, publishers), [], name)
      // A history that began anew twice while a client was away is one gap.
      assert.ok(log.gaps.length > 0 && log.gaps.length <= restarts, `${name}: ${log.gaps.length} gaps`)
      assert.ok(log.gaps.every(({ reason }) => reason === "epoch"), name)
    }
  })
})
