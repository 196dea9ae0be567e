// The kinds of MCP client that are in use, over the transport and a stock phoenix.js socket: the same in Node and in a page.

import { Client as ClientV2 } from "@modelcontextprotocol/client"
import { Client as ClientV1 } from "@modelcontextprotocol/sdk/client/index.js"
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  PromptListChangedNotificationSchema,
  ResourceListChangedNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js"
import { McpTransport } from "bennu-client"
import { LongPoll, Socket } from "phoenix"

export { LongPoll, McpTransport, Socket }

const INFO = { name: "test", version: "1.0" }
const SCHEMAS = {
  "sampling/createMessage": CreateMessageRequestSchema,
  "elicitation/create": ElicitRequestSchema,
  "roots/list": ListRootsRequestSchema,
  "notifications/message": LoggingMessageNotificationSchema,
  "notifications/prompts/list_changed": PromptListChangedNotificationSchema,
  "notifications/resources/list_changed": ResourceListChangedNotificationSchema,
  "notifications/resources/updated": ResourceUpdatedNotificationSchema,
  "notifications/tools/list_changed": ToolListChangedNotificationSchema,
}

/** A line of the SDK and the era it speaks. What the lines call differently is called the same here. */
class Kind {
  constructor(name, line, era, options) {
    Object.assign(this, { name, line, era, options })
  }

  /** A client that answers what servers ask, where its capabilities say so: elicitation with the name Ada, sampling with "something", `roots`. */
  makeClient({ capabilities = { sampling: {}, elicitation: {} }, roots = [], ...options } = {}) {
    const Client = this.line === 1 ? ClientV1 : ClientV2
    const client = new Client(INFO, { capabilities, ...this.options, ...options })
    const answer = (capability, method, handler) => capabilities[capability] && client.setRequestHandler(this.named(method), handler)
    answer("elicitation", "elicitation/create", () => ({ action: "accept", content: { name: "Ada" } }))
    answer("sampling", "sampling/createMessage", () => ({ role: "assistant", model: "m", content: { type: "text", text: "something" } }))
    answer("roots", "roots/list", () => ({ roots }))
    return client
  }

  /** The first line names a method by its schema, the second by its name. */
  named(method) {
    return this.line === 1 ? SCHEMAS[method] : method
  }

  /** Calls a tool and gives the text of its result. */
  async call(client, name, args = {}, options = undefined) {
    return (await this.callTool(client, { name, arguments: args }, options)).content[0].text
  }

  /** Calls a tool and gives its result. */
  callTool(client, params, options = undefined) {
    return this.line === 1 ? client.callTool(params, undefined, options) : client.callTool(params, options)
  }
}

export const KINDS = [
  new Kind("sdk v1", 1, "legacy", {}),
  new Kind("client v2, legacy", 2, "legacy", {}),
  new Kind("client v2, 2026-07-28", 2, "modern", { versionNegotiation: { mode: { pin: "2026-07-28" } } }),
]
