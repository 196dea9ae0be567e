// Stock phoenix clients that consume a queue while their connections are cut every two seconds, or the server is killed.
// What a client that acknowledges is promised: everything, and nothing after its ack was answered. What one is that does not:
// everything that the kernel had not taken when the connection went.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { openSocket } from "./support/clients.js"
import { ACKS, LINES, Publisher, startDrainingRelay, startQueues, TRANSPORTS, Visitor, visitProducer } from "./support/queues.js"
import { finallyDo, until } from "./support/waiting.js"

/** How long it goes on; a minute or more to be sure. */
const SECONDS = Number(process.env.BENNU_QUEUE_CUTS_SECONDS ?? 20)
const CUT_EVERY_MS = 2_000
/** A long poll's session outlives its connections, and gives its messages back when the server gives it up. */
const PATIENCE_MS = 90_000
const ONE_TEST = { timeout: SECONDS * 1_000 + 2 * PATIENCE_MS }

const pass = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** A consumer behind a relay, which notes what comes. */
async function openConsumer(t, { port }, topic, params, options) {
  const relay = await startDrainingRelay(port)
  finallyDo(t, () => relay.close())
  const socket = openSocket(t, relay.endpoint, options)
  socket.connect()
  const consumer = new Visitor(socket, topic, params)
  return { relay, consumer }
}

/** Acknowledges all that comes. `answered` has the messages whose ack the server has answered; `late` those that came after that. */
function acknowledge(consumer) {
  const answered = new Set()
  const late = []
  consumer.onMessage = ({ message_id }) => {
    if (answered.has(message_id)) late.push(message_id)
    consumer.ask("message_ack", { message_id }, 2_000).then(({ ok, error }) => {
      if (ok || error?.reason === "already_settled") answered.add(message_id)
    })
  }
  return { answered, late }
}

/** Waits until the server has none any more of the messages that it accepted, but for those that are `known` to be done. */
async function untilSettled(consumer, accepted, known) {
  const isSettled = async ({ message_id }) => {
    if (known(message_id)) return true
    const { error } = await consumer.ask("message_extend", { message_id }, 2_000)
    return ["already_settled", "unknown_message"].includes(error?.reason)
  }
  for (const message of accepted) await until(() => isSettled(message), `message ${message.n} to be done`, PATIENCE_MS)
}

/** Which of the messages that were accepted never came, how often one came again, and whether a priority's first ones were in order. */
function examine(accepted, messages) {
  const seen = new Set()
  const last = { high: -1, normal: -1 }
  let isInOrder = true
  for (const { message_id, priority, payload, attempt } of messages) {
    if (!seen.has(message_id) && attempt === 1) {
      isInOrder &&= payload.n > last[priority]
      last[priority] = payload.n
    }
    seen.add(message_id)
  }
  const lost = accepted.filter(({ message_id }) => !seen.has(message_id))
  return { lost, duplicates: messages.length - seen.size, isInOrder }
}

async function cutEveryTwoSeconds(cut) {
  let cuts = 0
  for (const end = Date.now() + SECONDS * 1_000; Date.now() < end; cuts++) {
    await pass(CUT_EVERY_MS)
    await cut()
  }
  return cuts
}

const CLIENTS = [
  ...Object.entries(LINES).map(([line, Phoenix]) => [`phoenix ${line}, WebSocket`, { Phoenix }]),
  ["phoenix 1.8, long poll", TRANSPORTS["long poll"]],
]

describe("connections that are cut every two seconds", { concurrency: true }, () => {
  let server
  before(async () => {
    server = await startQueues()
  })
  after(() => server?.close())

  for (const [name, options] of CLIENTS) {
    test(`lose nothing with acks: ${name}`, ONE_TEST, async (t) => {
      const topic = `queue:acks, ${name}`
      const { relay, consumer } = await openConsumer(t, server, topic, ACKS, options)
      const { answered, late } = acknowledge(consumer)
      await consumer.join()
      const publisher = new Publisher(await visitProducer(t, server.endpoint, topic))

      const cuts = await cutEveryTwoSeconds(relay.reset)
      const accepted = await publisher.stop()
      // An ack's answer may have been lost.
      await untilSettled(consumer, accepted, (id) => answered.has(id))

      const { lost, duplicates, isInOrder } = examine(accepted, consumer.messages)
      t.diagnostic(`${accepted.length} messages, ${cuts} cuts, ${consumer.joins} joins: ${lost.length} lost, ${duplicates} again before their ack`)
      assert.deepEqual([lost, late, isInOrder], [[], [], true])
      assert.ok(consumer.joins > cuts / 2, `${consumer.joins} joins`)
    })

    // A poll's answer is lost with its connection, however that ends; one may carry all that a session before gave back.
    for (const way of options.Phoenix ? ["reset", "drain"] : ["reset"]) {
      test(`lose at most what the kernel had without acks, cut by ${way}: ${name}`, ONE_TEST, async (t) => {
        const topic = `queue:no acks, ${way}, ${name}`
        const { relay, consumer } = await openConsumer(t, server, topic, {}, options)
        await consumer.join()
        const publisher = new Publisher(await visitProducer(t, server.endpoint, topic))
        let before = 0

        const cuts = await cutEveryTwoSeconds(() => {
          before = publisher.accepted.length
          relay[way]()
        })
        await until(() => publisher.accepted.length > before + 3)
        const accepted = await publisher.stop()
        await untilSettled(consumer, accepted, (id) => consumer.messages.some(({ message_id }) => message_id === id))

        const { lost, duplicates, isInOrder } = examine(accepted, consumer.messages)
        t.diagnostic(`${accepted.length} messages, ${cuts} cuts, ${consumer.joins} joins: ${lost.length} lost, ${duplicates} twice`)
        assert.ok(isInOrder)
        assert.ok(consumer.joins > cuts / 2, `${consumer.joins} joins`)
        // All that the kernel had comes through a relay that drains.
        if (way === "drain") assert.deepEqual(lost, [])
        // What was accepted after the last cut was handed over in peace.
        assert.deepEqual(lost.filter(({ n }) => n > before), [])
      })
    }
  }
})

describe("a server that is killed and started again every few seconds", { concurrency: true }, () => {
  for (const [name, options] of CLIENTS) {
    test(`loses nothing with acks: ${name}`, ONE_TEST, async (t) => {
      const server = await startQueues()
      finallyDo(t, () => server.close())
      const topic = "inbox:dev"
      const { consumer } = await openConsumer(t, server, topic, ACKS, options)
      const { answered, late } = acknowledge(consumer)
      await consumer.join()
      const publisher = new Publisher(await visitProducer(t, server.endpoint, topic))

      const kills = await cutEveryTwoSeconds(() => server.process.restart("SIGKILL"))
      const accepted = await publisher.stop()
      // An ack's answer may have been lost.
      await untilSettled(consumer, accepted, (id) => answered.has(id))

      const { lost, duplicates } = examine(accepted, consumer.messages)
      t.diagnostic(`${accepted.length} messages, ${kills} kills: ${lost.length} lost, ${duplicates} again before their ack`)
      assert.deepEqual([lost, late], [[], []])
      assert.ok(consumer.joins > kills / 2, `${consumer.joins} joins`)
    })
  }
})
