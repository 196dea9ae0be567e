// A stand-in for Bennu that says what a test tells it to: for what a real server does not say on demand, such as hostile
// text, a refused session or a run that is gone. It serves the page's own files and speaks just enough of the protocol.

import { once } from "node:events"
import { readFile } from "node:fs/promises"
import { createServer } from "node:http"

import { WebSocketServer } from "ws"

const DASHBOARD = new URL("../../../src/dashboard/", import.meta.url)
const FILES = {
  "/": ["page.html", "text/html"],
  "/assets/app.js": ["app.js", "text/javascript"],
  "/assets/credential.js": ["credential.js", "text/javascript"],
  "/assets/elements.js": ["elements.js", "text/javascript"],
  "/assets/workflows.js": ["workflows.js", "text/javascript"],
  "/assets/app.css": ["app.css", "text/css"],
  "/assets/bennu.svg": ["bennu.svg", "image/svg+xml"],
  "/assets/phoenix.js": ["vendor/phoenix.mjs", "text/javascript"],
}
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/**
 * Starts the stand-in. `onJoin(topic, params)` gives the answer `[status, response]` to a join; `onMessage(request, push)` takes each
 * JSON-RPC message of `mcp:session`, and `push(topic, event, payload)` sends to every page that has joined the topic.
 */
export async function startFakeBennu({ onJoin, onMessage }) {
  const http = createServer(async (request, response) => {
    const [file, type] = FILES[request.url] ?? []
    if (!file) return response.writeHead(404).end()
    let content = await readFile(new URL(file, DASHBOARD))
    // The server fills in where its socket is.
    if (file === "page.html") content = content.toString().replaceAll("{socket_path}", "/socket").replaceAll("{credential}", "none")
    response.writeHead(200, { "content-type": type, "content-security-policy": POLICY }).end(content)
  })
  const sockets = new Map()
  const push = (topic, event, payload) => {
    for (const [socket, joined] of sockets) {
      if (joined.has(topic)) socket.send(JSON.stringify([joined.get(topic), null, topic, event, payload]))
    }
  }
  const pages = new WebSocketServer({ server: http, path: "/socket/websocket" })
  pages.on("connection", (socket) => {
    const joined = new Map()
    sockets.set(socket, joined)
    socket.on("close", () => sockets.delete(socket))
    socket.on("message", (text) => {
      const [joinRef, ref, topic, event, payload] = JSON.parse(text)
      const [status, response] = event === "phx_join" ? onJoin(topic, payload) : ["ok", {}]
      if (event === "phx_join" && status === "ok") joined.set(topic, joinRef)
      if (event === "phx_leave") joined.delete(topic)
      socket.send(JSON.stringify([joinRef, ref, topic, "phx_reply", { status, response }]))
      if (event === "mcp_message") onMessage(payload, push)
    })
  })
  http.listen(0, "localhost")
  await once(http, "listening")

  return {
    origin: `http://localhost:${http.address().port}`,
    push,
    /** Cuts every page off; the pages come back by themselves. */
    cut: () => sockets.forEach((_, socket) => socket.terminate()),
    async close() {
      for (const socket of sockets.keys()) socket.terminate()
      http.close()
      http.closeAllConnections()
      await once(http, "close")
    },
  }
}
