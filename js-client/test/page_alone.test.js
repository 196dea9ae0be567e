// The page at / against a stand-in server: its forms, hostile text, refusals and losses.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { launchChromium } from "./support/browser.js"
import { startFakeBennu } from "./support/fake_bennu.js"

const ONE_TEST = { timeout: 30_000 }
const HOSTILE = `<img src=x onerror="document.title='owned'">`
const SESSION = {
  protocolVersion: "2024-11-05",
  serverInfo: { name: "Stand-in", version: "9" },
  sessionId: "mcp_session_0011223344556677",
}
const TOOL = {
  name: "everything",
  description: HOSTILE,
  inputSchema: {
    type: "object",
    required: ["count"],
    properties: {
      count: { type: "integer", minimum: 1, maximum: 9, default: 3, description: "how many" },
      colour: { type: "string", enum: ["red", "green"], default: "green" },
      loud: { type: "boolean", default: true },
      note: { type: "string", description: HOSTILE },
      list: { type: "array", default: [1, 2] },
      any: { type: ["string", "integer", "object", "array", "boolean"] },
    },
  },
  capabilities: { supportsStreaming: true },
}

const event = (type, data, second = 0) => ({
  type,
  stream_id: "run-1",
  request_id: 2,
  data,
  timestamp: `2026-01-02T03:04:0${second}.000000Z`,
})

describe("the page, alone", () => {
  let browser
  before(async () => {
    browser = await launchChromium()
  })
  after(() => browser.close())

  /**
   * A stand-in that lists TOOL, and a page that is open on it; `answers` overrides the join answers by topic, `workflows` has the
   * results of methods of workflows.
   */
  async function open(t, { answers = {}, onCall = () => {}, workflows = {} } = {}) {
    const calls = []
    const server = await startFakeBennu({
      onJoin(topic, params) {
        if (answers[topic]) return answers[topic](params)
        if (topic === "mcp:session") return ["ok", SESSION]
        if (topic === "mcp:runs") return ["ok", { runs: [] }]
        return ["error", { reason: "unmatched topic" }]
      },
      onMessage(request, push) {
        const answer = (result) => push("mcp:session", "mcp_message", { jsonrpc: "2.0", id: request.id, result })
        if (request.method === "tools/list") answer({ tools: [TOOL] })
        if (request.method in workflows) {
          calls.push(request)
          answer(workflows[request.method])
        }
        if (request.method === "tools/call") {
          calls.push(request)
          onCall(request, push, answer)
        }
      },
    })
    t.after(() => server.close())
    const page = await browser.newPage()
    t.after(() => page.close())
    const errors = []
    page.on("pageerror", (error) => errors.push(error.message))
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()))
    await page.goto(server.origin)
    return { server, page, calls, errors, find: (id) => page.getByTestId(id) }
  }

  const shows = (locator, text) => locator.filter({ hasText: text }).first().waitFor()

  test("a form follows the tool's schema, and what is left empty is left out", ONE_TEST, async (t) => {
    const { calls, errors, find } = await open(t, { onCall: (request, push, answer) => answer({ content: [] }) })
    await shows(find("connection"), "live")
    await find("field-note").fill("grüße")
    await find("field-list").fill('{"deep":[true]}')

    await find("run-button").click()

    await shows(find("call-status"), "done")
    assert.deepEqual(calls[0].params.arguments, { count: 3, colour: "green", loud: true, note: "grüße", list: { deep: [true] } })
    assert.deepEqual(calls[0].params._meta, { progressToken: calls[0].id })
    assert.deepEqual(errors, [], "the page must work under its content security policy")
  })

  test("an argument that is no JSON is not sent", ONE_TEST, async (t) => {
    const { calls, find } = await open(t)
    await find("field-any").fill("{")

    await find("run-button").click()

    await shows(find("call-status"), "any is not JSON")
    assert.deepEqual(calls, [])
  })

  test("what the server sends is text, never markup", ONE_TEST, async (t) => {
    const { page, server, find } = await open(t, {
      answers: { "mcp:run:run-1": () => ["ok", { run: { tool: HOSTILE }, events: [event("tool_started", { tool: HOSTILE })] }] },
    })
    await shows(find("tool"), HOSTILE)
    server.push("mcp:runs", "run_started", { run_id: "run-1", tool: HOSTILE })
    await find("run").waitFor()

    server.push("mcp:run:run-1", "streaming_event", event("tool_progress", { progress: 1, message: HOSTILE }, 1))
    await shows(find("run-message"), HOSTILE)
    server.push("mcp:run:run-1", "streaming_event", event("tool_failed", { error: { message: HOSTILE } }, 2))
    await shows(find("run-result"), HOSTILE)

    assert.equal(await page.locator("img").count(), 1, "the logo is the page's only image")
    assert.equal(await page.title(), "Bennu")
  })

  test("a workflow's faults stand beside its definition, each with its place, as text", ONE_TEST, async (t) => {
    const errors = [{ path: "/steps/0/tool", message: HOSTILE }, { path: "", message: "Missing required field: type" }]
    const { page, find, errors: faults } = await open(t, {
      workflows: { "workflows/execute": { workflow_id: "w", status: "creation_failed", error: "two faults", errors, isError: true } },
    })
    await find("workflows-tab").click()

    await find("workflow-run").click()
    await shows(find("workflow-status"), "not run")

    assert.deepEqual(await find("fault").allTextContents(), [`/steps/0/tool ${HOSTILE}`, "Missing required field: type"])
    assert.equal(await find("definition").getAttribute("aria-invalid"), "true")
    assert.equal(await page.locator("img").count(), 1)
    assert.deepEqual(faults, [])
  })

  test("a definition or an input that is no JSON is not sent", ONE_TEST, async (t) => {
    const { calls, find } = await open(t, { workflows: { "workflows/execute": {} } })
    await find("workflows-tab").click()

    await find("definition").fill('{"type": ')
    await find("workflow-run").click()
    await shows(find("fault"), "the definition is not JSON")
    await find("definition").fill("{}")
    await find("workflow-input").fill("[")
    await find("workflow-run").click()
    await shows(find("fault"), "the input is not JSON")

    assert.deepEqual(calls, [])
  })

  test("a template is offered with its example, and what was written stays with its choice", ONE_TEST, async (t) => {
    const parameters = [{ name: "size", type: "integer", default: 3, description: "how many" }]
    const template = { name: "batches", description: HOSTILE, parameters, examples: [{ name: "large", params: { size: 50 } }] }
    const { calls, find } = await open(t, {
      workflows: { "workflows/templates": { templates: [template], total_count: 1 }, "workflows/execute": { execution_time_ms: 1234 } },
    })
    await find("workflows-tab").click()
    await find("definition").fill("{}")

    await find("workflow-choice").selectOption("batches")
    assert.equal(await find("workflow-about").textContent(), `${HOSTILE}\nsize (integer, otherwise 3): how many`)
    await find("workflow-input").fill("[1]")
    await find("workflow-run").click()
    await shows(find("workflow-status"), "done in 1.2 s")
    await find("workflow-choice").selectOption("demo_sequential")

    assert.equal(await find("definition").inputValue(), "{}")
    const definition = { type: "template", template: "batches", params: { size: 50 } }
    assert.deepEqual(calls.at(-1).params, { workflowId: "batches", definition, options: { streaming: true, input: [1] } })
  })

  test("steps have their states, their attempts and their ends", ONE_TEST, async (t) => {
    const step = (type, path, data, second) => event(type, { step_path: path, attempt: 1, workflow_id: "w", ...data }, second)
    const events = [
      event("workflow_started", { workflow_id: "w" }),
      step("step_started", "rows[0]/fetch", {}, 1),
      step("step_progress", "rows[0]/fetch", { progress: { progress: 1, total: 4, message: HOSTILE } }, 1),
      step("step_started", "again", {}, 1),
      step("step_failed", "again", { error: HOSTILE, becomes: "retried", execution_time_ms: 900 }, 2),
      step("step_started", "instead", {}, 2),
      step("step_failed", "instead", { error: "no disk", becomes: "replaced", execution_time_ms: 100 }, 2),
      step("step_completed", "instead", { execution_time_ms: 0 }, 3),
    ]
    const { server, page, find } = await open(t, { answers: { "mcp:run:run-1": () => ["ok", { run: { tool: "w", workflow_id: "w" }, events }] } })
    await shows(find("connection"), "live")
    const texts = () => find("step").allTextContents()

    server.push("mcp:runs", "run_started", { run_id: "run-1", tool: "w", workflow_id: "w" })
    await find("step").first().waitFor()
    assert.deepEqual(await texts(), [
      `rows[0]/fetchrunning1 of 4 · ${HOSTILE}`,
      `againfailed after 0.9 s, tries again${HOSTILE}`,
      "insteadfailed after 0.1 s, replacedno disk",
    ])
    assert.equal(await find("run-cancel").isVisible(), true)

    server.push("mcp:run:run-1", "streaming_event", step("step_started", "again", { attempt: 2 }, 3))
    await shows(find("step"), "running, attempt 2")
    server.push("mcp:run:run-1", "streaming_event", step("step_completed", "again", { attempt: 2, execution_time_ms: 1500 }, 4))
    server.push("mcp:run:run-1", "streaming_event", event("workflow_failed", { error: "no disk", reason: "tool", workflow_id: "w" }, 5))
    await shows(find("run-state"), "failed after 5.0 s")

    assert.deepEqual(await texts(), ["rows[0]/fetchstopped", "again1.5 s, attempt 2", "insteadfailed after 0.1 s, replacedno disk"])
    assert.equal(await find("run-result").textContent(), "no disk")
    assert.equal(await find("run-cancel").isVisible(), false)
    assert.equal(await page.locator("img").count(), 1)
  })

  test("a run is drawn once although its events come over two topics, and anew after a loss", ONE_TEST, async (t) => {
    const soFar = [event("tool_started", { tool: "everything" }), event("tool_progress", { progress: 1, total: 4, message: "one" }, 1)]
    const { server, find } = await open(t, { answers: { "mcp:run:run-1": () => ["ok", { run: { tool: "everything" }, events: soFar }] } })
    await shows(find("connection"), "live")
    server.push("mcp:session", "streaming_event", soFar[0])
    server.push("mcp:session", "streaming_event", soFar[1])
    await shows(find("run-message"), "1 of 4 · one")
    await shows(find("run"), "2 events")

    server.cut()
    soFar.push(event("tool_progress", { progress: 3, total: 4 }, 2))
    await shows(find("run-message"), "3 of 4")
    await shows(find("run"), "3 events")
    assert.equal(await find("run-progress").evaluate((bar) => bar.value), 0.75)

    const end = event("tool_completed", { result: { content: [{ type: "text", text: "four" }] } }, 3)
    for (const last of [event("tool_progress", { progress: 4, total: 4 }, 3), end]) {
      server.push("mcp:session", "streaming_event", last)
      server.push("mcp:run:run-1", "streaming_event", last)
    }
    await shows(find("run-state"), "completed after 3.0 s")
    await shows(find("run-result"), "four")
    await shows(find("run"), "5 events")
    assert.equal(await find("run").count(), 1)
    assert.equal(await find("run-own").isVisible(), true)
  })

  test("a run that the server no longer has is shown as lost", ONE_TEST, async (t) => {
    let known = true
    const { server, find } = await open(t, {
      answers: { "mcp:run:run-1": () => (known ? ["ok", { events: [event("tool_started", { tool: "everything" })] }] : ["error", { reason: "no such run" }]) },
    })
    await find("tool").waitFor()
    server.push("mcp:runs", "run_started", { run_id: "run-1", tool: "everything" })
    await shows(find("run"), "1 event")
    known = false

    server.cut()

    await shows(find("run-state"), "lost")
  })

  test("a call that waits when the session is cut off fails in the form", ONE_TEST, async (t) => {
    const { server, calls, find } = await open(t, { onCall: () => server.cut() })
    await find("run-button").click()

    await shows(find("call-status"), "the session was cut off")
    await shows(find("connection"), "live")
    assert.equal(calls.length, 1)
  })

  test("a refused session says why", ONE_TEST, async (t) => {
    const { find } = await open(t, { answers: { "mcp:session": () => ["error", { reason: "No authentication credentials provided" }] } })

    await shows(find("notice"), "No authentication credentials provided")
    assert.equal(await find("connection").getAttribute("data-state"), "refused")
  })
})
