// The kinds of MCP client that are in use, over the transport and a stock phoenix.js socket: the same in Node and in a page.

import { Client as ClientV2 } from "@modelcontextprotocol/client"
import { Client as ClientV1 } from "@modelcontextprotocol/sdk/client/index.js"
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js"
import { McpTransport } from "bennu-client"
import { Socket } from "phoenix"

export { McpTransport, Socket }

const INFO = { name: "test", version: "1.0" }
const SCHEMAS = {
  "sampling/createMessage": CreateMessageRequestSchema,
  "elicitation/create": ElicitRequestSchema,
  "notifications/resources/updated": ResourceUpdatedNotificationSchema,
  "notifications/tools/list_changed": ToolListChangedNotificationSchema,
}

/** A line of the SDK and the era it speaks. What the lines call differently is called the same here. */
class Kind {
  constructor(name, line, era, options) {
    Object.assign(this, { name, line, era, options })
  }

  /** A client that answers what servers ask: elicitation with the name Ada, sampling with "something". */
  makeClient(options = {}) {
    const Client = this.line === 1 ? ClientV1 : ClientV2
    const client = new Client(INFO, { capabilities: { sampling: {}, elicitation: {} }, ...this.options, ...options })
    client.setRequestHandler(this.named("elicitation/create"), () => ({ action: "accept", content: { name: "Ada" } }))
    client.setRequestHandler(this.named("sampling/createMessage"), () => ({
      role: "assistant",
      model: "m",
      content: { type: "text", text: "something" },
    }))
    return client
  }

  /** The first line names a method by its schema, the second by its name. */
  named(method) {
    return this.line === 1 ? SCHEMAS[method] : method
  }

  /** Calls a tool and gives the text of its result. */
  async call(client, name, args = {}, options = undefined) {
    const params = { name, arguments: args }
    const result = await (this.line === 1 ? client.callTool(params, undefined, options) : client.callTool(params, options))
    return result.content[0].text
  }
}

export const KINDS = [
  new Kind("sdk v1", 1, "legacy", {}),
  new Kind("client v2, legacy", 2, "legacy", {}),
  new Kind("client v2, 2026-07-28", 2, "modern", { versionNegotiation: { mode: { pin: "2026-07-28" } } }),
]
