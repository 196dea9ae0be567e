// An upstream whose question outlives the call in whose course it came. Tools: `begin` asks roots/list and stays open, `end` answers
// `begin`, `answer` says what the client answered so far.
import { createInterface } from "node:readline"
let got = null
let begun
const say = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`)
const text = (id, text) => say({ id, result: { content: [{ type: "text", text }] } })
createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params, result, error } = JSON.parse(line)
  if (method === "initialize") return say({ id, result: { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "late", version: "1" } } })
  if (method === "tools/call" && params.name === "begin") {
    begun = id
    return say({ id: "q", method: "roots/list" })
  }
  if (method === "tools/call" && params.name === "end") {
    text(begun, "begun")
    return text(id, "ended")
  }
  if (method === "tools/call") return text(id, JSON.stringify(got))
  if (method === undefined) got = result ?? error
})
