// An MCP server whose tools are steps to compose: each says what it was called with, and notes its calls in the file STEPS_LOG, a line
// of JSON each, which a crash of Bennu outlives.

import { appendFileSync, readFileSync } from "node:fs"
import { createInterface } from "node:readline"

const { STEPS_LOG } = process.env

const say = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`)
const note = (what) => STEPS_LOG && appendFileSync(STEPS_LOG, `${JSON.stringify(what)}\n`)
const noted = () => readFileSync(STEPS_LOG, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line))
const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()))
  })

const text = (text) => ({ content: [{ type: "text", text }] })
const value = (structuredContent) => ({ ...text(JSON.stringify(structuredContent)), structuredContent })
const failure = (text) => ({ content: [{ type: "text", text }], isError: true })
const object = (properties = {}, further = {}) => ({ type: "object", properties, ...further })

const given = (args) => value(args)
const CLOSED = { additionalProperties: false }

/** By name: a schema, and what makes the result of arguments. */
const TOOLS = {
  give: { does: "Gives its arguments back.", schema: object(), run: given },
  take: { does: "Takes a value, and nothing else.", schema: object({ value: {} }, CLOSED), run: given },
  take_input: { does: "Takes what came before, and nothing else.", schema: object({ input: {} }, CLOSED), run: given },
  say: { does: "Says a text.", schema: object({ text: { type: "string" } }, CLOSED), run: ({ text: said }) => text(said) },
  say_nothing: { does: "Says nothing at all.", schema: object({}, CLOSED), run: () => ({ content: [] }) },
  fail: { does: "Fails in these words.", schema: object({ message: { type: "string" } }), run: ({ message }) => failure(message) },
  count_input: { does: "Counts a list, or the keys of an object.", schema: object({ input: {} }, CLOSED), run: ({ input }) => value({ count: Object.keys(input).length }) },
  search_pages: { does: "Searches the web for pages.", schema: object(), run: (args) => value({ tool: "search_pages", ...args }) },
  add_numbers: { does: "Adds numbers.", schema: object(), run: (args) => value({ tool: "add_numbers", ...args }) },
  /** Fails as often as `times` says, counted by its `mark`. */
  falter: {
    does: "Fails at first.",
    schema: object(),
    run({ mark, times }) {
      const calls = noted().filter((entry) => entry.tool === "falter" && entry.arguments.mark === mark).length
      return calls <= times ? failure(`failure ${calls}`) : value({ calls })
    },
  },
  wait: {
    does: "Waits.",
    schema: object(),
    async run({ ms, mark }, { signal, progress }) {
      progress({ progress: 1, total: 2, message: mark })
      await pause(ms, signal)
      return value({ waited: ms, mark })
    },
  },
  ask: {
    does: "Asks the client for a name.",
    schema: object(),
    async run({ message }) {
      const requestedSchema = object({ name: { type: "string" } })
      const { result, error } = await ask("elicitation/create", { message, requestedSchema })
      return error ? failure(error.message) : value(result)
    },
  },
  /** The first call with a mark takes a minute, a second one no time. */
  linger: {
    does: "Takes its time once.",
    schema: object(),
    async run({ mark }, { signal }) {
      const calls = noted().filter((entry) => entry.tool === "linger" && entry.arguments.mark === mark).length
      if (calls === 1) await pause(60_000, signal)
      return value({ mark, calls })
    },
  },
}

const underWay = new Map()
const asked = new Map()

/** Asks the client. */
function ask(method, params) {
  const id = `question ${asked.size}`
  say({ id, method, params })
  return new Promise((resolve) => asked.set(id, resolve))
}

async function call(id, { name, arguments: args = {}, _meta }) {
  const tool = TOOLS[name]
  if (!tool) return say({ id, error: { code: -32602, message: `Unknown tool: ${name}` } })
  const controller = new AbortController()
  underWay.set(id, controller)
  note({ tool: name, arguments: args })
  const progress = (report) => {
    const progressToken = _meta?.progressToken
    if (progressToken !== undefined) say({ method: "notifications/progress", params: { progressToken, ...report } })
  }
  const result = await tool.run(args, { signal: controller.signal, progress })
  underWay.delete(id)
  if (controller.signal.aborted) return note({ cancelled: name, arguments: args })
  note({ ended: name, arguments: args })
  say({ id, result })
}

const input = createInterface({ input: process.stdin })
input.on("close", () => process.exit(0))
input.on("line", (line) => {
  const message = JSON.parse(line)
  const { id, method, params } = message
  if (method === undefined) return asked.get(id)?.(message)
  if (method === "initialize") {
    const serverInfo = { name: "steps", version: "1" }
    return say({ id, result: { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo } })
  }
  if (method === "tools/list") {
    const tools = Object.entries(TOOLS).map(([name, { does, schema }]) => ({ name, description: does, inputSchema: schema }))
    return say({ id, result: { tools } })
  }
  if (method === "tools/call") return void call(id, params)
  if (method === "notifications/cancelled") return underWay.get(params.requestId)?.abort()
  if (method === "ping") return say({ id, result: {} })
  if (id !== undefined) say({ id, error: { code: -32601, message: `Method not found: ${method}` } })
})
