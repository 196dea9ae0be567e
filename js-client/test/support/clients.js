// Both SDKs' clients over a stock phoenix.js socket, in Node.

import { Client as ClientV2 } from "@modelcontextprotocol/client"
import { Client as ClientV1 } from "@modelcontextprotocol/sdk/client/index.js"
import { McpTransport } from "bennu-client"
import { Socket } from "phoenix"
import WebSocket from "ws"

import { finallyDo } from "./waiting.js"

const INFO = { name: "test", version: "1.0" }

/** The kinds of client that are in use: the SDK's line and the era it speaks. */
export const KINDS = [
  { kind: "sdk v1", line: 1, era: "legacy", makeClient: (options) => new ClientV1(INFO, options) },
  { kind: "client v2, legacy", line: 2, era: "legacy", makeClient: (options) => new ClientV2(INFO, options) },
  {
    kind: "client v2, 2026-07-28",
    line: 2,
    era: "modern",
    makeClient: (options) => new ClientV2(INFO, { ...options, versionNegotiation: { mode: { pin: "2026-07-28" } } }),
  },
]

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
  finallyDo(t, () => new Promise((resolve) => socket.disconnect(resolve)))
  return socket
}

/** Connects a client of a kind through its own transport. `options.client` are the client's, the others the transport's. */
export async function connectClient(t, socket, { makeClient }, { client: clientOptions, setUp, ...options }) {
  const client = makeClient(clientOptions)
  const errors = []
  client.onerror = (error) => errors.push(error)
  setUp?.(client)
  const transport = new McpTransport(socket, options)
  finallyDo(t, () => client.close())
  await client.connect(transport)
  return { client, transport, errors }
}
