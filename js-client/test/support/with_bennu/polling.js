// What goes over phoenix.js's long poll, its way where WebSockets are kept out: with `bennu` itself, whose socket has it.

import { until } from "../waiting.js"
import { outcome } from "./application.js"

const SERVER = { server: "bennu" }
/** The tools behind the deployment's resources. */
const DEPLOYMENT = ["project_create", "project_update", "project_delete", "memory_remember", "memory_forget"]
const OF_TEMPLATES = [
  ...["workflow_create", "workflow_execute", "workflow_templates"],
  ...["data_fetcher", "data_transformer", "data_saver"],
  ...["user_validator", "welcome_service", "notification_service", "rejection_service"],
  ...["text_analyzer", "image_analyzer", "spam_detector", "moderation_aggregator"],
  ...["item_processor", "item_validator", "batch_aggregator"],
  ...["api_caller", "response_validator", "response_transformer"],
]
/** What the hash of ten chunks takes, and has for progress: all of it within a poll or two. */
const CHUNK_BYTES = 65_536
const STEPS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]

const isPolling = ({ socket }) => socket.conn.pollEndpoint !== undefined

/** Has the server compute. Gives each step's progress, and how many were told when the result came. */
async function hash(session) {
  const told = []
  const onprogress = ({ progress }) => told.push(progress / CHUNK_BYTES)
  const { isError } = await session.call("stream_hash", { bytes: STEPS.length * CHUNK_BYTES }, { onprogress })
  return { told, atResult: told.length, isError }
}

/** A call that is under way, and takes longer than any test. */
async function beginLong(session) {
  const told = []
  const onprogress = ({ progress }) => told.push(progress)
  const ending = outcome(session.call("countdown", { seconds: 60, interval_ms: 100 }, { onprogress }))
  await until(() => told.length > 0)
  return { ending }
}

export const polled = {
  what: "opens a session, lists, has calls with progress, and closes it, with which its calls end",
  async hold(application) {
    const { channel } = await application.join("mcp:runs")
    const finished = []
    channel.on("run_finished", ({ status }) => finished.push(status))
    const session = await application.connect(SERVER)
    // A client that is closed has forgotten it.
    const server = session.client.getServerVersion().name
    const tools = (await session.list("listTools", "tools")).map(({ name }) => name)
    const hashes = await Promise.all([hash(session), hash(session)])
    const { ending } = await beginLong(session)

    await session.client.close()
    await until(() => finished.length === 3)
    return {
      isPolling: isPolling(application),
      server,
      version: session.transport.protocolVersion,
      tools,
      hashes,
      ended: (await ending).result,
      finished,
      isConnected: application.socket.isConnected(),
      events: [session.errors, session.reconnects],
    }
  },
  comesTo: ({ era }) => ({
    isPolling: true,
    server: "Bennu",
    version: era === "legacy" ? "2025-11-25" : "2026-07-28",
    tools: ["countdown", "stream_hash", "text_search", ...DEPLOYMENT, ...OF_TEMPLATES],
    hashes: Array(2).fill({ told: STEPS, atResult: STEPS.length, isError: undefined }),
    ended: undefined,
    finished: ["completed", "completed", "failed"],
    isConnected: true,
    events: [[], 0],
  }),
}

export const polledAnew = {
  what: "goes on after the server was started again",
  async hold(application) {
    const session = await application.connect(SERVER)
    const { transport } = session
    const before = transport.sessionId
    const { ending } = await beginLong(session)

    await application.act("restart")
    const { code } = await ending
    const { told } = await hash(session)
    return {
      isPolling: isPolling(application),
      code,
      told,
      isNewSession: before !== undefined && transport.sessionId !== before,
      events: [session.errors, session.closes, session.reconnects],
    }
  },
  comesTo: ({ era }) => ({
    isPolling: true,
    code: -32000,
    told: STEPS,
    isNewSession: era === "legacy",
    events: [[], 0, 1],
  }),
}
