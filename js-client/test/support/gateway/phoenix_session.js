// A session of a stock phoenix.js channel without any SDK: bare JSON-RPC objects in `mcp_message`.

import { openSocket } from "../clients.js"
import { until } from "../waiting.js"

const INFO = { name: "phoenix", version: "1.0" }
/** How long an answer may take. */
const PATIENCE_MS = 20_000

/** Joins a topic, and gives the channel and the reply. */
export function join(socket, topic, params = {}) {
  if (!socket.isConnected()) socket.connect()
  const channel = socket.channel(topic, params)
  return new Promise((resolve, reject) => {
    channel
      .join()
      .receive("ok", (reply) => resolve({ channel, reply }))
      .receive("error", (reply) => reject(new Error(`${topic}: ${JSON.stringify(reply)}`)))
  })
}

class PhoenixSession {
  /** Everything that came, in order. */
  heard = []
  #answers = new Map()
  #waiting = new Map()
  #nextId = 0

  constructor(channel) {
    this.channel = channel
    channel.on("mcp_message", (message) => this.#take(message))
  }

  #take(message) {
    this.heard.push(message)
    if (message.method === undefined) {
      this.#waiting.get(message.id)?.(message)
      this.#waiting.delete(message.id)
    } else if (message.id !== undefined) {
      this.#reply(message)
    }
  }

  async #reply({ id, method, params }) {
    const answer = this.#answers.get(method)
    const outcome = answer ? { result: await answer(params) } : { error: { code: -32601, message: "not here" } }
    this.push({ jsonrpc: "2.0", id, ...outcome })
  }

  push(message) {
    this.channel.push("mcp_message", message)
  }

  notify(method, params) {
    this.push({ jsonrpc: "2.0", method, ...(params && { params }) })
  }

  /** Has the server's requests of a method answered with what `handler` gives, or promises. */
  answer(method, handler) {
    this.#answers.set(method, handler)
  }

  /** Asks, and gives the whole response. Ids count from 0. */
  ask(method, params, { id = this.#nextId++ } = {}) {
    const answer = new Promise((resolve, reject) => {
      const deadline = setTimeout(() => reject(new Error(`no answer to ${method} ${JSON.stringify(params)}`)), PATIENCE_MS)
      this.#waiting.set(id, (message) => {
        clearTimeout(deadline)
        resolve(message)
      })
    })
    // Whoever does not wait for the answer need not hear that there is none.
    answer.catch(() => {})
    this.push({ jsonrpc: "2.0", id, method, ...(params && { params }) })
    return answer
  }

  /** Asks, and gives the result. */
  async result(method, params, options) {
    const { result, error } = await this.ask(method, params, options)
    if (error) throw new Error(`${method}: ${JSON.stringify(error)}`)
    return result
  }

  /** Calls a tool. Its progress has the number of the request as its token. */
  call(name, args = {}, { withProgress = false } = {}) {
    const id = this.#nextId++
    const _meta = withProgress ? { _meta: { progressToken: id } } : {}
    return this.result("tools/call", { name, arguments: args, ..._meta }, { id })
  }

  async text(name, args) {
    return (await this.call(name, args)).content[0].text
  }

  /** The first notification of a method that meets a condition, once it has come. */
  notification(method, condition = () => true) {
    return until(() => this.heard.find((message) => message.method === method && condition(message.params)), `a ${method}`, 10_000)
  }

  async initialize({ capabilities = {}, protocolVersion = "2025-11-25" } = {}) {
    const result = await this.result("initialize", { protocolVersion, capabilities, clientInfo: INFO })
    this.notify("notifications/initialized")
    return result
  }
}

/** Joins a topic on a socket of its own. */
export async function openPhoenixSession(t, { endpoint }, topic, params = {}) {
  const socket = openSocket(t, endpoint)
  const { channel, reply } = await join(socket, topic, params)
  const session = new PhoenixSession(channel)
  return Object.assign(session, { socket, reply })
}

/** The same, opened with `initialize`. */
export async function openLegacySession(t, gateway, topic, options = {}) {
  const session = await openPhoenixSession(t, gateway, topic)
  for (const [method, handler] of Object.entries(options.answers ?? {})) session.answer(method, handler)
  session.initialized = await session.initialize(options)
  return session
}

/** A dashboard on a socket of its own: which runs there are, and all that a run tells. */
export async function openDashboard(t, { endpoint }) {
  const socket = openSocket(t, endpoint)
  const { channel } = await join(socket, "mcp:runs")
  const started = []
  const finished = []
  channel.on("run_started", (run) => started.push(run))
  channel.on("run_finished", (run) => finished.push(run))
  return {
    started,
    finished,
    /** The run of a tool, once it has begun. */
    run: (tool) => until(() => started.find((run) => run.tool === tool), `a run of ${tool}`, 10_000),
    end: (id) => until(() => finished.find((run) => run.run_id === id), `the end of run ${id}`, 10_000),
    /** Joins a run. Its events are gathered in what it gives. */
    async watch(id) {
      const socket = openSocket(t, endpoint)
      const events = []
      const channel = socket.channel(`mcp:run:${id}`, {})
      channel.on("streaming_event", (event) => events.push(event))
      socket.connect()
      await new Promise((resolve, reject) => {
        channel
          .join()
          .receive("ok", (reply) => {
            events.unshift(...reply.events)
            resolve()
          })
          .receive("error", (reply) => reject(new Error(JSON.stringify(reply))))
      })
      return events
    },
  }
}
