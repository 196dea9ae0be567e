// Workflows that something begins: the end of a run, a schedule, a trigger that a client registered.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { openWorkflowSession, SESSION } from "./support/workflows/session.js"
import { startWorkflows } from "./support/workflows/server.js"
import { finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 30_000 }

let server
before(async () => {
  server = await startWorkflows()
})
after(() => server?.close())

const open = (t, options) => openWorkflowSession(t, server, SESSION, options)

const HASH = { tool: "stream_hash", params: { bytes: 8 } }

describe("a reactive workflow", () => {
  const react = (triggers, steps = [{ tool: "memory_remember", input: { content: { from: "$trigger/event", default: "nothing" } } }]) => ({
    type: "reactive",
    triggers,
    workflow: { type: "sequential", steps },
  })
  const runs = async (session, workflowId) => (await session.result("workflows/runs", { workflowId, status: "completed" })).runs
  /** Creates it; it is gone after the test. */
  async function arm(t, session, workflowId, definition) {
    const created = await session.result("workflows/create", { workflowId, definition })
    assert.equal(created.status, "created", JSON.stringify(created))
    finallyDo(t, () => session.result("workflows/delete", { workflowId }))
  }
  const came = (session, workflowId, count = 1) => until(async () => {
    const all = await runs(session, workflowId)
    return all.length >= count && all
  }, `${count} runs of ${workflowId}`)
  /** Lets a run of `watched` end. */
  const watched = (session, steps = [HASH]) => session.execute({ type: "sequential", steps }, {}, { workflowId: "watched" })

  test("runs at once when it is executed", ONE_TEST, async (t) => {
    const session = await open(t)
    const { content } = await session.run(react([{ event: "never" }]))
    assert.equal(content, "nothing")
  })

  test("runs when a run has ended, with what happened", ONE_TEST, async (t) => {
    const session = await open(t)
    const steps = [{ tool: "memory_remember", input: { content: "$trigger/payload/tool" } }]
    await arm(t, session, "after hash", react([{ event: "run_completed", of: "stream_hash" }], steps))

    await session.call("memory_remember", { content: "another tool" })
    await session.call("stream_hash", { bytes: 8 })
    const [{ run_id }] = await came(session, "after hash")

    assert.equal((await session.result("workflows/run", { runId: run_id })).result.content, "stream_hash")
    assert.equal((await runs(session, "after hash")).length, 1, "the other tool's end is none of its")
  })

  test("runs when a workflow has failed, and not when it has not", ONE_TEST, async (t) => {
    const session = await open(t)
    await arm(t, session, "after failure", react([{ event: "run_failed", of: "watched" }]))

    await watched(session)
    await watched(session, [{ tool: "nobody" }])
    const [{ run_id }] = await came(session, "after failure")

    assert.equal((await session.result("workflows/run", { runId: run_id })).result.content, "run_failed")
    assert.equal((await runs(session, "after failure")).length, 1)
  })

  test("runs only where its condition holds, and not while it is inactive", ONE_TEST, async (t) => {
    const session = await open(t)
    const condition = { source: "$trigger/payload/status", op: "eq", value: "failed" }
    await arm(t, session, "conditioned", react([{ event: "run_finished", of: "watched", condition }]))
    await arm(t, session, "inactive", react([{ event: "run_finished", of: "watched", active: false }]))
    await arm(t, session, "active", react([{ event: "run_finished", of: "watched" }]))

    await watched(session)
    await came(session, "active")

    assert.deepEqual([await runs(session, "conditioned"), await runs(session, "inactive")], [[], []])
  })

  test("runs one of several workflows, as the trigger says", ONE_TEST, async (t) => {
    const session = await open(t)
    const say = (content) => ({ type: "sequential", steps: [{ tool: "memory_remember", params: { content } }] })
    await arm(t, session, "several", {
      type: "reactive",
      triggers: [{ event: "run_failed", of: "x", workflow: "bad" }, { event: "run_completed", of: "watched", workflow: "good" }],
      workflows: { bad: say("bad"), good: say("good") },
    })

    await watched(session)
    const [{ run_id }] = await came(session, "several")

    assert.equal((await session.result("workflows/run", { runId: run_id })).result.content, "good")
  })

  test("runs by a schedule, until it is deleted", ONE_TEST, async (t) => {
    const session = await open(t)
    await arm(t, session, "scheduled", react([{ event: "schedule", every_ms: 100 }]))

    await came(session, "scheduled", 2)
    await session.result("workflows/delete", { workflowId: "scheduled" })
    const { length } = (await session.result("workflows/runs", { workflowId: "scheduled" })).runs
    await new Promise((resolve) => setTimeout(resolve, 400))

    const later = (await session.result("workflows/runs", { workflowId: "scheduled" })).runs.length
    assert.ok(later <= length + 1, `${length} runs, then ${later}`)
  })

  test("is heeded no longer when another takes its place", ONE_TEST, async (t) => {
    const session = await open(t)
    await arm(t, session, "replaced", react([{ event: "run_completed", of: "watched" }]))
    await arm(t, session, "replaced", { type: "sequential", steps: [HASH] })
    await arm(t, session, "still there", react([{ event: "run_completed", of: "watched" }]))

    await watched(session)
    await came(session, "still there")

    assert.deepEqual(await runs(session, "replaced"), [])
  })

  test("runs when an event is broadcast on a topic", ONE_TEST, async (t) => {
    const session = await open(t)
    const condition = { source: "$trigger/payload/tool", op: "eq", value: "stream_hash" }
    const steps = [{ tool: "memory_remember", input: { content: "$trigger/topic" } }]
    await arm(t, session, "broadcast", react([{ event: "order", condition }], steps))

    for (const tool of ["another", "stream_hash"]) {
      assert.equal((await session.result("workflows/emit", { event: "order", payload: { tool } })).status, "emitted")
    }
    const [{ run_id }] = await came(session, "broadcast")

    assert.equal((await session.result("workflows/run", { runId: run_id })).result.content, "mcp:events:order")
    assert.equal((await runs(session, "broadcast")).length, 1)
  })

  test("runs after a delay", ONE_TEST, async (t) => {
    const session = await open(t)
    await arm(t, session, "delayed", react([{ event: "run_completed", of: "watched", delay: 300 }]))

    const began = Date.now()
    await watched(session)
    await came(session, "delayed")

    assert.ok(Date.now() - began >= 300)
  })

  test("does not begin itself for ever", ONE_TEST, async (t) => {
    const session = await open(t)
    const all = async () => (await session.result("workflows/runs", { workflowId: "circle" })).runs.length
    await arm(t, session, "circle", react([{ event: "run_completed", of: "circle" }]))

    await session.execute(undefined, undefined, { workflowId: "circle" })
    let before
    await until(async () => {
      before = await all()
      await new Promise((resolve) => setTimeout(resolve, 200))
      return before > 1 && (await all()) === before
    })

    assert.ok(before <= 10, `${before} runs`)
  })

  test("waits within another for its trigger", ONE_TEST, async (t) => {
    const session = await open(t)
    const inner = react([{ event: "run_completed", of: "watched" }], [{ tool: "memory_remember", input: { content: "$trigger/event" } }])
    const run = await session.begin({ type: "sequential", steps: [{ ...inner, id: "waiting" }] }, { timeout: 20_000 })
    await until(async () => (await session.result("workflows/run", { runId: run })).status === "running")

    await until(async () => {
      await watched(session)
      return (await session.result("workflows/run", { runId: run })).status !== "running"
    })

    const { status, result } = await session.ended(run)
    assert.deepEqual([status, result?.content], ["completed", "run_completed"])
  })

  test("is begun by a trigger that is registered, until that is removed", ONE_TEST, async (t) => {
    const session = await open(t)
    await session.result("workflows/create", { workflowId: "triggered", definition: { type: "sequential", steps: [{ tool: "memory_remember", params: { content: "triggered" } }] } })
    const trigger = { event: "run_completed", of: "watched", workflow: "triggered" }

    const registered = await session.result("workflows/register_trigger", { trigger })
    await watched(session)
    await came(session, "triggered")
    const { triggers } = await session.result("workflows/triggers")
    const removed = await session.result("workflows/remove_trigger", { triggerId: registered.trigger_id })
    await watched(session)

    assert.match(registered.trigger_id, /^trigger_[0-9a-f]{16}$/)
    const { trigger_id, ...rest } = registered
    assert.deepEqual(rest, { status: "registered", event: "run_completed", workflow: "triggered", active: true })
    assert.deepEqual(triggers.map(({ trigger_id, workflow }) => [trigger_id, workflow]), [[trigger_id, "triggered"]])
    assert.equal(removed.status, "removed")
    assert.equal((await session.result("workflows/triggers")).total_count, 0)
    assert.equal((await session.result("workflows/remove_trigger", { triggerId: trigger_id })).isError, true)
    assert.equal((await runs(session, "triggered")).length, 1)
  })

  test("is refused as a trigger without its fields", ONE_TEST, async (t) => {
    const session = await open(t)
    const refused = async (trigger) => {
      const { isError, error } = await session.result("workflows/register_trigger", { trigger })
      assert.equal(isError, true)
      return error
    }

    assert.equal(await refused({ workflow: "w" }), "Missing required trigger field: event")
    assert.equal(await refused({ event: "e" }), "Missing required trigger field: workflow")
  })
})
