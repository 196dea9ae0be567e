// A client of the Elixir deployment that executes workflows, on a stock phoenix.js channel.

import { join, openPhoenixSession } from "../gateway/phoenix_session.js"
import { until } from "../waiting.js"

export const SESSION = "mcp:session"
export const HUB = "mcp:hub"
export const TERMINAL = ["workflow_completed", "workflow_failed"]

const CLIENT = { name: "workflows", version: "1.0" }

/** Joins a topic as the deployment's clients do. `capabilities` are the client's, `answers` its words to what the server asks. */
export async function openWorkflowSession(t, server, topic, { capabilities = {}, answers = {} } = {}) {
  const params = { clientInfo: { ...CLIENT, capabilities }, streaming: true }
  const session = await openPhoenixSession(t, server, topic, params)
  /** What came, messages and events, in order. */
  session.timeline = []
  for (const event of ["mcp_message", "streaming_event"]) {
    session.channel.on(event, (payload) => session.timeline.push({ event, payload }))
  }
  for (const [method, answer] of Object.entries(answers)) session.answer(method, answer)
  return Object.assign(session, OF_WORKFLOWS)
}

const OF_WORKFLOWS = {
  /** Executes a definition; gives the whole result. */
  execute(definition, options, params = {}) {
    return this.result("workflows/execute", { workflowId: "w", definition, ...(options && { options }), ...params })
  },

  /** Executes a definition that completes; gives what came of it. */
  async run(definition, options, params) {
    const result = await this.execute(definition, options, params)
    if (result.status !== "completed") throw new Error(JSON.stringify(result))
    return result.result.result
  },

  /** Executes a definition that fails; gives the text of the error. */
  async failure(definition, options) {
    const result = await this.execute(definition, options)
    if (result.status !== "failed" || result.isError !== true) throw new Error(JSON.stringify(result))
    return result.error
  },

  /** Begins a run that nobody waits for; gives its id. */
  async begin(definition, options, params) {
    const result = await this.execute(definition, { ...options, async: true }, params)
    if (result.status !== "running") throw new Error(JSON.stringify(result))
    return result.run_id
  },

  /** What is recorded of a run once it has ended. */
  ended(runId, ms = 20_000) {
    const look = async () => {
      const run = await this.result("workflows/run", { runId })
      return run.status === "running" ? undefined : run
    }
    return until(look, `the end of run ${runId}`, ms)
  },

  /** The events of a run that came to the session itself. */
  events(runId) {
    const all = this.timeline.filter(({ event }) => event === "streaming_event").map(({ payload }) => payload)
    return runId === undefined ? all : all.filter(({ run_id }) => run_id === runId)
  },
}

/** Joins `mcp:session:streaming` beside a session; the events are gathered in what it gives. */
export async function observe(session) {
  const events = []
  const { channel } = await join(session.socket, "mcp:session:streaming", { session_id: session.reply.sessionId })
  channel.on("streaming_event", (event) => events.push(event))
  return events
}
