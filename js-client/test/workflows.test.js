// Workflows in the words of the Elixir deployment's clients: what is refused and why, what results look like, what is kept.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { openWorkflowSession, SESSION } from "./support/workflows/session.js"
import { startWorkflows } from "./support/workflows/server.js"

const ONE_TEST = { timeout: 30_000 }
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/
const RUN_ID = /^[0-9a-f]{32}$/

let server
before(async () => {
  server = await startWorkflows()
})
after(() => server?.close())

const open = (t, options) => openWorkflowSession(t, server, SESSION, options)

const keys = (object) => Object.keys(object).sort()
const HASH = { tool: "stream_hash", params: { bytes: 8 } }
const hash = (seed) => ({ tool: "stream_hash", params: { bytes: 8, seed } })

describe("workflows/create", () => {
  const create = (session, definition, workflowId = "w") => session.result("workflows/create", { workflowId, definition })

  const FAULTS = [
    ["no type", { steps: [HASH] }, ["", "Missing required field: type"]],
    ["an unknown type", { type: "mystery" }, ["/type", "Unsupported workflow type: mystery"]],
    ["a type that is no word", { type: 7 }, ["/type", "Unsupported workflow type: 7"]],
    ["a sequence without steps", { type: "sequential" }, ["", "Missing required field: steps"]],
    ["parallel without steps", { type: "parallel" }, ["", "Missing required field: steps"]],
    ["a loop without steps", { type: "loop", max_iterations: 2 }, ["", "Missing required field: steps"]],
    ["a loop without a bound", { type: "loop", steps: [HASH] }, ["", "Missing required field: max_iterations"]],
    ["steps that are no list", { type: "sequential", steps: "none" }, ["/steps", /^steps: expected a list, came "none"$/]],
    ["no steps at all", { type: "parallel", steps: [] }, ["/steps", /^steps: expected one at least/]],
    ["a step without a tool", { type: "sequential", steps: [HASH, { params: {} }] }, ["/steps/1", "Missing required field: tool"]],
    ["a step that is no object", { type: "sequential", steps: [7] }, ["/steps/0", /expected a step, an object/]],
    ["a condition that is missing", { type: "conditional", success: [HASH] }, ["", "Missing required field: condition"]],
    ["a condition without branches", { type: "conditional", condition: HASH }, ["", "Missing required field: success"]],
    ["no triggers", { type: "reactive", workflow: { type: "sequential", steps: [HASH] } }, ["", "Missing required field: triggers"]],
    ["no triggers of several", { type: "reactive", workflows: { a: { type: "sequential", steps: [HASH] } } }, ["", "Missing required field: triggers"]],
    ["a trigger without an event", { type: "reactive", triggers: [{}], workflow: HASH }, ["/triggers/0", "Missing required trigger field: event"]],
    ["nothing to trigger", { type: "reactive", triggers: [{ event: "run_completed" }] }, ["", "Missing required field: workflow"]],
    ["a template of no name", { type: "template" }, ["", "Missing required field: template"]],
    ["a template that is unknown", { type: "template", template: "none" }, ["/template", "Template not found: none"]],
    ["an unknown field", { type: "sequential", steps: [HASH], stesp: 1 }, ["/stesp", /^stesp: no such field/]],
    ["an id twice", { type: "sequential", steps: [{ ...HASH, id: "a" }, { ...HASH, id: "a" }] }, ["/steps/1/id", /two steps have the id "a"/]],
    ["an id of other characters", { type: "sequential", steps: [{ ...HASH, id: "a b" }] }, ["/steps/0/id", /^id: expected/]],
    ["a source of no step", { type: "sequential", steps: [{ ...HASH, input: { seed: "none/seed" } }] }, ["/steps/0/input/seed", /there is no step "none"/]],
    ["a source that comes later", { type: "sequential", steps: [{ ...HASH, input: { seed: "b/seed" } }, { ...HASH, id: "b" }] }, ["/steps/0/input/seed", /has not ended/]],
    ["an item outside a loop", { type: "sequential", steps: [{ ...HASH, input: { seed: "$item" } }] }, ["/steps/0/input/seed", /"\$item" is not there/]],
    ["more items than rounds", { type: "loop", items: [1, 2, 3], max_iterations: 2, steps: [HASH] }, ["/items", /expected at most 2, came 3/]],
    ["a choice without tools", { type: "sampling", prompt: "p" }, ["", "Missing required field: tools"]],
    ["many calls of none", { type: "multi_tool", calls: [] }, ["/calls", "Multi-tool operation requires at least one tool call"]],
    ["many calls of which one is none", { type: "multi_tool", calls: [HASH, { params: {} }] }, ["/calls/1", "Invalid tool call format"]],
    ["a step that runs once, again and again", { type: "sequential", steps: [{ ...HASH, run_once: true, retry: 2 }] }, ["/steps/0/retry", /further attempts/]],
  ]
  for (const [what, definition, [path, message]] of FAULTS) {
    test(`refuses ${what}, and says where`, ONE_TEST, async (t) => {
      const session = await open(t)

      const result = await create(session, definition)

      assert.deepEqual(keys(result), ["error", "errors", "isError", "status", "workflow_id"])
      assert.deepEqual([result.workflow_id, result.status, result.isError], ["w", "error", true])
      assert.deepEqual(result.errors.map(({ path }) => path), [path])
      if (typeof message === "string") assert.equal(result.errors[0].message, message)
      else assert.match(result.errors[0].message, message)
      assert.ok(result.error.startsWith(result.errors[0].message), result.error)
    })
  }

  test("says what is wrong with the whole in the deployment's words, and nothing else", ONE_TEST, async (t) => {
    const session = await open(t)
    const error = async (definition) => (await create(session, definition)).error

    assert.equal(await error({}), "Missing required field: type")
    assert.equal(await error({ type: "mystery" }), "Unsupported workflow type: mystery")
    assert.equal(await error({ type: "template", template: "none" }), "Template not found: none")
    const missing = { type: "template", template: "data_processing_pipeline", params: {} }
    assert.equal(await error(missing), "Missing required parameters: source, destination")
  })

  test("finds every fault at once, however deep", ONE_TEST, async (t) => {
    const session = await open(t)
    const inner = { type: "conditional", condition: { params: {} }, success: [{ type: "loop", steps: [{ tool: "" }] }] }

    const { errors } = await create(session, { type: "sequential", steps: [{ type: "none" }, { type: "parallel", steps: [inner] }] })

    assert.deepEqual(errors.map(({ path }) => path), [
      "/steps/0/type",
      "/steps/1/steps/0/condition",
      "/steps/1/steps/0/success/0",
      "/steps/1/steps/0/success/0/steps/0/tool",
    ])
  })

  test("refuses what is no definition", ONE_TEST, async (t) => {
    const session = await open(t)
    for (const definition of [undefined, null, 7, "sequential", [HASH]]) {
      const result = await create(session, definition)
      assert.deepEqual([result.status, result.isError, result.errors[0].path], ["error", true, ""], JSON.stringify(result))
    }
  })

  test("says of what is nested too deep that it is", ONE_TEST, async (t) => {
    const session = await open(t)
    let deep = 1
    for (let level = 0; level < 200; level += 1) deep = [deep]

    const answer = await session.ask("workflows/create", { workflowId: "deep", definition: { type: "sequential", steps: [{ ...HASH, params: { deep } }] } })

    const error = answer.error?.message ?? answer.result.error
    assert.match(error, /deep|nest|recursion/i)
  })

  test("accepts a tool that nobody has, which fails when it is executed", ONE_TEST, async (t) => {
    const session = await open(t)
    const definition = { type: "sequential", steps: [{ tool: "nobody", params: {} }] }

    assert.equal((await create(session, definition, "unknown tool")).status, "created")
    const result = await session.result("workflows/execute", { workflowId: "unknown tool" })
    assert.deepEqual([result.status, result.isError], ["failed", true])
    assert.equal(result.error, "Tool execution failed: Tool not found: nobody")
  })

  test("gives the deployment's keys, and the definition as it came", ONE_TEST, async (t) => {
    const session = await open(t)
    const definition = { type: "sequential", steps: [hash(1)], name: "é" }

    const result = await create(session, definition, "keys")

    const { version, ...rest } = result
    const capabilities = { streaming: true, context_sharing: true, parallel_execution: true, conditional_flows: true, reactive_triggers: true }
    assert.deepEqual(rest, { workflow_id: "keys", status: "created", definition, capabilities })
    assert.equal(version, 1)
    assert.equal((await create(session, definition, "keys")).version, 2)
  })

  test("draws an id where none is given", ONE_TEST, async (t) => {
    const session = await open(t)
    const { workflow_id } = await session.result("workflows/create", { definition: { type: "sequential", steps: [HASH] } })
    assert.match(workflow_id, /^workflow_[0-9a-f]{16}$/)
  })
})

describe("a workflow that was created", () => {
  test("is executed by its id, listed, read and deleted", ONE_TEST, async (t) => {
    const session = await open(t)
    const definition = { type: "sequential", steps: [hash(3)], description: "hashes" }
    await session.result("workflows/create", { workflowId: "kept", definition })

    const executed = await session.result("workflows/execute", { workflowId: "kept" })
    const { workflows, total_count } = await session.result("workflows/list")
    const got = await session.result("workflows/get", { workflowId: "kept" })
    const deleted = await session.result("workflows/delete", { workflowId: "kept" })
    const gone = await session.result("workflows/execute", { workflowId: "kept" })

    assert.equal(executed.result.result.seed, 3)
    assert.equal(total_count, workflows.length)
    const listed = workflows.find(({ workflow_id }) => workflow_id === "kept")
    assert.deepEqual([listed.type, listed.description, listed.definition], ["sequential", "hashes", undefined])
    assert.deepEqual(got.definition, definition)
    assert.deepEqual(deleted, { workflow_id: "kept", status: "deleted" })
    assert.deepEqual([gone.status, gone.isError, gone.error], ["creation_failed", true, "Workflow not found: kept"])
    assert.equal((await session.result("workflows/get", { workflowId: "kept" })).isError, true)
  })

  test("stays when what is to take its place is refused", ONE_TEST, async (t) => {
    const session = await open(t)
    await session.result("workflows/create", { workflowId: "stays", definition: { type: "sequential", steps: [hash(4)] } })

    assert.equal((await session.result("workflows/create", { workflowId: "stays", definition: { type: "mystery" } })).status, "error")

    const { status, result } = await session.result("workflows/execute", { workflowId: "stays" })
    assert.deepEqual([status, result.result.seed], ["completed", 4])
  })

  test("is another session's too, of the same user", ONE_TEST, async (t) => {
    const [one, two] = [await open(t), await open(t)]
    await one.result("workflows/create", { workflowId: "shared", definition: { type: "sequential", steps: [HASH] } })
    assert.equal((await two.result("workflows/execute", { workflowId: "shared" })).status, "completed")
  })
})

describe("workflows/execute", () => {
  const SEQUENCE = { type: "sequential", steps: [hash(1)] }

  test("gives the deployment's keys", ONE_TEST, async (t) => {
    const session = await open(t)

    const result = await session.execute(SEQUENCE)

    assert.deepEqual(keys(result), ["execution_time", "execution_time_ms", "result", "run_id", "status", "workflow_id"])
    assert.deepEqual(keys(result.result), ["execution_time", "mcp_enhanced", "result"])
    assert.deepEqual([result.workflow_id, result.status, result.result.mcp_enhanced], ["w", "completed", true])
    assert.match(result.execution_time, ISO)
    assert.match(result.result.execution_time, ISO)
    assert.match(result.run_id, RUN_ID)
    assert.ok(Number.isInteger(result.execution_time_ms))
  })

  test("tells of itself where metadata is asked for", ONE_TEST, async (t) => {
    const session = await open(t)
    const metadata = async (options) => (await session.execute(SEQUENCE, { include_metadata: true, ...options })).result.metadata
    const { context_id } = await session.result("contexts/create", { data: {} })

    assert.deepEqual(await metadata({}), { workflow_type: "mcp_enhanced", streaming_enabled: false, context_sharing: false })
    assert.deepEqual(await metadata({ streaming: true, context_id }), { workflow_type: "mcp_enhanced", streaming_enabled: true, context_sharing: true })
  })

  test("answers under the id of the request, of whatever type", ONE_TEST, async (t) => {
    const session = await open(t)
    for (const id of ["é", 17, "17", 1.5]) {
      const answer = await session.ask("workflows/execute", { workflowId: "ids", definition: SEQUENCE }, { id })
      assert.deepEqual([answer.id, answer.jsonrpc, answer.result.status], [id, "2.0", "completed"])
    }
  })

  test("fails at creation where the definition is none", ONE_TEST, async (t) => {
    const session = await open(t)

    const faulty = await session.execute({ type: "sequential" })
    const absent = await session.result("workflows/execute", {})

    assert.deepEqual(faulty.errors, [{ path: "", message: "Missing required field: steps" }])
    assert.deepEqual([faulty.workflow_id, faulty.status, faulty.isError], ["w", "creation_failed", true])
    assert.deepEqual([absent.status, absent.isError, absent.error], ["creation_failed", true, "Missing required field: definition"])
  })

  test("fails in band where a step fails", ONE_TEST, async (t) => {
    const session = await open(t)

    const result = await session.execute({ type: "sequential", steps: [hash(1), { tool: "memory_forget", params: { id: "none" } }] })

    for (const key of ["workflow_id", "run_id", "status", "error", "isError"]) assert.ok(key in result, key)
    assert.deepEqual([result.status, result.isError], ["failed", true])
    assert.match(result.error, /^Tool execution failed: nothing is remembered by the id "none"$/)
    assert.equal(result.result, undefined)
  })

  test("says that arguments do not fit", ONE_TEST, async (t) => {
    const session = await open(t)
    const error = await session.failure({ type: "sequential", steps: [{ tool: "stream_hash", params: { bytes: "many" } }] })
    assert.match(error, /^Validation failed: /)
  })

  test("times out in the deployment's words", ONE_TEST, async (t) => {
    const session = await open(t)
    const slow = { type: "sequential", steps: [{ tool: "countdown", params: { seconds: 60 } }] }

    const began = Date.now()
    const byCaller = await session.failure(slow, { timeout: 150 })
    const byDefinition = await session.failure({ ...slow, timeout_ms: 150 })

    assert.deepEqual([byCaller, byDefinition], ["Workflow execution timed out", "Workflow execution timed out"])
    assert.ok(Date.now() - began < 5_000)
  })

  test("refuses options that are none", ONE_TEST, async (t) => {
    const session = await open(t)
    for (const options of [7, { timeout: 0 }, { timeout: "1" }, { streaming: "yes" }, { context: [] }, { on_disconnect: "explode" }, { context_id: "context_none" }]) {
      const result = await session.execute(SEQUENCE, options)
      assert.deepEqual([result.status, result.isError], ["creation_failed", true], JSON.stringify(options))
    }
  })

  test("goes on by itself where it is asynchronous, and is asked for later", ONE_TEST, async (t) => {
    const session = await open(t)

    const begun = await session.execute(SEQUENCE, { async: true }, { workflowId: "async" })
    const run = await session.ended(begun.run_id)
    const { runs } = await session.result("workflows/runs", { workflowId: "async" })

    assert.deepEqual(keys(begun), ["run_id", "status", "workflow_id"])
    assert.deepEqual([begun.workflow_id, begun.status], ["async", "running"])
    assert.deepEqual(keys(run), ["finished_at", "result", "run_id", "started_at", "status", "workflow_id"])
    assert.deepEqual([run.status, run.result.seed, run.workflow_id], ["completed", 1, "async"])
    assert.match(run.started_at, ISO)
    assert.match(run.finished_at, ISO)
    const { result, ...listed } = run
    assert.deepEqual(runs, [listed])
  })

  test("lists runs by their status, the newest first", ONE_TEST, async (t) => {
    const session = await open(t)
    const ids = []
    for (const tool of ["stream_hash", "nobody", "stream_hash"]) {
      ids.push((await session.execute({ type: "sequential", steps: [{ tool, params: { bytes: 0 } }] }, {}, { workflowId: "listed" })).run_id)
    }
    const list = async (params) => (await session.result("workflows/runs", { workflowId: "listed", ...params })).runs.map(({ run_id }) => run_id)

    assert.deepEqual(await list({}), ids.toReversed())
    assert.deepEqual(await list({ status: "failed" }), [ids[1]])
    assert.deepEqual(await list({ status: "completed", limit: 1 }), [ids[2]])
    assert.equal((await session.result("workflows/runs", { status: "odd" })).isError, true)
    assert.match((await session.result("workflows/run", { runId: ids[1] })).error, /: nobody$/)
    assert.equal((await session.result("workflows/run", { runId: "none" })).isError, true)
  })

  test("is cancelled by another request", ONE_TEST, async (t) => {
    const session = await open(t)
    const run = await session.begin({ type: "sequential", steps: [{ tool: "countdown", params: { seconds: 60 } }] })

    assert.equal((await session.result("workflows/cancel", { runId: run })).status, "cancelled")
    assert.equal((await session.ended(run)).status, "cancelled")
    assert.equal((await session.result("workflows/cancel", { runId: run })).isError, true, "it has ended")
  })
})

describe("workflows/multi_tool", () => {
  test("calls one after another", ONE_TEST, async (t) => {
    const session = await open(t)

    const result = await session.result("workflows/multi_tool", { calls: [hash(1), hash(2)] })

    for (const key of ["operation_type", "status", "result", "tools_executed"]) assert.ok(key in result, key)
    assert.deepEqual([result.operation_type, result.status, result.result.seed], ["multi_tool", "completed", 2])
    assert.deepEqual(result.tools_executed, ["stream_hash", "stream_hash"])
  })

  test("refuses no calls, and what is no call", ONE_TEST, async (t) => {
    const session = await open(t)
    const refused = async (calls) => {
      const result = await session.result("workflows/multi_tool", { calls })
      assert.equal(result.isError, true)
      return result.error
    }

    assert.equal(await refused([]), "Multi-tool operation requires at least one tool call")
    assert.equal(await refused(undefined), "Multi-tool operation requires at least one tool call")
    for (const calls of ["stream_hash", [{}], [7], [{ tool: "" }], [{ tool: "stream_hash", params: 7 }]]) {
      assert.equal(await refused(calls), "Invalid tool call format", JSON.stringify(calls))
    }
    assert.equal(await refused([{ tool: "nobody" }]), "Tool execution failed: Tool not found: nobody")
  })
})

describe("sampling/createMessage", () => {
  const TOOLS = ["file_reader", { name: "web_search", description: "Finds pages" }, "calculator"]

  test("chooses a tool as before", ONE_TEST, async (t) => {
    const session = await open(t)

    const chosen = await session.result("sampling/createMessage", { config: { model: "m", prompt: "search the web", tools: TOOLS } })
    const by = await session.result("sampling/createMessage", { config: { type: "tool_selection", criteria: { task: "calculate" }, tools: TOOLS } })
    const odd = await session.result("sampling/createMessage", { config: { type: "other", tools: TOOLS } })

    assert.deepEqual({ ...chosen, timestamp: "" }, { sampling_type: "tool_selection", selected_tool: TOOLS[1], status: "completed", timestamp: "" })
    assert.equal(by.selected_tool, "calculator")
    assert.deepEqual([odd.status, odd.isError], ["failed", true])
    assert.match(odd.error, /^Invalid sampling/)
  })
})
