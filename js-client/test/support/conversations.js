// What a stock client and the reference application say to each other. The same functions run in a page and in Node:
// each takes the client's module, talks, and returns plain values, which the test compares.

/** One socket of a stock client, with a promise for each of its callbacks. */
class Client {
  constructor({ Phoenix, endpoint, longPoll = false, webSocket, params = {} }) {
    this.Phoenix = Phoenix
    this.socket = new Phoenix.Socket(endpoint, { transport: longPoll ? Phoenix.LongPoll : webSocket, params })
    this.socket.connect()
  }

  async join(topic, params = {}) {
    const room = new Room(this.socket.channel(topic, params))
    await room.joinReply(1)
    return room
  }

  close() {
    return new Promise((resolve) => this.socket.disconnect(resolve))
  }
}

/** A joined channel that keeps what it received until it is asked for. */
class Room {
  constructor(channel) {
    this.channel = channel
    this.received = new Map()
    this.changed = new Signal()
    this.joins = []
    for (const event of ["pushed", "shout", "bin_pushed", "bin_shout"]) {
      this.received.set(event, [])
      channel.on(event, (payload) => {
        this.received.get(event).push(payload)
        this.changed.notify()
      })
    }
    channel
      .join()
      .receive("ok", (response) => this.noteJoin({ status: "ok", response }))
      .receive("error", (response) => this.noteJoin({ status: "error", response }))
  }

  noteJoin(reply) {
    this.joins.push(reply)
    this.changed.notify()
  }

  /** The reply to the n-th join, counted from 1; the client joins again by itself after a loss. */
  async joinReply(n) {
    await this.changed.until(() => this.joins.length >= n)
    return this.joins[n - 1]
  }

  ask(event, payload) {
    return new Promise((resolve, reject) => {
      this.channel
        .push(event, payload)
        .receive("ok", (response) => resolve({ status: "ok", response }))
        .receive("error", (response) => resolve({ status: "error", response }))
        .receive("timeout", () => reject(new Error(`no reply to ${event}`)))
    })
  }

  /** Sends what has no reply. The client waits for one all the same; briefly here, or its timer keeps Node from ending. */
  tell(event, payload) {
    this.channel.push(event, payload, 100)
  }

  /** The next payload of that event, whether it has come already or not. */
  async next(event) {
    const payloads = this.received.get(event)
    await this.changed.until(() => payloads.length > 0)
    return payloads.shift()
  }
}

/** Wakes those who wait for a condition whenever something it may depend on has changed. */
class Signal {
  constructor() {
    this.waiting = new Set()
  }

  until(condition) {
    return new Promise((resolve) => {
      if (condition()) return resolve()
      this.waiting.add({ condition, resolve })
    })
  }

  notify() {
    for (const entry of [...this.waiting]) {
      if (entry.condition()) {
        this.waiting.delete(entry)
        entry.resolve()
      }
    }
  }
}

const bytesOf = (payload) => (payload instanceof ArrayBuffer ? [...new Uint8Array(payload)] : { notBinary: payload })
const binary = (...bytes) => new Uint8Array(bytes).buffer

/** Join, push and every kind of answer. */
export async function talk(setup) {
  const ada = new Client(setup)
  const grace = new Client(setup)
  const params = { from: "ada", nested: { list: [1, "two", null] } }
  const room = await ada.join("room:talk", params)
  const other = await grace.join("room:talk")
  const refused = await ada.join("room:forbidden")
  refused.channel.leave()

  const heard = {
    joined: await room.joinReply(1),
    refused: await refused.joinReply(1),
    ok: await room.ask("echo", { text: "grüße \u2028 🐦", big: 2 ** 53 - 1 }),
    error: await room.ask("echo_error", { why: "asked" }),
    broadcastReply: await room.ask("broadcast", { n: 7 }),
    ownBroadcast: await room.next("shout"),
    othersBroadcast: await other.next("shout"),
  }
  room.tell("push", { n: 8 })
  heard.push = await room.next("pushed")
  await ada.close()
  await grace.close()
  return heard
}

/** Binary payloads each way: push, reply, error reply, server push, broadcast. */
export async function talkBinary(setup) {
  const ada = new Client(setup)
  const grace = new Client(setup)
  const room = await ada.join("room:binary")
  const other = await grace.join("room:binary")

  const reply = await room.ask("binary", binary(0, 1, 127, 128, 255))
  const error = await room.ask("binary_error", binary(9, 8))
  room.tell("binary_push", binary(4, 5, 6))
  const push = await room.next("bin_pushed")
  const broadcastReply = await room.ask("binary_broadcast", binary(7))
  const heard = {
    reply: [reply.status, bytesOf(reply.response)],
    error: [error.status, bytesOf(error.response)],
    push: bytesOf(push),
    broadcastReply: broadcastReply.status,
    ownBroadcast: bytesOf(await room.next("bin_shout")),
    othersBroadcast: bytesOf(await other.next("bin_shout")),
    empty: await room.ask("binary_size", binary()),
    large: await room.ask("binary_size", new ArrayBuffer(70_000)),
  }
  await ada.close()
  await grace.close()
  return heard
}

/** A binary push answered in text: all that a stock client can do with binary over long poll. */
export async function sendBinary(setup) {
  const client = new Client(setup)
  const room = await client.join("room:binary")
  const heard = {
    size: await room.ask("binary_size", binary(0, 10, 13, 255)),
    large: await room.ask("binary_size", new ArrayBuffer(70_000)),
    textBeside: await room.ask("echo", { n: 1 }),
  }
  await client.close()
  return heard
}

/** Two clients on one topic, each with the stock `Presence` object; what each of them believes. */
export async function meet(setup) {
  const { Presence } = setup.Phoenix
  const changed = new Signal()
  const enter = async (client) => {
    const room = await client.join("room:presence")
    const presence = new Presence(room.channel)
    presence.onSync(() => changed.notify())
    const names = () => presence.list((key) => key).sort()
    const statuses = () => Object.fromEntries(presence.list((key, { metas }) => [key, metas.map((meta) => meta.status)]))
    return { room, names, statuses }
  }
  const clients = [new Client(setup), new Client(setup)]
  const ada = await enter(clients[0])
  const grace = await enter(clients[1])
  const bothKnow = (condition) => changed.until(() => condition(ada) && condition(grace))

  await ada.room.ask("presence_track", { key: "ada", meta: { status: "writing" } })
  await grace.room.ask("presence_track", { key: "grace", meta: { status: "reading" } })
  await bothKnow(({ names }) => names().length === 2)
  const together = [ada.statuses(), grace.statuses()]

  await grace.room.ask("presence_update", { key: "grace", meta: { status: "compiling" } })
  await bothKnow(({ statuses }) => statuses().grace?.[0] === "compiling")
  const updated = [ada.statuses(), grace.statuses()]

  // A poll that no longer comes is noticed only after the server's window, so over long poll she takes her leave.
  if (setup.longPoll) grace.room.channel.leave()
  else await clients[1].close()
  await changed.until(() => ada.names().length === 1)
  const alone = ada.statuses()
  await Promise.all(clients.map((client) => client.close()))
  return { together, updated, alone }
}

/** Joins and stays, so that the test can take the server away; the returned object goes on with the story. */
export async function stay(setup) {
  const client = new Client(setup)
  const lost = new Promise((resolve) => client.socket.onClose(resolve))
  const room = await client.join("room:stay", { since: "before" })
  await room.ask("echo", { before: true })
  return {
    /** Waits until the client has noticed that the server is gone. */
    noticeLoss: () => lost.then(() => {}),
    /** Waits for the join that the client makes by itself, and uses the channel again. */
    async goOn() {
      const rejoined = await room.joinReply(2)
      const reply = await room.ask("echo", { after: true })
      await client.close()
      return { rejoined, reply }
    },
  }
}
