// Topics that resume, as stock phoenix clients see them: with this package's withResume, and with the lines of Bennu's README.

import assert from "node:assert/strict"
import { describe, test } from "node:test"

import { withResume } from "bennu-client"

import { LINES, TRANSPORTS } from "./support/queues.js"
import { startRelay } from "./support/relay.js"
import { listen, Publisher, startHistory } from "./support/resuming.js"
import { openScripted } from "./support/scripted_phoenix.js"
import { finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 60_000 }
const TOPIC = "room:a"
const EPOCH = "0123456789abcdef"
const OTHER_EPOCH = "fedcba9876543210"

const at = (offset, epoch = EPOCH) => ({ epoch, offset })
const numbers = (entries) => entries.map(({ n }) => n)
const upTo = (count) => [...Array(count).keys()]

/** A relay in front of a server. */
async function relayTo(t, { port }) {
  const relay = await startRelay(port)
  finallyDo(t, () => relay.close())
  return { ...relay, endpoint: `ws://localhost:${relay.port}/socket` }
}

/** Waits until the client saw that many messages and gaps, and gives them. */
async function entries({ log }, count) {
  await until(() => log.entries.length >= count, `entry ${count}`)
  return log.entries
}

const CLIENTS = [
  ...Object.entries(LINES).map(([line, Phoenix]) => [`phoenix ${line} over WebSocket`, { Phoenix }]),
  ["phoenix 1.8 over long poll", TRANSPORTS["long poll"]],
]
for (const [name, options] of CLIENTS) {
  for (const way of ["withResume", "tenLines"]) {
    describe(`${name}, ${way}`, () => {
      test("a client that was away gets what it missed, in order and once", ONE_TEST, async (t) => {
        const server = await startHistory(t)
        const relay = await relayTo(t, server)
        const client = await listen(t, relay.endpoint, TOPIC, way, options)
        const publisher = await Publisher.open(t, server.endpoint, TOPIC)

        await publisher.sendMany(3)
        await entries(client, 3)
        await relay.block(() => publisher.sendMany(3))
        await until(() => client.log.joins === 2)
        await publisher.sendMany(3)

        assert.deepEqual(numbers(await entries(client, 9)), upTo(9))
      })

      test("what is no longer kept is told as a gap", ONE_TEST, async (t) => {
        const server = await startHistory(t, { messages_max: 4 })
        const relay = await relayTo(t, server)
        const client = await listen(t, relay.endpoint, TOPIC, way, options)
        const publisher = await Publisher.open(t, server.endpoint, TOPIC)

        await publisher.sendMany(1)
        await entries(client, 1)
        await relay.block(() => publisher.sendMany(5))
        await until(() => client.log.joins === 2)
        await publisher.sendMany(1)

        const [before, gap, after] = await entries(client, 3)
        assert.deepEqual([before.n, gap.gap.reason, after.n], [0, "expired", 6])
        // It goes on from there.
        await relay.block(() => publisher.sendMany(2))
        assert.deepEqual(numbers((await entries(client, 5)).slice(2)), [6, 7, 8])
      })

      test("a server that was started again has forgotten, and says so", ONE_TEST, async (t) => {
        const server = await startHistory(t)
        const client = await listen(t, server.endpoint, TOPIC, way, options)
        const publisher = await Publisher.open(t, server.endpoint, TOPIC)
        await publisher.sendMany(2)
        await entries(client, 2)

        await server.process.restart()
        await until(() => client.log.gaps.length > 0, "the gap")
        while (!(await publisher.send()));

        const seen = await entries(client, 4)
        assert.equal(seen[2].gap.reason, "epoch")
        assert.equal(seen[3].n, publisher.accepted.at(-1))
      })
    })
  }
}

describe("withResume", () => {
  test("begins where an earlier page ended", ONE_TEST, async (t) => {
    const server = await startHistory(t)
    const publisher = await Publisher.open(t, server.endpoint, TOPIC)
    const page = await listen(t, server.endpoint, TOPIC)
    await publisher.sendMany(2)
    await entries(page, 2)
    const stored = JSON.stringify(page.resume.position)
    page.socket.disconnect()
    await publisher.sendMany(3)

    const next = await listen(t, server.endpoint, TOPIC, "withResume", { from: JSON.parse(stored) })

    assert.deepEqual(numbers(await entries(next, 3)), [2, 3, 4])
    assert.equal(next.resume.position.offset, 5)
  })

  test("is told when a position lies ahead of the topic, and goes back to it", ONE_TEST, async (t) => {
    const server = await startHistory(t)
    const publisher = await Publisher.open(t, server.endpoint, TOPIC)
    await publisher.sendMany(2)
    const { epoch } = (await listen(t, server.endpoint, TOPIC)).resume.position

    const client = await listen(t, server.endpoint, TOPIC, "withResume", { from: at(500, epoch) })
    await entries(client, 1)
    await publisher.sendMany(1)

    const [{ gap }, message] = await entries(client, 2)
    assert.deepEqual(gap, { reason: "future", from: at(500, epoch), position: at(2, epoch) })
    assert.equal(message.n, 2)
    assert.deepEqual(client.resume.position, at(3, epoch))
  })

  test("counts what the client itself sent, which is not sent back to it", ONE_TEST, async (t) => {
    const server = await startHistory(t)
    const relay = await relayTo(t, server)
    const client = await listen(t, relay.endpoint, TOPIC)
    const heard = []
    client.channel.on("position", (payload) => heard.push(payload))

    for (const n of upTo(3)) client.channel.push("new_msg", { n })
    await until(() => client.resume.position.offset === 3, "its own messages' offset")
    relay.cut()
    await until(() => client.log.joins === 2)
    const other = await Publisher.open(t, server.endpoint, TOPIC)
    await other.sendMany(1)

    assert.deepEqual(await entries(client, 1), [{ by: "publisher", n: 0 }])
    assert.deepEqual(heard, [])
  })

  test("counts binary messages, also those that were missed", ONE_TEST, async (t) => {
    const server = await startHistory(t)
    const relay = await relayTo(t, server)
    const client = await listen(t, relay.endpoint, TOPIC)
    const bytes = []
    client.channel.on("bytes", (payload) => bytes.push(...new Uint8Array(payload)))
    const sender = await listen(t, server.endpoint, TOPIC, "plain")
    const send = (byte) => new Promise((resolve) => sender.channel.push("bytes", new Uint8Array([byte]).buffer).receive("ok", resolve))

    await send(1)
    await until(() => client.resume.position.offset === 1)
    await relay.block(async () => {
      await send(2)
      await send(3)
    })
    await until(() => client.resume.position.offset === 3)

    assert.deepEqual(bytes, [1, 2, 3])
  })

  test("is plain Phoenix where the server keeps nothing, and says after a loss that something may be missing", ONE_TEST, async (t) => {
    const server = await startHistory(t)
    const relay = await relayTo(t, server)
    const client = await listen(t, relay.endpoint, "plain:a")
    const publisher = await Publisher.open(t, server.endpoint, "plain:a")

    await publisher.sendMany(2)
    assert.deepEqual(numbers(await entries(client, 2)), upTo(2))
    assert.equal(client.resume.position, null)
    await relay.block(() => publisher.sendMany(2))
    await until(() => client.log.joins === 2)
    await publisher.sendMany(1)

    const [gap, message] = (await entries(client, 4)).slice(2)
    assert.deepEqual(gap, { gap: { reason: "unkept", from: null, position: null } })
    assert.equal(message.n, 4)
  })
})

/** A channel with withResume, whose server is the test. What its handlers get is `seen`. */
function scripted(t, Phoenix, params, options) {
  const script = openScripted(t, Phoenix)
  const channel = script.socket.channel(TOPIC, params)
  const seen = []
  const resume = withResume(channel, { onGap: (gap) => seen.push(gap), ...options })
  const on = (event) => channel.on(event, (payload) => seen.push(payload instanceof ArrayBuffer ? [...new Uint8Array(payload)] : payload))
  on("new_msg")
  return { script, channel, resume, seen, on, say: (offset, n = offset) => script.broadcast(TOPIC, "new_msg", offset, { n }) }
}

for (const [line, Phoenix] of Object.entries(LINES)) {
  describe(`withResume on phoenix ${line}`, () => {
    test("adds to the join's parameters, an object or a function of the caller's", ONE_TEST, async (t) => {
      let asked = 0
      for (const params of [{ token: "t" }, () => ({ token: "t", asked: ++asked }), undefined]) {
        const { script, channel, say } = scripted(t, Phoenix, params)
        channel.join()
        const first = await script.accept(1, { resume: at(3) })
        say(4)
        script.lose()
        const second = await script.accept(2, { resume: at(4) })

        const own = (asked) => (typeof params === "function" ? { token: "t", asked } : (params ?? {}))
        assert.deepEqual([first.params, second.params], [{ ...own(1), resume: true }, { ...own(2), resume: at(4) }])
      }
    })

    test("has its position before the caller's hooks of the join, and leaves them their reply", ONE_TEST, async (t) => {
      const { script, channel, resume } = scripted(t, Phoenix)
      const replies = []
      channel.join().receive("ok", (reply) => replies.push([reply, resume.position]))
      await script.accept(1, { room: "a", resume: at(3) })

      assert.deepEqual(replies, [[{ room: "a", resume: at(3) }, at(3)]])
    })

    test("delivers nothing twice, whatever the server repeats", ONE_TEST, async (t) => {
      const { script, channel, resume, seen, say } = scripted(t, Phoenix)
      channel.join()
      await script.accept(1, { resume: at(3) })
      for (const offset of [3, 4, 5, 4, 5, 7, 6]) say(offset)

      assert.deepEqual([numbers(seen), resume.position], [[4, 5, 7], at(7)])
    })

    test("does not go back where an earlier join's messages came after a later one was sent", ONE_TEST, async (t) => {
      const { script, channel, resume, seen, say } = scripted(t, Phoenix)
      channel.join()
      const { joinRef, ref } = await script.accept(1, { resume: at(3) })
      script.say([joinRef, ref, TOPIC, "phx_error", {}])
      await script.join(2)
      say(4)
      await script.accept(2, { resume: at(3) })
      // What it would tell of has come.
      script.broadcast(TOPIC, "gap", 4, { ...at(4), from: 3, reason: "expired" })
      for (const offset of [4, 5]) say(offset)

      assert.deepEqual([numbers(seen), resume.position], [[4, 5], at(5)])
    })

    test("counts a message whose handler throws, and shows each handler its own message counted", ONE_TEST, async (t) => {
      const { script, channel, resume, seen, say } = scripted(t, Phoenix)
      const positions = []
      channel.on("new_msg", ({ n }) => {
        positions.push(resume.position.offset)
        if (n === 1) throw new Error("the handler's own")
      })
      channel.join()
      await script.accept(1, { resume: at(0) })
      assert.throws(() => say(1), { message: "the handler's own" })
      say(2)
      script.lose()
      const { params } = await script.accept(2, { resume: at(2) })

      assert.deepEqual([numbers(seen), positions, params.resume], [[1, 2], [1, 2], at(2)])
    })

    test("passes on what has no offset, and events of the application's own that are named like the server's", ONE_TEST, async (t) => {
      const { script, channel, resume, seen, on } = scripted(t, Phoenix)
      for (const event of ["pushed", "position", "gap", "presence_diff"]) on(event)
      channel.join()
      const { joinRef } = await script.accept(1, { resume: at(3) })
      script.say([joinRef, null, TOPIC, "pushed", { a: 1 }])
      script.say([null, null, TOPIC, "presence_diff", { joins: {}, leaves: {} }])
      script.broadcast(TOPIC, "position", 4, { x: 1, y: 2 })
      script.broadcast(TOPIC, "gap", 5, { width: 3 })
      script.broadcast(TOPIC, "position", 6, {})

      assert.deepEqual([seen, resume.position], [[{ a: 1 }, { joins: {}, leaves: {} }, { x: 1, y: 2 }, { width: 3 }], at(6)])
    })

    test("goes on behind a gap, and ends no delivery where its callback throws", ONE_TEST, async (t) => {
      const { script, channel, resume, seen, say } = scripted(t, Phoenix)
      resume.onGap(() => {
        throw new Error("the callback's own")
      })
      resume.onGap(() => seen.push("never"))()
      channel.join()
      await script.accept(1, { resume: at(3) })
      const later = t.mock.method(globalThis, "setTimeout", () => {})
      script.broadcast(TOPIC, "gap", 2, { ...at(2, OTHER_EPOCH), from: null, reason: "epoch" })
      later.mock.restore()
      for (const offset of [2, 3]) say(offset)

      assert.deepEqual(seen, [{ reason: "epoch", from: at(3), position: at(2, OTHER_EPOCH) }, { n: 3 }])
      assert.throws(later.mock.calls[0].arguments[0], { message: "the callback's own" })
    })

    test("tells of a gap where the server has ceased to keep, and where it begins to", ONE_TEST, async (t) => {
      const { script, channel, resume, seen, say } = scripted(t, Phoenix, {}, { from: at(3) })
      channel.join()
      await script.accept(1)
      script.say([null, null, TOPIC, "new_msg", { n: "plain" }])
      script.lose()
      const { params } = await script.accept(2, { resume: at(7) })
      say(8)

      assert.equal(params.resume, true)
      assert.deepEqual(seen, [
        { reason: "unkept", from: at(3), position: null },
        { n: "plain" },
        { reason: "unkept", from: null, position: at(7) },
        { n: 8 },
      ])
      assert.deepEqual(resume.position, at(8))
    })

    test("is refused where it can do nothing", (t) => {
      const { script, channel } = scripted(t, Phoenix)
      assert.throws(() => withResume(channel), { message: "withResume: the channel has it already" })
      const joined = script.socket.channel("room:joined")
      joined.join()
      assert.throws(() => withResume(joined), { message: /has not been joined, call it before join\(\)/ })
      joined.leave()
      assert.throws(() => withResume({ join() {} }), { message: /a channel of phoenix\.js/ })
      for (const from of ["x", {}, { epoch: "x", offset: 1 }, at(-1), at(0.5), at("1")]) {
        assert.throws(() => withResume(script.socket.channel("room:b"), { from }), { name: "TypeError", message: /^withResume: from: expected/ })
      }
    })

    test("delivers a binary message with its offset, and one that was lost before it only when it comes again", ONE_TEST, async (t) => {
      const { script, channel, resume, seen, on } = scripted(t, Phoenix)
      on("bytes")
      channel.join()
      await script.accept(1, { resume: at(3) })
      script.broadcastBinary(TOPIC, "bytes", [4])
      script.broadcast(TOPIC, "position", 4, {})
      script.broadcastBinary(TOPIC, "bytes", [5])
      script.lose()
      const { params } = await script.accept(2, { resume: at(4) })
      script.broadcastBinary(TOPIC, "bytes", [5])
      script.broadcast(TOPIC, "position", 5, {})

      assert.deepEqual([params.resume, seen, resume.position], [at(4), [[4], [5]], at(5)])
    })
  })
}
