// A small Phoenix V2 server whose channels are the test's: for what a real server does not do on demand, such as refusing a
// join, losing a session, or answering nothing. Its sessions can be real MCP servers of the SDKs.

import { once } from "node:events"
import { createServer } from "node:http"

import { WebSocketServer } from "ws"

/**
 * Starts the server. `onJoin({ topic, params, channel })` answers each join, at once or as a promise:
 * `{ refuse: reason }`, `{ silent: true }`, or `{ reply, onMessage(payload), onEvent(event, payload), onEnd() }`, all optional.
 * What `onMessage` returns decides the reply to that push: nothing is `ok {}`, `{ error: response }` an error, `"silent"` none.
 */
export async function startFakePhoenix(onJoin) {
  const fake = new FakePhoenix(onJoin)
  await fake.listen(0)
  return fake
}

class FakePhoenix {
  /** Each frame that came in, as `[joinRef, ref, topic, event, payload]`. */
  received = []
  /** The live channels, in the order of their joins. */
  channels = []
  joins = 0

  constructor(onJoin) {
    this.onJoin = onJoin
  }

  get endpoint() {
    return `ws://localhost:${this.port}/socket`
  }

  async listen(port) {
    this.http = createServer((_request, response) => response.writeHead(404).end())
    this.webSockets = new WebSocketServer({ server: this.http, path: "/socket/websocket" })
    this.webSockets.on("connection", (webSocket) => this.#connected(webSocket))
    this.http.listen(port, "localhost")
    await once(this.http, "listening")
    this.port = this.http.address().port
  }

  /** Cuts every client off; they come back by themselves. */
  cut() {
    for (const webSocket of this.webSockets.clients) webSocket.terminate()
  }

  async close() {
    this.cut()
    this.http.close()
    this.http.closeAllConnections()
    await once(this.http, "close")
  }

  /** What came in as `mcp_message`, in order. */
  messages() {
    return this.received.filter(([, , , event]) => event === "mcp_message").map((frame) => frame[4])
  }

  #connected(webSocket) {
    const here = new Map()
    const send = (frame) => webSocket.readyState === webSocket.OPEN && webSocket.send(JSON.stringify(frame))
    const end = (channel) => {
      if (here.get(channel.topic) === channel) here.delete(channel.topic)
      this.channels = this.channels.filter((other) => other !== channel)
      channel.handlers?.onEnd?.()
    }
    webSocket.on("close", () => [...here.values()].forEach(end))
    webSocket.on("message", async (text) => {
      const frame = JSON.parse(text)
      const [joinRef, ref, topic, event, payload] = frame
      const reply = (status, response) => send([joinRef, ref, topic, "phx_reply", { status, response }])
      if (topic === "phoenix") return reply("ok", {})
      this.received.push(frame)

      if (event === "phx_join") {
        this.joins += 1
        const channel = {
          topic,
          params: payload,
          push: (event, payload) => send([joinRef, null, topic, event, payload]),
          crash: () => (end(channel), send([joinRef, ref, topic, "phx_error", {}])),
          close: () => (end(channel), send([joinRef, ref, topic, "phx_close", {}])),
        }
        const answer = (await this.onJoin({ topic, params: payload, channel, webSocket })) ?? {}
        if (answer.silent) return
        if (answer.refuse) return reply("error", { reason: answer.refuse })
        channel.handlers = answer
        here.set(topic, channel)
        this.channels.push(channel)
        return reply("ok", answer.reply ?? {})
      }
      const channel = here.get(topic)
      if (!channel) return reply("error", { reason: "unmatched topic" })
      if (event === "phx_leave") {
        reply("ok", {})
        send([joinRef, ref, topic, "phx_close", {}])
        return end(channel)
      }
      if (event !== "mcp_message") return reply("error", { reason: "unknown event" })
      const result = channel.handlers.onMessage?.(payload)
      if (result === "silent") return
      if (result?.error) return reply("error", result.error)
      reply("ok", {})
    })
  }
}

/**
 * A channel's session as an SDK's server sees it: a transport. `connectServer(transport)` connects an SDK's server to it.
 * Gives what `onJoin` answers.
 */
export function hostServer(channel, connectServer, reply = {}) {
  const transport = {
    start: async () => {},
    send: async (message) => channel.push("mcp_message", message),
    close: async () => transport.onclose?.(),
  }
  const connected = Promise.resolve(connectServer(transport))
  return {
    reply: { protocolVersion: "2025-11-25", serverInfo: { name: "fake", version: "1" }, capabilities: {}, sessionId: "fake-session", ...reply },
    onMessage: (message) => void connected.then(() => transport.onmessage?.(message)),
    onEnd: () => transport.onclose?.(),
  }
}
