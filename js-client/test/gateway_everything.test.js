// server-everything behind Bennu: all of MCP that it has, by the SDKs' clients and by bare phoenix.js.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { openDashboard, openLegacySession } from "./support/gateway/phoenix_session.js"
import { ABLE, openSdkSession } from "./support/gateway/sdk_session.js"
import { startGateway } from "./support/gateway/server.js"
import { KINDS } from "./support/kinds.js"
import * as upstreams from "./support/upstreams.js"
import { until } from "./support/waiting.js"

const ONE_TEST = { timeout: 30_000 }
const TOPIC = "mcp:server:everything"
const LONG = "trigger-long-running-operation"
const STEPS = 5
const DONE = `Long running operation completed. Duration: 0.5 seconds, Steps: ${STEPS}.`
const DYNAMIC = "demo://resource/dynamic/text/1"
const UPDATED = "notifications/resources/updated"
const LOGGED = "notifications/message"
const LOG_LEVEL = "io.modelcontextprotocol/logLevel"
const ROOTS = [{ uri: "file:///home/ada", name: "Ada's" }]
const DATA = "data:text/plain;base64,aGVsbG8="

const steps = Array.from({ length: STEPS }, (_, at) => ({ progress: at + 1, total: STEPS }))

let gateway
before(async () => {
  gateway = await startGateway({ everything: upstreams.everything() })
})
after(() => gateway?.close())

/** Watches the run of a call from another socket, and gives what it told. */
async function watched(t, tool, call) {
  const dashboard = await openDashboard(t, gateway)
  const calling = call()
  const { run_id: id } = await dashboard.run(tool)
  const events = await dashboard.watch(id)
  await calling
  const { status } = await dashboard.end(id)
  await until(() => events.at(-1)?.type !== "tool_progress", "the run's last event")
  return {
    status,
    types: [events[0].type, events.at(-1).type],
    progress: events.filter(({ type }) => type === "tool_progress").map(({ data: { progress, total } }) => ({ progress, total })),
    text: events.at(-1).data.result?.content[0].text,
  }
}

const seen = { status: "completed", types: ["tool_started", "tool_completed"], progress: steps, text: DONE }

describe("bare phoenix.js", () => {
  const open = (t, options) => openLegacySession(t, gateway, TOPIC, options)

  test("gets a long operation's progress in order, and another socket sees the same", ONE_TEST, async (t) => {
    const session = await open(t)

    const run = await watched(t, LONG, () => session.call(LONG, { duration: 0.5, steps: STEPS }, { withProgress: true }))

    const [first, ...rest] = session.heard.slice(session.heard.findIndex(({ method }) => method === "notifications/progress"))
    assert.equal(first.params.progressToken, 1)
    assert.deepEqual([first, ...rest].map(({ method, id, params }) => (method ? params.progress : { id })), [1, 2, 3, 4, 5, { id: 1 }])
    assert.equal(rest.at(-1).result.content[0].text, DONE)
    assert.deepEqual(run, seen)
  })

  test("whose calls name no token is told no progress, though others see it", ONE_TEST, async (t) => {
    const session = await open(t)

    const run = await watched(t, LONG, () => session.call(LONG, { duration: 0.5, steps: STEPS }))

    assert.deepEqual(session.heard.filter(({ method }) => method === "notifications/progress"), [])
    assert.deepEqual(run.progress, steps)
  })

  test("answers what the server asks", ONE_TEST, async (t) => {
    const asked = []
    const note = (answer) => (params) => {
      asked.push(params)
      return answer
    }
    const session = await open(t, {
      capabilities: ABLE,
      answers: {
        "sampling/createMessage": note({ role: "assistant", model: "m", content: { type: "text", text: "a word" } }),
        "elicitation/create": note({ action: "accept", content: { name: "Ada", integer: 7 } }),
        "roots/list": () => ({ roots: ROOTS }),
      },
    })

    assert.match(await session.text("trigger-sampling-request", { prompt: "hello", maxTokens: 3 }), /"text": "a word"/)
    const { content } = await session.call("trigger-elicitation-request")
    assert.match(content[1].text, /- Name: Ada\n[^]*- Favorite Integer: 7/)
    assert.match(await session.text("get-roots-list"), /1\. Ada's\n {3}URI: file:\/\/\/home\/ada/)
    const [sampling, elicitation] = asked
    assert.deepEqual([sampling.maxTokens, sampling.messages[0].content.text], [3, "Resource trigger-sampling-request context: hello"])
    assert.equal(elicitation.requestedSchema.required[0], "name")
  })
})

for (const kind of KINDS) {
  const isLegacy = kind.era === "legacy"

  describe(kind.name, () => {
    const open = (t, client = {}) => openSdkSession(t, gateway, kind, { server: "everything", client: { capabilities: ABLE, ...client } })

    test("opens a session, and lists and reads everything", ONE_TEST, async (t) => {
      const session = await open(t)
      const { client } = session
      const names = async (verb, key) => (await session.list(verb, key)).map(({ name }) => name)

      assert.equal(client.getServerVersion().name, "mcp-servers/everything")
      assert.match(client.getInstructions(), /Everything Server/)
      const tools = await names("listTools", "tools")
      for (const tool of ["echo", LONG, "trigger-sampling-request", "get-roots-list"]) assert.ok(tools.includes(tool), tool)
      assert.deepEqual(await names("listPrompts", "prompts"), ["simple-prompt", "args-prompt", "completable-prompt", "resource-prompt"])
      assert.ok((await names("listResources", "resources")).includes("features.md"))
      const templates = await session.list("listResourceTemplates", "resourceTemplates")
      assert.ok(templates.some(({ uriTemplate }) => uriTemplate === "demo://resource/dynamic/text/{resourceId}"))
      const read = await client.readResource({ uri: "demo://resource/static/document/features.md" })
      assert.match(read.contents[0].text, /^# Everything Server - Features/)
      const prompt = await client.getPrompt({ name: "args-prompt", arguments: { city: "Paris", state: "Texas" } })
      assert.equal(prompt.messages[0].content.text, "What's weather in Paris, Texas?")
      const reference = { type: "ref/prompt", name: "completable-prompt" }
      const { completion } = await client.complete({ ref: reference, argument: { name: "department", value: "Eng" } })
      assert.deepEqual(completion.values, ["Engineering"])
      assert.deepEqual(session.errors, [])
    })

    test("calls tools that answer with text, structure, pictures and errors", ONE_TEST, async (t) => {
      const session = await open(t)
      await session.list("listTools", "tools")

      assert.equal(await session.text("echo", { message: "grüße \u2028 🐦" }), "Echo: grüße \u2028 🐦")
      assert.equal((await session.call("get-structured-content", { location: "Chicago" })).structuredContent.conditions, "Light rain / drizzle")
      assert.equal((await session.call("get-tiny-image")).content[1].mimeType, "image/png")
      assert.equal((await session.call("get-sum", { a: "one" })).isError, true)
      assert.deepEqual(session.errors, [])
    })

    test("gets a long operation's progress in order, and another socket sees the same", ONE_TEST, async (t) => {
      // Roots would be asked for a little after the start: in the course of a stateless client's call, which ends with the question.
      const session = await open(t, { capabilities: { sampling: {} } })
      const told = []
      const onprogress = ({ progress, total }) => told.push({ progress, total })

      const run = await watched(t, LONG, () => session.call(LONG, { duration: 0.5, steps: STEPS }, { onprogress }))

      assert.deepEqual(told, steps)
      assert.deepEqual(run, seen)
    })

    test("answers what the server asks", ONE_TEST, async (t) => {
      // A stateless client may get a process that has asked another with the same capabilities for its roots.
      const session = await open(t, { roots: ROOTS, capabilities: { ...ABLE, experimental: { own: {} } } })

      assert.match(await session.text("trigger-sampling-request", { prompt: "hello" }), /"text": "something"/)
      const { content } = await session.call("trigger-elicitation-request")
      assert.match(content[1].text, /- Name: Ada/)
      assert.match(await session.text("get-roots-list"), /1\. Ada's\n {3}URI: file:\/\/\/home\/ada/)
      assert.deepEqual(session.errors, [])
    })

    test("hears of a resource to which it subscribes", ONE_TEST, async (t) => {
      const session = await open(t)
      const stop = await session.watch({ uri: DYNAMIC })

      // It says so once when it begins, and each other call ends it. A stateless client is told that its stream stands a little
      // before the server knows what is wanted.
      const toggle = () => session.call("toggle-subscriber-updates")
      const updates = () => session.heard.filter(([method]) => method === UPDATED)
      if (isLegacy) await toggle()
      await until(async () => (isLegacy || (await toggle()), updates().length > 0), "an update")

      assert.equal(updates()[0][1].uri, DYNAMIC)
      await stop()
    })

    test("hears of a resource that a tool makes", ONE_TEST, async (t) => {
      const session = await open(t)
      await session.watch({ resourcesListChanged: true })

      const { content } = await session.call("gzip-file-as-resource", { name: "made.gz", data: DATA, outputType: "resourceLink" })

      await until(() => session.heard.some(([method]) => method === "notifications/resources/list_changed"))
      assert.match(content[0].uri, /made\.gz$/)
    })

    test("hears what the server logs, from the level on that it asked for", ONE_TEST, async (t) => {
      const session = await open(t)
      const logs = () => session.heard.filter(([method]) => method === LOGGED).map(([, { level }]) => level)
      if (isLegacy) {
        const subscribe = async (level) => {
          const before = logs().length
          await session.client.setLoggingLevel(level)
          await session.client.subscribeResource({ uri: DYNAMIC })
          return logs().slice(before)
        }
        assert.deepEqual([await subscribe("error"), await subscribe("info")], [[], ["info"]])
        return
      }
      await session.call("toggle-simulated-logging", {}, { _meta: { [LOG_LEVEL]: "debug" } })
      await until(() => logs().length === 1)
    })
  })
}
