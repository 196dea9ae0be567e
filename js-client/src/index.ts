// MCP sessions, queues and topics that resume, over a stock phoenix.js socket.

export { McpTransport, McpTransportError } from "./mcp.js"
export type { JsonRpcId, JsonRpcMessage, McpTransportErrorKind, McpTransportOptions } from "./mcp.js"
export type { PhoenixChannel, PhoenixPush, PhoenixSocket } from "./phoenix.js"
export { consume, ConsumeError, QueueConsumer } from "./reliable.js"
export type {
  ConsumeErrorKind,
  ConsumeOptions,
  QueueHandler,
  QueueJoinReply,
  QueueMessage,
  QueuePriority,
} from "./reliable.js"
export { Resume, withResume } from "./resume.js"
export type { GapReason, ResumeGap, ResumeOptions, ResumePosition } from "./resume.js"
