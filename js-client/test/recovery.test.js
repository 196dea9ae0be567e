// Stock phoenix.js clients of an MCP session that can be come back to, whose connection is cut at byte after byte of an exchange:
// each call runs once, and each answer comes. The same where it is the server that is killed there, and sessions are durable.

import assert from "node:assert/strict"
import { once } from "node:events"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, test } from "node:test"

import * as Newest from "phoenix"
import WebSocket from "ws"

import { freePort, LINES } from "./support/queues.js"
import { startBennu, startBennuWith } from "./support/server_process.js"
import { finallyDo, until } from "./support/waiting.js"

/** A cut at each so many bytes; 1 to be sure. */
const STEP = Number(process.env.BENNU_RECOVERY_CUT_STEP ?? 47)
/** Calls of an exchange. */
const CALLS = 2
/** The server is killed at each so many bytes. */
const KILL_STEP = Number(process.env.BENNU_RECOVERY_KILL_STEP ?? 173)
/** Exchanges with one server, which holds 500 projects. */
const EXCHANGES_MAX = 200
const PATIENCE_MS = 20_000

/** A relay that breaks off, once, the connection on which so many further bytes have passed in a direction as `cutAfter` says. */
async function startCutter(to) {
  const open = new Set()
  const passed = { up: 0, down: 0 }
  let cut = null
  const pass = (from, into, way) =>
    from.on("data", (bytes) => {
      passed[way] += bytes.length
      if (cut?.way !== way || passed[way] < cut.at) return into.write(bytes)
      const rest = bytes.subarray(0, bytes.length - (passed[way] - cut.at))
      const { isReset, meanwhile } = cut
      cut = null
      if (meanwhile) return meanwhile()
      // What came before a regular end is still read; a reset takes it along.
      if (isReset) into.write(rest, () => into.resetAndDestroy())
      else into.end(rest)
      from.resetAndDestroy()
    })
  const relay = createServer((near) => {
    const far = connect(to, "127.0.0.1")
    for (const [one, other] of [[near, far], [far, near]]) {
      open.add(one)
      one.setNoDelay()
      // A close follows.
      one.on("error", () => {})
      one.on("close", () => (open.delete(one), other.end()))
    }
    pass(near, far, "up")
    pass(far, near, "down")
  })
  relay.listen(0, "localhost")
  await once(relay, "listening")
  return {
    endpoint: `ws://localhost:${relay.address().port}/socket`,
    passed,
    cutAfter({ at, ...further }) {
      cut = { ...further, at: passed[further.way] + at }
    },
    async close() {
      open.forEach((socket) => socket.destroy())
      relay.close()
      await once(relay, "close")
    },
  }
}

/** What a client does that wants its calls to run once: it asks again whatever has no answer whenever it has joined. */
class Caller {
  answers = new Map()
  fresh = 0
  positions = []

  constructor(socket, calls) {
    this.calls = calls
    const clientInfo = { name: "caller", version: "1" }
    this.channel = socket.channel("mcp:session", () => ({ clientInfo, recoveryToken: this.token ?? true, lastMessageId: this.last }))
    this.channel.on("mcp_message", (message, ref) => {
      this.last = ref
      this.positions.push(ref)
      if (message.id !== undefined) this.answers.set(message.id, [...(this.answers.get(message.id) ?? []), message.result ?? message.error])
    })
    this.channel.on("streaming_event", (_event, ref) => (this.last = ref))
    this.channel.join().receive("ok", (reply) => {
      this.token = reply.recoveryToken
      this.last = reply.lastMessageId
      if (!reply.resumed) this.fresh++
      for (const call of this.calls) if (!this.answers.has(call.id)) this.channel.push("mcp_message", call)
    })
  }

  done = () => this.calls.every(({ id }) => this.answers.has(id))
}

const create = (name, id) => ({
  jsonrpc: "2.0",
  id,
  method: "tools/call",
  params: { name: "project_create", arguments: { name } },
})

/** Every byte takes a while. */
const patienceFor = (step) => PATIENCE_MS + Math.ceil(47 / step) * 600_000

const everyBytes = (whole, step) =>
  ["up", "down"].flatMap((way) =>
    Array.from({ length: Math.ceil(whole[way] / step) }, (_, n) => ({ way, at: 1 + n * step, isReset: n % 2 === 0 })),
  )

describe("a server that is killed at byte after byte", { concurrency: true }, () => {
  for (const line of ["1.5", "1.8"]) {
    test(`runs each call once where sessions are durable: phoenix ${line}`, { timeout: patienceFor(KILL_STEP) }, async (t) => {
      const whole = await exchangeAll(t, LINES[line], [null], true)
      const kills = everyBytes(whole, KILL_STEP)

      for (let n = 0; n < kills.length; n += EXCHANGES_MAX) await exchangeAll(t, LINES[line], kills.slice(n, n + EXCHANGES_MAX), true)

      t.diagnostic(`${kills.length} kills`)
    })
  }
})

describe("a connection that is cut at byte after byte", { concurrency: true }, () => {
  for (const [line, Phoenix] of Object.entries(LINES)) {
    test(`runs each call once and answers it: phoenix ${line}`, { timeout: patienceFor(STEP) }, async (t) => {
      const whole = await exchangeAll(t, Phoenix, [null])
      const cuts = everyBytes(whole, STEP)

      for (let n = 0; n < cuts.length; n += EXCHANGES_MAX) await exchangeAll(t, Phoenix, cuts.slice(n, n + EXCHANGES_MAX))

      t.diagnostic(`${cuts.length} cuts`)
    })
  }
})

/**
 * One exchange for each cut, with a server of its own; gives how many bytes have passed. Where sessions are durable, the server is
 * killed at the cut and started again.
 */
async function exchangeAll(t, Phoenix, cuts, isDurable = false) {
  const server = isDurable ? await startDurable(t) : await startBennu()
  const cutter = await startCutter(server.port)
  try {
    const wanted = []
    for (const [number, cut] of cuts.entries()) {
      const calls = Array.from({ length: CALLS }, (_, n) => create(`${number}, call ${n}`, n + 1))
      wanted.push(...calls.map(({ params }) => params.arguments.name))
      let restarted = null
      const meanwhile = isDurable && (() => (restarted = server.restart("SIGKILL")))
      if (cut) cutter.cutAfter({ ...cut, meanwhile })
      await exchange(cutter.endpoint, Phoenix, calls, JSON.stringify(cut))
      await restarted
    }
    const passed = { ...cutter.passed }
    const made = await projects(`ws://localhost:${server.port}/socket`)
    assert.deepEqual(made.sort(), wanted.sort())
    return passed
  } finally {
    await cutter.close()
    await server.stop()
  }
}

async function exchange(endpoint, Phoenix, calls, what) {
  await withSocket(endpoint, Phoenix, async (socket) => {
    const caller = new Caller(socket, calls)
    await until(caller.done, `the answers with a cut ${what}`, PATIENCE_MS)
    for (const answers of caller.answers.values()) assert.equal(answers.length, 1, `${what}: ${JSON.stringify(answers)}`)
    // A session whose join was not answered is not come back to; nothing was asked in it.
    assert.ok(caller.fresh <= 1, `${what}: ${caller.fresh} fresh sessions`)
    assert.ok(caller.positions.every((ref) => /^@\d+$/.test(ref)), `${what}: ${caller.positions}`)
    await new Promise((resolve) => caller.channel.leave().receive("ok", resolve).receive("timeout", resolve))
  })
}

async function startDurable(t) {
  const folder = await mkdtemp(join(tmpdir(), "sessions-"))
  finallyDo(t, () => rm(folder, { recursive: true, force: true }))
  const file = join(folder, "bennu.toml")
  const lines = [
    "[server]",
    `listen = "127.0.0.1:${await freePort()}"`,
    `secret_key_base = "${"s".repeat(64)}"`,
    'log = "warn"',
    "[mcp]",
    'session_durability = "durable"',
    "[store]",
    `path = ${JSON.stringify(join(folder, "bennu.redb"))}`,
  ]
  await writeFile(file, lines.join("\n"))
  return startBennuWith(file)
}

/** The names of all projects that there are: one for each run of the tool. */
async function projects(endpoint) {
  let names
  await withSocket(endpoint, Newest, async (socket) => {
    const channel = socket.channel("mcp:session", { clientInfo: { name: "reader", version: "1" } })
    channel.on("mcp_message", ({ id, result }) => id === 1 && (names = result.resources.filter(isProject).map(({ name }) => name)))
    const list = { jsonrpc: "2.0", id: 1, method: "resources/list", params: {} }
    channel.join().receive("ok", () => channel.push("mcp_message", list))
    await until(() => names, "the list of projects", PATIENCE_MS)
  })
  return names
}

const isProject = ({ uri }) => uri.startsWith("workspace://project/")

async function withSocket(endpoint, { Socket }, use) {
  const socket = new Socket(endpoint, {
    transport: WebSocket,
    reconnectAfterMs: () => 20,
    rejoinAfterMs: () => 20,
    timeout: 1_000,
    heartbeatIntervalMs: 2_000,
  })
  socket.connect()
  try {
    await use(socket)
  } finally {
    await new Promise((resolve) => socket.disconnect(resolve))
  }
}
