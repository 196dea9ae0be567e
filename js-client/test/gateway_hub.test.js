// All servers as one: `mcp:hub` and `/mcp`.

import assert from "node:assert/strict"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"

import { openLegacySession } from "./support/gateway/phoenix_session.js"
import { ABLE, openSdkSession } from "./support/gateway/sdk_session.js"
import { makeFolder, readOddLog, startGateway } from "./support/gateway/server.js"
import { openHttp } from "./support/gateway/texts.js"
import { KINDS } from "./support/kinds.js"
import * as upstreams from "./support/upstreams.js"

const ONE_TEST = { timeout: 30_000 }
const HUB = "mcp:hub"

let made
let gateway
const logs = {}
before(async () => {
  made = await makeFolder()
  const files = join(made.folder, "files")
  await mkdir(files)
  const odd = (name) => {
    logs[name] = join(made.folder, `${name}.log`)
    return { ...upstreams.odd("--plain-envelope", "--era", "legacy"), env: { ODD_LOG: logs[name] } }
  }
  gateway = await startGateway({
    broken: { command: join(made.folder, "nothing") },
    everything: upstreams.everything(),
    files: upstreams.filesystem(files),
    memory: upstreams.memory(join(made.folder, "memory.json")),
    odd_one: odd("odd_one"),
    odd_two: odd("odd_two"),
    restless: odd("restless"),
  })
})
after(async () => {
  await gateway?.close()
  await made?.close()
})

/** All pages of a list. */
async function whole(session, method, key) {
  const items = []
  let cursor
  do {
    const page = await session.result(method, cursor === undefined ? {} : { cursor })
    items.push(...page[key])
    cursor = page.nextCursor
  } while (cursor !== undefined)
  return items
}

const toolNames = async (session) => (await whole(session, "tools/list", "tools")).map(({ name }) => name)

/** What a call with that mark reached a server with. */
const reached = async (server, mark) => (await readOddLog(logs[server])).filter(({ line, message }) => message && line.includes(mark)).map(({ message }) => message)

/** Asserts what the hub lists, whoever asked. */
function assertTools(names) {
  assert.equal(new Set(names).size, names.length, "a name is there once")
  for (const name of ["countdown", "echo", "read_text_file", "read_graph", "progress"]) assert.ok(names.includes(name), name)
  for (const server of ["odd_two", "restless"]) assert.ok(names.includes(`${server}__progress`), server)
  assert.ok(!names.some((name) => /^(odd_one|everything|broken)__/.test(name)), names.join())
}

for (const kind of KINDS) {
  const open = (t, options) => openSdkSession(t, gateway, kind, { server: undefined, topic: HUB, ...options })

  describe(kind.name, () => {
    test("lists the tools of all servers, and calls each", ONE_TEST, async (t) => {
      const session = await open(t, { client: { capabilities: {} } })
      assertTools((await session.list("listTools", "tools")).map(({ name }) => name))

      assert.equal(await session.text("echo", { message: "hub" }), "Echo: hub")
      assert.match(await session.text("list_allowed_directories"), /\/files$/)
      assert.match(await session.text("files__list_allowed_directories"), /\/files$/)
      const told = []
      await session.call("odd_two__progress", { count: 5 }, { onprogress: ({ progress }) => told.push(progress) })
      assert.deepEqual(told, [1, 2, 3, 4, 5])
      assert.deepEqual(session.errors, [])
    })

    test("is asked by each server", ONE_TEST, async (t) => {
      const session = await open(t, { client: { capabilities: ABLE, roots: [{ uri: "file:///home/ada" }] } })

      assert.match(await session.text("trigger-sampling-request", { prompt: "hello" }), /"text": "something"/)
      assert.match(await session.text("odd_two__elicit"), /Ada/)
      assert.match(await session.text("roots"), /home\/ada/)
      assert.deepEqual(session.errors, [])
    })
  })
}

describe("bare phoenix.js", () => {
  const open = (t) => openLegacySession(t, gateway, HUB)

  test("what clashes stands behind its server's name, and reaches that server under its own", ONE_TEST, async (t) => {
    const session = await open(t)
    await whole(session, "tools/list", "tools")
    for (const [name, mark] of [["echo_raw", "mark 1"], ["odd_two__echo_raw", "mark 2"], ["odd_one__echo_raw", "mark 3"]]) {
      await session.call(name, { mark })
    }

    const names = async (server, mark) => (await reached(server, mark)).map(({ params }) => params.name)
    assert.deepEqual([await names("odd_one", "mark 1"), await names("odd_two", "mark 1")], [["echo_raw"], []])
    assert.deepEqual([await names("odd_one", "mark 2"), await names("odd_two", "mark 2")], [[], ["echo_raw"]])
    assert.deepEqual([await names("odd_one", "mark 3"), await names("odd_two", "mark 3")], [["echo_raw"], []])
  })

  test("a tool is called that was never listed", ONE_TEST, async (t) => {
    const session = await open(t)

    await session.call("restless__echo_raw", { mark: "mark 4" })

    assert.equal((await reached("restless", "mark 4")).length, 1)
    const { error } = await session.ask("tools/call", { name: "broken__anything" })
    assert.equal(error.code, -32602)
  })

  test("resources, templates and prompts are those of all servers", ONE_TEST, async (t) => {
    const session = await open(t)
    const uris = (await whole(session, "resources/list", "resources")).map(({ uri }) => uri)
    const templates = (await whole(session, "resources/templates/list", "resourceTemplates")).map(({ uriTemplate }) => uriTemplate)
    const prompts = (await whole(session, "prompts/list", "prompts")).map(({ name }) => name)
    const read = async (uri) => (await session.result("resources/read", { uri })).contents[0]

    for (const uri of ["memory://knowledge-graph", "demo://resource/static/document/features.md", "odd://one"]) assert.ok(uris.includes(uri), uri)
    const [second] = uris.filter((uri) => uri.endsWith("+odd://one"))
    assert.equal((await read(second)).text, "odd é/ text")
    assert.match((await read("demo://resource/static/document/features.md")).text, /^# Everything Server/)
    assert.match((await read("demo://resource/dynamic/text/7")).text, /^Resource 7/)
    assert.ok(templates.includes("odd://item/{id}"))
    assert.equal((await read("odd://item/7")).text, "an item")
    for (const prompt of ["args-prompt", "odd_prompt", "odd_two__odd_prompt"]) assert.ok(prompts.includes(prompt), prompt)
    assert.equal((await session.result("prompts/get", { name: "odd_two__odd_prompt" })).description, "odd é")
    const completion = { ref: { type: "ref/prompt", name: "completable-prompt" }, argument: { name: "department", value: "Eng" } }
    assert.deepEqual((await session.result("completion/complete", completion)).completion.values, ["Engineering"])
    assert.equal((await session.ask("resources/read", { uri: "nobody://has" })).error.code, -32002)
  })

  test("a subscription reaches the server whose resource it is", ONE_TEST, async (t) => {
    const session = await open(t)
    await whole(session, "resources/list", "resources")
    await session.result("resources/subscribe", { uri: "odd://one" })

    await session.call("odd_two__touch", { uri: "odd://one" })
    await session.call("touch", { uri: "odd://one" })

    await session.notification("notifications/resources/updated")
    assert.equal(session.heard.filter(({ method }) => method === "notifications/resources/updated").length, 1)
  })
})

describe("over HTTP", () => {
  test("lists the tools of all servers, and calls each", ONE_TEST, async (t) => {
    const peer = openHttp(t, gateway)
    const result = async (id, method, params) => JSON.parse((await peer.ask(JSON.stringify({ jsonrpc: "2.0", id, method, params }))).at(-1)).result
    const { serverInfo } = await result(0, "initialize", { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "http", version: "1" } })
    await peer.send('{"jsonrpc":"2.0","method":"notifications/initialized"}')
    const session = { id: 0, result: (method, params) => result((session.id += 1), method, params) }

    assert.equal(serverInfo.name, "hub")
    const names = await toolNames(session)
    assert.ok(["countdown", "echo", "read_graph", "odd_two__progress"].every((name) => names.includes(name)), names.join())
    const { content } = await session.result("tools/call", { name: "odd_two__progress", arguments: {} })
    assert.equal(content[0].text, "done")
    const counted = await session.result("tools/call", { name: "countdown", arguments: { seconds: 1, interval_ms: 500 } })
    assert.equal(counted.isError, undefined)
  })
})
