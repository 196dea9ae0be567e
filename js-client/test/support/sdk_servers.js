// One small MCP server, twice: by the SDK's first line for the eras with initialize, by its second for 2026-07-28.
// The tests of the transport have it behind the fake Phoenix server; a real one is asked for the same things.

import { McpServer as McpServerV1 } from "@modelcontextprotocol/sdk/server/mcp.js"
import { SubscribeRequestSchema, UnsubscribeRequestSchema } from "@modelcontextprotocol/sdk/types.js"
import { acceptedContent, fromJsonSchema, inputRequired, inputResponse, McpServer as McpServerV2 } from "@modelcontextprotocol/server"
import { serveStdio } from "@modelcontextprotocol/server/stdio"
import * as z from "zod"

import { hostServer } from "./fake_phoenix.js"

const text = (text) => ({ content: [{ type: "text", text }] })
const INFO = { name: "fixture", version: "1.0" }
const QUESTION = {
  message: "your name?",
  requestedSchema: { type: "object", properties: { name: { type: "string" } }, required: ["name"] },
}
const PROMPT = { messages: [{ role: "user", content: { type: "text", text: "say something" } }], maxTokens: 10 }

/** Gives `onJoin` of the fake server: each channel is a session of its own with the server of the era. */
export const serveSdk = (era, seen = {}) => ({ channel }) => hostServer(channel, era === "legacy" ? legacy(seen) : modern(seen))

/** `seen` is what the test looks at: `cancelled`, `subscribed`, `servers`. */
function legacy(seen) {
  return (transport) => {
    const server = new McpServerV1(INFO, {
      capabilities: { logging: {}, tools: { listChanged: true }, resources: { subscribe: true } },
    })
    seen.subscribed ??= []
    ;(seen.servers ??= []).push(server)
    server.registerTool("echo", { inputSchema: { text: z.string() } }, ({ text: said }) => text(said))
    server.registerTool("progress", {}, async ({ _meta, sendNotification }) => {
      for (const progress of [1, 2, 3]) {
        await sendNotification({ method: "notifications/progress", params: { progressToken: _meta.progressToken, progress, total: 3 } })
      }
      return text("done")
    })
    server.registerTool("ask", {}, async () => text((await server.server.elicitInput(QUESTION)).content?.name))
    server.registerTool("sample", {}, async () => text((await server.server.createMessage(PROMPT)).content.text))
    server.registerTool("hang", {}, ({ signal }) => hang(signal, seen))
    server.registerTool("change", {}, () => {
      server.sendToolListChanged()
      return text("changed")
    })
    server.registerResource("watched", "test://watched", {}, () => ({ contents: [{ uri: "test://watched", text: "content" }] }))
    server.server.setRequestHandler(SubscribeRequestSchema, ({ params }) => (seen.subscribed.push(params.uri), {}))
    server.server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => (seen.subscribed.splice(seen.subscribed.indexOf(params.uri), 1), {}))
    server.registerTool("touch", {}, async () => {
      if (seen.subscribed.includes("test://watched")) await server.server.sendResourceUpdated({ uri: "test://watched" })
      return text("touched")
    })
    return server.connect(transport)
  }
}

function modern(seen) {
  return (transport) => {
    seen.connections = (seen.connections ?? 0) + 1
    serveStdio(() => makeModern(seen), { transport })
  }
}

function makeModern(seen) {
  const server = new McpServerV2(INFO, { capabilities: { tools: { listChanged: true }, resources: { subscribe: true } } })
  const echoed = fromJsonSchema({ type: "object", properties: { text: { type: "string" } }, required: ["text"] })
  server.registerTool("echo", { inputSchema: echoed }, ({ text: said }) => text(said))
  server.registerTool("progress", {}, async (context) => {
    const { progressToken } = context.mcpReq._meta
    for (const progress of [1, 2, 3]) {
      await context.mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, total: 3 } })
    }
    return text("done")
  })
  server.registerTool("ask", {}, (context) => {
    const answer = acceptedContent(context.mcpReq.inputResponses, "question")
    return answer ? text(answer.name) : inputRequired({ inputRequests: { question: inputRequired.elicit(QUESTION) } })
  })
  server.registerTool("sample", {}, (context) => {
    const answer = inputResponse(context.mcpReq.inputResponses, "prompt")
    if (answer.kind === "sampling") return text([answer.result.content].flat()[0].text)
    return inputRequired({ inputRequests: { prompt: inputRequired.createMessage(PROMPT) } })
  })
  server.registerTool("hang", {}, (context) => hang(context.mcpReq.signal, seen))
  server.registerTool("change", {}, () => {
    server.sendToolListChanged()
    return text("changed")
  })
  server.registerResource("watched", "test://watched", {}, () => ({ contents: [{ uri: "test://watched", text: "content" }] }))
  server.registerTool("touch", {}, async () => {
    await server.server.sendResourceUpdated({ uri: "test://watched" })
    return text("touched")
  })
  return server
}

function hang(signal, seen) {
  seen.hanging = (seen.hanging ?? 0) + 1
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => {
      seen.cancelled = (seen.cancelled ?? 0) + 1
      reject(new Error("cancelled"))
    })
  })
}
