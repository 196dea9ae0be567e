// What a client asks of the example's tools, and what it has to hear.

import { outcome } from "./application.js"

const LOG_LEVEL = "io.modelcontextprotocol/logLevel"
const UNKNOWN_TOOL = -32602
/** Calls that are under way at once. */
const MANY = 8
/** No more than the server lets through at once. */
const STEPS = 50

const steps = (count) => Array.from({ length: count }, (_, at) => ({ progress: at + 1, total: count }))

export const calls = {
  what: "calls tools that answer with text, with much of it, with pictures, with objects and with errors",
  async hold(application) {
    const session = await application.connect()
    // The SDKs check structured results against the schemas that were listed.
    await session.list("listTools", "tools")
    const several = await session.call("test_multiple_content_types")
    const [text, image, resource] = several.content
    return {
      echo: await session.call("echo", { text: "grüße \u2028 🐦" }).then(({ content, isError }) => ({ content, isError })),
      big: (await session.text("big", { bytes: 200_000 })).length,
      several: [text.type, image.mimeType, image.data.slice(0, 8), resource.resource.uri],
      structured: (await session.call("structured", { text: "one two\nthree" })).structuredContent,
      failed: await session.call("test_error_handling").then(({ content, isError }) => [isError, content[0].text]),
      unfit: await session.call("echo", { text: 7 }).then(({ isError }) => isError),
      unknown: (await outcome(session.call("no_such_tool"))).code,
      many: await Promise.all(Array.from({ length: MANY }, (_, at) => session.text("echo", { text: `${at}` }))),
      errors: session.errors,
    }
  },
  comesTo: () => ({
    echo: { content: [{ type: "text", text: "grüße \u2028 🐦" }], isError: undefined },
    big: 200_000,
    several: ["text", "image/png", "iVBORw0K", "test://mixed-content-resource"],
    structured: { letters: 11, words: 3, lines: 2 },
    failed: [true, "This tool intentionally returns an error for testing"],
    unfit: true,
    unknown: UNKNOWN_TOOL,
    many: Array.from({ length: MANY }, (_, at) => `${at}`),
    errors: [],
  }),
}

export const progress = {
  what: "gets each call's progress, in order, before its result, and none after",
  async hold(application) {
    const session = await application.connect()
    const told = { 30: [], [STEPS]: [] }
    const atResult = await Promise.all(
      [30, STEPS].map(async (count) => {
        const onprogress = ({ progress, total }) => told[count].push({ progress, total })
        await session.call("many_progress", { count }, { onprogress })
        return told[count].length
      }),
    )
    const paced = []
    await session.call("test_tool_with_progress", {}, { onprogress: ({ progress }) => paced.push(progress) })
    // What the server still had to say stands before this answer.
    await session.text("echo", { text: "after" })

    // On the wire too, nothing of a call comes after its result.
    const { wire } = session
    const tokens = new Set(wire.filter(({ params }) => params).map(({ params }) => params.progressToken))
    const late = [...tokens].filter((token) => {
      const lastProgress = wire.findLastIndex(({ params }) => params?.progressToken === token)
      return lastProgress > wire.findIndex(({ id }) => id === token)
    })
    return { told: Object.values(told), atResult, paced, tokens: tokens.size, late, errors: session.errors }
  },
  comesTo: () => ({
    told: [steps(30), steps(STEPS)],
    atResult: [30, STEPS],
    paced: [0, 50, 100],
    tokens: 3,
    late: [],
    errors: [],
  }),
}

export const logging = {
  what: "hears what a tool logs, from the level on that it asked for",
  async hold(application) {
    const session = await application.connect()
    const log = async (level) => {
      const before = session.heard.length
      const _meta = application.kind.era === "modern" && level ? { [LOG_LEVEL]: level } : undefined
      if (application.kind.era === "legacy") await session.client.setLoggingLevel(level ?? "emergency")
      await session.call("test_tool_with_logging", {}, { _meta })
      return session.heard.slice(before).map(([, { level, data }]) => [level, data])
    }
    return { info: await log("info"), error: await log("error"), none: await log(undefined), errors: session.errors }
  },
  comesTo: () => ({
    info: [["info", "Tool execution started"], ["info", "Tool processing data"], ["info", "Tool execution completed"]],
    error: [],
    none: [],
    errors: [],
  }),
}

export const cancelling = {
  what: "cancels a call by a signal and by its timeout, and the server ends it",
  async hold(application) {
    const cancelled = async (session, options, abort) => {
      const calling = outcome(session.call("hangs", {}, options))
      const { request_id: request } = await session.event("tool_started")
      abort?.()
      const { message, result } = await calling
      const { data } = await session.event("tool_failed")
      // Whoever has cancelled gets no answer any more.
      await session.text("echo", { text: "after" })
      return { result, message, reason: data.reason, answered: session.wire.some(({ id }) => id === request), errors: session.errors }
    }
    const controller = new AbortController()
    const params = { streaming: true }
    const [one, two] = [await application.connect({ params }), await application.connect({ params, session: "two" })]
    return {
      signal: await cancelled(one, { signal: controller.signal }, () => controller.abort("enough")),
      timeout: await cancelled(two, { timeout: 100 }),
    }
  },
  comesTo({ line }) {
    const ended = { result: undefined, reason: "cancelled", answered: false, errors: [] }
    return {
      signal: { ...ended, message: line === 1 ? "MCP error -32001: enough" : "enough" },
      timeout: { ...ended, message: line === 1 ? "MCP error -32001: Request timed out" : "Request timed out" },
    }
  },
}
