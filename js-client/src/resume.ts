// A channel of a phoenix.js socket that misses nothing while it was away, on topics whose history Bennu keeps.
// phoenix.js does the connecting, joining and rejoining; the wire is chapter "Topics that resume" of Bennu's protocol.md.

import type { PhoenixChannel, PhoenixPush } from "./phoenix.js"

/** Where a client stands in a topic: it has all broadcasts up to `offset` of the history `epoch`. */
export interface ResumePosition {
  /** 16 hexadecimal digits, others whenever the topic's history began anew. */
  epoch: string
  offset: number
}

/**
 * Why messages are missing:
 * - `expired`: the server keeps them no longer
 * - `epoch`: the topic's history began anew, as when the server was started again
 * - `future`: the position is one that the topic has not reached
 * - `slow`: the client read too slowly, and the server keeps no longer what it missed
 * - `unkept`: the server kept none for this client, as Phoenix does; what was sent while it was away is unknown
 */
export type GapReason = "expired" | "epoch" | "future" | "slow" | "unkept"

/** Messages may be missing between two positions: read anew what they would have told. */
export interface ResumeGap {
  reason: GapReason
  /** Where the client stood; none if it knew none. */
  from: ResumePosition | null
  /** Where it goes on; none if the server keeps no history for it. */
  position: ResumePosition | null
}

export interface ResumeOptions {
  /** Where to begin: an earlier page's {@link Resume.position}. Without one, from the join on. */
  from?: ResumePosition | null
  /** The first of the {@link Resume.onGap} callbacks. */
  onGap?: (gap: ResumeGap) => void
}

/** What every `Channel` of phoenix.js 1.5 to 1.8 has, whatever the types of its package say. */
interface Inside {
  joinedOnce: boolean
  joinPush: PhoenixPush & { payload: () => object }
  /** Hands an event to its handlers; the socket calls it for each of the topic's messages. */
  trigger(event: string, payload?: unknown, ref?: unknown, joinRef?: unknown): void
}

/** The channels that have it. */
const resuming = new WeakSet<PhoenixChannel>()

/**
 * Has a channel tell the server, at each join, how far it came, so that it gets what it missed. To be called before `join()`.
 *
 * Where the server keeps no history of the topic the channel is as without this.
 */
export function withResume(channel: PhoenixChannel, options: ResumeOptions = {}): Resume {
  return new Resume(channel, options)
}

/**
 * How far a channel came; {@link withResume} makes it.
 *
 * The position moves right before a message is given to its handlers, also if one of them throws: within one page they see each
 * message exactly once. A handler finds its own message counted in.
 */
export class Resume {
  readonly channel: PhoenixChannel

  readonly #deliver: (event: string, payload?: unknown, ref?: unknown, joinRef?: unknown) => void
  readonly #onGap = new Set<(gap: ResumeGap) => void>()
  #position: ResumePosition | null
  /** Whether the last join that was sent offered a position. */
  #isOffered = false
  #hasJoined = false
  /** Delivers the binary message whose offset is still to come. */
  #held: (() => void) | undefined

  constructor(channel: PhoenixChannel, { from = null, onGap }: ResumeOptions = {}) {
    const inside = channel as unknown as Inside
    if (typeof inside.trigger !== "function" || typeof inside.joinPush?.payload !== "function") {
      throw new TypeError("withResume: expected a channel of phoenix.js 1.5 to 1.8")
    }
    if (resuming.has(channel)) throw new Error("withResume: the channel has it already")
    if (inside.joinedOnce) throw new Error("withResume: expected a channel that has not been joined, call it before join()")
    if (from !== null && !isPosition(from)) {
      throw new TypeError(`withResume: from: expected null or { epoch: 16 hexadecimal digits, offset: a whole number }, got ${JSON.stringify(from)}`)
    }
    resuming.add(channel)
    this.channel = channel
    this.#position = from && { epoch: from.epoch, offset: from.offset }
    if (onGap) this.#onGap.add(onGap)

    const { joinPush } = inside
    const params = joinPush.payload
    joinPush.payload = () => {
      this.#isOffered = this.#position !== null
      return { ...params.call(joinPush), resume: this.#position ?? true }
    }
    // Ahead of the caller's hooks, and run for each join's reply: phoenix.js sends the same push again.
    joinPush.receive("ok", (reply) => this.#join(reply))
    // The public hook for all events, onMessage, can drop none.
    this.#deliver = inside.trigger.bind(channel)
    inside.trigger = (event, payload, ref, joinRef) => this.#receive(event, payload, ref, joinRef)
  }

  /** Where the channel stands, to be kept and given as `from` to a later page. None before the join, or where the server keeps no history. */
  get position(): ResumePosition | null {
    return this.#position && { ...this.#position }
  }

  /** Has `callback` called whenever messages may be missing, before those that come after them. Gives what ends that. */
  onGap(callback: (gap: ResumeGap) => void): () => void {
    this.#onGap.add(callback)
    return () => void this.#onGap.delete(callback)
  }

  #join(reply: unknown): void {
    const { resume } = (reply ?? {}) as { resume?: unknown }
    const isBack = this.#hasJoined
    const from = this.#position
    this.#hasJoined = true
    // It comes again, with its offset.
    this.#held = undefined
    if (!isPosition(resume)) {
      this.#position = null
      if (isBack || this.#isOffered) this.#tell({ reason: "unkept", from, position: null })
      return
    }
    // An earlier join's messages may have come since this one was sent.
    if (!from || resume.epoch !== from.epoch || resume.offset > from.offset) {
      this.#position = { epoch: resume.epoch, offset: resume.offset }
    }
    if (isBack && !this.#isOffered) this.#tell({ reason: "unkept", from, position: this.position })
  }

  #receive(event: string, payload: unknown, ref: unknown, joinRef: unknown): void {
    const deliver = () => this.#deliver(event, payload, ref, joinRef)
    const offset = offsetOf(ref)
    if (offset === undefined) {
      // Of what has no reference only a broadcast is binary: its offset follows.
      const isAwaited = this.#position && payload instanceof ArrayBuffer && !joinRef && !ref
      if (!isAwaited) return deliver()
      this.#release()
      this.#held = deliver
      return
    }

    if (event === "position" && isEmpty(payload)) {
      const held = this.#held
      this.#held = undefined
      if (this.#advance(offset)) held?.()
      return
    }
    this.#release()
    if (event === "gap" && isPosition(payload) && payload.offset === offset) return this.#skip(payload)
    if (this.#advance(offset)) deliver()
  }

  /** Moves on; whether the offset is of something new. */
  #advance(offset: number): boolean {
    if (!this.#position) return true
    if (offset <= this.#position.offset) return false
    this.#position.offset = offset
    return true
  }

  #skip({ epoch, offset, reason }: ResumePosition & { reason?: GapReason }): void {
    const from = this.position
    // It is of a join whose reply never came.
    if (!from) return
    // An earlier join's messages may have closed it. A position that the topic has not reached goes back.
    if (from.epoch === epoch && offset <= from.offset && reason !== "future") return
    this.#position = { epoch, offset }
    this.#tell({ reason: reason ?? "expired", from, position: this.position })
  }

  /** Delivers a binary message whose offset does not come. */
  #release(): void {
    const held = this.#held
    this.#held = undefined
    if (held) callAside(held)
  }

  #tell(gap: ResumeGap): void {
    for (const callback of this.#onGap) callAside(() => callback(gap))
  }
}

/** Calls something whose failure must not end the delivery of what follows. */
function callAside(call: () => void): void {
  try {
    call()
  } catch (thrown) {
    setTimeout(() => {
      throw thrown
    })
  }
}

function isPosition(value: unknown): value is ResumePosition {
  const { epoch, offset } = (value ?? {}) as Partial<ResumePosition>
  return typeof epoch === "string" && /^[0-9a-f]{16}$/.test(epoch) && Number.isSafeInteger(offset) && offset! >= 0
}

/** The offset in a broadcast's reference, `@n`. */
function offsetOf(ref: unknown): number | undefined {
  return typeof ref === "string" && /^@\d+$/.test(ref) ? Number(ref.slice(1)) : undefined
}

/** Whether it is the server's own: an application may have events of the same name. */
function isEmpty(payload: unknown): boolean {
  return typeof payload === "object" && payload !== null && Object.keys(payload).length === 0
}
