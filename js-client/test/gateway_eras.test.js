// Clients of either era with servers of either era behind Bennu, which makes the one understand the other.

import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"

import { openLegacySession, openPhoenixSession } from "./support/gateway/phoenix_session.js"
import { ABLE, openSdkSession } from "./support/gateway/sdk_session.js"
import { makeFolder, readOddLog, startGateway } from "./support/gateway/server.js"
import { KINDS } from "./support/kinds.js"
import * as upstreams from "./support/upstreams.js"
import { deferred, until } from "./support/waiting.js"
import { outcome } from "./support/with_bennu/application.js"

const ONE_TEST = { timeout: 30_000 }
const MODERN = "2026-07-28"
const ROOTS = [{ uri: "file:///home/ada", name: "Ada's" }]
const STATE_OF_BENNU = /^bennu-parked\./
const [STATELESS] = KINDS.filter(({ era }) => era === "modern")

let made
let gateway
let repository
let log
before(async () => {
  made = await makeFolder()
  repository = join(made.folder, "repository")
  log = join(made.folder, "odd.log")
  const git = (...args) => execFileSync("git", args, { stdio: "ignore" })
  git("init", "-q", "-b", "main", repository)
  await writeFile(join(repository, "a.txt"), "a\n")
  const odd = (era) => ({ ...upstreams.odd("--plain-envelope", "--era", era), env: { ODD_LOG: log } })
  gateway = await startGateway({
    everything: upstreams.everything(),
    time: upstreams.time(),
    git: upstreams.git(repository),
    legacy: odd("legacy"),
    both: odd("both"),
    stateless: odd("stateless"),
    told_stateless: { ...odd("stateless"), era: "stateless" },
  })
})
after(async () => {
  await gateway?.close()
  await made?.close()
})

for (const kind of KINDS) {
  const isLegacy = kind.era === "legacy"
  const open = (t, server, client) => openSdkSession(t, gateway, kind, { server, client: { capabilities: ABLE, roots: ROOTS, ...client } })

  describe(kind.name, () => {
    test("asks mcp-server-time and mcp-server-git, in its own era", ONE_TEST, async (t) => {
      const [time, git] = await Promise.all(["time", "git"].map((server) => open(t, server, { capabilities: {} })))
      assert.equal(time.transport.protocolVersion, isLegacy ? "2025-11-25" : MODERN)
      assert.deepEqual([time.client.getServerVersion().name, git.client.getServerVersion().name], ["mcp-time", "mcp-git"])
      await Promise.all([time.list("listTools", "tools"), git.list("listTools", "tools")])

      const asked = { source_timezone: "UTC", time: "12:00", target_timezone: "Asia/Tokyo" }
      const { structuredContent } = await time.call("convert_time", asked)
      assert.equal(structuredContent.time_difference, "+9.0h")
      assert.equal((await time.call("convert_time", { ...asked, time: "noon" })).isError, true)
      assert.match(await git.text("git_status", { repo_path: repository }), /Untracked files:[^]*a\.txt/)
      assert.deepEqual([...time.errors, ...git.errors], [])
    })

    for (const server of ["legacy", "both", "stateless", "told_stateless"]) {
      const isStateless = server.endsWith("stateless")

      test(`has everything of an upstream: ${server}`, ONE_TEST, async (t) => {
        const session = await open(t, server)
        const { client } = session
        const told = []
        // The SDK's second line gives its own code for both eras'.
        const missing = kind.line === 1 && !isStateless ? -32002 : -32602

        assert.equal(client.getServerVersion().name, "odd_upstream")
        assert.equal(client.getInstructions(), "Be odd é/.")
        assert.equal((await session.list("listTools", "tools")).length, 25)
        assert.deepEqual((await session.list("listResources", "resources")).map(({ name }) => name), ["one", "café", "blob"])
        assert.equal((await client.readResource({ uri: "odd://one" })).contents[0].text, "odd é/ text")
        assert.equal((await outcome(client.readResource({ uri: "odd://nothing" }))).code, missing)
        assert.equal((await client.getPrompt({ name: "odd_prompt" })).description, "odd é")
        const completed = await client.complete({ ref: { type: "ref/prompt", name: "odd_prompt" }, argument: { name: "text", value: "" } })
        assert.deepEqual(completed.completion.values, ["alpha", "béta/"])
        await session.call("progress", { count: 7 }, { onprogress: ({ progress }) => told.push(progress) })
        assert.deepEqual(told, [1, 2, 3, 4, 5, 6, 7])
        assert.equal((await session.call("fail_tool")).isError, true)
        assert.equal((await outcome(session.call("fail_rpc"))).code, -31001)
        assert.deepEqual((await session.call("echo_raw", { one: [1] })).structuredContent.params.arguments, { one: [1] })
        assert.deepEqual(session.errors, [])
      })

      // The questions of odd_upstream's stateless era have members that legacy SDKs refuse in a request: those are asked below.
      if (!isLegacy || !isStateless) {
        test(`is asked by an upstream: ${server}`, { timeout: 10_000 }, async (t) => {
          const session = await open(t, server)

          const answers = await Promise.all(["sample", "elicit", "roots"].map((tool) => session.text(tool)))

          for (const [at, word] of ["something", "Ada", "file:///home/ada"].entries()) assert.ok(answers[at].includes(word), answers[at])
          assert.deepEqual(session.errors, [])
        })
      }

      test(`is told that it can't be asked, by an upstream: ${server}`, ONE_TEST, async (t) => {
        const session = await open(t, server, { capabilities: {} })

        const { result, code } = await outcome(session.call("elicit", { anyway: true }))

        assert.ok(result?.isError || code !== undefined, JSON.stringify({ result, code }))
        // Whatever became of it, the next is served.
        assert.equal((await session.call("progress")).content[0].text, "done")
      })

      test(`hears of changes from an upstream: ${server}`, ONE_TEST, async (t) => {
        const session = await open(t, server, { capabilities: {} })
        const stopLists = await session.watch({ toolsListChanged: true, promptsListChanged: true })
        const heardOf = () => session.heard.find(([method]) => method === "notifications/resources/updated")
        // Legacy SDKs refuse odd_upstream's answer to a subscription.
        if (!isLegacy || isStateless) {
          const stop = await session.watch({ uri: "odd://one" })
          // A stateless upstream's stream of changes is there a little later.
          await until(async () => (await session.call("touch", { uri: "odd://one" }), heardOf()))
          assert.equal(heardOf()[1].uri, "odd://one")
          await stop()
        }

        await session.call("notify_changed", { what: "tools" })
        await session.call("notify_changed", { what: "tools" })
        await session.call("notify_changed", { what: "prompts" })

        const changed = (list) => session.heard.filter(([method]) => method === `notifications/${list}/list_changed`).length
        await until(() => changed("tools") === 2 && changed("prompts") === 1, "changed lists")
        await stopLists()
      })
    }
  })
}

describe("2026-07-28 with server-everything, which speaks the legacy era alone", () => {
  const meta = (capabilities) => ({
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": capabilities,
    "io.modelcontextprotocol/clientInfo": { name: "bare", version: "1" },
  })
  const call = (name, args, more = {}) => ({ name, arguments: args, ...more, _meta: meta(ABLE) })

  test("its question comes as a result, and its call goes on with the answer", ONE_TEST, async (t) => {
    const session = await openPhoenixSession(t, gateway, "mcp:server:everything")
    const args = { prompt: "hello", maxTokens: 5 }

    const asks = await session.result("tools/call", call("trigger-sampling-request", args))
    assert.equal(asks.resultType, "input_required")
    assert.match(asks.requestState, STATE_OF_BENNU)
    const [[key, question]] = Object.entries(asks.inputRequests)
    assert.deepEqual([question.method, question.params.maxTokens, question.id, question.jsonrpc], ["sampling/createMessage", 5, undefined, undefined])
    const answer = { role: "assistant", model: "m", content: { type: "text", text: "a word" } }
    const again = { inputResponses: { [key]: answer }, requestState: asks.requestState }
    const result = await session.result("tools/call", call("trigger-sampling-request", args, again))

    assert.equal(result.resultType, "complete")
    assert.match(result.content[0].text, /"text": "a word"/)
    assert.equal(result._meta["io.modelcontextprotocol/serverInfo"].name, "mcp-servers/everything")
    // It has ended, and goes on no more.
    assert.equal((await session.ask("tools/call", call("trigger-sampling-request", args, again))).error.code, -32602)
  })

  test("a state of another call, or one that was changed, is refused", ONE_TEST, async (t) => {
    const session = await openPhoenixSession(t, gateway, "mcp:server:everything")
    const { requestState, inputRequests } = await session.result("tools/call", call("trigger-elicitation-request", {}))
    const [key] = Object.keys(inputRequests)
    const retry = (name, state) => {
      const more = { inputResponses: { [key]: { action: "decline" } }, requestState: state }
      return session.ask("tools/call", call(name, {}, more))
    }
    const changed = `${requestState.slice(0, -2)}${requestState.endsWith("AA") ? "BB" : "AA"}`

    assert.equal((await retry("get-sum", requestState)).error.code, -32602)
    assert.equal((await retry("trigger-elicitation-request", changed)).error.code, -32602)
    assert.match((await retry("trigger-elicitation-request", requestState)).result.content[0].text, /declined/)
  })

  test("many at once are asked and answered, each in its own call", ONE_TEST, async (t) => {
    const words = [0, 1, 2, 3]
    const clients = await Promise.all(
      words.map(async (word) => {
        const session = await openSdkSession(t, gateway, STATELESS, { server: "legacy", client: { capabilities: ABLE } })
        const answer = () => ({ role: "assistant", model: `m${word}`, content: { type: "text", text: `word ${word}` } })
        session.client.setRequestHandler("sampling/createMessage", answer)
        return session
      }),
    )

    const rounds = await Promise.all(clients.map((session) => Promise.all([session.text("sample"), session.text("sample")])))

    for (const word of words) for (const text of rounds[word]) assert.ok(text.includes(`"word ${word}"`), text)
  })
})

describe("the legacy era with an upstream of 2026-07-28", () => {
  test("has its words in the request, and its handshake told", ONE_TEST, async (t) => {
    const session = await openLegacySession(t, gateway, "mcp:server:stateless", { capabilities: ABLE, protocolVersion: "2025-06-18" })
    assert.equal(session.initialized.protocolVersion, "2025-06-18")
    assert.equal(session.initialized.serverInfo.name, "odd_upstream")
    assert.deepEqual([session.initialized.resultType, session.initialized.supportedVersions], [undefined, undefined])

    const { params } = (await session.call("echo_raw", { which: "words" })).structuredContent

    assert.equal(params._meta["io.modelcontextprotocol/protocolVersion"], MODERN)
    assert.deepEqual(params._meta["io.modelcontextprotocol/clientCapabilities"], ABLE)
    assert.equal(params._meta["io.modelcontextprotocol/clientInfo"].name, "phoenix")
  })

  const ANSWERS = {
    "sampling/createMessage": { role: "assistant", model: "m", content: { type: "text", text: "a word" } },
    "elicitation/create": { action: "accept", content: { name: "Ada" } },
    "roots/list": { roots: ROOTS },
  }
  const TOOLS = { "sampling/createMessage": "sample", "elicitation/create": "elicit", "roots/list": "roots" }

  for (const [first, tool] of Object.entries(TOOLS)) {
    test(`is asked by three calls at once, of which ${tool} is answered first`, ONE_TEST, async (t) => {
      const held = Object.fromEntries(Object.keys(TOOLS).map((method) => [method, deferred()]))
      const answers = Object.fromEntries(Object.keys(TOOLS).map((method) => [method, () => held[method].promise]))
      const session = await openLegacySession(t, gateway, "mcp:server:stateless", { capabilities: ABLE, answers })
      const calls = Object.fromEntries(Object.entries(TOOLS).map(([method, tool]) => [method, session.call(tool)]))
      await until(() => session.heard.filter(({ method }) => method in TOOLS).length === 3)

      held[first].resolve(ANSWERS[first])
      await calls[first]
      for (const [method, { resolve }] of Object.entries(held)) resolve(ANSWERS[method])

      for (const [method, call] of Object.entries(calls)) {
        assert.deepEqual((await call).structuredContent.answer, { 'odd "key" é/': ANSWERS[method] })
      }
    })
  }

  test("is answered by one process, whoever can be asked", ONE_TEST, async (t) => {
    const sessions = await Promise.all([0, 1, 2].map(() => openLegacySession(t, gateway, "mcp:server:told_stateless", { capabilities: ABLE })))

    for (const session of sessions) assert.equal(await session.text("progress"), "done")

    assert.equal((await gateway.health("told_stateless")).connections, 1)
  })

  test("hears what is logged from the level on that it asked for", ONE_TEST, async (t) => {
    const session = await openLegacySession(t, gateway, "mcp:server:stateless")
    const logs = () => session.heard.filter(({ method }) => method === "notifications/message").map(({ params }) => params.level)
    await session.result("logging/setLevel", { level: "error" })
    await session.call("log", { level: "error", count: 2 })
    await session.call("log", { level: "info", count: 2 })

    assert.deepEqual(logs(), ["error", "error"])
  })
})

test("a stateless client's call that is given up is taken back at a legacy upstream", ONE_TEST, async (t) => {
  const session = await openSdkSession(t, gateway, STATELESS, { server: "legacy", client: { capabilities: {} } })
  const controller = new AbortController()
  const calling = outcome(session.call("wait", { which: "given up" }, { signal: controller.signal }))
  const sent = await until(async () => (await readOddLog(log)).find(({ line }) => line.includes('"which":"given up"')))

  controller.abort("enough")

  await calling
  const isCancelled = ({ message }) => message?.method === "notifications/cancelled" && message.params.requestId === sent.message.id
  await until(async () => (await readOddLog(log)).some(isCancelled), "the cancellation")
})

