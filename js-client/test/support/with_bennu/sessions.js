// How sessions with the example begin, stand side by side, end, and outlive their connection.

import { until } from "../waiting.js"
import { outcome } from "./application.js"

const WATCHED = "test://watched-resource"
const UPDATED = "notifications/resources/updated"
const LOGGED = "notifications/message"
const CONNECTION_LOST = -32000
const steps = (count) => Array.from({ length: count }, (_, at) => at + 1)

export const opening = {
  what: "opens a session, and knows the server",
  async hold(application) {
    const { client, transport, errors } = await application.connect()
    return {
      server: client.getServerVersion().name,
      isAsJoined: JSON.stringify(client.getServerVersion()) === JSON.stringify(transport.joinReply.serverInfo),
      instructions: client.getInstructions(),
      version: transport.protocolVersion,
      offers: Object.keys(client.getServerCapabilities()).sort(),
      sessionId: transport.sessionId?.replace(/[0-9a-f]{16}$/, "…"),
      errors,
    }
  },
  comesTo: ({ era }) => ({
    server: "bennu-conformance",
    isAsJoined: true,
    instructions: "Made for the conformance suites.",
    version: era === "legacy" ? "2025-11-25" : "2026-07-28",
    offers: ["completions", ...(era === "legacy" ? [] : ["extensions"]), "logging", "prompts", "resources", "tools"],
    sessionId: era === "legacy" ? "mcp_session_…" : undefined,
    errors: [],
  }),
}

export const sideBySide = {
  what: "has two sessions on one socket that do not hear of each other",
  async hold(application) {
    const [one, two] = await Promise.all([application.connect(), application.connect({ session: "x" })])
    const progress = async (session, count) => {
      const told = []
      await session.call("many_progress", { count }, { onprogress: ({ progress }) => told.push(progress) })
      return told
    }
    const told = await Promise.all([progress(one, 20), progress(two, 30)])
    await one.watch({ uri: WATCHED })
    await two.watch({ toolsListChanged: true })
    await two.call("test_trigger_resource_update")
    const heard = await one.methodsHeard(1)

    await one.client.close()
    return {
      topics: [one, two].map(({ transport }) => transport.topic),
      told,
      heard: [heard, two.heard],
      afterwards: [(await outcome(one.text("echo", { text: "one" }))).result, await two.text("echo", { text: "two" })],
      errors: [...one.errors, ...two.errors],
    }
  },
  comesTo: () => ({
    topics: ["mcp:server:conformance", "mcp:server:conformance:x"],
    told: [steps(20), steps(30)],
    heard: [[UPDATED], []],
    afterwards: [undefined, "two"],
    errors: [],
  }),
}

export const refusal = {
  what: "is told that a server is unknown, and goes to one that is not",
  async hold(application) {
    const refused = async (options) => {
      const error = await application.connect(options).then(
        () => new Error("was let in"),
        (error) => error,
      )
      return [error.kind, error.message]
    }
    return {
      unknown: await refused({ server: "nobody" }),
      nonsense: await refused({ server: undefined, topic: "mcp:nonsense" }),
      unnamed: await refused({ server: "conformance", session: "" }),
      isConnected: application.socket.isConnected(),
      echo: await (await application.connect()).text("echo", { text: "in" }),
    }
  },
  comesTo: () => ({
    unknown: ["refused", "joining mcp:server:nobody was refused: unknown MCP server"],
    nonsense: ["refused", "joining mcp:nonsense was refused: Unknown channel topic"],
    unnamed: ["refused", "joining mcp:server:conformance: was refused: Unknown channel topic"],
    isConnected: true,
    echo: "in",
  }),
}

export const closing = {
  what: "closes its session, with which the server ends its calls",
  async hold(application) {
    const { channel } = await application.join("mcp:runs")
    const finished = []
    channel.on("run_finished", (run) => finished.push(run))
    const session = await application.connect({ params: { streaming: true } })
    const hanging = outcome(session.call("hangs"))
    const { stream_id: run } = await session.event("tool_started")
    const first = session.transport.channel

    await session.client.close()
    const { result, code } = await hanging
    await until(() => finished.length > 0)
    const again = await application.connect()
    return {
      hanging: [result, code],
      state: first.state,
      run: finished.map(({ run_id, tool, status }) => [run_id === run, tool, status]),
      isConnected: application.socket.isConnected(),
      again: await again.text("echo", { text: "again" }),
      errors: session.errors,
    }
  },
  comesTo: ({ line }) => ({
    hanging: [undefined, line === 1 ? CONNECTION_LOST : "CONNECTION_CLOSED"],
    state: "closed",
    run: [[true, "hangs", "failed"]],
    isConnected: true,
    again: "again",
    errors: [],
  }),
}

/** A session whose connection is lost, as `act(lose)` has it, and what is left of it. */
async function outlive(application, lose) {
  const session = await application.connect({ params: { streaming: true } })
  const { client, transport } = session
  const isLegacy = application.kind.era === "legacy"
  if (isLegacy) await client.setLoggingLevel("error")
  await session.watch({ uri: WATCHED })
  const before = transport.sessionId
  const hanging = outcome(session.call("hangs"))
  await session.event("tool_started")

  await application.act(lose)
  const { code, message } = await hanging
  const echo = await session.text("echo", { text: "again" })
  const subscription = await session.subscription?.closed
  // A legacy session is told again what it had been told: the subscription, and the level above what this tool logs.
  if (!isLegacy) await session.watch({ uri: WATCHED })
  await session.text("test_tool_with_logging")
  await session.call("test_trigger_resource_update")
  const heard = await session.methodsHeard(1)
  const name = await session.text("test_streaming_elicitation")
  return {
    lost: [code, /^(MCP error -32000: )?connection lost.* before the answer$/.test(message)],
    echo,
    subscription,
    isNewSession: isLegacy ? transport.sessionId !== before : undefined,
    heard,
    name,
    told: [session.reconnects, session.closes],
    errors: session.errors,
  }
}

const outlived = ({ era }, subscription) => ({
  lost: [CONNECTION_LOST, true],
  echo: "again",
  subscription: era === "legacy" ? undefined : subscription,
  isNewSession: era === "legacy" ? true : undefined,
  heard: [UPDATED],
  name: "Hello, Ada!",
  told: [1, 0],
  errors: [],
})

export const cut = {
  what: "goes on after its connection was cut, and what was under way runs on",
  async hold(application) {
    const told = await outlive(application, "cut")
    const { channel, reply } = await application.join("mcp:runs")
    channel.leave()
    return { ...told, runsOn: reply.runs.some(({ tool, status }) => tool === "hangs" && status === "running") }
  },
  comesTo: (kind) => ({ ...outlived(kind, "remote"), runsOn: true }),
}

export const restart = {
  what: "goes on after the server was started again",
  hold: (application) => outlive(application, "restart"),
  // A server that ends ends its subscriptions first.
  comesTo: (kind) => outlived(kind, "graceful"),
}
