// Peers that are spoken with in texts of JSON, none of which is parsed and printed again: an MCP server itself over stdio, and
// the gateway over a WebSocket and over HTTP. So what came one way can be compared, byte by byte, with what came the other.

import { spawn } from "node:child_process"
import { once } from "node:events"

import WebSocket from "ws"

import { finallyDo, until } from "../waiting.js"

/** The text of a message's id, and what stands for it where ids may differ. */
const ID = /"id":("(?:[^"\\]|\\.)*"|-?\d+)/
const ID_ELSEWHERE = '"id":#'
/** A token that an echo repeats, as such or within a string. */
const TOKEN = /(\\*"progressToken\\*"\s*:\s*)(?:-?\d+|\\*"[^"\\]*\\*")/g

export const idOf = (text) => ID.exec(text)[1]
export const withoutId = (text) => text.replace(ID, ID_ELSEWHERE)
export const withoutTokens = (text) => text.replace(TOKEN, "$1#")

class Peer {
  /** Every text that came, in order. */
  received = []

  /** Sends a request, and gives the texts that came until its answer, which is the last. */
  async ask(text) {
    const { id } = JSON.parse(text)
    const from = this.received.length
    const isAnswer = (received) => {
      const message = JSON.parse(received)
      return message.method === undefined && message.id === id
    }
    let end
    await this.send(text)
    const isThere = () => (end = this.received.slice(from).findIndex(isAnswer)) >= 0
    await until(isThere, `the answer to ${text}`, 10_000).catch(({ message }) => {
      throw new Error(`${message}; what came: ${this.received.slice(from).join("\n")}`)
    })
    return this.received.slice(from, from + end + 1)
  }

  /** The first text from a place on in which a method stands, and its place. */
  async next(method, from = 0) {
    const find = () => this.received.findIndex((text, at) => at >= from && JSON.parse(text).method === method)
    await until(() => find() >= 0, `a ${method}`, 10_000)
    return { text: this.received[find()], at: find() }
  }
}

/** Hands on the lines of a stream of bytes. */
async function eachLine(stream, take) {
  const decoder = new TextDecoder()
  let rest = ""
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n")
    rest = lines.pop()
    lines.forEach(take)
  }
}

class OverStdio extends Peer {
  #asked = new Set()

  constructor(child) {
    super()
    this.child = child
    eachLine(child.stdout, (line) => this.#isMessage(line) && this.received.push(line))
  }

  /** Odd servers say what is none, on request, and answers that nobody asked for. */
  #isMessage(line) {
    try {
      const { method, id } = JSON.parse(line)
      return method !== undefined || this.#asked.has(id)
    } catch {
      return false
    }
  }

  async send(text) {
    const { id } = JSON.parse(text)
    if (id !== undefined) this.#asked.add(id)
    this.child.stdin.write(`${text.replaceAll("\n", " ")}\n`)
  }
}

/** A server as support/upstreams.js tells it, in a process of its own. */
export function startDirect(t, { command, args, env }) {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "ignore"], env: { ...process.env, ...env } })
  finallyDo(t, async () => {
    child.kill("SIGKILL")
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit")
  })
  return new OverStdio(child)
}

class OverWebSocket extends Peer {
  #ref = 1

  constructor(socket, topic) {
    super()
    Object.assign(this, { socket, topic })
    const begins = `["1",null,${JSON.stringify(topic)},"mcp_message",`
    socket.on("message", (data) => {
      const frame = data.toString()
      // The payload's own text, between the frame's first four fields and its closing bracket.
      if (frame.startsWith(begins)) this.received.push(frame.slice(begins.length, -1))
    })
  }

  #push(event, text, ref) {
    this.socket.send(`["1",${ref},${JSON.stringify(this.topic)},${JSON.stringify(event)},${text}]`)
  }

  join() {
    const joined = new Promise((resolve, reject) => {
      this.socket.on("message", (data) => {
        const [, ref, , event, { status }] = JSON.parse(data.toString())
        if (event === "phx_reply" && ref === "1") status === "ok" ? resolve() : reject(new Error(data.toString()))
      })
    })
    this.#push("phx_join", "{}", '"1"')
    return joined
  }

  async send(text) {
    this.#ref += 1
    this.#push("mcp_message", text, `"${this.#ref}"`)
  }
}

/** A channel of the gateway on a bare WebSocket, in Phoenix's second framing. */
export async function openWebSocket(t, { endpoint }, topic) {
  const socket = new WebSocket(`${endpoint}/websocket?vsn=2.0.0`)
  finallyDo(t, async () => {
    socket.close()
    if (socket.readyState !== WebSocket.CLOSED) await once(socket, "close")
  })
  await once(socket, "open")
  const peer = new OverWebSocket(socket, topic)
  await peer.join()
  return peer
}

/** A value as a header has it. Source: MCP 2026-07-28, Streamable HTTP. */
const headerOf = (value) => (/^[!-~]([ -~]*[!-~])?$/.test(value) ? value : `=?base64?${Buffer.from(value).toString("base64")}?=`)

class OverHttp extends Peer {
  #session
  #aborter = new AbortController()

  constructor(url) {
    super()
    this.url = url
  }

  #headers(text) {
    const { method, params } = JSON.parse(text)
    const meta = params?._meta?.["io.modelcontextprotocol/protocolVersion"]
    const name = params?.name ?? params?.uri ?? params?.taskId
    const isNamed = ["tools/call", "prompts/get", "resources/read", "tasks/get", "tasks/update", "tasks/cancel"].includes(method)
    return {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      ...(this.#session && { "mcp-session-id": this.#session }),
      ...(meta && { "mcp-protocol-version": meta, "mcp-method": method, ...(isNamed && { "mcp-name": headerOf(name) }) }),
    }
  }

  async send(text) {
    const response = await fetch(this.url, { method: "POST", headers: this.#headers(text), body: text, signal: this.#aborter.signal })
    this.#session ??= response.headers.get("mcp-session-id") ?? undefined
    if (response.headers.get("content-type")?.startsWith("text/event-stream")) {
      this.#read(response.body).catch(() => {})
      return
    }
    const body = await response.text()
    if (body !== "") this.received.push(body)
  }

  async #read(body) {
    let data = []
    await eachLine(body, (line) => {
      if (line.startsWith("data:")) data.push(line.slice("data:".length).replace(/^ /, ""))
      if (line !== "") return
      if (data.join("") !== "") this.received.push(data.join("\n"))
      data = []
    })
  }

  close() {
    this.#aborter.abort()
  }
}

/** A session of the gateway over Streamable HTTP, or stateless requests, as the messages have it. */
export function openHttp(t, gateway, name) {
  const peer = new OverHttp(gateway.url(name))
  finallyDo(t, () => peer.close())
  return peer
}

export const WAYS = {
  WebSocket: (t, gateway, name) => openWebSocket(t, gateway, `mcp:server:${name}`),
  HTTP: (t, gateway, name) => openHttp(t, gateway, name),
}
