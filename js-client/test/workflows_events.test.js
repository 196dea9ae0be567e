// What is told of a run while it goes on: to its caller, to those who watch, without secrets; and how it ends before its time.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { openDashboard } from "./support/gateway/phoenix_session.js"
import { startGateway } from "./support/gateway/server.js"
import { HUB, observe, openWorkflowSession, SESSION, TERMINAL } from "./support/workflows/session.js"
import { startWorkflows } from "./support/workflows/server.js"
import { finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 30_000 }
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/

let server
before(async () => {
  server = await startWorkflows()
})
after(() => server?.close())

const open = (t, options) => openWorkflowSession(t, server, SESSION, options)
const openHub = (t, options) => openWorkflowSession(t, server, HUB, options)

const sequence = (...steps) => ({ type: "sequential", steps })
const hash = (id, seed = 0) => ({ tool: "stream_hash", params: { bytes: 8, seed }, id })
/** A step that says nothing on its way. */
const quiet = (id) => ({ tool: "memory_remember", params: { content: id }, id })
const COUNTDOWN = { tool: "countdown", params: { seconds: 60 } }
const SHORT_COUNTDOWN = { tool: "countdown", params: { seconds: 1, interval_ms: 250 }, id: "count" }
const types = (events) => events.map(({ type, data }) => (data.step_name === undefined ? type : `${type} ${data.step_name}`))

describe("a run that streams", () => {
  test("tells each step in the deployment's order, before the response", ONE_TEST, async (t) => {
    const session = await open(t)

    await session.run(sequence(quiet("one"), SHORT_COUNTDOWN, quiet("two")), { streaming: true })

    const [last, terminal, ...rest] = session.timeline.toReversed()
    assert.equal(last.event, "mcp_message")
    assert.equal(terminal.payload.type, "workflow_completed")
    const told = types(rest.toReversed().map(({ payload }) => payload)).filter((type, at, all) => type !== all[at - 1])
    assert.deepEqual(told, [
      "workflow_started",
      "step_started one",
      "step_completed one",
      "step_started count",
      "step_progress count",
      "step_completed count",
      "step_started two",
      "step_completed two",
    ])
  })

  test("tells each event in the deployment's envelope, numbered without gaps", ONE_TEST, async (t) => {
    const session = await open(t)

    const { run_id } = await session.execute(sequence(hash("one"), hash("two")), { streaming: true }, { workflowId: "enveloped é" })

    const events = session.events()
    assert.deepEqual(events.map(({ seq }) => seq), events.map((_, at) => at + 1))
    assert.equal(new Set(events.map(({ stream_id }) => stream_id)).size, 1)
    for (const event of events) {
      assert.deepEqual(Object.keys(event).sort(), ["data", "request_id", "run_id", "seq", "stream_id", "timestamp", "type", "workflow_id"])
      assert.match(event.stream_id, /^stream_[0-9a-f]{16}$/)
      assert.match(event.timestamp, ISO)
      assert.equal(event.run_id, run_id)
      assert.equal(event.request_id, session.heard.at(-1).id)
      assert.equal(event.workflow_id, "enveloped é")
      assert.equal(event.data.workflow_id, "enveloped é")
    }
  })

  test("tells of each event what the deployment tells", ONE_TEST, async (t) => {
    const session = await openHub(t)
    const steps = [{ tool: "say", params: { text: "é" }, id: "said" }, { tool: "wait", params: { ms: 5, mark: "half" }, id: "waited" }]

    await session.run(sequence(...steps), { streaming: true, context: { user: "Ada" } })

    const data = Object.fromEntries(session.events().map(({ type, data }) => [`${type} ${data.step_name ?? ""}`.trim(), data]))
    const { workflow_started: started, workflow_completed: completed } = data
    assert.deepEqual([started.workflow_id, started.context, started.options.streaming], ["w", { user: "Ada", sanitized: true }, true])
    assert.match(started.timestamp, ISO)
    assert.deepEqual(data["step_completed said"].result, { type: "text", content: "é" })
    assert.deepEqual(data["step_completed waited"].result, { type: "json", content: { waited: 5, mark: "half" } })
    assert.ok(Number.isInteger(data["step_completed said"].execution_time_ms))
    assert.deepEqual(data["step_progress waited"].progress, { progress: 1, total: 2, message: "half" })
    assert.deepEqual([data["step_started said"].step_path, data["step_started said"].attempt], ["said", 1])
    assert.deepEqual([completed.result, completed.workflow_id], [{ waited: 5, mark: "half" }, "w"])
    assert.match(completed.execution_time, ISO)
  })

  test("tells the parts of what runs side by side, and the rounds of a loop", ONE_TEST, async (t) => {
    const session = await open(t)
    const loop = { type: "loop", items: [1, 2], steps: [hash("round")], id: "rows" }

    await session.run(sequence({ type: "parallel", steps: [hash("left"), hash("right")], id: "both" }, loop), { streaming: true })

    const events = session.events()
    const parts = events.filter(({ type }) => type === "intermediate_result").map(({ data }) => [data.step_name, data.part, data.result.content.bytes])
    assert.deepEqual(parts.sort(), [["both", "left", 8], ["both", "right", 8], ["rows", 0, 8], ["rows", 1, 8]])
    const paths = events.filter(({ type }) => type === "step_completed").map(({ data }) => data.step_path)
    assert.deepEqual(paths.sort(), ["both", "both/left", "both/right", "rows", "rows[0]/round", "rows[1]/round"])
    const place = (type, step) => types(events).indexOf(`${type} ${step}`)
    for (const branch of ["left", "right"]) {
      assert.ok(place("step_started", "both") < place("step_started", branch))
      assert.ok(place("step_started", branch) < place("step_completed", branch))
      assert.ok(place("step_completed", branch) < place("step_completed", "both"))
    }
  })

  test("tells which step failed, and ends with that", ONE_TEST, async (t) => {
    const session = await openHub(t)
    const falter = { tool: "falter", params: { mark: "told", times: 1 }, retry: { max: 1, delay_ms: 1 } }

    const error = await session.failure(sequence(falter, { tool: "fail", params: { message: "broken" } }), { streaming: true })

    const events = session.events()
    assert.deepEqual(types(events), [
      "workflow_started",
      "step_started falter",
      "step_failed falter",
      "step_started falter",
      "step_completed falter",
      "step_started fail",
      "step_failed fail",
      "workflow_failed",
    ])
    const failures = events.filter(({ type }) => type === "step_failed").map(({ data }) => [data.error, data.attempt])
    assert.deepEqual(failures, [["failure 1", 1], ["broken", 1]])
    assert.deepEqual([events[3].data.attempt, events.at(-1).data.error], [2, error])
  })

  /** Each attempt of a step that began, and how often it ended. */
  function endings(events) {
    const place = ({ data }) => `${data.step_path} ${data.attempt}`
    const ended = events.filter(({ type }) => ["step_completed", "step_failed"].includes(type)).map(place)
    return events.filter(({ type }) => type === "step_started").map((event) => [place(event), ended.filter((other) => other === place(event)).length])
  }

  test("tells of each step that began how it ended, also of what goes no further", ONE_TEST, async (t) => {
    const session = await openHub(t)
    const wait = (id) => ({ tool: "wait", params: { ms: 60_000 }, id })
    const broken = sequence({ tool: "wait", params: { ms: 100 }, id: "first" }, { tool: "fail", params: { message: "broken" }, id: "bad" })
    const beside = { type: "parallel", steps: [wait("beside"), { ...broken, id: "line" }], id: "both" }

    const failed = await session.execute(sequence(beside), { streaming: true })
    const timedOut = await session.execute(sequence({ type: "parallel", steps: [wait("slow")], id: "all" }), { streaming: true, timeout: 150 })

    const of = ({ run_id }) => endings(session.events(run_id))
    assert.deepEqual(of(failed), [["both 1", 1], ["both/beside 1", 1], ["both/line 1", 1], ["both/line/first 1", 1], ["both/line/bad 1", 1]])
    assert.deepEqual(of(timedOut), [["all 1", 1], ["all/slow 1", 1]])
    assert.ok([failed, timedOut].every(({ run_id }) => session.events(run_id).at(-1).type === "workflow_failed"))
  })

  test("tells nothing to a caller that does not ask for it", ONE_TEST, async (t) => {
    const session = await open(t)
    for (const options of [undefined, {}, { streaming: false }]) await session.run(sequence(hash("one")), options)
    assert.deepEqual(session.events(), [])
  })

  test("tells two callers each its own", ONE_TEST, async (t) => {
    const [one, two] = [await open(t), await open(t)]

    const ids = await Promise.all([one, two].map(async (session) => (await session.execute(sequence(quiet("one")), { streaming: true })).run_id))

    for (const [at, session] of [one, two].entries()) {
      assert.deepEqual([...new Set(session.events().map(({ run_id }) => run_id))], [ids[at]])
      assert.equal(session.events().length, 4)
    }
  })
})

describe("those who watch", () => {
  test("hear the same beside the session, streamed or not", ONE_TEST, async (t) => {
    const session = await open(t)
    const observed = await observe(session)

    const streamed = await session.execute(sequence(hash("one"), SHORT_COUNTDOWN), { streaming: true })
    const silent = await session.execute(sequence(quiet("two")))

    const of = ({ run_id }) => observed.filter((event) => event.run_id === run_id)
    await until(() => observed.filter(({ type }) => TERMINAL.includes(type)).length === 2)
    assert.deepEqual(of(streamed), session.events(streamed.run_id))
    assert.deepEqual(types(of(silent)), ["workflow_started", "step_started two", "step_completed two", "workflow_completed"])
  })

  test("hear the same of the run by its id, whenever they come", ONE_TEST, async (t) => {
    const session = await open(t)
    const dashboard = await openDashboard(t, server)
    const running = session.execute(sequence(hash("one"), SHORT_COUNTDOWN), { streaming: true }, { workflowId: "watched" })
    const { run_id } = await dashboard.run("watched")

    const during = await dashboard.watch(run_id)
    await running
    const afterwards = await dashboard.watch(run_id)

    await until(() => TERMINAL.includes(during.at(-1).type))
    assert.deepEqual(during, session.events())
    assert.deepEqual(afterwards, session.events())
  })

  test("hear of each run's beginning and end among all runs", ONE_TEST, async (t) => {
    const session = await open(t)
    const dashboard = await openDashboard(t, server)

    const good = await session.execute(sequence(hash("one")), {}, { workflowId: "announced" })
    const bad = await session.execute(sequence({ tool: "nobody" }), {}, { workflowId: "announced" })

    const ends = await Promise.all([good, bad].map(({ run_id }) => dashboard.end(run_id)))
    assert.deepEqual(ends.map(({ status, workflow_id }) => [status, workflow_id]), [["completed", "announced"], ["failed", "announced"]])
    assert.deepEqual(dashboard.started.map(({ run_id, status }) => [run_id, status]), [[good.run_id, "running"], [bad.run_id, "running"]])
  })

  test("see a run that nobody waits for", ONE_TEST, async (t) => {
    const session = await open(t)
    const dashboard = await openDashboard(t, server)

    const run = await session.begin(sequence(quiet("one")), { streaming: true })

    await dashboard.end(run)
    assert.deepEqual(types(await dashboard.watch(run)), ["workflow_started", "step_started one", "step_completed one", "workflow_completed"])
  })

  test("hear of progress by the caller's token, before the response", ONE_TEST, async (t) => {
    const session = await open(t)

    await session.run(sequence(hash("one"), hash("two"), hash("three")), undefined, { _meta: { progressToken: "tøken" } })

    const told = session.heard.filter(({ method }) => method === "notifications/progress").map(({ params }) => params)
    assert.ok(told.length > 0)
    assert.ok(told.every(({ progressToken, total }) => progressToken === "tøken" && total === 3))
    assert.deepEqual(told.map(({ progress }) => progress), told.map(({ progress }) => progress).sort())
    assert.equal(told.at(-1).progress, 3)
    assert.notEqual(session.heard.at(-1).method, "notifications/progress")
  })
})

describe("secrets", () => {
  const SECRET = "hunter2"
  const BEARER = "Bearer abc.hunter2.def"
  /** What a step gives: in keys, in texts, deep, in JSON within text. */
  const RESULT = {
    password: SECRET,
    nested: [{ apiKey: SECRET, DB_PASSWORD: SECRET, access_token: { a: SECRET } }],
    text: `password=${SECRET} and token: ${SECRET}`,
    header: BEARER,
    json: JSON.stringify({ client_secret: SECRET }),
    max_tokens: 7,
    plain: "stays",
  }
  const CONTEXT = { user: "Ada", credentials: { a: SECRET }, secrets: [SECRET], tokens: SECRET, password: SECRET, deep: { apiKey: SECRET } }
  const give = (id, further) => ({ tool: "give", params: RESULT, id, ...further })

  /** Everything that was told of a run, to whomever. */
  async function told(session, runId, dashboard, observed) {
    const watched = await dashboard.watch(runId)
    await until(() => TERMINAL.includes(watched.at(-1)?.type))
    await until(() => observed.some(({ run_id, type }) => run_id === runId && TERMINAL.includes(type)))
    const own = session.events(runId)
    assert.ok(own.length > 2)
    return [own, watched, observed.filter(({ run_id }) => run_id === runId)]
  }

  test("are masked in every event, and whole for the caller", ONE_TEST, async (t) => {
    const session = await openHub(t)
    const dashboard = await openDashboard(t, server)
    const observed = await observe(session)
    const definition = sequence(
      give("first"),
      { type: "parallel", steps: [give("left"), give("right")], id: "both" },
      { type: "loop", items: [1, 2], steps: [give("round")], id: "rows" },
      { tool: "wait", params: { ms: 1, mark: `token=${SECRET}` } },
      { tool: "fail", params: { message: `password: ${SECRET} rejected` }, on_error: "continue" },
      give("last"),
    )

    const { result, run_id } = await session.execute(definition, { streaming: true, context: CONTEXT, input: RESULT })

    for (const [key, value] of Object.entries(RESULT)) assert.deepEqual(result.result[key], value, key)
    for (const events of await told(session, run_id, dashboard, observed)) {
      for (const event of events) assert.ok(!JSON.stringify(event).includes(SECRET), JSON.stringify(event))
      const of = (type) => events.find((event) => event.type === type).data
      assert.deepEqual(of("workflow_started").context, { user: "Ada", password: "[REDACTED]", deep: { apiKey: "[REDACTED]" }, sanitized: true })
      assert.equal(of("workflow_started").options.sanitized, true)
      const { content } = of("step_completed").result
      assert.deepEqual([content.password, content.plain, content.max_tokens], ["[REDACTED]", "stays", 7])
      assert.equal(of("intermediate_result").result.content.password, "[REDACTED]")
      assert.equal(of("step_failed").error, "password=*** rejected")
      assert.equal(of("workflow_completed").result.password, "[REDACTED]")
    }
  })

  test("are masked in the error of a run, and whole for the caller", ONE_TEST, async (t) => {
    const session = await openHub(t)
    const dashboard = await openDashboard(t, server)
    const observed = await observe(session)

    const { error, run_id } = await session.execute(sequence({ tool: "fail", params: { message: `token=${SECRET}` } }), { streaming: true })

    assert.equal(error, `Tool execution failed: token=${SECRET}`)
    for (const events of await told(session, run_id, dashboard, observed)) {
      for (const event of events) assert.ok(!JSON.stringify(event).includes(SECRET), JSON.stringify(event))
      assert.equal(events.at(-1).data.error, "Tool execution failed: token=***")
    }
  })

  test("are masked where they stand in the definition's own names", ONE_TEST, async (t) => {
    const session = await openHub(t)
    const { run_id } = await session.execute(sequence(give("one")), { streaming: true, context: { note: `secret=${SECRET}` } }, { workflowId: "plain" })
    for (const event of session.events(run_id)) assert.ok(!JSON.stringify(event).includes(SECRET), JSON.stringify(event))
  })
})

describe("a run that is ended before its time", () => {
  const cancel = (session, requestId) => session.notify("notifications/cancelled", { requestId, reason: "enough" })
  /** Executes without waiting; gives the run once it is announced. */
  async function begin(t, session, definition, options, workflowId) {
    const dashboard = await openDashboard(t, server)
    session.push({ jsonrpc: "2.0", id: workflowId, method: "workflows/execute", params: { workflowId, definition, options } })
    const { run_id } = await dashboard.run(workflowId)
    return { run: run_id, dashboard }
  }
  const answer = (session, id) => session.heard.find((message) => message.id === id)

  test("ends with its tool when its client takes the request back", ONE_TEST, async (t) => {
    const session = await open(t)
    const { run, dashboard } = await begin(t, session, sequence(hash("one"), { ...COUNTDOWN, id: "count" }), {}, "taken back")
    const events = await dashboard.watch(run)
    await until(() => types(events).includes("step_started count"))

    const began = Date.now()
    cancel(session, "taken back")
    await until(() => TERMINAL.includes(events.at(-1).type))

    assert.ok(Date.now() - began < 2_000)
    assert.equal(events.at(-1).type, "workflow_failed")
    assert.equal((await session.ended(run)).status, "cancelled")
    const told = events.length
    await new Promise((resolve) => setTimeout(resolve, 1_200))
    assert.equal(events.length, told, "the countdown counts no more")
    assert.equal(answer(session, "taken back"), undefined)
  })

  test("tells its end to its own client too, if it streams", ONE_TEST, async (t) => {
    const session = await open(t)
    await begin(t, session, sequence(COUNTDOWN), { streaming: true }, "streamed and taken back")
    await until(() => types(session.events()).includes("step_started countdown"))

    cancel(session, "streamed and taken back")

    await until(() => session.events().at(-1).type === "workflow_failed")
    assert.equal(answer(session, "streamed and taken back"), undefined)
  })

  test("takes the call back from the server whose tool it is", ONE_TEST, async (t) => {
    const session = await openHub(t)
    const mark = "taken back elsewhere"
    const { run } = await begin(t, session, sequence({ tool: "wait", params: { ms: 60_000, mark } }), {}, mark)
    await until(async () => (await server.noted(mark)).length === 1)

    cancel(session, mark)

    await until(async () => (await server.noted(mark)).some(({ cancelled }) => cancelled === "wait"))
    assert.equal((await session.ended(run)).status, "cancelled")
  })

  test("ends in its time while a server that may have its tools does not answer", ONE_TEST, async (t) => {
    const gateway = await startGateway({ hung: { command: "sleep", args: ["60"] } })
    finallyDo(t, () => gateway.close())
    const session = await openWorkflowSession(t, gateway, HUB)

    const began = Date.now()
    const error = await session.failure(sequence(COUNTDOWN), { timeout: 300 })

    assert.equal(error, "Workflow execution timed out")
    assert.ok(Date.now() - began < 2_000)
  })

  test("goes on when its client has gone, and is asked for by another session", ONE_TEST, async (t) => {
    const [session, other] = [await open(t), await open(t)]
    const { run, dashboard } = await begin(t, session, sequence(SHORT_COUNTDOWN, hash("last", 7)), {}, "left alone")
    const events = await dashboard.watch(run)
    await until(() => types(events).includes("step_started count"))

    session.socket.disconnect()
    const before = await other.result("workflows/run", { runId: run })
    const { status, result } = await other.ended(run)

    assert.equal(before.status, "running")
    assert.deepEqual([status, result.seed], ["completed", 7])
  })

  for (const [what, definition, options] of [
    ["its definition", { ...sequence(COUNTDOWN), on_disconnect: "cancel" }, {}],
    ["its caller", sequence(COUNTDOWN), { on_disconnect: "cancel" }],
  ]) {
    test(`ends when its client has gone, if ${what} says so`, ONE_TEST, async (t) => {
      const [session, other] = [await open(t), await open(t)]
      const { run } = await begin(t, session, definition, options, `gone by ${what}`)

      session.socket.disconnect()

      assert.equal((await other.ended(run)).status, "cancelled")
    })
  }

  test("goes on when its caller says so, whatever its definition says", ONE_TEST, async (t) => {
    const [session, other] = [await open(t), await open(t)]
    const definition = { ...sequence(SHORT_COUNTDOWN), on_disconnect: "cancel" }
    const { run } = await begin(t, session, definition, { on_disconnect: "continue" }, "kept by its caller")

    session.socket.disconnect()

    assert.equal((await other.ended(run)).status, "completed")
  })

  test("ends when its channel is left, if it says so", ONE_TEST, async (t) => {
    const [session, other] = [await open(t), await open(t)]
    const { run } = await begin(t, session, sequence(COUNTDOWN), { on_disconnect: "cancel" }, "channel left")

    session.channel.leave()

    assert.equal((await other.ended(run)).status, "cancelled")
  })

  test("is cancelled by its id from another session, and its caller is told", ONE_TEST, async (t) => {
    const [session, other] = [await open(t), await open(t)]
    const { run } = await begin(t, session, sequence(COUNTDOWN), {}, "cancelled elsewhere")

    assert.equal((await other.result("workflows/cancel", { runId: run })).status, "cancelled")

    const { result } = await until(() => answer(session, "cancelled elsewhere"))
    assert.deepEqual([result.status, result.isError], ["failed", true])
    assert.match(result.error, /^Workflow execution failed: .*cancelled/)
  })
})
