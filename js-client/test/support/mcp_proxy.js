// Streamable HTTP in front of MCP channels: so that a test suite that speaks HTTP alone tests what a channel carries.
// JSON-RPC messages pass unchanged but for the ids of 2026-07-28, where all clients share one channel. What belongs to HTTP alone
// (headers, streams, sessions, statuses, Host and Origin) is the proxy's own.

import { randomUUID } from "node:crypto"
import { once } from "node:events"
import { createServer } from "node:http"

import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js"
import { McpTransport } from "bennu-client"
import { Socket } from "phoenix"
import WebSocket from "ws"

const VERSION = "io.modelcontextprotocol/protocolVersion"
const SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
const LOG_LEVEL = "io.modelcontextprotocol/logLevel"
const MODERN = "2026-07-28"
const HEADER_MISMATCH = -32020
/** What the specification says of HTTP statuses; every other error is a 200. */
const STATUSES = new Map([[-32601, 404], [-32602, 400], [-32020, 400], [-32021, 400], [-32022, 400]])
/** The parameter that the header Mcp-Name repeats. */
const NAMED = new Map([
  ["tools/call", "name"],
  ["prompts/get", "name"],
  ["resources/read", "uri"],
  ["tasks/get", "taskId"],
  ["tasks/update", "taskId"],
  ["tasks/cancel", "taskId"],
])
const LOCAL = new Set(["localhost", "127.0.0.1", "[::1]"])

/** Starts the proxy before the MCP server `server` of a Phoenix endpoint. Gives `{ url, close, faults }`. */
export async function startMcpProxy(endpoint, server) {
  const socket = new Socket(endpoint, { transport: WebSocket })
  const faults = []
  const open = async (session) => {
    const upstream = new McpTransport(socket, { server, session })
    upstream.onerror = (error) => faults.push(error)
    return upstream
  }
  const legacy = new LegacySessions(open)
  const modern = new ModernRequests(open)

  const http = createServer(async (request, response) => {
    try {
      await handle(request, response)
    } catch (error) {
      faults.push(error)
      if (!response.headersSent) refuse(response, 502, -32603, error.message)
      else response.destroy()
    }
  })
  async function handle(request, response) {
    if (!isLocal(request)) return refuse(response, 403, -32600, "foreign Host or Origin")
    if (new URL(request.url, "http://localhost").pathname !== "/mcp") return response.writeHead(404).end()
    if (request.method !== "POST") return legacy.handle(request, response)
    let body
    try {
      body = JSON.parse(await text(request))
    } catch {
      return refuse(response, 400, -32700, "not JSON")
    }
    const claimed = body?.params?._meta?.[VERSION]
    const isModern = !Array.isArray(body) && (claimed !== undefined || request.headers["mcp-protocol-version"] === MODERN)
    return isModern ? modern.handle(request, response, body) : legacy.handle(request, response, body)
  }
  http.listen(0, "localhost")
  await once(http, "listening")

  return {
    url: `http://localhost:${http.address().port}/mcp`,
    faults,
    async close() {
      http.close()
      http.closeAllConnections()
      await once(http, "close")
      await Promise.all([legacy.close(), modern.close()])
      await new Promise((resolve) => socket.disconnect(resolve))
    },
  }
}

/** The eras with `initialize`: a channel for each HTTP session, opened at `initialize`. */
class LegacySessions {
  /** By Mcp-Session-Id. */
  #sessions = new Map()

  constructor(open) {
    this.open = open
  }

  async handle(request, response, body) {
    const id = request.headers["mcp-session-id"]
    if (id !== undefined) {
      const session = this.#sessions.get(id)
      if (!session) return refuse(response, 404, -32001, "no such session")
      return session.http.handleRequest(request, response, body)
    }
    if (body?.method !== "initialize") {
      return body === undefined ? response.writeHead(405, { allow: "POST" }).end() : refuse(response, 400, -32600, "no session")
    }
    const session = await this.#begin()
    await session.http.handleRequest(request, response, body)
  }

  async #begin() {
    const upstream = await this.open(randomUUID())
    const http = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => void this.#sessions.set(id, session),
    })
    const session = { http, upstream }
    const inFlight = new InFlight()
    const fail = (message) => (error) => {
      if (message.method && message.id !== undefined) {
        inFlight.delete(message.id)
        return http.send({ jsonrpc: "2.0", id: message.id, error: { code: -32603, message: error.message } }).catch(() => {})
      }
    }
    http.onmessage = (message) => {
      if (message.method && message.id !== undefined) inFlight.add(message)
      upstream.send(message).catch(fail(message))
    }
    upstream.onmessage = (message) => {
      const relatedRequestId = message.method ? inFlight.related(message) : undefined
      if (!message.method) inFlight.delete(message.id)
      // A client that has gone does not read its answer.
      http.send(message, { relatedRequestId }).catch(() => {})
    }
    http.onclose = () => {
      this.#sessions.delete(http.sessionId)
      upstream.close()
    }
    upstream.onclose = () => http.close()
    await upstream.start()
    await http.start()
    return session
  }

  async close() {
    await Promise.all([...this.#sessions.values()].map(({ http }) => http.close()))
  }
}

/** The requests of a session without an answer: on a channel nothing says which of them a message of the server belongs to. */
class InFlight {
  #requests = new Map()

  add({ id, params }) {
    this.#requests.set(id, params?._meta?.progressToken)
  }

  delete(id) {
    this.#requests.delete(id)
  }

  /** The request that a request or notification of the server belongs to. */
  related({ method, params }) {
    if (method === "notifications/progress") {
      return [...this.#requests].find(([, token]) => token !== undefined && token === params?.progressToken)?.[0]
    }
    if (/list_changed$|resources\/updated$/.test(method)) return undefined
    return [...this.#requests.keys()].at(-1)
  }
}

/** 2026-07-28: one channel for all, each request under an id of its own. */
class ModernRequests {
  /** By the id on the channel. */
  #requests = new Map()
  #count = 0
  #upstream
  #tools

  constructor(open) {
    this.open = open
  }

  async handle(request, response, body) {
    if (request.headers["mcp-session-id"] !== undefined && body.method === undefined) return refuse(response, 400, -32600, "no sessions here")
    const upstream = await (this.#upstream ??= this.#connect())
    if (body.id === undefined) {
      await upstream.send(body)
      return response.writeHead(202).end()
    }
    const mismatch = headersMismatch(request, body) ?? (await this.#paramsMismatch(request, body))
    if (mismatch) return refuse(response, 400, HEADER_MISMATCH, mismatch, body.id)

    const id = this.#nextId()
    const answer = new HttpAnswer(response, body)
    this.#requests.set(id, answer)
    response.on("close", () => {
      if (!this.#requests.delete(id)) return
      upstream.send({ jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: id } }).catch(() => {})
    })
    try {
      await upstream.send(renamed(body, id))
    } catch (error) {
      if (this.#requests.delete(id)) answer.end({ jsonrpc: "2.0", error: { code: -32603, message: error.message } })
    }
  }

  async #connect() {
    const upstream = await this.open(`modern-${randomUUID()}`)
    upstream.onmessage = (message) => this.#receive(message)
    upstream.onclose = () => {
      this.#upstream = undefined
    }
    await upstream.start()
    return upstream
  }

  #nextId() {
    this.#count += 1
    return `proxied-${this.#count}`
  }

  #receive(message) {
    if (message.method === undefined) {
      const answer = this.#requests.get(message.id)
      this.#requests.delete(message.id)
      return answer?.end(message)
    }
    const { params } = message
    const subscription = params?._meta?.[SUBSCRIPTION]
    if (subscription !== undefined) return this.#requests.get(subscription)?.notify(message)
    if (message.method === "notifications/progress") return this.#requests.get(params?.progressToken)?.notify(message)
    if (message.method === "notifications/message") [...this.#requests.values()].findLast((one) => one.logs)?.notify(message)
  }

  /** Asks for something on the proxy's own account. */
  async #ask(method, params) {
    const upstream = await this.#upstream
    const id = this.#nextId()
    return new Promise((resolve, reject) => {
      this.#requests.set(id, { end: resolve, notify() {} })
      upstream.send({ jsonrpc: "2.0", id, method, params }).catch(reject)
    })
  }

  /** Compares the headers Mcp-Param-* with the arguments that the tool's schema says they repeat. */
  async #paramsMismatch(request, { method, params }) {
    if (method !== "tools/call" || !params?._meta) return undefined
    this.#tools ??= await this.#listTools(params._meta)
    const { properties = {} } = (this.#tools ?? []).find(({ name }) => name === params.name)?.inputSchema ?? {}
    for (const [name, { "x-mcp-header": suffix }] of Object.entries(properties)) {
      if (suffix === undefined) continue
      const value = params.arguments?.[name]
      const header = decoded(request.headers[`mcp-param-${suffix.toLowerCase()}`])
      const expected = value === undefined || value === null ? undefined : String(value)
      if (header !== expected) return `Mcp-Param-${suffix} is ${header ?? "missing"}, the argument ${name} ${expected ?? "as well"}`
    }
    return undefined
  }

  async #listTools({ progressToken: _, ...meta }) {
    const tools = []
    let cursor
    do {
      const { result } = await this.#ask("tools/list", { _meta: meta, ...(cursor === undefined ? {} : { cursor }) })
      // What is wrong with this request, its maker is told by the server.
      if (!result) return undefined
      tools.push(...result.tools)
      cursor = result.nextCursor
    } while (cursor !== undefined)
    return tools
  }

  async close() {
    await (await this.#upstream)?.close()
  }
}

/** The answer to one POST: JSON where there is nothing but the response, else a stream of events. */
class HttpAnswer {
  #response
  #body
  #streams = false

  constructor(response, body) {
    this.#response = response
    this.#body = body
    this.logs = body.params?._meta?.[LOG_LEVEL] !== undefined
  }

  notify(message) {
    if (!this.#streams) {
      this.#streams = true
      this.#response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no" })
    }
    this.#write(this.#renamedBack(message))
  }

  end(message) {
    const mine = this.#renamedBack({ ...message, id: this.#body.id })
    if (this.#streams) {
      this.#write(mine)
      this.#response.end()
    } else {
      this.#response.writeHead(STATUSES.get(message.error?.code) ?? 200, { "content-type": "application/json" }).end(JSON.stringify(mine))
    }
  }

  #write(message) {
    this.#response.write(`event: message\ndata: ${JSON.stringify(message)}\n\n`)
  }

  /** With the client's own id and token where the channel's stood. */
  #renamedBack(message) {
    const back = structuredClone(message)
    if (back.method === "notifications/progress") back.params.progressToken = this.#body.params?._meta?.progressToken
    for (const holder of [back.params, back.result]) {
      if (holder?._meta?.[SUBSCRIPTION] !== undefined) holder._meta[SUBSCRIPTION] = this.#body.id
    }
    return back
  }
}

/** The request under the id of the channel, which serves as its progress token too. */
function renamed(body, id) {
  const request = { ...structuredClone(body), id }
  if (request.params?._meta?.progressToken !== undefined) request.params._meta.progressToken = id
  return request
}

function headersMismatch({ headers }, { method, params }) {
  const version = params?._meta?.[VERSION]
  if (version !== undefined && headers["mcp-protocol-version"] !== version) {
    return `MCP-Protocol-Version is ${headers["mcp-protocol-version"] ?? "missing"}, the request's version ${version}`
  }
  if (headers["mcp-method"] !== method) return `Mcp-Method is ${headers["mcp-method"] ?? "missing"}, the method ${method}`
  const named = NAMED.get(method)
  if (named && decoded(headers["mcp-name"]) !== params?.[named]) return `Mcp-Name is ${headers["mcp-name"] ?? "missing"}, ${named} ${params?.[named]}`
  return undefined
}

/** A header's value; what is no plain ASCII comes as `=?base64?...?=`. */
function decoded(header) {
  const [, encoded] = /^=\?base64\?(.*)\?=$/.exec(header ?? "") ?? []
  if (encoded === undefined) return header
  const bytes = Buffer.from(encoded, "base64")
  // Node's decoder passes over what is no base64.
  return bytes.toString("base64") === encoded ? bytes.toString("utf8") : header
}

function isLocal({ headers: { host, origin } }) {
  try {
    return [`http://${host}`, ...(origin === undefined ? [] : [origin])].every((url) => LOCAL.has(new URL(url).hostname))
  } catch {
    return false
  }
}

function refuse(response, status, code, message, id) {
  const error = { jsonrpc: "2.0", ...(id === undefined ? {} : { id }), error: { code, message } }
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(error))
}

async function text(request) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks).toString("utf8")
}
