// Bennu in production, in a folder of its own: settings, API keys, tokens, the operator's commands and interface; and clients of it.

import { execFile } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { openSocket } from "./clients.js"
import { phoenixToken } from "./credentials.js"
import { startBennuWith } from "./server_process.js"

export const CLIENT_INFO = { name: "test", version: "1.0" }

/** How long an answer may take. */
const PATIENCE_MS = 10_000

/** Texts, numbers, truth values and lists of them are written in TOML as in JSON. */
const section = ([name, settings]) =>
  [`[${name}]`, ...Object.entries(settings).map(([key, value]) => `${key} = ${JSON.stringify(value)}`), ""].join("\n")
const toml = (sections) => Object.entries(sections).map(section).join("\n")

/** A port that was free a moment ago: the operator's commands find a server by its settings. */
function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

/** The environment of the commands: Bennu refuses `BENNU_*` variables that are no settings of its. */
const ENVIRONMENT = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("BENNU_")))

/**
 * Starts it. `settings` are sections by their names, or are made of the folder; failures lock nobody out and requests are not limited
 * where they say nothing of it. `keys` are API keys by any name, each `{ user, roles, scopes }`: `server.keys.NAME` is then `{ id, text, user }`.
 */
export async function startProduction({ settings = {}, keys = {} } = {}) {
  const folder = await mkdtemp(join(tmpdir(), "production-"))
  const secret = randomBytes(48).toString("hex")
  const port = await freePort()
  const { server: ofServer, access, limits, ...others } = typeof settings === "function" ? settings(folder) : settings
  const file = join(folder, "bennu.toml")
  const sections = {
    server: {
      mode: "production",
      listen: `127.0.0.1:${port}`,
      host: "localhost",
      secret_key_base: secret,
      shutdown_delay_ms: 0,
      log: "warn",
      ...ofServer,
    },
    store: { path: join(folder, "store") },
    access: { attempts_per_minute: 0, failures_max: 0, ...access },
    limits: { enabled: false, ...limits },
    ...others,
  }
  await writeFile(file, toml(sections))
  const server = new Production({ folder, file, secret, process: await startBennuWith(file) })
  for (const [name, key] of Object.entries(keys)) server.keys[name] = await server.createKey(key)
  return server
}

class Production {
  keys = {}

  constructor(parts) {
    Object.assign(this, parts)
    this.origin = `http://localhost:${this.process.port}`
    this.endpoint = `ws://localhost:${this.process.port}/socket`
  }

  /** A token of the operator on this machine, as the commands make it for one request. */
  operatorToken() {
    return phoenixToken(this.secret, "bennu operator", "operator test", { maxAge: 60 })
  }

  userToken(user, options) {
    return phoenixToken(this.secret, "user socket", user, options)
  }

  mcpToken(data, options) {
    return phoenixToken(this.secret, "mcp_auth", data, options)
  }

  async createKey({ user, roles = [], scopes = [], ...others }) {
    const { status, body } = await this.admin("POST", "keys", { user, roles, scopes, ...others })
    if (status !== 200) throw new Error(JSON.stringify(body))
    return { id: body.record.id, text: body.key, user }
  }

  /** Asks the operator's interface, as the operator or with a credential. */
  async admin(method, path, body, { credential = this.operatorToken(), headers = {} } = {}) {
    const response = await fetch(`${this.origin}/admin/api/${path}`, {
      method,
      headers: { ...(credential && { authorization: `Bearer ${credential}` }), ...headers },
      ...(body && { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    const isJson = response.headers.get("content-type") === "application/json"
    return { status: response.status, headers: response.headers, text, body: isJson ? JSON.parse(text) : undefined }
  }

  /** Runs a command of the program with the server's settings; gives what it prints and how it ends. */
  cli(command, ...args) {
    return this.run({}, command, "--config", this.file, ...args)
  }

  /** The same with options of `execFile`. */
  run(options, ...args) {
    return new Promise((resolve) => {
      execFile(this.process.path, args, { env: ENVIRONMENT, ...options }, (error, stdout, stderr) => {
        resolve({ code: error ? error.code : 0, stdout, stderr })
      })
    })
  }

  async close() {
    await this.process.stop()
    await rm(this.folder, { recursive: true, force: true })
  }
}

/** Connects; gives the socket, or why it was refused: an HTTP status, which long poll has in its body. It is not tried again. */
export function connect(t, server, options = {}) {
  const socket = openSocket(t, server.endpoint, options)
  return new Promise((resolve) => {
    socket.onOpen(() => resolve({ socket }))
    socket.onError((error) => {
      socket.disconnect()
      const status = typeof error === "number" ? error : Number(/\d{3}$/.exec(error?.message)?.[0])
      resolve({ refused: status })
    })
    socket.connect()
  })
}

/** Joins a topic; gives the channel and the reply, or `reason`. A refused join is not tried again. */
export function joinTopic(socket, topic, params = {}) {
  const channel = socket.channel(topic, params)
  return new Promise((resolve) => {
    channel
      .join()
      .receive("ok", (reply) => resolve({ channel, reply }))
      .receive("error", ({ reason }) => {
        channel.leave()
        resolve({ channel, reason })
      })
  })
}

/** JSON-RPC over a channel that is joined. */
export class Rpc {
  #id = 0
  #waiting = new Map()

  constructor(channel) {
    this.channel = channel
    channel.on("mcp_message", ({ id, method, ...answer }) => method === undefined && this.#waiting.get(id)?.({ id, ...answer }))
  }

  /** Asks, and gives the whole response. */
  ask(method, params = {}) {
    const id = ++this.#id
    return new Promise((resolve, reject) => {
      const deadline = setTimeout(() => reject(new Error(`no answer to ${method}`)), PATIENCE_MS)
      this.#waiting.set(id, (answer) => {
        clearTimeout(deadline)
        this.#waiting.delete(id)
        resolve(answer)
      })
      this.channel.push("mcp_message", { jsonrpc: "2.0", id, method, params })
    })
  }

  /** The text of the error that a request is answered with; none where there is a result. */
  async error(method, params) {
    return (await this.ask(method, params)).error?.message
  }

  /** Asks, and gives the result. */
  async result(method, params) {
    const { result, error } = await this.ask(method, params)
    if (error) throw new Error(`${method}: ${JSON.stringify(error)}`)
    return result
  }
}

/** A session on a socket of its own, both by one API key. */
export async function openSession(t, server, key, { topic = "mcp:session", params = {} } = {}) {
  const { socket } = await connect(t, server, { params: { api_key: key.text } })
  const { channel, reply, reason } = await joinTopic(socket, topic, { clientInfo: CLIENT_INFO, apiKey: key.text, ...params })
  if (reason) throw new Error(`${topic}: ${reason}`)
  return Object.assign(new Rpc(channel), { socket, reply })
}
