// Many clients on one connection with an upstream: each counts its ids and tokens from 0, and each gets what is its own.

import assert from "node:assert/strict"
import { after, before, test } from "node:test"

import { openLegacySession } from "./support/gateway/phoenix_session.js"
import { startGateway } from "./support/gateway/server.js"
import * as upstreams from "./support/upstreams.js"

const ONE_TEST = { timeout: 30_000 }
/** No more than a run tells its watchers at once. */
const STEPS = 50

let gateway
before(async () => {
  gateway = await startGateway({ odd: upstreams.odd(), everything: upstreams.everything() })
})
after(() => gateway?.close())

const open = (t, server, count) =>
  Promise.all(Array.from({ length: count }, () => openLegacySession(t, gateway, `mcp:server:${server}`)))

const numbers = (count) => Array.from({ length: count }, (_, at) => at + 1)

/** What came to a client for one request: the numbers of its progress, and whether the answer was last. */
function heardOf(session, id) {
  const own = session.heard.filter((message) => message.id === id || message.params?.progressToken === id)
  return { progress: own.slice(0, -1).map(({ params }) => params?.progress), last: own.at(-1).id }
}

test("50 clients of odd_upstream, each with several calls at once", ONE_TEST, async (t) => {
  const CALLS = 3
  const sessions = await open(t, "odd", 50)

  const answers = await Promise.all(
    sessions.map((session, client) =>
      Promise.all(numbers(CALLS).map((call) => session.call("progress", { count: STEPS, mark: `${client}/${call}` }, { withProgress: true }))),
    ),
  )

  for (const [client, session] of sessions.entries()) {
    // `initialize` was 0.
    for (const id of numbers(CALLS)) {
      assert.equal(answers[client][id - 1]["x-odd-params"].arguments.mark, `${client}/${id}`)
      assert.deepEqual(heardOf(session, id), { progress: numbers(STEPS), last: id })
    }
    assert.equal(session.heard.length, 1 + CALLS * (STEPS + 1))
  }
  const { connections, late, unattributed, failed_requests: failed } = await gateway.health("odd")
  assert.deepEqual({ connections, late, unattributed, failed }, { connections: 1, late: 0, unattributed: 0, failed: 0 })
})

test("20 clients of server-everything, each with several calls at once", ONE_TEST, async (t) => {
  const CALLS = 3
  const sessions = await open(t, "everything", 20)

  await Promise.all(
    sessions.map(async (session, client) => {
      const calls = numbers(CALLS).map((call) => {
        return session.call("trigger-long-running-operation", { duration: 0.2, steps: call + client }, { withProgress: true })
      })
      const texts = numbers(CALLS).map((call) => session.text("echo", { message: `${client}/${call}` }))
      for (const [at, { content }] of (await Promise.all(calls)).entries()) {
        assert.match(content[0].text, new RegExp(`Steps: ${at + 1 + client}\\.$`))
      }
      assert.deepEqual(await Promise.all(texts), numbers(CALLS).map((call) => `Echo: ${client}/${call}`))
    }),
  )

  for (const [client, session] of sessions.entries()) {
    for (const id of numbers(CALLS)) assert.deepEqual(heardOf(session, id), { progress: numbers(id + client), last: id })
  }
  assert.equal((await gateway.health("everything")).connections, 1)
})
