// Bennu with queues in a store of its own, and stock phoenix clients that produce and consume.

import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { once } from "node:events"
import { createRequire } from "node:module"
import { connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

import * as Newest from "phoenix"

import { openSocket } from "./clients.js"
import { startBennuWith } from "./server_process.js"
import { until } from "./waiting.js"

const require = createRequire(import.meta.url)

/** The lines of the stock client. */
export const LINES = { 1.5: require("phoenix-1.5"), 1.6: require("phoenix-1.6"), 1.7: require("phoenix-1.7"), 1.8: Newest }
/** What a client that acknowledges joins with. */
export const ACKS = { capabilities: ["message_ack", "message_nack"] }
/** The ways to the server, as options of a socket. Long poll needs the newest line: others have it in browsers only. */
export const TRANSPORTS = { WebSocket: {}, "long poll": { transport: Newest.LongPoll } }
/** How long an answer or a message may take. */
const PATIENCE_MS = 20_000
/** How long a producer waits for an answer before it sends a message again. */
const PRODUCER_TIMEOUT_MS = 1_000

/** A port that was free a moment ago: a server that was killed comes back where its clients look for it. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address()
  server.close()
  await once(server, "close")
  return port
}

/** Starts Bennu in the development setting with a store in a folder. `queues` are settings of that section, numbers all. */
export async function startQueues(queues = {}) {
  const folder = await mkdtemp(join(tmpdir(), "queues-"))
  const port = await freePort()
  const file = join(folder, "bennu.toml")
  const lines = [
    "[server]",
    `listen = "127.0.0.1:${port}"`,
    'log = "warn"',
    "shutdown_delay_ms = 0",
    "[store]",
    `path = ${JSON.stringify(join(folder, "store"))}`,
    "[queues]",
    ...Object.entries(queues).map(([name, value]) => `${name} = ${JSON.stringify(value)}`),
  ]
  await writeFile(file, lines.join("\n"))
  const process = await startBennuWith(file)
  return {
    process,
    file,
    port,
    origin: `http://127.0.0.1:${port}`,
    endpoint: `ws://127.0.0.1:${port}/socket`,
    async close() {
      await process.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Asks on a channel; gives `{ ok }`, `{ error }` or `{ timeout: true }`. */
export function ask(channel, event, payload, timeoutMs = PATIENCE_MS) {
  return new Promise((resolve) => {
    channel
      .push(event, payload, timeoutMs)
      .receive("ok", (ok) => resolve({ ok }))
      .receive("error", (error) => resolve({ error }))
      .receive("timeout", () => resolve({ timeout: true }))
  })
}

/** A stock client on a queue's topic. */
export class Visitor {
  /** What came, and how far the test has read. */
  messages = []
  #read = 0
  /** How often it has joined. */
  joins = 0

  constructor(socket, topic, params) {
    this.socket = socket
    this.channel = socket.channel(topic, params)
    this.channel.on("message", (message) => {
      this.messages.push(message)
      this.onMessage?.(message)
    })
  }

  /** Joins. Rejects with the server's refusal, and is not tried again. */
  join() {
    return new Promise((resolve, reject) => {
      this.channel
        .join()
        .receive("ok", (reply) => {
          this.joins += 1
          this.reply = reply
          this.onJoin?.()
          resolve(this)
        })
        .receive("error", (error) => {
          this.channel.leave()
          reject(Object.assign(new Error(error.reason), error))
        })
    })
  }

  ask(event, payload, timeoutMs) {
    return ask(this.channel, event, payload, timeoutMs)
  }

  /** The message's answer; an error where it is refused. `message` is what `enqueue` takes. */
  async enqueue(message) {
    const { ok, error } = await this.ask("enqueue", message)
    if (!ok) throw Object.assign(new Error(error?.detail ?? "no answer"), error)
    return ok
  }

  /** The next messages that the test has not read. */
  async next(count = 1) {
    await until(() => this.messages.length >= this.#read + count, `message ${this.#read + count}`, PATIENCE_MS)
    this.#read += count
    return this.messages.slice(this.#read - count, this.#read)
  }

  /** Whether there is nothing that the test has not read. A question and its answer: what was on its way is here then. */
  async hasNoMore() {
    await this.ask("message_extend", { message_id: "msg_0_0" })
    return this.messages.length === this.#read
  }

  /** Waits until the server has noted that the kernel has a message's frame: the ack of who gives none. */
  untilHandedOver({ message_id }) {
    const isSettled = async () => (await this.ask("message_extend", { message_id })).error?.reason === "already_settled"
    return until(isSettled, `${message_id} to be handed over`)
  }

  /** Leaves; ends when the server knows. phoenix.js takes a channel for left at once, so another question is asked behind it. */
  async leave() {
    this.channel.leave()
    const behind = this.socket.channel("queue:behind", { consume: false })
    await new Promise((resolve) => behind.join().receive("ok", resolve))
    behind.leave()
  }
}

/** Opens a socket and joins a queue's topic. */
export async function visit(t, endpoint, topic, params = ACKS, options = {}) {
  const socket = openSocket(t, endpoint, options)
  socket.connect()
  return new Visitor(socket, topic, params).join()
}

/** A producer alone. */
export const visitProducer = (t, endpoint, topic) => visit(t, endpoint, topic, { consume: false })

/** Sends message after message, each until it is answered, under a key; so each is accepted once, in the order of its number. */
export class Publisher {
  /** What was accepted, in that order: `{ n, priority, message_id }`. */
  accepted = []
  #isOver = false

  constructor(visitor) {
    this.visitor = visitor
    this.done = this.#run()
    // Who stops it is told.
    this.done.catch(() => {})
  }

  async #run() {
    for (let n = 0; !this.#isOver; n++) {
      const priority = n % 3 === 0 ? "high" : "normal"
      const message = { payload: { n }, priority, idempotency_key: `n ${n}` }
      let answer = {}
      while (!answer.ok) {
        answer = await this.visitor.ask("enqueue", message, PRODUCER_TIMEOUT_MS)
        if (answer.error) throw new Error(`${answer.error.reason}: ${answer.error.detail}`)
      }
      this.accepted.push({ n, priority, message_id: answer.ok.message_id })
      // Others have their turn as well.
      await new Promise((resolve) => setTimeout(resolve, 3))
    }
  }

  async stop() {
    this.#isOver = true
    await this.done
    return this.accepted
  }
}

/**
 * A relay whose connections can be cut in two ways: `reset`, with which what is on its way is lost, and `drain`, after which what
 * the server's kernel had taken still arrives.
 */
export async function startDrainingRelay(to) {
  const pairs = new Set()
  const relay = createServer((near) => {
    const far = connect(to, "127.0.0.1")
    const pair = { near, far }
    pairs.add(pair)
    for (const socket of [near, far]) {
      socket.setNoDelay()
      // A close follows.
      socket.on("error", () => {})
    }
    near.pipe(far)
    // What came before an end or an error is passed on first.
    far.on("data", (bytes) => near.write(bytes))
    far.on("close", () => near.end())
    near.on("close", () => {
      pairs.delete(pair)
      far.destroy()
    })
  })
  relay.listen(0, "localhost")
  await once(relay, "listening")
  const reset = () => pairs.forEach(({ near, far }) => [near, far].forEach((socket) => socket.resetAndDestroy()))
  const drain = () => pairs.forEach(({ near, far }) => (near.unpipe(far), far.end()))
  return {
    port: relay.address().port,
    endpoint: `ws://localhost:${relay.address().port}/socket`,
    reset,
    drain,
    async close() {
      reset()
      relay.close()
      await once(relay, "close")
    },
  }
}
