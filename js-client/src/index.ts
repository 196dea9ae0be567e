// MCP sessions over a stock phoenix.js socket.

export { McpTransport, McpTransportError } from "./mcp.js"
export type { JsonRpcId, JsonRpcMessage, McpTransportErrorKind, McpTransportOptions } from "./mcp.js"
export type { PhoenixChannel, PhoenixPush, PhoenixSocket } from "./phoenix.js"
