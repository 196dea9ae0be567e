// A queue of Bennu, such as a user's inbox, consumed with acknowledgements over a channel of a phoenix.js socket.
// phoenix.js does the connecting, joining and rejoining; the wire is chapter "Queues" of Bennu's protocol.md.

import type { PhoenixChannel, PhoenixSocket } from "./phoenix.js"

/** What the join says the client does. */
const CAPABILITIES = ["message_ack", "message_nack"]
/** The extensions of one lease: two of three may be lost. */
const EXTENSIONS_PER_LEASE = 3
/** Messages that one acknowledgement may name: the server's bound. */
const ACKED_MAX = 1_000
/** Some hundred kilobytes of ids. */
const REMEMBERED_MAX = 10_000

export type QueuePriority = "urgent" | "high" | "normal" | "low"

/** A message as the server delivers it. */
export interface QueueMessage<Payload = any> {
  message_id: string
  payload: Payload
  priority: QueuePriority
  /** How often it has been delivered, this time included. */
  attempt: number
  /** How often it has failed. */
  retry_count: number
  /** Unix milliseconds of its acceptance. */
  created_at: number
}

/** What the server answers a join of a queue. */
export interface QueueJoinReply {
  queue: string
  /** The class that messages and acknowledgements reach. */
  durability: "ephemeral" | "memory" | "durable"
  capabilities: string[]
  lease_ms: number
  max_in_flight: number
}

/** Does one message. It is acknowledged when the promise resolves, and comes again after a while when it rejects. */
export type QueueHandler<Payload = any> = (message: QueueMessage<Payload>) => unknown

export interface ConsumeOptions<Payload = any> {
  /** Messages that are handled at once, as far as the server lets; 1 is one after the other. Default: the server's bound. */
  maxInFlight?: number
  /** Further parameters of the join, or a function that makes them anew for each join: `token`, `api_key`. */
  params?: object | (() => object)
  /** Finished messages whose ids are remembered, so that one that comes again is not handled again. Default: 10 000. */
  rememberedMax?: number
  /** Called when a handler fails, with its message, and when the server refuses to let the client in again after a loss. */
  onError?: (error: Error, message?: QueueMessage<Payload>) => void
}

/**
 * Why a queue is not consumed:
 * - `refused`: the server does not let the client join
 * - `closed`: it was stopped, or the server closed the channel, before it had joined
 */
export type ConsumeErrorKind = "refused" | "closed"

export class ConsumeError extends Error {
  override readonly name = "ConsumeError"

  constructor(
    readonly kind: ConsumeErrorKind,
    message: string,
    /** What the server answered, where it did. */
    readonly response?: unknown,
  ) {
    super(message)
  }
}

/**
 * Consumes a queue's topic: calls `handler` for each message and acknowledges those that it has done.
 *
 * The socket stays the caller's: it is connected if it is not, and never disconnected.
 */
export function consume<Payload = any>(
  socket: PhoenixSocket,
  topic: string,
  handler: QueueHandler<Payload>,
  options: ConsumeOptions<Payload> = {},
): QueueConsumer<Payload> {
  return new QueueConsumer(socket, topic, handler, options)
}

/** A message whose handler runs. */
interface Running {
  extending: ReturnType<typeof setInterval>
}

/**
 * A consumer of one queue; {@link consume} makes it.
 *
 * ```text
 *  joining -> joined <-> lost      any -> ended
 * ```
 * A message that has come is running until its handler ends. It is then finished, and acknowledged until the server has answered
 * that; or failed, and given back. What the server has not answered when the connection goes is told again: an ack at the next
 * join, a failure when the message comes again without having been counted as failed.
 */
export class QueueConsumer<Payload = any> {
  readonly topic: string
  /** The channel underneath, for other events. */
  readonly channel: PhoenixChannel
  /** Resolves with the first join's reply; rejects with a {@link ConsumeError}. It waits as long as there is no connection. */
  readonly joined: Promise<QueueJoinReply>
  /** Resolves when nothing comes any more: after `stop()`, a refused first join, or when the server has closed the channel. */
  readonly ended: Promise<void>
  /** What the server answered the last join. */
  joinReply: QueueJoinReply | undefined

  readonly #handler: QueueHandler<Payload>
  readonly #onError: ((error: Error, message?: QueueMessage<Payload>) => void) | undefined
  readonly #rememberedMax: number
  readonly #running = new Map<string, Running>()
  /** Messages that were handled, oldest first, and whether the server has answered their ack. */
  readonly #finished = new Map<string, { isAnswered: boolean }>()
  /** How often messages had failed before their handler did, where the server may not know of it; and with what. */
  readonly #failed = new Map<string, { retryCount: number; text: string }>()
  /** Pushes of this connection without an answer. */
  readonly #awaited = new Set<object>()
  #isJoined = false
  #isStopping = false
  #isLeaving = false
  #isEnded = false
  #settleJoined!: { resolve: (reply: QueueJoinReply) => void; reject: (error: Error) => void }
  #resolveEnded!: () => void

  constructor(socket: PhoenixSocket, topic: string, handler: QueueHandler<Payload>, options: ConsumeOptions<Payload> = {}) {
    const { maxInFlight, params = {}, rememberedMax = REMEMBERED_MAX, onError } = options
    this.topic = topic
    this.#handler = handler
    this.#onError = onError
    this.#rememberedMax = rememberedMax
    this.joined = new Promise((resolve, reject) => (this.#settleJoined = { resolve, reject }))
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve))
    // Who does not ask for it is not ended by it.
    this.joined.catch(() => {})

    const ours = { capabilities: CAPABILITIES, ...(maxInFlight === undefined ? {} : { max_in_flight: maxInFlight }) }
    this.channel = socket.channel(topic, typeof params === "function" ? () => ({ ...params(), ...ours }) : { ...params, ...ours })
    this.channel.on("message", (message) => this.#receive(message))
    this.channel.onError(() => this.#lose())
    this.channel.onClose(() => this.#end())
    this.channel
      .join()
      .receive("ok", (reply) => this.#join(reply))
      .receive("error", (reply) => this.#refuse(reply))
    if (!socket.isConnected()) socket.connect()
  }

  /**
   * Takes no more messages, waits for the handlers that run and for the server's answers to their acks, and leaves the channel.
   * Messages that were not begun go back to the queue. Without a connection it leaves at once: what it did is done, but the
   * server does not know, and delivers it to the next consumer.
   */
  stop(): Promise<void> {
    this.#isStopping = true
    this.#leaveOnceDone()
    return this.ended
  }

  #join(reply: QueueJoinReply): void {
    if (this.#isEnded) return
    this.#isJoined = true
    this.joinReply = reply
    this.#settleJoined.resolve(reply)
    // What is still running came from an earlier connection, perhaps with another lease.
    for (const [id, running] of this.#running) {
      clearInterval(running.extending)
      running.extending = this.#extend(id)
    }
    const unanswered = [...this.#finished].filter(([, { isAnswered }]) => !isAnswered).map(([id]) => id)
    while (unanswered.length > 0) this.#ackAgain(unanswered.splice(0, ACKED_MAX))
    this.#leaveOnceDone()
  }

  #refuse(reply: unknown): void {
    if (this.#isEnded) return
    const error = new ConsumeError("refused", `joining ${this.topic} was refused: ${reasonOf(reply)}`, reply)
    // phoenix.js tries again for ever.
    if (this.joinReply) return this.#report(error)
    this.#settleJoined.reject(error)
    this.#leave()
  }

  /** The connection is gone, or the channel has crashed; phoenix.js joins again by itself. */
  #lose(): void {
    this.#isJoined = false
    this.#awaited.clear()
    this.#leaveOnceDone()
  }

  #end(): void {
    if (this.#isEnded) return
    this.#isEnded = true
    this.#isLeaving = true
    this.#isJoined = false
    this.#awaited.clear()
    for (const { extending } of this.#running.values()) clearInterval(extending)
    this.#settleJoined.reject(new ConsumeError("closed", `${this.topic} was closed before it was joined`))
    this.#resolveEnded()
  }

  #receive(message: QueueMessage<Payload>): void {
    const { message_id: id, retry_count: retryCount } = message
    if (this.#finished.has(id)) return this.#ack(id)
    // Its lease began anew, and its handler goes on.
    if (this.#running.has(id)) return
    const failed = this.#failed.get(id)
    if (failed?.retryCount === retryCount) return this.#nack(id, failed.text)
    this.#failed.delete(id)
    if (!this.#isStopping) void this.#handle(message)
  }

  async #handle(message: QueueMessage<Payload>): Promise<void> {
    const { message_id: id, retry_count: retryCount } = message
    const running = { extending: this.#extend(id) }
    this.#running.set(id, running)
    try {
      await this.#handler(message)
      this.#remember(this.#finished, id, { isAnswered: false })
      this.#ack(id)
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error(String(thrown))
      this.#remember(this.#failed, id, { retryCount, text: error.message })
      this.#nack(id, error.message)
      this.#report(error, message)
    } finally {
      clearInterval(running.extending)
      this.#running.delete(id)
      this.#leaveOnceDone()
    }
  }

  /** Keeps a message's lease from ending while its handler runs. */
  #extend(id: string): ReturnType<typeof setInterval> {
    const everyMs = (this.joinReply?.lease_ms ?? 0) / EXTENSIONS_PER_LEASE
    return setInterval(() => this.#push("message_extend", { message_id: id }), everyMs)
  }

  /** Whatever is answered: what is refused was settled before, or comes again and is acknowledged again. */
  #ack(id: string): void {
    const finished = this.#finished.get(id)
    if (!finished) return
    finished.isAnswered = false
    this.#push("message_ack", { message_id: id }, () => (finished.isAnswered = true))
  }

  #ackAgain(ids: string[]): void {
    this.#push("message_ack", { message_ids: ids }, () => {
      for (const id of ids) this.#remember(this.#finished, id, { isAnswered: true })
    })
  }

  #nack(id: string, text: string): void {
    const failed = this.#failed.get(id)
    this.#push("message_nack", { message_id: id, error: text }, ({ isRefused }) => {
      if (!isRefused && this.#failed.get(id) === failed) this.#failed.delete(id)
    })
  }

  /** Pushes while joined, so that phoenix.js keeps nothing for a later connection: what matters there is told anew. */
  #push(event: string, payload: object, onAnswer: (answer: { isRefused: boolean }) => void = () => {}): void {
    if (!this.#isJoined) return
    const push = this.channel.push(event, payload)
    this.#awaited.add(push)
    const settle = (answer?: { isRefused: boolean }) => {
      this.#awaited.delete(push)
      if (answer) onAnswer(answer)
      this.#leaveOnceDone()
    }
    push
      .receive("ok", () => settle({ isRefused: false }))
      .receive("error", () => settle({ isRefused: true }))
      .receive("timeout", () => settle())
  }

  #leaveOnceDone(): void {
    if (!this.#isStopping || this.#isLeaving || this.#running.size > 0 || this.#awaited.size > 0) return
    this.#leave()
  }

  #leave(): void {
    this.#isLeaving = true
    this.channel.leave()
  }

  /** The oldest is forgotten. */
  #remember<Value>(map: Map<string, Value>, id: string, value: Value): void {
    map.delete(id)
    map.set(id, value)
    for (const oldest of map.keys()) {
      if (map.size <= this.#rememberedMax) break
      map.delete(oldest)
    }
  }

  #report(error: Error, message?: QueueMessage<Payload>): void {
    try {
      this.#onError?.(error, message)
    } catch (thrown) {
      // It must not end the delivery to the socket's other channels.
      setTimeout(() => {
        throw thrown
      })
    }
  }
}

function reasonOf(reply: unknown): string {
  const { reason } = (reply ?? {}) as { reason?: unknown }
  return typeof reason === "string" ? reason : (JSON.stringify(reply) ?? "no reason given")
}
