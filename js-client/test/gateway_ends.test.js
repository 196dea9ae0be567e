// Servers behind Bennu that end, come back, or hang, and clients that go away: who is told what.

import assert from "node:assert/strict"
import { chmod, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { fileURLToPath } from "node:url"

import { openLegacySession } from "./support/gateway/phoenix_session.js"
import { ABLE, openSdkSession } from "./support/gateway/sdk_session.js"
import { makeFolder, readOddLog, startGateway } from "./support/gateway/server.js"
import { openHttp } from "./support/gateway/texts.js"
import { KINDS } from "./support/kinds.js"
import * as upstreams from "./support/upstreams.js"
import { deferred, finallyDo, until } from "./support/waiting.js"
import { outcome } from "./support/with_bennu/application.js"

const ONE_TEST = { timeout: 30_000 }
const TOOLS_CHANGED = "notifications/tools/list_changed"
const LATE_ASKER = fileURLToPath(new URL("support/gateway/late_asker.mjs", import.meta.url))

let made
let gateway
let log
before(async () => {
  made = await makeFolder()
  log = join(made.folder, "odd.log")
  const odd = { ...upstreams.odd("--plain-envelope", "--era", "legacy"), env: { ODD_LOG: log }, restart_delay_max_ms: 50 }
  gateway = await startGateway({ odd, late: { command: process.execPath, args: [LATE_ASKER] } })
})
after(async () => {
  await gateway?.close()
  await made?.close()
})

/** The first line of the log that meets a condition, from a place on, and its place, once it is there. */
async function logged(condition, what, from = 0) {
  const find = async () => {
    const lines = await readOddLog(log)
    const at = lines.findIndex((line, at) => at >= from && condition(line))
    return at >= 0 && { ...lines[at], at }
  }
  return until(find, what, 10_000)
}

const callOf = (mark) => logged(({ line, message }) => message && line.includes(mark), `a call with ${mark}`)

/** Waits until a request that a server got is taken back there. */
async function takenBack({ message: { id }, at }) {
  const isIt = ({ message }) => message?.method === "notifications/cancelled" && message.params.requestId === id
  return (await logged(isIt, `the cancelling of ${id}`, at)).message.params
}

describe("a server that ends", () => {
  for (const kind of KINDS) {
    test(`${kind.name}: its calls end with an error that says so, and the next is served`, ONE_TEST, async (t) => {
      const session = await openSdkSession(t, gateway, kind, { server: "odd", client: { capabilities: {} } })

      for (const tool of ["crash", "half_line_exit"]) {
        const { code, message } = await outcome(session.call(tool))
        assert.equal(code, -32603)
        assert.match(message, /the MCP server "odd" has ended: its process ended with exit status: [34]/)
        assert.equal(await session.text("progress"), "done")
      }
      assert.deepEqual(session.errors, [])
    })
  }

  test("those of others who share it end too, and all go on", ONE_TEST, async (t) => {
    const sessions = await Promise.all([0, 1, 2].map(() => openLegacySession(t, gateway, "mcp:server:odd")))
    const waiting = sessions.slice(1).map((session, at) => session.ask("tools/call", { name: "wait", arguments: { mark: `shared ${at}` } }))
    await Promise.all([callOf("shared 0"), callOf("shared 1")])

    await sessions[0].ask("tools/call", { name: "crash", arguments: {} })

    for (const { error } of await Promise.all(waiting)) assert.match(error.message, /^the MCP server "odd" has ended/)
    assert.deepEqual(await Promise.all(sessions.map((session) => session.text("progress"))), ["done", "done", "done"])
    for (const session of sessions) await session.notification(TOOLS_CHANGED)
  })

  test("a subscription and a log level outlive it", ONE_TEST, async (t) => {
    const session = await openLegacySession(t, gateway, "mcp:server:odd")
    await session.result("resources/subscribe", { uri: "odd://item/outlives" })
    await session.ask("tools/call", { name: "crash", arguments: {} })

    await session.call("touch", { uri: "odd://item/outlives" })

    assert.equal((await session.notification("notifications/resources/updated")).params.uri, "odd://item/outlives")
  })

  test("is told of by /healthz", ONE_TEST, async (t) => {
    const session = await openLegacySession(t, gateway, "mcp:server:odd")
    const before = await gateway.health("odd")

    await session.ask("tools/call", { name: "crash", arguments: {} })
    await session.call("progress")

    const { state, broken, started, last_fault: fault } = await gateway.health("odd")
    assert.deepEqual([state, broken - before.broken, started - before.started], ["up", 1, 1])
    assert.equal(fault, "its process ended with exit status: 3")
  })
})

describe("a client that goes", () => {
  for (const kind of KINDS) {
    test(`${kind.name}: a call that it gives up is taken back, with its reason`, ONE_TEST, async (t) => {
      const session = await openSdkSession(t, gateway, kind, { server: "odd", client: { capabilities: {} } })
      const controller = new AbortController()
      const mark = `given up by ${kind.name}`
      const calling = outcome(session.call("wait", { mark }, { signal: controller.signal }))
      const sent = await callOf(mark)

      controller.abort("enough of it")

      await calling
      assert.equal((await takenBack(sent)).reason, "enough of it")
    })

    test(`${kind.name}: its calls are taken back when its channel is left`, ONE_TEST, async (t) => {
      const session = await openSdkSession(t, gateway, kind, { server: "odd", client: { capabilities: {} } })
      const mark = `left by ${kind.name}`
      const calling = outcome(session.call("wait", { mark }))
      const sent = await callOf(mark)

      await session.client.close()

      await calling
      await takenBack(sent)
    })
  }

  test("a stateless request's HTTP response that nobody reads takes its call back", ONE_TEST, async (t) => {
    const peer = openHttp(t, gateway, "odd")
    const meta = { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}, progressToken: 1 }
    const params = { name: "wait", arguments: { mark: "unread" }, _meta: meta }
    const calling = peer.send(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params })).catch(() => {})
    const sent = await callOf('"mark":"unread"')

    peer.close()

    await calling
    await takenBack(sent)
  })

  test("the process that was its own ends with it", ONE_TEST, async (t) => {
    const session = await openSdkSession(t, gateway, KINDS[0], { server: "odd", client: { capabilities: ABLE } })
    await session.call("progress", { mark: "own process" })
    const lines = await readOddLog(log)
    const { pid } = lines.slice(0, lines.findIndex(({ line }) => line.includes("own process"))).findLast(({ event }) => event === "start")
    const lives = () => {
      try {
        return process.kill(pid, 0)
      } catch {
        return false
      }
    }
    assert.ok(lives())

    await session.client.close()

    await until(() => !lives(), "the end of the process", 10_000)
  })
})

describe("a question of a server", () => {
  test("is answered even if the call in whose course it came has ended", ONE_TEST, async (t) => {
    const roots = deferred()
    const session = await openLegacySession(t, gateway, "mcp:server:late", { capabilities: ABLE, answers: { "roots/list": () => roots.promise } })
    const begun = session.text("begin")
    await session.notification("roots/list")
    await session.call("end")
    await begun

    roots.resolve({ roots: [] })

    await until(async () => (await session.text("answer")) === '{"roots":[]}', "the answer at the server")
  })

  const TOOLS = { "sampling/createMessage": "sample", "elicitation/create": "elicit", "roots/list": "roots" }
  const ANSWERS = {
    "sampling/createMessage": { role: "assistant", model: "m", content: { type: "text", text: "a word" } },
    "elicitation/create": { action: "accept", content: { name: "Ada" } },
    "roots/list": { roots: [] },
  }

  for (const [first, tool] of Object.entries(TOOLS)) {
    test(`three calls at once that ask: each is answered, when ${tool} is answered first`, { timeout: 10_000 }, async (t) => {
      const held = Object.fromEntries(Object.keys(TOOLS).map((method) => [method, deferred()]))
      const answers = Object.fromEntries(Object.keys(TOOLS).map((method) => [method, () => held[method].promise]))
      const session = await openLegacySession(t, gateway, "mcp:server:odd", { capabilities: ABLE, answers })
      const calls = Object.fromEntries(Object.entries(TOOLS).map(([method, tool]) => [method, session.ask("tools/call", { name: tool, arguments: {} })]))
      await until(() => session.heard.filter(({ method }) => method in TOOLS).length === 3)

      held[first].resolve(ANSWERS[first])
      await calls[first]
      for (const [method, { resolve }] of Object.entries(held)) resolve(ANSWERS[method])

      for (const [method, call] of Object.entries(calls)) assert.deepEqual((await call).result.structuredContent.answer, ANSWERS[method])
    })
  }

  test("ends with the server that asked: the client is told that it is not needed", ONE_TEST, async (t) => {
    const session = await openLegacySession(t, gateway, "mcp:server:odd", {
      capabilities: ABLE,
      answers: { "elicitation/create": () => new Promise(() => {}) },
    })
    const asking = session.ask("tools/call", { name: "elicit", arguments: {} })
    const { id } = await until(() => session.heard.find(({ method }) => method === "elicitation/create"))

    await session.ask("tools/call", { name: "crash", arguments: {} })

    assert.match((await asking).error.message, /^the MCP server "odd" has ended/)
    await session.notification("notifications/cancelled", ({ requestId }) => requestId === id)
  })

  test("is taken back by the server, when its call is given up", ONE_TEST, async (t) => {
    const session = await openLegacySession(t, gateway, "mcp:server:odd", {
      capabilities: ABLE,
      answers: { "elicitation/create": () => new Promise(() => {}) },
    })
    session.ask("tools/call", { name: "elicit", arguments: {} }, { id: "given up" }).catch(() => {})
    const { id } = await until(() => session.heard.find(({ method }) => method === "elicitation/create"))

    session.notify("notifications/cancelled", { requestId: "given up" })

    await session.notification("notifications/cancelled", ({ requestId }) => requestId === id)
    assert.equal(await session.text("progress"), "done")
  })
})

describe("the hub", () => {
  /** A gateway of its own before servers that end. */
  async function openHub(t, servers) {
    const gateway = await startGateway(servers)
    finallyDo(t, () => gateway.close())
    const session = await openLegacySession(t, gateway, "mcp:hub")
    const names = async () => {
      const items = []
      for (let cursor; ; ) {
        const page = await session.result("tools/list", cursor === undefined ? {} : { cursor })
        items.push(...page.tools.map(({ name }) => name))
        if ((cursor = page.nextCursor) === undefined) return items
      }
    }
    return { session, names }
  }
  const legacyOdd = (file) => ({ ...upstreams.odd("--era", "legacy"), env: { ODD_LOG: join(made.folder, file) } })

  test("has a server back whose process ended, tells of it, and it works", ONE_TEST, async (t) => {
    const { session, names } = await openHub(t, { one: legacyOdd("one.log"), two: legacyOdd("two.log") })
    assert.ok((await names()).includes("two__progress"))
    const starts = async () => (await readOddLog(join(made.folder, "two.log"))).filter(({ event }) => event === "start")
    const [{ pid }] = await starts()
    session.heard.length = 0

    process.kill(pid, "SIGKILL")

    await session.notification(TOOLS_CHANGED)
    assert.equal((await starts()).length, 2)
    assert.ok((await names()).includes("two__progress"))
    assert.equal((await session.call("two__progress")).content[0].text, "done")
  })

  test("has a server as soon as it can be started, and tells of it", ONE_TEST, async (t) => {
    const program = join(made.folder, "not_there_yet")
    const { session, names } = await openHub(t, { one: legacyOdd("one.log"), later: { command: program } })
    assert.ok(!(await names()).some((name) => name.startsWith("later__")))
    session.heard.length = 0
    const { command, args } = upstreams.odd("--era", "legacy")
    await writeFile(program, `#!/bin/sh\nexec ${[command, ...args].map((word) => `'${word}'`).join(" ")}\n`)
    await chmod(program, 0o755)

    // Whoever lists has it tried again.
    await names()

    await session.notification(TOOLS_CHANGED)
    assert.ok((await names()).includes("later__progress"))
    assert.equal((await session.call("later__progress")).content[0].text, "done")
  })

  test("serves the others, while one does not so much as answer", ONE_TEST, async (t) => {
    const hangs = { command: "sleep", args: ["1000"], start_timeout_ms: 3_500 }
    const { session, names } = await openHub(t, { hangs, one: legacyOdd("one.log") })

    assert.ok((await names()).includes("progress"))
    assert.equal((await session.call("progress")).content[0].text, "done")
  })
})

test("Bennu ends at once, though a server hangs in its start", ONE_TEST, async (t) => {
  const gateway = await startGateway({ hangs: { command: "sleep", args: ["1000"], start_timeout_ms: 10_000 } })
  const session = await openLegacySession(t, gateway, "mcp:hub")
  await session.ask("tools/list")
  assert.equal((await gateway.health("hangs")).state, "starting")
  let hasEnded = false
  const closing = gateway.close().then(() => (hasEnded = true))

  await until(() => hasEnded, "the end of Bennu").finally(() => closing)
})
