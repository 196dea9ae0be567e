// The package's own consumer of queues, on stock phoenix clients: beside the server, and beside a channel that a test leads.

import assert from "node:assert/strict"
import { after, before, describe, mock, test } from "node:test"

import { ConsumeError, consume } from "bennu-client"

import { openSocket } from "./support/clients.js"
import { connect, startProduction } from "./support/production.js"
import { ask, LINES, Publisher, startDrainingRelay, startQueues, TRANSPORTS, visit, visitProducer } from "./support/queues.js"
import { deferred, finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 60_000 }
const LEASE_MS = 400
const CLIENTS = [
  ...Object.entries(LINES).map(([line, Phoenix]) => [`phoenix ${line}, WebSocket`, { Phoenix }]),
  ["phoenix 1.8, long poll", TRANSPORTS["long poll"]],
]

let server
before(async () => {
  server = await startQueues({ lease_ms: LEASE_MS, backoff_base_ms: 20, backoff_max_ms: 100 })
})
after(() => server?.close())

let topics = 0
const newTopic = () => `queue:consume ${++topics}`

/** A consumer on a socket of its own, which stops before the socket goes. */
function open(t, topic, handler, { options, consuming, endpoint = server.endpoint } = {}) {
  const consumer = consume(openSocket(t, endpoint, options), topic, handler, consuming)
  finallyDo(t, () => consumer.stop())
  return consumer
}

/** Whether the server takes a message for done. */
async function isSettled({ channel }, message_id) {
  const { error } = await ask(channel, "message_extend", { message_id }, 2_000)
  return error?.reason === "already_settled"
}

for (const [name, options] of CLIENTS) {
  describe(name, () => {
    test("each message is handled once, acknowledged, and not delivered again", ONE_TEST, async (t) => {
      const topic = newTopic()
      const producer = await visitProducer(t, server.endpoint, topic)
      const sent = []
      for (let n = 0; n < 30; n++) sent.push(await producer.enqueue({ payload: { n } }))
      const handled = []

      const consumer = open(t, topic, async ({ payload }) => void handled.push(payload.n), { options })
      const { queue, durability, capabilities, lease_ms } = await consumer.joined
      assert.deepEqual([queue, durability, capabilities, lease_ms], [topic, "durable", ["message_ack", "message_nack"], LEASE_MS])
      await until(() => handled.length === 30)
      for (const { message_id } of sent) await until(() => isSettled(consumer, message_id))
      await consumer.stop()

      assert.deepEqual(handled, [...Array(30).keys()])
      const next = await visit(t, server.endpoint, topic)
      assert.ok(await next.hasNoMore())
    })

    test("a message whose handler fails comes again, and at last no more", ONE_TEST, async (t) => {
      const topic = newTopic()
      const { message_id } = await (await visitProducer(t, server.endpoint, topic)).enqueue({ payload: {}, max_retries: 2 })
      const seen = []
      const errors = []
      const fail = ({ attempt, retry_count }) => {
        seen.push([attempt, retry_count])
        throw new Error(`failure ${seen.length}`)
      }

      const consumer = open(t, topic, fail, { options, consuming: { onError: (error, message) => errors.push([error.message, message.message_id]) } })
      await until(() => isSettled(consumer, message_id))

      assert.deepEqual(seen, [[1, 0], [2, 1], [3, 2]])
      assert.deepEqual(errors, [1, 2, 3].map((n) => [`failure ${n}`, message_id]))
    })

    test("a handler that takes longer than the lease keeps its message", ONE_TEST, async (t) => {
      const topic = newTopic()
      const producer = await visitProducer(t, server.endpoint, topic)
      const seen = []
      const threeLeasesOver = deferred()
      const handle = async ({ payload, attempt }) => {
        seen.push([payload.n, attempt])
        if (payload.n === "long") await threeLeasesOver.promise
        else threeLeasesOver.resolve()
      }
      const consumer = open(t, topic, handle, { options })
      const { message_id } = await producer.enqueue({ payload: { n: "long" } })
      await producer.enqueue({ payload: { n: "then" }, delay_ms: 3 * LEASE_MS })

      await until(() => isSettled(consumer, message_id))
      assert.deepEqual(seen, [["long", 1], ["then", 1]])
    })
  })
}

for (const [line, Phoenix] of Object.entries(LINES)) {
  describe(`phoenix ${line} whose connection is cut`, () => {
    test("handles nothing twice that it has done, and has its acks taken in the end", ONE_TEST, async (t) => {
      const relay = await startDrainingRelay(server.port)
      finallyDo(t, () => relay.close())
      const topic = newTopic()
      const counts = new Map()
      const handle = async ({ message_id }) => {
        counts.set(message_id, (counts.get(message_id) ?? 0) + 1)
        // The ack goes into the connection that has just been cut.
        if (counts.size % 20 === 0) relay.reset()
      }
      const consumer = open(t, topic, handle, { options: { Phoenix }, endpoint: relay.endpoint })
      let joins = 0
      consumer.channel.joinPush.receive("ok", () => (joins += 1))
      const publisher = new Publisher(await visitProducer(t, server.endpoint, topic))

      await until(() => counts.size >= 100, "a hundred messages", 30_000)
      const accepted = await publisher.stop()
      await until(() => counts.size === accepted.length)
      for (const { message_id } of accepted) await until(() => isSettled(consumer, message_id), `${message_id} to be done`)

      assert.ok(joins >= 4, `${joins} joins`)
      assert.deepEqual([...new Set(counts.values())], [1])
    })

    test("goes on with a handler that runs, and does not begin it anew", ONE_TEST, async (t) => {
      const relay = await startDrainingRelay(server.port)
      finallyDo(t, () => relay.close())
      const topic = newTopic()
      const { message_id } = await (await visitProducer(t, server.endpoint, topic)).enqueue({ payload: {} })
      const [begun, done] = [deferred(), deferred()]
      let calls = 0
      const handle = () => ((calls += 1), begun.resolve(), done.promise)
      const consumer = open(t, topic, handle, { options: { Phoenix }, endpoint: relay.endpoint })
      await begun.promise
      const again = new Promise((resolve) => consumer.channel.on("message", resolve))
      relay.reset()

      const { attempt } = await again
      done.resolve()
      await until(() => isSettled(consumer, message_id))
      assert.deepEqual([attempt, calls], [2, 1])
    })
  })
}

describe("a consumer", () => {
  test("with maxInFlight 1 does one after the other", ONE_TEST, async (t) => {
    const topic = newTopic()
    const producer = await visitProducer(t, server.endpoint, topic)
    for (let n = 0; n < 10; n++) await producer.enqueue({ payload: { n } })
    const log = []
    const handle = async ({ payload }) => {
      log.push(`begin ${payload.n}`)
      await new Promise((resolve) => setImmediate(resolve))
      log.push(`end ${payload.n}`)
    }
    open(t, topic, handle, { consuming: { maxInFlight: 1 } })

    await until(() => log.length === 20)
    assert.deepEqual(log, [...Array(10).keys()].flatMap((n) => [`begin ${n}`, `end ${n}`]))
  })

  test("that stops finishes what it has begun, and leaves the rest", ONE_TEST, async (t) => {
    const topic = newTopic()
    const producer = await visitProducer(t, server.endpoint, topic)
    for (let n = 0; n < 4; n++) await producer.enqueue({ payload: { n } })
    const done = deferred()
    const handled = []
    const handle = async ({ payload }) => {
      await done.promise
      handled.push(payload.n)
    }
    const consumer = open(t, topic, handle, { consuming: { maxInFlight: 2 } })
    await new Promise((resolve) => consumer.channel.on("message", ({ payload }) => payload.n === 1 && resolve()))

    const stopped = consumer.stop()
    done.resolve()
    await stopped
    await consumer.ended
    assert.deepEqual(handled, [0, 1])
    const next = await visit(t, server.endpoint, topic)
    assert.deepEqual((await next.next(2)).map(({ payload }) => payload.n), [2, 3])
  })

  test("that is refused says why and ends, and one that is stopped before it has joined as well", ONE_TEST, async (t) => {
    const production = await startProduction()
    finallyDo(t, () => production.close())
    const { socket } = await connect(t, production, { params: { token: production.userToken("ada") } })
    const consumer = consume(socket, "inbox:bob", () => {})

    await assert.rejects(consumer.joined, (error) => error instanceof ConsumeError && error.kind === "refused" && /unauthorized/.test(error.message))
    await consumer.ended
    assert.equal(consumer.channel.state, "closed")
    const own = consume(socket, "inbox:ada", () => {})
    assert.equal((await own.joined).queue, "inbox:ada")
    await own.stop()

    const never = consume(openSocket(t, "ws://127.0.0.1:1/socket"), "inbox:ada", () => {})
    await never.stop()
    await assert.rejects(never.joined, { kind: "closed" })
  })
})

/** A socket with one channel whose server is the test. */
class Led {
  pushes = []
  isLeft = false
  #callbacks = {}
  #answers = []
  #join = {}

  socket = {
    connect() {},
    isConnected: () => true,
    channel: (_topic, params) => {
      this.params = params
      return this
    },
  }

  join() {
    const push = { receive: (status, callback) => ((this.#join[status] = callback), push) }
    return push
  }
  on(event, callback) {
    this.#callbacks[event] = callback
  }
  onError(callback) {
    this.lose = callback
  }
  onClose(callback) {
    this.close = callback
  }
  leave() {
    this.isLeft = true
    this.close()
  }
  push(event, payload) {
    const callbacks = {}
    const push = { receive: (status, callback) => ((callbacks[status] = callback), push) }
    this.pushes.push([event, payload.message_id ?? payload.message_ids, ...(payload.error ? [payload.error] : [])])
    this.#answers.push(callbacks)
    return push
  }

  let(leaseMs = 30_000) {
    this.#join.ok({ lease_ms: leaseMs })
  }
  refuse(reason) {
    this.#join.error({ reason })
  }
  deliver(message_id, retry_count = 0) {
    this.#callbacks.message({ message_id, retry_count, payload: {} })
  }
  /** Answers the oldest push that has no answer. */
  answer(status) {
    this.#answers.shift()[status]({})
  }
  /** The pushes since the last time. */
  take() {
    return this.pushes.splice(0)
  }
}

/** Lets what has been resolved run. */
const turn = () => new Promise((resolve) => setImmediate(resolve))

describe("beside a channel that the test leads, a consumer", () => {
  function lead(handler, options) {
    const led = new Led()
    const calls = []
    const consumer = consume(led.socket, "inbox:dev", async (message) => (calls.push(message.message_id), handler?.(message)), options)
    led.let()
    return { led, calls, consumer }
  }

  test("joins with what it can, what it wants and what it was given", () => {
    const given = [{ token: "a" }, () => ({ token: "b" })]
    const params = given.map((params) => {
      const led = new Led()
      consume(led.socket, "inbox:dev", () => {}, { params, maxInFlight: 3 })
      return typeof led.params === "function" ? led.params() : led.params
    })
    const capabilities = ["message_ack", "message_nack"]
    assert.deepEqual(params, ["a", "b"].map((token) => ({ token, capabilities, max_in_flight: 3 })))
  })

  test("acknowledges again what comes again, without handling it", async () => {
    const { led, calls } = lead()
    led.deliver("m1")
    await turn()
    led.answer("ok")
    led.deliver("m1", 1)
    await turn()

    assert.deepEqual(calls, ["m1"])
    assert.deepEqual(led.take(), [["message_ack", "m1"], ["message_ack", "m1"]])
  })

  test("acknowledges at the next join what was not answered before, and what was done meanwhile, and no more", async () => {
    const meanwhile = deferred()
    const { led, calls } = lead(({ message_id }) => message_id === "m3" && meanwhile.promise)
    for (const id of ["m1", "m2", "m3"]) led.deliver(id)
    await turn()
    led.answer("ok")
    led.lose()
    meanwhile.resolve()
    await turn()
    assert.deepEqual(led.take(), [["message_ack", "m1"], ["message_ack", "m2"]])

    led.let()
    assert.deepEqual(led.take(), [["message_ack", ["m2", "m3"]]])
    // Of the connection before.
    led.answer("timeout")
    led.answer("ok")
    led.lose()
    led.let()
    assert.deepEqual([calls, led.take()], [["m1", "m2", "m3"], []])
  })

  test("names at most a thousand messages in one acknowledgement", async () => {
    const { led } = lead()
    led.lose()
    for (let n = 0; n < 2_100; n++) led.deliver(`m${n}`)
    await turn()
    led.let()
    assert.deepEqual(led.take().map(([, ids]) => ids.length), [1_000, 1_000, 100])
  })

  test("gives back again what failed when the server has not counted that, and else handles it again", async () => {
    const { led, calls } = lead(() => Promise.reject(new Error("no")))
    led.deliver("m1")
    await turn()
    led.lose()
    led.let()
    led.deliver("m1", 0)
    await turn()
    assert.deepEqual([calls, led.take()], [["m1"], [["message_nack", "m1", "no"], ["message_nack", "m1", "no"]]])

    led.deliver("m1", 1)
    await turn()
    assert.deepEqual([calls, led.take()], [["m1", "m1"], [["message_nack", "m1", "no"]]])
  })

  test("remembers no more than it may", async () => {
    const { led, calls } = lead(undefined, { rememberedMax: 2 })
    for (const id of ["m1", "m2", "m3", "m3", "m2", "m1"]) {
      led.deliver(id)
      await turn()
    }
    assert.deepEqual(calls, ["m1", "m2", "m3", "m1"])
  })

  test("extends the lease while a handler runs, by the lease of the last join, and not while there is no connection", async () => {
    mock.timers.enable({ apis: ["setInterval"] })
    try {
      const done = deferred()
      const { led } = lead(() => done.promise)
      led.deliver("m1")
      mock.timers.tick(29_999)
      assert.deepEqual(led.take(), [["message_extend", "m1"], ["message_extend", "m1"]])
      led.lose()
      mock.timers.tick(60_000)
      assert.deepEqual(led.take(), [])
      led.let(300)
      mock.timers.tick(299)
      assert.deepEqual(led.take(), [["message_extend", "m1"], ["message_extend", "m1"]])
      done.resolve()
      await turn()
      mock.timers.tick(60_000)
      assert.deepEqual(led.take(), [["message_ack", "m1"]])
    } finally {
      mock.timers.reset()
    }
  })

  test("that stops waits for handlers and answers, takes no more, and does not wait without a connection", async () => {
    const done = deferred()
    const { led, calls, consumer } = lead(() => done.promise)
    led.deliver("m1")
    const stopped = consumer.stop()
    led.deliver("m2")
    done.resolve()
    await turn()
    assert.deepEqual([calls, led.take(), led.isLeft], [["m1"], [["message_ack", "m1"]], false])
    led.answer("ok")
    await stopped
    assert.ok(led.isLeft)

    const other = lead()
    other.led.deliver("m1")
    await turn()
    const lost = other.consumer.stop()
    assert.equal(other.led.isLeft, false)
    other.led.lose()
    await lost
    assert.ok(other.led.isLeft)
  })

  test("reports a later refusal and stays, for phoenix.js tries again; and is not ended by a callback that fails", async () => {
    const errors = []
    const { led, consumer } = lead(undefined, { onError: (error) => errors.push(error.message) })
    led.lose()
    led.refuse("unauthorized")
    led.let()
    assert.deepEqual([errors, led.isLeft], [["joining inbox:dev was refused: unauthorized"], false])
    led.close()
    await consumer.ended
  })
})
