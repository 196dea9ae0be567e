// Workflows over Streamable HTTP, in either era, and as tools: for clients that know no channel.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { openLegacySession } from "./support/gateway/phoenix_session.js"
import { openHttp } from "./support/gateway/texts.js"
import { HUB, openWorkflowSession, SESSION } from "./support/workflows/session.js"
import { startWorkflows } from "./support/workflows/server.js"
import { until } from "./support/waiting.js"

const ONE_TEST = { timeout: 30_000 }
const TASKS = "io.modelcontextprotocol/tasks"
const HASH = { tool: "stream_hash", params: { bytes: 8, seed: 7 } }
const SEQUENCE = { type: "sequential", steps: [HASH] }
const COUNTDOWN = { type: "sequential", steps: [{ tool: "countdown", params: { seconds: 1, interval_ms: 250 } }, HASH] }

let server
before(async () => {
  server = await startWorkflows()
})
after(() => server?.close())

/** Asks over HTTP in one era, of the server of that name or of all as one. `messages` gives all that came, `result` what came of it. */
function openPeer(t, name, meta) {
  const peer = openHttp(t, server, name)
  let id = 0
  const request = (method, params = {}) =>
    JSON.stringify({ jsonrpc: "2.0", id: (id += 1), method, params: meta ? { ...params, _meta: { ...meta, ...params._meta } } : params })
  const messages = async (method, params) => (await peer.ask(request(method, params))).map((text) => JSON.parse(text))
  const result = async (method, params) => {
    const { result, error } = (await messages(method, params)).at(-1)
    if (error) throw new Error(JSON.stringify(error))
    return result
  }
  return { peer, request, messages, result }
}

async function openLegacy(t, name) {
  const session = openPeer(t, name)
  await session.result("initialize", { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "http", version: "1" } })
  await session.peer.send('{"jsonrpc":"2.0","method":"notifications/initialized"}')
  return session
}

const openStateless = (t, name, capabilities = {}) =>
  openPeer(t, name, { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": capabilities })

for (const [era, open] of [["a legacy session", openLegacy], ["stateless requests", openStateless]]) {
  describe(era, () => {
    for (const name of ["bennu", undefined]) {
      test(`executes a workflow of ${name ?? "all servers"}`, ONE_TEST, async (t) => {
        const { result } = await open(t, name)

        const executed = await result("workflows/execute", { workflowId: "http", definition: SEQUENCE })
        const failed = await result("workflows/execute", { workflowId: "http", definition: { type: "sequential", steps: [{ tool: "memory_forget", params: { id: "none" } }] } })
        const refused = await result("workflows/create", { workflowId: "http", definition: {} })

        assert.deepEqual([executed.workflow_id, executed.status, executed.result.result.seed], ["http", "completed", 7])
        assert.deepEqual([failed.status, failed.isError, failed.error], ["failed", true, 'Tool execution failed: nothing is remembered by the id "none"'])
        assert.deepEqual([refused.status, refused.errors[0].message], ["error", "Missing required field: type"])
      })
    }

    test("shares workflows and runs with the channels of the same user", ONE_TEST, async (t) => {
      const { result } = await open(t, "bennu")
      const session = await openWorkflowSession(t, server, SESSION)
      await session.result("workflows/create", { workflowId: "shared", definition: SEQUENCE })

      const { run_id } = await result("workflows/execute", { workflowId: "shared" })

      assert.equal((await session.result("workflows/run", { runId: run_id })).status, "completed")
      assert.ok((await result("workflows/list")).workflows.some(({ workflow_id }) => workflow_id === "shared"))
    })

    test("tells its progress before the response", ONE_TEST, async (t) => {
      const { messages } = await open(t, "bennu")

      const came = await messages("workflows/execute", { definition: COUNTDOWN, _meta: { progressToken: "t" } })

      assert.equal(came.at(-1).result.status, "completed")
      const told = came.slice(0, -1).map(({ method, params }) => [method, params.progressToken, params.total])
      assert.ok(told.length > 0)
      assert.ok(told.every((one) => JSON.stringify(one) === '["notifications/progress","t",2]'), JSON.stringify(told))
    })

    test("executes by a tool", ONE_TEST, async (t) => {
      const { result } = await open(t, "bennu")
      const call = (name, args) => result("tools/call", { name, arguments: args })

      const created = await call("workflow_create", { workflow_id: "by tool", definition: SEQUENCE })
      const executed = await call("workflow_execute", { workflow_id: "by tool" })
      const failed = await call("workflow_execute", { definition: { type: "mystery" } })
      const templates = await call("workflow_templates", { category: "integration" })

      assert.deepEqual([created.isError ?? false, created.structuredContent.status], [false, "created"])
      assert.deepEqual([executed.structuredContent.status, executed.structuredContent.result.result.seed], ["completed", 7])
      assert.deepEqual(JSON.parse(executed.content[0].text), executed.structuredContent)
      assert.deepEqual([failed.isError, failed.structuredContent.status], [true, "creation_failed"])
      assert.deepEqual(templates.structuredContent.templates.map(({ name }) => name), ["api_integration"])
    })
  })
}

describe("a client that goes away", () => {
  const LONG = { type: "sequential", steps: [{ tool: "countdown", params: { seconds: 60 } }] }

  test("takes its run back by closing the response of a stateless request", ONE_TEST, async (t) => {
    const { peer, request } = openStateless(t, "bennu")
    const watcher = await openWorkflowSession(t, server, SESSION)
    const all = () => watcher.result("workflows/runs", { workflowId: "closed" })
    const sent = peer.send(request("workflows/execute", { workflowId: "closed", definition: LONG }))
    const { runs: [{ run_id }] } = await until(async () => (await all()).total_count > 0 && all())

    peer.close()

    assert.equal((await watcher.ended(run_id)).status, "cancelled")
    await sent
    assert.deepEqual(peer.received, [])
  })
})

describe("a task", () => {
  const openWithTasks = (t) => openStateless(t, "bennu", { extensions: { [TASKS]: {} } })
  const execute = ({ result }, definition) => result("tools/call", { name: "workflow_execute", arguments: { definition } })
  const ended = ({ result }, taskId) => until(async () => {
    const task = await result("tasks/get", { taskId })
    return task.status !== "working" && task
  }, `the end of task ${taskId}`, 15_000)

  test("is what executes a workflow, until it has completed", ONE_TEST, async (t) => {
    const session = openWithTasks(t)

    const created = await execute(session, COUNTDOWN)
    const task = await ended(session, created.taskId)

    assert.deepEqual([created.resultType, created.status], ["task", "working"])
    assert.equal(task.status, "completed")
    assert.deepEqual([task.result.structuredContent.status, task.result.structuredContent.result.result.seed], ["completed", 7])
  })

  test("ends its run when it is cancelled", ONE_TEST, async (t) => {
    const session = openWithTasks(t)
    const watcher = await openWorkflowSession(t, server, SESSION)
    const running = async () => (await watcher.result("workflows/runs", { status: "running" })).runs

    const { taskId } = await execute(session, { type: "sequential", steps: [{ tool: "countdown", params: { seconds: 60 } }] })
    const [{ run_id }] = await until(async () => (await running()).length > 0 && running())
    await session.result("tasks/cancel", { taskId })

    assert.equal((await ended(session, taskId)).status, "cancelled")
    assert.equal((await watcher.ended(run_id)).status, "cancelled")
  })
})

describe("a channel of another era", () => {
  test("executes workflows after initialize", ONE_TEST, async (t) => {
    const session = await openLegacySession(t, server, HUB)
    const definition = { type: "sequential", steps: [{ tool: "give", params: { a: 1 } }, HASH] }

    const { status, result } = await session.result("workflows/execute", { definition })

    assert.deepEqual([status, result.result.seed], ["completed", 7])
  })

  test("has tools that no step of a workflow can be", ONE_TEST, async (t) => {
    const session = await openWorkflowSession(t, server, SESSION)
    const error = await session.failure({ type: "sequential", steps: [{ tool: "workflow_execute", params: { definition: SEQUENCE } }] })
    assert.match(error, /^Tool execution failed: a workflow's step can't execute a workflow/)
  })
})
