// What outlives the process: a server with a file is killed while workflows run, and started again.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { openDashboard } from "./support/gateway/phoenix_session.js"
import { HUB, openWorkflowSession, SESSION } from "./support/workflows/session.js"
import { startWorkflows } from "./support/workflows/server.js"
import { finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 60_000 }

const sequence = (...steps) => ({ type: "sequential", steps })
const remember = (content, further) => ({ tool: "memory_remember", params: { content }, ...further })
const linger = (mark, further) => ({ tool: "linger", params: { mark }, id: "linger", ...further })
const give = (params, further) => ({ tool: "give", params, ...further })
const HASH = { tool: "stream_hash", params: { bytes: 8, seed: 7 }, id: "hash" }
const COUNTDOWN = { tool: "countdown", params: { seconds: 3, interval_ms: 200 }, id: "count" }
const LONG = { timeout: 60_000 }

async function memories(session) {
  const { contents } = await session.result("resources/read", { uri: "memory://short-term/current" })
  return JSON.parse(contents[0].text).items.map(({ content }) => content)
}
const calls = async (server, mark) => (await server.noted(mark)).filter(({ tool }) => tool).length

/** Executes without waiting for the answer, which never comes. */
function attach(session) {
  const params = { workflowId: "attached", definition: sequence(COUNTDOWN, HASH) }
  session.push({ jsonrpc: "2.0", id: "attached", method: "workflows/execute", params })
}

describe("a server that is killed and started again", () => {
  let server
  /** Runs by what is asked of them. */
  const runs = {}
  let contextId
  let triggerId
  const undone = []
  /** What sessions of the story before the tests are opened for; they end with it. */
  const story = { after: (undo) => undone.push(undo) }

  before(async () => {
    server = await startWorkflows({ isDurable: true })
    const session = await openWorkflowSession(story, server, SESSION)
    const hub = await openWorkflowSession(story, server, HUB)
    const { context_id } = await session.result("contexts/create", { data: { kept: true } })
    contextId = context_id
    await session.result("contexts/update", { contextId, data: { kept: "twice" } })
    await session.result("workflows/create", { workflowId: "kept", definition: sequence(HASH) })
    await session.result("workflows/create", {
      workflowId: "reactive",
      definition: { type: "reactive", triggers: [{ event: "run_completed", of: "after restart" }], workflow: sequence(remember("reacted")) },
    })
    const registered = await session.result("workflows/register_trigger", { trigger: { event: "run_completed", of: "after restart", workflow: "kept" } })
    triggerId = registered.trigger_id
    await session.result("workflows/register_template", {
      template: { name: "kept", version: "1.0.0", description: "d", parameters: [{ name: "seed", type: "integer", default: 3 }], definition: sequence({ tool: "stream_hash", params: { bytes: 8, seed: "{{seed}}" } }) },
    })
    runs.ended = (await session.execute(sequence(HASH), {}, { workflowId: "ended" })).run_id

    runs.resumed = await session.begin(sequence(remember("before"), COUNTDOWN, HASH), LONG, { workflowId: "resumed" })
    runs.once = await session.begin({ type: "parallel", steps: [remember("once", { run_once: true, id: "once" }), COUNTDOWN] }, LONG)
    runs.failed = await session.begin({ ...sequence(COUNTDOWN), on_restart: "fail" }, LONG)
    attach(session)
    runs.timed = await session.begin(sequence({ tool: "countdown", params: { seconds: 60 } }), { timeout: 4_000 })
    runs.again = await hub.begin(sequence(give({ kept: [1] }, { id: "first" }), linger("again"), { tool: "take", input: { value: "first/kept" } }), LONG)
    runs.notAgain = await hub.begin(sequence(linger("not again", { run_once: true }), give({ mark: "behind not again" })), LONG)
    runs.replaced = await hub.begin(sequence(linger("replaced", { run_once: true, on_error: { value: "may have run" } }), { tool: "take", input: { value: "linger" } }), LONG)
    runs.looped = await hub.begin({ type: "loop", items: ["a", "b", "c"], steps: [give({}, { id: "each" }), { tool: "linger", input: { mark: "$item" } }], id: "rows" }, LONG)
    runs.retried = await hub.begin(sequence({ tool: "falter", params: { mark: "retried", times: 1 }, retry: { max: 1, delay_ms: 3_000 } }), LONG)

    await until(async () => (await memories(session)).includes("once"))
    for (const mark of ["again", "not again", "replaced", "a"]) await until(async () => (await calls(server, mark)) === 1, `a call of ${mark}`)
    await until(async () => (await server.noted("retried")).some(({ ended }) => ended))
    // What a run knows is written down a moment after it happened.
    await new Promise((resolve) => setTimeout(resolve, 300))
    const { runs: all } = await session.result("workflows/runs", { workflowId: "attached" })
    runs.attached = all[0].run_id

    await server.restart("SIGKILL", async () => {
      for (const undo of undone) await undo()
    })
  })
  after(() => server?.close())

  const open = (t) => openWorkflowSession(t, server, SESSION)

  test("goes on with its runs, without what was done already", ONE_TEST, async (t) => {
    const session = await open(t)

    const { status, result, workflow_id } = await session.ended(runs.resumed)

    assert.deepEqual([status, result.seed, workflow_id], ["completed", 7, "resumed"])
    assert.equal((await memories(session)).filter((content) => content === "before").length, 1)
  })

  test("does not do twice what is to be done once", ONE_TEST, async (t) => {
    const session = await open(t)

    const { status, result } = await session.ended(runs.once)

    assert.deepEqual([status, result.once.content], ["completed", "once"])
    assert.equal((await memories(session)).filter((content) => content === "once").length, 1)
  })

  test("goes on with a run whose caller was cut off with it", ONE_TEST, async (t) => {
    const session = await open(t)
    const { status, result } = await session.ended(runs.attached)
    assert.deepEqual([status, result.seed], ["completed", 7])
  })

  test("has failed the runs that are not to go on", ONE_TEST, async (t) => {
    const session = await open(t)
    const { status, error, finished_at } = await session.ended(runs.failed)

    assert.deepEqual([status, error], ["failed", "Workflow execution failed: interrupted by a restart of the server"])
    assert.notEqual(finished_at, undefined)
  })

  test("counts a run's time on", ONE_TEST, async (t) => {
    const session = await open(t)
    const { status, error, started_at, finished_at } = await session.ended(runs.timed)

    assert.deepEqual([status, error], ["failed", "Workflow execution timed out"])
    assert.ok(new Date(finished_at) - new Date(started_at) < 15_000)
  })

  test("calls a tool again whose call was cut short, with what came before", ONE_TEST, async (t) => {
    const session = await open(t)
    const { status, result } = await session.ended(runs.again)

    assert.deepEqual([status, result], ["completed", { value: [1] }])
    assert.equal(await calls(server, "again"), 2)
  })

  test("does not call a tool again that runs once, and fails", ONE_TEST, async (t) => {
    const session = await open(t)
    const { status, error } = await session.ended(runs.notAgain)

    assert.equal(status, "failed")
    assert.match(error, /^Workflow execution failed: step linger: it may have run already/)
    assert.deepEqual([await calls(server, "not again"), await calls(server, "behind not again")], [1, 0])
  })

  test("does not call a tool again that runs once, and does what is to be done where it fails", ONE_TEST, async (t) => {
    const session = await open(t)
    const { status, result } = await session.ended(runs.replaced)

    assert.deepEqual([status, result], ["completed", { value: "may have run" }])
    assert.equal(await calls(server, "replaced"), 1)
  })

  test("goes on in the round of a loop in which it was", ONE_TEST, async (t) => {
    const session = await open(t)
    await until(async () => (await calls(server, "b")) === 1)
    // Each round lingers once; the second and the third are not cut short.
    await session.result("workflows/cancel", { runId: runs.looped })

    assert.deepEqual([await calls(server, "a"), await calls(server, "b"), await calls(server, "c")], [2, 1, 0])
  })

  test("goes on with an attempt that was being waited for", ONE_TEST, async (t) => {
    const session = await open(t)
    const { status, result } = await session.ended(runs.retried)
    assert.deepEqual([status, result], ["completed", { calls: 2 }])
  })

  test("tells those who watch a run that goes on all of it, from its beginning", ONE_TEST, async (t) => {
    const session = await open(t)
    await session.ended(runs.again)

    const events = await (await openDashboard(t, server)).watch(runs.again)

    assert.deepEqual(events.map(({ seq }) => seq), events.map((_, at) => at + 1))
    const told = events.map(({ type, data }) => (data.step_name === undefined ? type : `${type} ${data.step_name}`))
    const steps = ["first", "linger", "take"].flatMap((step) => [`step_started ${step}`, `step_completed ${step}`])
    assert.deepEqual(told, ["workflow_started", ...steps, "workflow_completed"])
  })

  test("knows the runs that had ended", ONE_TEST, async (t) => {
    const session = await open(t)
    const { status, result } = await session.result("workflows/run", { runId: runs.ended })
    assert.deepEqual([status, result.seed], ["completed", 7])
    const { runs: all } = await session.result("workflows/runs")
    assert.ok(Object.values(runs).every((id) => all.some(({ run_id }) => run_id === id)))
  })

  test("has its workflows, templates, contexts and triggers", ONE_TEST, async (t) => {
    const session = await open(t)

    assert.equal((await session.result("workflows/execute", { workflowId: "kept" })).result.result.seed, 7)
    assert.equal((await session.run({ type: "template", template: "kept", params: {} })).seed, 3)
    const context = await session.result("contexts/get", { contextId })
    assert.deepEqual([context.data, context.version], [{ kept: "twice" }, 2])
    assert.deepEqual((await session.result("contexts/get", { contextId, version: 1 })).data, { kept: true })
    assert.deepEqual((await session.result("workflows/triggers")).triggers.map(({ trigger_id }) => trigger_id), [triggerId])
  })

  test("heeds its triggers", ONE_TEST, async (t) => {
    const session = await open(t)
    const count = async (workflowId) => (await session.result("workflows/runs", { workflowId, status: "completed" })).runs.length
    const before = await count("kept")

    await session.execute(sequence(HASH), {}, { workflowId: "after restart" })

    await until(async () => (await count("reactive")) === 1)
    await until(async () => (await count("kept")) === before + 1)
  })
})

describe("a server that is stopped and started again", () => {
  test("goes on with its runs, waited for or not", ONE_TEST, async (t) => {
    const server = await startWorkflows({ isDurable: true })
    finallyDo(t, () => server.close())
    const session = await openWorkflowSession(t, server, SESSION)
    const run = await session.begin(sequence(remember("before"), COUNTDOWN, HASH), LONG)
    await until(async () => (await memories(session)).includes("before"))
    attach(session)
    const attached = () => session.result("workflows/runs", { workflowId: "attached" })
    const { runs: [{ run_id }] } = await until(async () => (await attached()).total_count > 0 && attached())

    await server.restart("SIGTERM", async () => session.socket.disconnect())

    const later = await openWorkflowSession(t, server, SESSION)
    const { status, result } = await later.ended(run)
    assert.deepEqual([status, result.seed], ["completed", 7])
    assert.deepEqual(await memories(later), ["before"])
    assert.equal((await later.ended(run_id)).status, "completed")
  })
})
