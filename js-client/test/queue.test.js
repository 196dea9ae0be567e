// Queues as stock phoenix clients see them: inboxes of clients that know nothing of acknowledgements, and what those have who do.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { connect, joinTopic, startProduction } from "./support/production.js"
import { ACKS, LINES, startQueues, TRANSPORTS, visit, visitProducer } from "./support/queues.js"
import { finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 60_000 }
const LEASE_MS = 400
const MESSAGES_MAX = 20

let server
before(async () => {
  server = await startQueues({ backoff_base_ms: 20, backoff_max_ms: 100, messages_max: MESSAGES_MAX })
})
after(() => server?.close())

const numbers = (messages) => messages.map(({ payload }) => payload.n)
const of = (n, further) => ({ payload: { n }, ...further })

/** A topic of its own for each test, and clients there. */
let topics = 0
function newQueue(t, { endpoint } = server) {
  topics += 1
  const topic = `queue:test ${topics}`
  return {
    topic,
    visit: (params, options) => visit(t, endpoint, topic, params, options),
    produce: () => visitProducer(t, endpoint, topic),
  }
}

/** Sends messages of which each priority has two, the least urgent first. */
async function sendOfEachPriority(producer) {
  const priorities = ["low", "normal", "high", "urgent"].flatMap((priority) => [priority, priority])
  for (const [n, priority] of priorities.entries()) await producer.enqueue(of(n, { priority }))
}
/** What {@link sendOfEachPriority} comes as. */
const BY_PRIORITY = [6, 7, 4, 5, 2, 3, 0, 1]

/** Waits until so much time has passed by the server's own clock. */
async function passes(t, ms) {
  const queue = newQueue(t)
  await (await queue.produce()).enqueue(of(0, { delay_ms: ms }))
  await (await queue.visit({})).next()
}

const CLIENTS = [
  ...Object.entries(LINES).map(([line, Phoenix]) => [`phoenix ${line} over WebSocket`, { Phoenix }]),
  ["phoenix 1.8 over long poll", TRANSPORTS["long poll"]],
]
for (const [name, options] of CLIENTS) {
  describe(name, () => {
    test("an inbox without any opting in has what was sent while its user was away, by priority, and what is sent then", ONE_TEST, async (t) => {
      const producer = await visitProducer(t, server.endpoint, "inbox:dev")
      await sendOfEachPriority(producer)

      const inbox = await visit(t, server.endpoint, "inbox:dev", {}, options)
      assert.deepEqual(numbers(await inbox.next(8)), BY_PRIORITY)
      await producer.enqueue(of("there"))
      const [there] = await inbox.next()
      assert.equal(there.payload.n, "there")
      await inbox.untilHandedOver(there)

      await inbox.leave()
      await producer.enqueue(of("away"))
      const again = await visit(t, server.endpoint, "inbox:dev", {}, options)
      const [away] = await again.next()
      assert.deepEqual([away.payload.n, away.attempt], ["away", 1])
      await again.untilHandedOver(away)
      assert.ok(await again.hasNoMore())
    })

    test("a client that acknowledges has each message until it has said so, and not again", ONE_TEST, async (t) => {
      const queue = newQueue(t)
      const producer = await queue.produce()
      await sendOfEachPriority(producer)

      const consumer = await queue.visit(ACKS, options)
      const first = await consumer.next(8)
      assert.deepEqual(numbers(first), BY_PRIORITY)
      for (const { message_id } of first.slice(0, 3)) {
        assert.deepEqual(await consumer.ask("message_ack", { message_id }), { ok: { durability: "durable" } })
      }
      const rest = first.slice(3).map(({ message_id }) => message_id)

      await consumer.leave()
      const again = await queue.visit(ACKS, options)
      const second = await again.next(5)
      assert.deepEqual(numbers(second), BY_PRIORITY.slice(3))
      assert.deepEqual(second.map(({ attempt, retry_count }) => [attempt, retry_count]), Array(5).fill([2, 0]))
      const answer = await again.ask("message_ack", { message_ids: [...rest, "msg_1_1", first[0].message_id] })
      const refused = { msg_1_1: "unknown_message", [first[0].message_id]: "already_settled" }
      assert.deepEqual(answer, { ok: { durability: "durable", acked: 5, refused } })
      await again.leave()

      const last = await queue.visit(ACKS, options)
      assert.ok(await last.hasNoMore())
    })
  })
}

describe("a join", () => {
  test("says what the client gets", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const common = { queue: queue.topic, durability: "durable", lease_ms: 30_000 }

    assert.deepEqual((await queue.visit({})).reply, { ...common, capabilities: [], max_in_flight: 100 })
    assert.deepEqual((await queue.visit({ capabilities: ["other"] })).reply, { ...common, capabilities: [], max_in_flight: 100 })
    assert.deepEqual((await queue.visit({ ...ACKS, max_in_flight: 7 })).reply, { ...common, ...ACKS, max_in_flight: 7 })
    assert.deepEqual((await queue.visit({ ...ACKS, max_in_flight: 1_000_000 })).reply, { ...common, ...ACKS, max_in_flight: 100 })
    assert.deepEqual((await queue.visit({ ...ACKS, max_in_flight: 0 })).reply, { ...common, ...ACKS, max_in_flight: 1 })
  })

  test("names the class that was reached", ONE_TEST, async (t) => {
    const other = await startQueues({ memory: ["inbox:*"], durable: ["queue:*"], ephemeral: ["alarms"] })
    finallyDo(t, () => other.close())
    const classes = {}
    for (const topic of ["inbox:dev", "queue:a", "alarms"]) {
      const { reply } = await visit(t, other.endpoint, topic)
      classes[topic] = reply.durability
    }
    assert.deepEqual(classes, { "inbox:dev": "memory", "queue:a": "durable", alarms: "ephemeral" })
  })

  test("of a producer alone gets nothing delivered", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const producer = await queue.produce()
    await producer.enqueue(of(1))

    assert.ok(await producer.hasNoMore())
    assert.equal((await (await queue.visit()).next())[0].attempt, 1)
  })

  test("into a queue that is none, or with nonsense, is refused", ONE_TEST, async (t) => {
    await assert.rejects(visit(t, server.endpoint, "queues:x"), { reason: "unmatched topic" })
    await assert.rejects(newQueue(t).visit({ max_in_flight: "many" }))
    await assert.rejects(newQueue(t).visit({ capabilities: "message_ack" }))
  })
})

describe("a message", () => {
  test("has its id, payload, priority, counts and time", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const payload = { text: "ünï \u2028 \"quoted\"", deep: [{ a: [1.5, null, true] }] }
    const began = Date.now()
    const { message_id, durability } = await (await queue.produce()).enqueue({ payload, priority: "high" })

    const [{ created_at, ...message }] = await (await queue.visit()).next()
    assert.equal(durability, "durable")
    assert.match(message_id, /^msg_\d+_\d+$/)
    assert.deepEqual(message, { message_id, payload, priority: "high", attempt: 1, retry_count: 0 })
    assert.ok(created_at >= began && created_at <= Date.now())
  })

  test("that is no message is refused, with what was expected", ONE_TEST, async (t) => {
    const producer = await newQueue(t).produce()
    const bad = [
      {},
      { payload: "text" },
      { payload: [] },
      { payload: {}, priority: "highest" },
      { payload: {}, ttl_ms: 0 },
      { payload: {}, ttl_ms: "1" },
      { payload: {}, delay_ms: -1 },
      { payload: {}, max_retries: 101 },
      { payload: {}, idempotency_key: "" },
      { payload: {}, ttl: 1 },
    ]
    for (const message of bad) {
      const { error } = await producer.ask("enqueue", message)
      assert.equal(error?.reason, "invalid_message", JSON.stringify(message))
      assert.equal(typeof error.detail, "string")
    }
    assert.equal((await producer.ask("other", {})).error.reason, "unknown_event")
  })

  test("waits for its delay", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const producer = await queue.produce()
    const consumer = await queue.visit({})
    await producer.enqueue(of("later", { delay_ms: 300, priority: "urgent" }))
    await producer.enqueue(of("now", { priority: "low" }))

    assert.deepEqual(numbers(await consumer.next(2)), ["now", "later"])
  })

  test("that nobody took in time is gone", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const producer = await queue.produce()
    await producer.enqueue(of("brief", { ttl_ms: 50 }))
    await producer.enqueue(of("lasting", { priority: "low" }))
    await passes(t, 100)

    const consumer = await queue.visit()
    assert.deepEqual(numbers(await consumer.next()), ["lasting"])
    assert.ok(await consumer.hasNoMore())
  })

  test("with the key of an earlier one is that one", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const producer = await queue.produce()
    const { message_id } = await producer.enqueue(of(1, { idempotency_key: "k" }))
    const consumer = await queue.visit()

    const duplicate = { message_id, durability: "durable", duplicate: true }
    assert.deepEqual(await producer.enqueue(of(2, { idempotency_key: "k" })), duplicate)
    await consumer.next()
    assert.ok((await consumer.ask("message_ack", { message_id })).ok)
    assert.deepEqual(await producer.enqueue(of(3, { idempotency_key: "k" })), duplicate)
    await producer.enqueue(of(4, { idempotency_key: "other" }))
    assert.deepEqual(numbers(await consumer.next()), [4])
  })

  test("above the queue's bound is refused, and taken when there is place", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const producer = await queue.produce()
    for (let n = 0; n < MESSAGES_MAX; n++) await producer.enqueue(of(n))

    assert.equal((await producer.ask("enqueue", of("more"))).error.reason, "queue_full")
    const consumer = await queue.visit()
    const [{ message_id }] = await consumer.next(MESSAGES_MAX)
    await consumer.ask("message_ack", { message_id })
    await producer.enqueue(of("more"))
    assert.deepEqual(numbers(await consumer.next()), ["more"])
  })
})

describe("a failure", () => {
  test("has the message come again with its counts, and makes it a dead letter when retries are exceeded", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    await (await queue.produce()).enqueue(of(1, { max_retries: 2 }))
    const consumer = await queue.visit()
    const seen = []
    const answers = []
    for (let failure = 1; failure <= 3; failure++) {
      const [{ message_id, attempt, retry_count }] = await consumer.next()
      seen.push([attempt, retry_count])
      answers.push((await consumer.ask("message_nack", { message_id, error: `failure ${failure}` })).ok)
    }

    assert.deepEqual(seen, [[1, 0], [2, 1], [3, 2]])
    const [one, two, three] = answers
    assert.deepEqual([one.retry_count, two.retry_count, three], [1, 2, { dead_letter: true }])
    // Half of the wait is left to chance.
    assert.ok(one.retry_after_ms >= 10 && one.retry_after_ms <= 20, `${one.retry_after_ms} ms`)
    assert.ok(two.retry_after_ms >= 20 && two.retry_after_ms <= 40, `${two.retry_after_ms} ms`)
    const { message_id } = consumer.messages[0]
    assert.equal((await consumer.ask("message_ack", { message_id })).error.reason, "already_settled")
    assert.equal((await consumer.ask("message_nack", { message_id })).error.reason, "already_settled")
  })

  test("does not hold up others", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const producer = await queue.produce()
    for (const n of [1, 2, 3]) await producer.enqueue(of(n))
    const consumer = await queue.visit({ ...ACKS, max_in_flight: 1 })
    const [{ message_id }] = await consumer.next()
    await consumer.ask("message_nack", { message_id })

    const [two] = await consumer.next()
    assert.equal(two.payload.n, 2)
    await consumer.ask("message_ack", two)
    const [next] = await consumer.next()
    await consumer.ask("message_ack", next)
    const [last] = await consumer.next()
    assert.deepEqual([next, last].map(({ payload, retry_count }) => [payload.n, retry_count]).sort(), [[1, 1], [3, 0]])
  })
})

describe("an ack", () => {
  test("is refused in one word where it makes no sense", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const producer = await queue.produce()
    const [one, two] = [await queue.visit({ ...ACKS, max_in_flight: 1 }), await queue.visit({ ...ACKS, max_in_flight: 1 })]
    await producer.enqueue(of(1))
    await producer.enqueue(of(2))
    const [[mine], [theirs]] = [await one.next(), await two.next()]
    const reason = async (event, payload) => (await one.ask(event, payload)).error?.reason

    for (const event of ["message_ack", "message_nack", "message_extend"]) {
      assert.equal(await reason(event, { message_id: theirs.message_id }), "foreign_message", event)
      assert.equal(await reason(event, { message_id: "msg_1_1" }), "unknown_message", event)
      assert.equal(await reason(event, { message_id: "nonsense" }), "unknown_message", event)
      assert.equal(await reason(event, {}), "invalid_message", event)
      assert.equal(await reason(event, { message_id: 7 }), "invalid_message", event)
      assert.equal(await reason(event, []), "invalid_message", event)
    }
    assert.equal(await reason("message_ack", { message_ids: Array(1_001).fill("msg_1_1") }), "invalid_message")
    assert.equal(await reason("message_ack", { message_id: mine.message_id }), undefined)
    assert.equal(await reason("message_ack", { message_id: mine.message_id }), "already_settled")
    assert.equal(await reason("message_extend", { message_id: mine.message_id }), "already_settled")
    assert.deepEqual(await two.ask("message_extend", { message_id: theirs.message_id }), { ok: { lease_ms: 30_000 } })
  })
})

describe("consumers of one queue", () => {
  test("share its messages, each at its pace, and no more than they may have at once", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const producer = await queue.produce()
    const consumers = [await queue.visit({ ...ACKS, max_in_flight: 2 }), await queue.visit({ ...ACKS, max_in_flight: 3 })]
    for (let n = 0; n < 12; n++) await producer.enqueue(of(n))

    const held = [await consumers[0].next(2), await consumers[1].next(3)]
    assert.deepEqual(numbers(held.flat()).sort(), [0, 1, 2, 3, 4])
    for (const consumer of consumers) assert.ok(await consumer.hasNoMore())
    // The first does nothing; the second does the rest.
    const rest = [...held[1]]
    for (let at = 0; at < 10; at++) {
      await consumers[1].ask("message_ack", { message_id: rest[at].message_id })
      if (at < 7) rest.push(...(await consumers[1].next()))
    }
    assert.deepEqual([...numbers(held[0]), ...numbers(rest)].sort((a, b) => a - b), [...Array(12).keys()])
    assert.ok(await consumers[0].hasNoMore())
  })

  test("take over what one of them leaves behind, ahead of later ones", ONE_TEST, async (t) => {
    const queue = newQueue(t)
    const producer = await queue.produce()
    const one = await queue.visit({ ...ACKS, max_in_flight: 2 })
    for (let n = 0; n < 4; n++) await producer.enqueue(of(n))
    await one.next(2)
    await one.leave()

    const two = await queue.visit()
    const came = await two.next(4)
    assert.deepEqual(came.map(({ payload, attempt, retry_count }) => [payload.n, attempt, retry_count]), [[0, 2, 0], [1, 2, 0], [2, 1, 0], [3, 1, 0]])
  })
})

describe("a lease", () => {
  let hasty
  before(async () => {
    hasty = await startQueues({ lease_ms: LEASE_MS, backoff_base_ms: 20, backoff_max_ms: 100 })
  })
  after(() => hasty?.close())

  test("that is over has the message come again as one that failed, and a late ack is taken while nobody else has it", ONE_TEST, async (t) => {
    const queue = newQueue(t, hasty)
    const { message_id } = await (await queue.produce()).enqueue(of(1))
    const consumer = await queue.visit()
    const came = await consumer.next(2)
    assert.deepEqual(came.map(({ attempt, retry_count }) => [attempt, retry_count]), [[1, 0], [2, 1]])
    assert.deepEqual(await consumer.ask("message_ack", { message_id }), { ok: { durability: "durable" } })
    assert.ok(await consumer.hasNoMore())
  })

  test("that went over to another consumer is foreign to the first", ONE_TEST, async (t) => {
    const queue = newQueue(t, hasty)
    const producer = await queue.produce()
    const one = await queue.visit({ ...ACKS, max_in_flight: 1 })
    await producer.enqueue(of(1))
    const [{ message_id }] = await one.next()
    // The first has its hands full when the other comes, and lets the lease pass.
    const two = await queue.visit({ ...ACKS, max_in_flight: 1 })
    await producer.enqueue(of(2))
    const [other] = await two.next()
    assert.equal(other.payload.n, 2)
    await two.ask("message_ack", other)

    const holder = await until(() => (one.messages.length > 1 ? one : two.messages.length > 1 && two))
    const stranger = holder === one ? two : one
    assert.equal((await stranger.ask("message_ack", { message_id })).error.reason, "foreign_message")
    assert.ok((await holder.ask("message_ack", { message_id })).ok)
  })

  test("lasts as long as it is extended", ONE_TEST, async (t) => {
    const queue = newQueue(t, hasty)
    const producer = await queue.produce()
    await producer.enqueue(of("long"))
    const consumer = await queue.visit()
    const [{ message_id }] = await consumer.next()
    // One that comes when three leases are over, by the server's own clock.
    await producer.enqueue(of("then", { delay_ms: 3 * LEASE_MS }))
    let isThen = false
    const then = consumer.next().then((came) => ((isThen = true), came))
    while (!isThen) {
      assert.deepEqual(await consumer.ask("message_extend", { message_id }), { ok: { lease_ms: LEASE_MS } })
      await Promise.race([then, new Promise((resolve) => setTimeout(resolve, LEASE_MS / 8))])
    }

    assert.deepEqual(numbers(await then), ["then"])
    assert.ok((await consumer.ask("message_ack", { message_id })).ok)
  })
})

describe("in production", () => {
  let production
  before(async () => {
    production = await startProduction({
      settings: { auth: { session_timeout_ms: 60_000 } },
      keys: { admin: { user: "root", roles: ["admin"] } },
    })
  })
  after(() => production?.close())

  for (const [name, options] of Object.entries(TRANSPORTS)) {
    test(`an inbox is for its user alone: ${name}`, ONE_TEST, async (t) => {
      const { socket } = await connect(t, production, { params: { token: production.userToken("ada") }, ...options })

      const own = await joinTopic(socket, "inbox:ada", ACKS)
      assert.equal(own.reply?.queue, "inbox:ada")
      for (const topic of ["inbox:bob", "inbox:", "inbox:ada:more", "inbox:adam", "queue:jobs"]) {
        assert.equal((await joinTopic(socket, topic, ACKS)).reason, "unauthorized", topic)
        assert.equal((await joinTopic(socket, topic, { consume: false })).reason, "unauthorized", topic)
      }
      // To read it is no right to write to it.
      const pushed = new Promise((resolve) => own.channel.push("enqueue", of(1)).receive("ok", () => resolve("ok")).receive("error", resolve))
      assert.equal((await pushed).reason, "unauthorized")
    })

    test(`an administrator writes into inboxes, and reads them: ${name}`, ONE_TEST, async (t) => {
      const { socket } = await connect(t, production, { params: { api_key: production.keys.admin.text }, ...options })
      const { channel } = await joinTopic(socket, `inbox:${name}`, ACKS)
      const came = new Promise((resolve) => channel.on("message", resolve))
      channel.push("enqueue", of("for you"))

      assert.equal((await came).payload.n, "for you")
    })
  }
})
