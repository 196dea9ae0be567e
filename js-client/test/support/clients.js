// MCP clients over a stock phoenix.js socket in Node.

import WebSocket from "ws"

import { McpTransport, Socket } from "./kinds.js"
import { finallyDo } from "./waiting.js"

/** A stock socket that comes back quickly, disconnected when the test ends. `options.Phoenix` is another line of the client. */
export function openSocket(t, endpoint, { Phoenix = { Socket }, ...options } = {}) {
  const socket = new Phoenix.Socket(endpoint, {
    transport: WebSocket,
    reconnectAfterMs: () => 20,
    rejoinAfterMs: () => 20,
    // A push without an answer, and in old lines the heartbeat, keep a timer and with that the process for so long.
    timeout: 2_000,
    heartbeatIntervalMs: 2_000,
    ...options,
  })
  finallyDo(t, () => closed(socket))
  return socket
}

/** Disconnects a socket. phoenix.js looks only every now and then whether its connection is closed. */
function closed(socket) {
  const { conn } = socket
  return new Promise((resolve) => {
    if (conn instanceof WebSocket) conn.once("close", resolve)
    socket.disconnect(resolve)
  })
}

/** Connects a client of a kind through a transport of its own. `options.client` are the client's, the others the transport's. */
export async function connectClient(t, socket, kind, { client: clientOptions, ...options }) {
  const client = kind.makeClient(clientOptions)
  const errors = []
  client.onerror = (error) => errors.push(error)
  const transport = new McpTransport(socket, options)
  finallyDo(t, () => client.close())
  await client.connect(transport)
  return { client, transport, errors }
}
