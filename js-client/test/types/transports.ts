// That the transport is what both SDKs and every phoenix.js take: this file is compiled, never run. As an application sees it.

import { Client as ClientV2, type Transport as TransportV2 } from "@modelcontextprotocol/client"
import { Client as ClientV1 } from "@modelcontextprotocol/sdk/client/index.js"
import type { Transport as TransportV1 } from "@modelcontextprotocol/sdk/shared/transport.js"
import { McpTransport, McpTransportError, type McpTransportErrorKind, type McpTransportOptions } from "bennu-client"
import { Socket } from "phoenix"

const socket = new Socket("ws://127.0.0.1:4000/socket")
const transport = new McpTransport(socket, { server: "everything", session: true, params: () => ({ token: "t" }) })

export const v1: TransportV1 = transport
export const v2: TransportV2 = transport

export async function connect() {
  await new ClientV1({ name: "me", version: "1.0" }).connect(transport)
  await new ClientV2({ name: "me", version: "1.0" }).connect(transport)
}

export function use(options: McpTransportOptions): McpTransportErrorKind | undefined {
  transport.onerror = (error) => console.error(error.message)
  transport.onclose = () => undefined
  transport.onreconnect = () => undefined
  transport.channel?.on("streaming_event", (event) => event)
  transport.onerror = undefined
  const error: unknown = new McpTransport(socket, options)
  return error instanceof McpTransportError ? error.kind : undefined
}

// @ts-expect-error: a socket is needed
new McpTransport({}, { server: "one" })
// @ts-expect-error: an option of another name is a slip
new McpTransport(socket, { serverName: "one" })
// The per-request streams of HTTP are another thing: cancelling is a message here.
export const perRequestStream: true extends TransportV2["hasPerRequestStream"] ? ("hasPerRequestStream" extends keyof McpTransport ? true : false) : never = false
