// Bennu with topics that resume, stock phoenix clients there, and who sends to them.

import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { withResume } from "bennu-client"

import { openSocket } from "./clients.js"
import { freePort } from "./queues.js"
import { startBennuWith } from "./server_process.js"
import { finallyDo, until } from "./waiting.js"

/** How long a publisher waits for an answer before it goes on to the next message. */
const PUBLISHER_TIMEOUT_MS = 1_000

/** Starts Bennu with topics `room:*`, which have a history, and `plain:*`, which have none. `history` are settings of that section. */
export async function startHistory(t, history = {}) {
  const folder = await mkdtemp(join(tmpdir(), "history-"))
  finallyDo(t, () => rm(folder, { recursive: true, force: true }))
  const port = await freePort()
  const file = join(folder, "bennu.toml")
  const lines = [
    "[server]",
    `listen = "127.0.0.1:${port}"`,
    'log = "warn"',
    "shutdown_delay_ms = 0",
    "[topics]",
    'patterns = ["room:*", "plain:*"]',
    "[store]",
    `path = ${JSON.stringify(join(folder, "bennu.redb"))}`,
    "[history]",
    ...Object.entries({ topics: ["room:*"], ...history }).map(([name, value]) => `${name} = ${JSON.stringify(value)}`),
  ]
  await writeFile(file, lines.join("\n"))
  const process = await startBennuWith(file)
  finallyDo(t, () => process.stop())
  return { process, port, endpoint: `ws://127.0.0.1:${port}/socket` }
}

/** What a client saw, in order: `{ by, n }` of each message, or `{ gap }`. */
class Log {
  entries = []
  joins = 0

  get messages() {
    return this.entries.filter(({ gap }) => !gap)
  }

  get gaps() {
    return this.entries.filter(({ gap }) => gap).map(({ gap }) => gap)
  }
}

/** The ways to listen on a topic; each gives the client's channel and log, and is joined by who calls it. */
export const WAYS = {
  /** With this package. */
  withResume(socket, topic, options) {
    const log = new Log()
    const channel = socket.channel(topic)
    const resume = withResume(channel, { ...options, onGap: (gap) => log.entries.push({ gap }) })
    channel.on("new_msg", (message) => log.entries.push(message))
    return { channel, log, resume, joined: channel.join().receive("ok", () => log.joins++) }
  },

  /** With the lines of Bennu's README, and nothing else. */
  tenLines(socket, topic) {
    const log = new Log()
    const show = (message) => log.entries.push(message)
    const reload = (gap) => log.entries.push({ gap })

    let last = null
    const channel = socket.channel(topic, () => ({ resume: last }))
    const seen = (_, ref) => { if (last && ref?.startsWith("@")) last = { ...last, offset: +ref.slice(1) } }
    channel.on("new_msg", (message, ref) => { seen(message, ref); show(message) })
    channel.on("position", seen)
    channel.on("gap", (gap) => { last = { epoch: gap.epoch, offset: gap.offset }; reload(gap) })
    const joined = channel.join().receive("ok", ({ resume }) => { if (resume) last = resume })
    return { channel, log, joined: joined.receive("ok", () => log.joins++) }
  },

  /** As an ordinary Phoenix client. */
  plain(socket, topic) {
    const log = new Log()
    const channel = socket.channel(topic)
    channel.on("new_msg", (message) => log.entries.push(message))
    return { channel, log, joined: channel.join().receive("ok", () => log.joins++) }
  },
}

/** Opens a socket, listens on a topic in one of the {@link WAYS} and waits for the first join. */
export async function listen(t, endpoint, topic, way = "withResume", { from, ...options } = {}) {
  // A join that is only late must not be given up.
  const socket = openSocket(t, endpoint, { timeout: 10_000, ...options })
  socket.connect()
  const client = WAYS[way](socket, topic, { from })
  await new Promise((resolve, reject) => client.joined.receive("ok", resolve).receive("error", reject))
  return { ...client, socket }
}

/** Sends numbered messages to a topic, which all others there get. */
export class Publisher {
  /** The numbers that the server took, in order. */
  accepted = []
  #n = 0
  #isOver = false

  static async open(t, endpoint, topic, by = "publisher") {
    const publisher = new Publisher()
    publisher.by = by
    publisher.channel = (await listen(t, endpoint, topic, "plain", { timeout: 2_000 })).channel
    // A test that fails must not send for ever.
    finallyDo(t, () => publisher.stop())
    return publisher
  }

  /** Sends the next one; whether the server took it. One that it did not answer may have been sent to the others or not. */
  async send(event = "new_msg") {
    const n = this.#n++
    const isTaken = await new Promise((resolve, reject) => {
      this.channel
        .push(event, { by: this.by, n }, PUBLISHER_TIMEOUT_MS)
        .receive("ok", () => resolve(true))
        .receive("timeout", () => resolve(false))
        .receive("error", (error) => reject(new Error(JSON.stringify(error))))
    })
    if (isTaken) this.accepted.push(n)
    return isTaken
  }

  async sendMany(count) {
    for (let sent = 0; sent < count; sent++) await this.send()
  }

  /** Sends one after the other until it is stopped. */
  start() {
    this.done = (async () => {
      while (!this.#isOver) {
        await this.send()
        // Others have their turn as well.
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    })()
    this.done.catch(() => {})
  }

  async stop() {
    this.#isOver = true
    await this.done
  }

  /** Waits until the server has taken so many more. */
  more(count) {
    const before = this.accepted.length
    return until(() => this.accepted.length >= before + count, `${count} messages of ${this.by}`, 20_000)
  }
}
