// Messages that an operator or another service sends over HTTP and by the command, to inboxes and to MCP sessions, in production.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { CLIENT_INFO, connect, joinTopic, openSession, startProduction } from "./support/production.js"
import { ACKS, ask, LINES, TRANSPORTS, Visitor } from "./support/queues.js"
import { until } from "./support/waiting.js"

const ONE_TEST = { timeout: 60_000 }
/** The client info of an MCP client that acknowledges. */
const ACKNOWLEDGES = { ...CLIENT_INFO, capabilities: { experimental: { message_ack: {} } } }
const NOTIFICATION = { jsonrpc: "2.0", method: "notifications/message", params: { level: "info", data: "hello" } }

let server
before(async () => {
  server = await startProduction({
    settings: { queues: { backoff_base_ms: 20, backoff_max_ms: 100 } },
    keys: { ada: { user: "ada", roles: ["user"] }, admin: { user: "root", roles: ["admin"] } },
  })
})
after(() => server?.close())

const numbers = (messages) => messages.map(({ payload }) => payload.n)

/** Sends a message over HTTP and gives the answer, or throws what is wrong. */
async function send(queue, message, options) {
  const { status, body, text } = await server.admin("POST", `queues/${encodeURIComponent(queue)}/messages`, message, options)
  if (status !== 200) throw Object.assign(new Error(text), { status })
  return body
}
async function stats(queue) {
  const { body } = await server.admin("GET", `queues/${encodeURIComponent(queue)}`)
  return body
}

const CLIENTS = [
  ...Object.entries(LINES).map(([line, Phoenix]) => [`phoenix ${line}, WebSocket`, { Phoenix }]),
  ["phoenix 1.8, long poll", TRANSPORTS["long poll"]],
]

describe("an inbox", () => {
  for (const [at, [name, options]] of CLIENTS.entries()) {
    test(`gives a client that opts in to nothing what was sent over HTTP while it was away: ${name}`, ONE_TEST, async (t) => {
      const user = `user${at}`
      const topic = `inbox:${user}`
      for (const [n, priority] of ["low", "normal", "urgent", "high", "urgent", "normal"].entries()) {
        const { durability } = await send(topic, { payload: { n }, priority })
        assert.equal(durability, "durable")
      }
      const { socket } = await connect(t, server, { params: { token: server.userToken(user) }, ...options })
      const inbox = await new Visitor(socket, topic, {}).join()

      assert.deepEqual(numbers(await inbox.next(6)), [2, 4, 3, 1, 5, 0])
      await send(topic, { payload: { n: "there" } })
      assert.deepEqual(numbers(await inbox.next()), ["there"])
      await until(async () => (await stats(topic)).messages === 0, "an empty queue")
    })
  }

  test("tells an operator what failed, and with what; and gives it again when the operator wants that", ONE_TEST, async (t) => {
    const { message_id } = await send("inbox:ada", { payload: { n: 1 }, max_retries: 1 })
    const { socket } = await connect(t, server, { params: { token: server.userToken("ada") } })
    const inbox = await new Visitor(socket, "inbox:ada", ACKS).join()
    for (const error of ["first", "second"]) {
      await inbox.next()
      await inbox.ask("message_nack", { message_id, error })
    }

    const { body } = await server.admin("GET", "queues/inbox:ada/dead")
    const [letter] = body.dead_letters
    assert.deepEqual([letter.message_id, letter.reason, letter.retry_count, letter.last_error, letter.payload], [message_id, "retries_exhausted", 2, "second", { n: 1 }])
    const retried = await server.admin("POST", `queues/inbox:ada/dead/${message_id}/retry`)
    assert.deepEqual(retried.body, { retried: message_id })
    const [again] = await inbox.next()
    assert.deepEqual([again.message_id, again.retry_count], [message_id, 0])
    assert.ok((await inbox.ask("message_ack", { message_id })).ok)
  })

  test("takes messages from the command, and from nobody without the right", ONE_TEST, async (t) => {
    const { socket } = await connect(t, server, { params: { token: server.userToken("ada") } })
    const inbox = await new Visitor(socket, "inbox:ada", ACKS).join()

    const { code, stderr } = await server.cli("queue", "send", "inbox:ada", '{"n": "by the command"}', "--priority", "high")
    assert.equal(code, 0, stderr)
    const [message] = await inbox.next()
    assert.deepEqual([message.payload.n, message.priority], ["by the command", "high"])
    await assert.rejects(send("inbox:ada", { payload: {} }, { credential: server.keys.ada.text }), { status: 403 })
    await assert.rejects(send("inbox:ada", { payload: {} }, { credential: null }), { status: 401 })
    assert.ok(await inbox.hasNoMore())
  })
})

describe("an MCP session", () => {
  async function open(t, params = {}) {
    const session = await openSession(t, server, server.keys.ada, { params })
    const messages = []
    session.channel.on("mcp_message", (message) => messages.push(message))
    return { session, messages, queue: `session:${session.reply.sessionId}` }
  }

  test("gets what was sent to its queue as it is, and the queue forgets it", ONE_TEST, async (t) => {
    const { messages, queue } = await open(t)
    await send(queue, { payload: NOTIFICATION })

    await until(() => messages.length > 0)
    assert.deepEqual(messages, [NOTIFICATION])
    await until(async () => (await stats(queue)).messages === 0, "an empty queue")
  })

  test("whose client acknowledges gets the id as well, and the message again until it has", ONE_TEST, async (t) => {
    const { session, messages, queue } = await open(t, { clientInfo: ACKNOWLEDGES })
    const { message_id } = await send(queue, { payload: NOTIFICATION })
    await until(() => messages.length === 1)
    assert.deepEqual(messages, [{ ...NOTIFICATION, _messageId: message_id }])
    assert.equal((await stats(queue)).in_flight, 1)

    const nacked = await ask(session.channel, "message_nack", { message_id, error: "not now" })
    assert.equal(nacked.ok.retry_count, 1)
    await until(() => messages.length === 2)
    assert.equal(messages[1]._messageId, message_id)
    assert.deepEqual(await ask(session.channel, "message_ack", { message_id }), { ok: { durability: "durable" } })
    assert.equal((await ask(session.channel, "message_ack", { message_id })).error.reason, "already_settled")
    assert.equal((await stats(queue)).messages, 0)
  })

  test("without a message knows of none to acknowledge, and no topic is its queue", ONE_TEST, async (t) => {
    const { session, queue } = await open(t, { clientInfo: ACKNOWLEDGES })
    assert.equal((await ask(session.channel, "message_ack", { message_id: "msg_1_1" })).error.reason, "unknown_message")
    assert.equal((await joinTopic(session.socket, queue, ACKS)).reason, "unmatched topic")
  })

  test("goes on with its requests beside that", ONE_TEST, async (t) => {
    const { session, messages, queue } = await open(t, { clientInfo: ACKNOWLEDGES })
    await send(queue, { payload: NOTIFICATION })
    const { tools } = await session.result("tools/list")
    assert.ok(Array.isArray(tools))
    await until(() => messages.some(({ _messageId }) => _messageId))
  })
})
