// An application as the conversations see it, in Node and in a page: one socket, and MCP sessions on it with all that they are told.

import { McpTransport } from "../kinds.js"
import { until } from "../waiting.js"

/** How many items a page of the example has: few, so that its tools take many pages. */
export const PAGE_ITEMS = 4

const NOTIFICATIONS = [
  "notifications/message",
  "notifications/prompts/list_changed",
  "notifications/resources/list_changed",
  "notifications/resources/updated",
  "notifications/tools/list_changed",
]

export class Application {
  #sessions = []

  /** `act(name)` has something done to the server or to the way there: "cut", "restart". */
  constructor(kind, socket, act) {
    Object.assign(this, { kind, socket, act })
  }

  /** Connects a client through a transport of its own. `client` are the client's options, the others the transport's. */
  async connect({ client = {}, ...options } = {}) {
    const session = new Session(this.kind, this.socket, client, { server: "conformance", ...options })
    this.#sessions.push(session)
    await session.connect()
    return session
  }

  /** Joins a channel that is no session. Gives the channel and the answer. */
  join(topic, params = {}) {
    if (!this.socket.isConnected()) this.socket.connect()
    const channel = this.socket.channel(topic, params)
    return new Promise((resolve, reject) => {
      channel
        .join()
        .receive("ok", (reply) => resolve({ channel, reply }))
        .receive("error", (reply) => reject(new Error(`${topic}: ${JSON.stringify(reply)}`)))
    })
  }

  async close() {
    for (const { client } of this.#sessions) await client.close()
  }
}

class Session {
  /** The messages of the server since the client is connected, as they came. */
  wire = []
  /** The notifications that the client has handed on, as `[method, params]`. */
  heard = []
  /** The events of this session's runs, where `params: { streaming: true }` asks for them. */
  events = []
  /** What the client has complained of. */
  errors = []
  closes = 0
  reconnects = 0

  constructor(kind, socket, clientOptions, options) {
    this.kind = kind
    this.client = kind.makeClient(clientOptions)
    this.client.onerror = ({ message }) => this.errors.push(message)
    for (const method of NOTIFICATIONS) {
      this.client.setNotificationHandler(kind.named(method), ({ params }) => void this.heard.push([method, params]))
    }
    this.transport = new McpTransport(socket, options)
    this.transport.onreconnect = () => (this.reconnects += 1)
  }

  async connect() {
    await this.client.connect(this.transport)
    this.client.onclose = () => (this.closes += 1)
    this.transport.channel.on("mcp_message", (message) => this.wire.push(message))
    this.transport.channel.on("streaming_event", (event) => this.events.push(event))
  }

  call(name, args = {}, { _meta, ...options } = {}) {
    return this.kind.callTool(this.client, { name, arguments: args, ...(_meta && { _meta }) }, options)
  }

  async text(name, args, options) {
    return (await this.call(name, args, options)).content[0].text
  }

  /** The items of all pages. The SDK's second line turns the pages by itself. */
  async list(verb, key) {
    const items = []
    let cursor
    do {
      const page = await this.client[verb](cursor === undefined ? undefined : { cursor })
      items.push(...page[key])
      cursor = page.nextCursor
    } while (cursor !== undefined)
    return items
  }

  /** Has the server tell of changes. Gives what undoes that. `subscription` is the latest, where the era has such. */
  async watch({ uri, ...lists }) {
    if (this.kind.era === "modern") {
      const subscription = await this.client.listen({ ...lists, ...(uri && { resourceSubscriptions: [uri] }) })
      this.subscription = subscription
      return () => subscription.close()
    }
    // Of its lists a legacy session is told unasked.
    if (!uri) return async () => {}
    await this.client.subscribeResource({ uri })
    return () => this.client.unsubscribeResource({ uri })
  }

  /** The methods of what was heard, once there are so many. */
  async methodsHeard(count) {
    await until(() => this.heard.length >= count, `${count} notifications`)
    return this.heard.map(([method]) => method)
  }

  /** The first event of that type, once it has come. */
  event(type) {
    return until(() => this.events.find((event) => event.type === type), `a ${type}`)
  }
}

/** What came of a request: its result, or its error as a plain object. */
export const outcome = (answer) =>
  answer.then(
    (result) => ({ result }),
    ({ code, message, data }) => ({ code, message, data }),
  )
