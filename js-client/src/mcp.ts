// An MCP session as a channel of a phoenix.js socket: the `Transport` that both TypeScript SDKs take.
// The wire is chapter "MCP" of Bennu's protocol.md: one JSON-RPC object a `mcp_message` event, both ways.

import type { PhoenixChannel, PhoenixPush, PhoenixSocket } from "./phoenix.js"

/** The event that carries one JSON-RPC object. */
const MESSAGE = "mcp_message"
/** The topic whose join names the client. */
const SESSION_TOPIC = "mcp:session"
/** JSON-RPC's error code for a request whose connection ended before its answer: "connection closed" in both SDKs. */
const CONNECTION_LOST = -32_000
/** How long phoenix.js itself waits for the reply to a join or a push, unless its socket says otherwise. */
const PHOENIX_TIMEOUT_MS = 10_000
/** How long both SDKs wait for the answer to a request; the handshake that is repeated gets no less. */
const HANDSHAKE_TIMEOUT_MS = 60_000
/** Far more than an interactive client sends during one outage, and little memory. */
const QUEUE_MESSAGES_MAX = 256
/** With the pauses of phoenix.js (1, 2, 5, then 10 seconds), some twenty seconds of refusals. */
const REFUSALS_MAX = 5

export type JsonRpcId = string | number

/** A JSON-RPC request, notification or response. */
export interface JsonRpcMessage {
  jsonrpc: "2.0"
  id?: JsonRpcId | undefined
  method?: string | undefined
  params?: any
  result?: any
  error?: any
}

/** Where the session lives, and how patient the transport is. */
export interface McpTransportOptions {
  /** The name of the MCP server; makes the topic `mcp:server:NAME`. */
  server?: string
  /** A further part of the topic, for several sessions with one server on one socket; `true` takes a random one. */
  session?: string | true
  /** The topic itself, such as `mcp:session`, in place of `server` and `session`. */
  topic?: string
  /** The join's parameters, or a function that makes them anew for each join: `token`, `apiKey`, `clientInfo`, `streaming`. */
  params?: object | (() => object)
  /** Whether a lost session is taken up again by a new one; `false` closes the transport at the first loss. Default: true. */
  reconnect?: boolean
  /** How long `start()` waits for the connection and the join, and each later join for its reply. Default: the socket's timeout, 10 s. */
  joinTimeoutMs?: number
  /** How long a message waits for the server's receipt. Default: the socket's timeout, 10 s. */
  sendTimeoutMs?: number
  /** How long the repeated `initialize` waits for its result after a loss. Default: 60 s. */
  handshakeTimeoutMs?: number
  /** How many messages wait for the connection; one more is refused. Default: 256. */
  queueMessagesMax?: number
  /** How many refused joins in a row after a loss are one too many. Default: 5. */
  refusalsMax?: number
}

/**
 * Why a transport could not do what it was asked for:
 * - `refused`: the server does not let the client join
 * - `rejected`: the server did not take a message
 * - `timeout`: no answer in time
 * - `lost`: the connection went while a message was on its way, which may have arrived or not
 * - `full`: too many messages wait for the connection
 * - `handshake`: the new session after a loss did not become what the old one was
 * - `closed`: the transport is closed, or was closed meanwhile
 * - `misuse`: a call that makes no sense in this state
 * - `protocol`: the server sent what is no JSON-RPC message
 */
export type McpTransportErrorKind =
  | "refused"
  | "rejected"
  | "timeout"
  | "lost"
  | "full"
  | "handshake"
  | "closed"
  | "misuse"
  | "protocol"

export class McpTransportError extends Error {
  override readonly name = "McpTransportError"

  constructor(
    readonly kind: McpTransportErrorKind,
    message: string,
    /** What the server answered, where it did. */
    readonly response?: unknown,
  ) {
    super(message)
  }
}

/** A message that `send()` was given, with the promise it returned. */
interface Outgoing {
  message: JsonRpcMessage
  resolve: () => void
  reject: (error: Error) => void
}

/** What a client has told a legacy session, and a new one has to be told again. */
interface Handshake {
  params: unknown
  protocolVersion: unknown
  initialized: boolean
  setLevel: unknown
  subscriptions: Map<string, unknown>
}

/**
 * ```text
 *  new -> joining -> open <-----------+
 *                     |               |
 *                     v               |
 *            +----> lost -> replaying-+      any -> closed
 *            +----------------+
 * ```
 * `lost` waits until phoenix.js has joined again; `replaying` until the new session has answered the repeated `initialize`.
 */
type Phase = "new" | "joining" | "open" | "lost" | "replaying" | "closed"

/**
 * A `Transport` for the `Client` of `@modelcontextprotocol/sdk` and of `@modelcontextprotocol/client`, over one channel.
 *
 * The socket stays the caller's: it is connected if it is not, and never disconnected. A lost session is replaced by a new one
 * without the client's doing; requests that were under way are answered with a JSON-RPC error.
 */
export class McpTransport {
  /** Called once, when the transport has ended for whatever reason; also when `start()` failed. */
  onclose?: (() => void) | undefined
  onerror?: ((error: Error) => void) | undefined
  onmessage?: ((message: any, extra?: any) => void) | undefined
  /** Called when a new session has taken the place of a lost one: what a client has cached may be out of date. */
  onreconnect?: (() => void) | undefined

  /**
   * The server's id of the session, known to be set only once the handshake is over: an SDK that finds it set after `start()`
   * takes the session for an old one and leaves `initialize` out.
   */
  sessionId?: string | undefined
  /** The revision that the client has negotiated. */
  protocolVersion?: string | undefined
  supportedProtocolVersions?: string[] | undefined

  readonly topic: string
  readonly #socket: PhoenixSocket
  readonly #params: object | (() => object)
  readonly #reconnect: boolean
  readonly #joinTimeoutMs: number
  readonly #sendTimeoutMs: number
  readonly #handshakeTimeoutMs: number
  readonly #queueMessagesMax: number
  readonly #refusalsMax: number

  #phase: Phase = "new"
  #channel: PhoenixChannel | undefined
  #joinReply: Record<string, unknown> = {}
  #refusals = 0
  #start: { resolve: () => void; reject: (error: Error) => void; deadline: ReturnType<typeof setTimeout> } | undefined

  /** Messages that wait for the connection, oldest first. */
  #queue: Outgoing[] = []
  /** Messages that the server has not acknowledged. */
  readonly #unacknowledged = new Set<Outgoing>()
  /** The client's requests without an answer, by id. */
  readonly #pending = new Map<JsonRpcId, JsonRpcMessage>()
  /** The server's requests without an answer, of the present session. */
  readonly #asked = new Set<JsonRpcId>()

  /** Messages that wait for the handlers of an earlier notification, oldest first. */
  #inbox: JsonRpcMessage[] = []
  /** Whether a notification was delivered whose handlers may not have run. */
  #settling = false

  #handshake: Handshake | undefined
  /** The transport's own requests, by id. Their answers are for nobody else. */
  readonly #replays = new Map<JsonRpcId, (answer: JsonRpcMessage) => void>()
  #replayCount = 0
  #replayDeadline: ReturnType<typeof setTimeout> | undefined

  constructor(socket: PhoenixSocket, options: McpTransportOptions) {
    const timeoutMs = (socket as { timeout?: number }).timeout ?? PHOENIX_TIMEOUT_MS
    this.#socket = socket
    this.topic = topicOf(options)
    this.#params = paramsOf(this.topic, options.params ?? {})
    this.#reconnect = options.reconnect ?? true
    this.#joinTimeoutMs = options.joinTimeoutMs ?? timeoutMs
    this.#sendTimeoutMs = options.sendTimeoutMs ?? timeoutMs
    this.#handshakeTimeoutMs = options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS
    this.#queueMessagesMax = options.queueMessagesMax ?? QUEUE_MESSAGES_MAX
    this.#refusalsMax = options.refusalsMax ?? REFUSALS_MAX
  }

  /** The channel underneath, once started: for other events, such as `streaming_event`. */
  get channel(): PhoenixChannel | undefined {
    return this.#channel
  }

  /** What the server answered the last join: `serverInfo`, `capabilities`, `sessionId` and more. */
  get joinReply(): Readonly<Record<string, unknown>> {
    return this.#joinReply
  }

  /** Joins the channel. Rejects when the server refuses, when nothing is heard in time, and when started twice. */
  start(): Promise<void> {
    if (this.#phase !== "new") {
      return Promise.reject(
        new McpTransportError("misuse", `${this.topic} was started before: a transport is good for one connection, make a new one`),
      )
    }
    this.#phase = "joining"
    return new Promise((resolve, reject) => {
      // phoenix.js forgets its own timer when the socket cannot connect, and tries for ever.
      const deadline = setTimeout(() => this.#fail(this.#joinTimeout()), this.#joinTimeoutMs)
      this.#start = { resolve, reject, deadline }
      try {
        this.#join()
      } catch (error) {
        this.#fail(asError(error))
      }
    })
  }

  /** Sends a message, after all earlier ones. Resolves when the server has it; see {@link McpTransportErrorKind} for why not. */
  send(message: JsonRpcMessage, _options?: unknown): Promise<void> {
    if (!isObject(message)) return Promise.reject(new McpTransportError("misuse", "a message is a JSON-RPC object"))
    if (this.#phase === "new") return Promise.reject(new McpTransportError("misuse", `${this.topic} is not started`))
    if (this.#phase === "closed") return Promise.reject(this.#closedError())

    // A socket that is about to tell that it is closed would have phoenix.js keep the message, and send it before the handshake.
    if (this.#phase === "open" && !this.#socket.isConnected()) this.#lose("the socket is not connected")
    if (this.#isClosed()) return Promise.reject(this.#closedError())

    return new Promise((resolve, reject) => {
      const outgoing = { message, resolve, reject }
      if (this.#phase === "open") this.#push(outgoing)
      else this.#wait(outgoing)
    })
  }

  /** Leaves the channel. Nothing is sent or delivered from here on; the socket stays connected. */
  close(): Promise<void> {
    this.#end({ leave: true })
    return Promise.resolve()
  }

  setProtocolVersion(version: string): void {
    this.protocolVersion = version
  }

  setSupportedProtocolVersions(versions: string[]): void {
    this.supportedProtocolVersions = versions
  }

  // ---- joining ----

  #join(): void {
    if (isTaken(this.#socket, this.topic)) {
      const text = `the socket has a channel ${this.topic} already: give each session a name of its own by the option "session"`
      throw new McpTransportError("misuse", text)
    }
    const channel = this.#socket.channel(this.topic, this.#params)
    this.#channel = channel
    channel.on(MESSAGE, (payload) => this.#receive(payload))
    channel.onError((reason) => this.#lose(reason))
    // The server has ended the channel, or another channel of this topic took its place.
    channel.onClose(() => this.#end({ leave: false, why: "the server closed the channel" }))
    channel
      .join(this.#joinTimeoutMs)
      .receive("ok", (reply) => this.#joined(reply))
      .receive("error", (reply) => this.#refused(reply))
      .receive("timeout", () => this.#phase === "joining" && this.#fail(this.#joinTimeout()))
    if (!this.#socket.isConnected()) this.#socket.connect()
  }

  #joined(reply: unknown): void {
    if (this.#phase !== "joining" && this.#phase !== "lost") return
    this.#joinReply = isObject(reply) ? reply : {}
    this.#refusals = 0
    const start = this.#takeStart()
    if (start) {
      this.#open()
      start.resolve()
    } else if (this.#handshake) {
      this.#replay(this.#handshake)
    } else {
      this.#open()
      this.#call(() => this.onreconnect?.())
    }
  }

  #refused(reply: unknown): void {
    if (this.#phase !== "joining" && this.#phase !== "lost") return
    const error = new McpTransportError("refused", `joining ${this.topic} was refused: ${reasonOf(reply)}`, reply)
    this.#refusals += 1
    if (this.#phase === "joining" || this.#refusals >= this.#refusalsMax) this.#fail(error)
    else this.#report(error)
  }

  #joinTimeout(): McpTransportError {
    const what = this.#socket.isConnected() ? "no answer to the join" : "no connection"
    return new McpTransportError("timeout", `joining ${this.topic}: ${what} within ${this.#joinTimeoutMs} ms`)
  }

  #takeStart() {
    const start = this.#start
    this.#start = undefined
    if (start) clearTimeout(start.deadline)
    return start
  }

  /** Lets out what has waited. */
  #open(): void {
    this.#phase = "open"
    const waiting = this.#queue
    this.#queue = []
    for (const outgoing of waiting) this.#push(outgoing)
  }

  // ---- sending ----

  #push(outgoing: Outgoing): void {
    const { message, resolve, reject } = outgoing
    if (isResponse(message) && message.id !== undefined && !this.#asked.delete(message.id)) {
      // The session that asked is gone; the present one would take the answer for another question's.
      return resolve()
    }

    let push: PhoenixPush
    this.#unacknowledged.add(outgoing)
    if (isRequest(message)) this.#pending.set(message.id, message)
    const settle = (error?: Error) => {
      if (!this.#unacknowledged.delete(outgoing)) return
      if (!error) return resolve()
      if (isRequest(message)) this.#pending.delete(message.id)
      reject(error)
    }
    try {
      push = this.#channel!.push(MESSAGE, message, this.#sendTimeoutMs)
    } catch (error) {
      return settle(asError(error))
    }
    push
      .receive("ok", () => settle())
      .receive("error", (reply) => settle(rejected(message, reply)))
      .receive("timeout", () => settle(this.#receiptTimeout(message)))
    this.#sent(message)
  }

  /** Takes note of what a new session would have to be told, and of what needs no answer any more. */
  #sent(message: JsonRpcMessage): void {
    if (message.method === "notifications/initialized" && this.#handshake) {
      this.#handshake.initialized = true
      this.#adoptSessionId()
    } else if (message.method === "notifications/cancelled") {
      this.#pending.delete(message.params?.requestId)
    }
  }

  #wait(outgoing: Outgoing): void {
    const { message, resolve, reject } = outgoing
    if (isResponse(message) && this.#phase === "lost") return resolve()
    if (message.method === "notifications/cancelled") {
      const at = this.#queue.findIndex(({ message: { id, method } }) => method !== undefined && id !== undefined && id === message.params?.requestId)
      if (at >= 0) {
        // Neither has to be sent.
        const [cancelled] = this.#queue.splice(at, 1)
        cancelled!.resolve()
        return resolve()
      }
    }
    if (this.#queue.length >= this.#queueMessagesMax) {
      return reject(new McpTransportError("full", `${this.topic}: ${this.#queue.length} messages wait for the connection, no more are taken`))
    }
    this.#queue.push(outgoing)
  }

  #receiptTimeout(message: JsonRpcMessage): McpTransportError {
    return new McpTransportError("timeout", `${this.topic}: no receipt for ${nameOf(message)} within ${this.#sendTimeoutMs} ms`)
  }

  // ---- receiving ----

  #receive(payload: unknown): void {
    if (this.#phase === "closed" || this.#phase === "lost") return
    if (!isObject(payload) || payload["jsonrpc"] !== "2.0") {
      return this.#report(new McpTransportError("protocol", `${this.topic}: expected a JSON-RPC object, came ${describe(payload)}`, payload))
    }
    const message = payload as unknown as JsonRpcMessage
    if (isRequest(message)) {
      this.#asked.add(message.id)
    } else if (message.method === "notifications/cancelled") {
      const id = message.params?.requestId
      // A request of the server's own, else a subscription, the one request of a client that a server may end like this.
      if (!this.#asked.delete(id) && this.#pending.get(id)?.method === "subscriptions/listen") this.#pending.delete(id)
    } else if (isResponse(message) && message.id !== undefined && message.id !== null) {
      const replay = this.#replays.get(message.id)
      if (replay) {
        this.#replays.delete(message.id)
        return replay(message)
      }
      this.#answered(message, message.id)
    }
    this.#deliver(message)
  }

  #answered(answer: JsonRpcMessage, id: JsonRpcId): void {
    const request = this.#pending.get(id)
    this.#pending.delete(id)
    if (!request || !isObject(answer.result)) return
    if (request.method === "initialize") {
      this.#handshake = {
        params: request.params,
        protocolVersion: answer.result["protocolVersion"],
        initialized: false,
        setLevel: undefined,
        subscriptions: new Map(),
      }
    } else if (this.#handshake && request.method === "logging/setLevel") {
      this.#handshake.setLevel = request.params
    } else if (this.#handshake && request.method === "resources/subscribe") {
      this.#handshake.subscriptions.set(request.params?.uri, request.params)
    } else if (this.#handshake && request.method === "resources/unsubscribe") {
      this.#handshake.subscriptions.delete(request.params?.uri)
    }
  }

  /**
   * Delivers a message, after all earlier ones.
   *
   * The SDKs take a response at once, but run the handlers of a notification later in the same turn. In Node several frames come
   * in one turn, so that the response to a request would overtake its progress, and end it: responses wait for the next turn.
   */
  #deliver(message: JsonRpcMessage): void {
    if (this.#settling && (this.#inbox.length > 0 || isResponse(message))) this.#inbox.push(message)
    else this.#handOver(message)
  }

  #handOver(message: JsonRpcMessage): void {
    if (isNotification(message) && !this.#settling) {
      this.#settling = true
      inNextTurn(() => {
        this.#settling = false
        for (const next of this.#takeInbox()) if (!this.#isClosed()) this.#deliver(next)
      })
    }
    this.#call(() => this.onmessage?.(message))
  }

  #takeInbox(): JsonRpcMessage[] {
    const inbox = this.#inbox
    this.#inbox = []
    return inbox
  }

  // ---- loss ----

  /** The session is gone; phoenix.js joins again by itself as soon as it can. */
  #lose(reason: unknown): void {
    if (this.#phase !== "open" && this.#phase !== "replaying") return
    const why = `connection lost${typeof reason === "string" ? `: ${reason}` : ""}`
    if (!this.#reconnect) return this.#end({ leave: true, why })
    this.#phase = "lost"
    this.sessionId = undefined
    this.#forgetReplays()

    for (const { message, resolve, reject } of this.#takeUnacknowledged()) {
      // Requests get their answer below; what is repeated for the new session, or concerns the old one alone, is done with.
      if (message.method === undefined || isRequest(message) || message.method === "notifications/initialized") resolve()
      else reject(new McpTransportError("lost", `${this.topic}: ${why} before the receipt for ${nameOf(message)}`))
    }
    for (const answer of this.#takePending(`${why} before the answer`)) this.#deliver(answer)
    // What the lost session has asked needs no answer: handlers may stop, dialogs may close.
    const asked = [...this.#asked]
    this.#asked.clear()
    for (const requestId of asked) {
      this.#deliver({ jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId, reason: why } })
    }
  }

  /** The answers to the requests under way, which the server cannot give any more. */
  #takePending(text: string): JsonRpcMessage[] {
    const ids = [...this.#pending.keys()]
    this.#pending.clear()
    return ids.map((id) => ({ jsonrpc: "2.0", id, error: { code: CONNECTION_LOST, message: text } }))
  }

  #takeUnacknowledged(): Outgoing[] {
    const taken = [...this.#unacknowledged]
    this.#unacknowledged.clear()
    return taken
  }

  // ---- the new session ----

  /** Tells the new session what the old one was told, before anything else goes out. */
  #replay(handshake: Handshake): void {
    this.#phase = "replaying"
    const late = () => this.#fail(this.#handshakeError(`no answer to initialize within ${this.#handshakeTimeoutMs} ms`))
    this.#replayDeadline = setTimeout(late, this.#handshakeTimeoutMs)
    this.#ask("initialize", handshake.params, ({ result, error }) => {
      clearTimeout(this.#replayDeadline)
      if (error) return this.#fail(this.#handshakeError(`initialize failed: ${reasonOf(error)}`))
      const version = result?.protocolVersion
      if (version !== handshake.protocolVersion) {
        return this.#fail(this.#handshakeError(`the version was ${handshake.protocolVersion}, the server chose ${version}`))
      }
      const report = (method: string) => (answer: JsonRpcMessage) => {
        if (answer.error) this.#report(this.#handshakeError(`${method} failed: ${reasonOf(answer.error)}`))
      }
      if (handshake.initialized) {
        const message: JsonRpcMessage = { jsonrpc: "2.0", method: "notifications/initialized" }
        // Who has closed the transport expects no receipt.
        const reject = (error: Error) => void (this.#isClosed() || this.#report(error))
        this.#push({ message, resolve: () => {}, reject })
      }
      if (handshake.setLevel) this.#ask("logging/setLevel", handshake.setLevel, report("logging/setLevel"))
      for (const params of handshake.subscriptions.values()) this.#ask("resources/subscribe", params, report("resources/subscribe"))
      this.#open()
      this.#call(() => this.onreconnect?.())
    })
  }

  /** Sends a request of the transport's own. */
  #ask(method: string, params: unknown, onAnswer: (answer: JsonRpcMessage) => void): void {
    this.#replayCount += 1
    const id = `bennu-client:${this.#replayCount}`
    this.#replays.set(id, onAnswer)
    const message: JsonRpcMessage = { jsonrpc: "2.0", id, method, params }
    const fail = (error: Error) => {
      if (this.#replays.delete(id)) onAnswer({ jsonrpc: "2.0", id, error: { code: CONNECTION_LOST, message: error.message } })
    }
    this.#channel!.push(MESSAGE, message, this.#sendTimeoutMs)
      .receive("error", (reply) => fail(rejected(message, reply)))
      .receive("timeout", () => fail(this.#receiptTimeout(message)))
  }

  #forgetReplays(): void {
    clearTimeout(this.#replayDeadline)
    this.#replays.clear()
  }

  #handshakeError(text: string): McpTransportError {
    return new McpTransportError("handshake", `${this.topic}: the connection was lost and its session could not be renewed: ${text}`)
  }

  #adoptSessionId(): void {
    const { sessionId } = this.#joinReply
    this.sessionId = typeof sessionId === "string" ? sessionId : undefined
  }

  // ---- the end ----

  /** Ends for a reason that the user has to know. */
  #fail(error: Error): void {
    if (this.#phase === "closed") return
    // Who waits for start() is told by it.
    if (!this.#start) this.#report(error)
    this.#end({ leave: true, why: error.message, error })
  }

  /** Ends the transport. Where there is a reason, requests under way are answered with it; who closes knows. */
  #end({ leave, why, error }: { leave: boolean; why?: string; error?: Error }): void {
    if (this.#phase === "closed") return
    this.#phase = "closed"
    this.#forgetReplays()
    const start = this.#takeStart()
    const waiting = [...this.#takeUnacknowledged(), ...this.#queue]
    this.#queue = []
    this.#asked.clear()
    // An errored channel would join again for ever.
    if (leave) this.#call(() => this.#channel?.leave())

    const inbox = this.#takeInbox()
    if (why !== undefined) {
      for (const message of inbox) this.#handOver(message)
      const text = why.startsWith("connection lost") ? `${why} before the answer` : `connection lost: ${why}`
      for (const answer of this.#takePending(text)) this.#handOver(answer)
    }
    this.#call(() => this.onclose?.())
    start?.reject(error ?? this.#closedError(why))
    for (const { reject } of waiting) reject(this.#closedError(why))
  }

  #closedError(why?: string): McpTransportError {
    return new McpTransportError("closed", `${this.topic} is closed${why ? `: ${why}` : ""}`)
  }

  /** A function, since the compiler takes a phase that it has seen for unchanged across calls. */
  #isClosed(): boolean {
    return this.#phase === "closed"
  }

  #report(error: Error): void {
    try {
      this.onerror?.(error)
    } catch (thrown) {
      throwLater(thrown)
    }
  }

  /** Calls the user's code, whose exceptions must not end the delivery to the socket's other channels. */
  #call(code: () => unknown): void {
    try {
      code()
    } catch (error) {
      this.#report(asError(error))
    }
  }
}

function topicOf({ topic, server, session }: McpTransportOptions): string {
  if (topic !== undefined) {
    if (server !== undefined || session !== undefined) throw new TypeError('"topic" stands in place of "server" and "session"')
    return topic
  }
  if (!server) throw new TypeError('either "server" or "topic" says what to join')
  if (session === undefined) return `mcp:server:${server}`
  return `mcp:server:${server}:${session === true ? randomName() : session}`
}

/** `mcp:session` admits only who says who they are. */
function paramsOf(topic: string, params: object | (() => object)): object | (() => object) {
  if (topic !== SESSION_TOPIC) return params
  const clientInfo = { name: "bennu-client", version: "0.1.0" }
  return typeof params === "function" ? () => ({ clientInfo, ...params() }) : { clientInfo, ...params }
}

/** Unique among a socket's sessions, not secret. `crypto.randomUUID` is missing on pages without TLS. */
function randomName(): string {
  return Array.from({ length: 4 }, () => Math.floor(Math.random() * 0x1_0000_0000).toString(36)).join("")
}

/** Whether the socket has a live channel of the topic, which phoenix.js would silently leave for a second one. */
function isTaken(socket: PhoenixSocket, topic: string): boolean {
  const { channels } = socket as { channels?: { topic?: string; state?: string }[] }
  return Array.isArray(channels) && channels.some((one) => one.topic === topic && one.state !== "closed" && one.state !== "leaving")
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

function isRequest(message: JsonRpcMessage): message is JsonRpcMessage & { id: JsonRpcId; method: string } {
  return message.method !== undefined && message.id !== undefined && message.id !== null
}

function isNotification(message: JsonRpcMessage): boolean {
  return message.method !== undefined && !isRequest(message)
}

function isResponse(message: JsonRpcMessage): boolean {
  return message.method === undefined
}

/** Calls back once what has been started in this turn has run. A timer would wait for a second on a hidden page. */
function inNextTurn(callback: () => void): void {
  const { setImmediate } = globalThis as { setImmediate?: (callback: () => void) => void }
  if (setImmediate) return setImmediate(callback)
  const { port1, port2 } = new MessageChannel()
  port1.onmessage = () => {
    port1.close()
    callback()
  }
  port2.postMessage(null)
}

function nameOf(message: JsonRpcMessage): string {
  return message.method ?? `the answer to request ${message.id}`
}

function rejected(message: JsonRpcMessage, reply: unknown): McpTransportError {
  return new McpTransportError("rejected", `the server did not take ${nameOf(message)}: ${reasonOf(reply)}`, reply)
}

function reasonOf(reply: unknown): string {
  if (typeof reply === "string") return reply
  const { reason, message } = isObject(reply) ? reply : {}
  if (typeof reason === "string") return reason
  if (typeof message === "string") return message
  return JSON.stringify(reply) ?? "no reason given"
}

function describe(payload: unknown): string {
  if (payload === null) return "null"
  if (Array.isArray(payload)) return "an array"
  return typeof payload === "object" ? "an object without jsonrpc" : `a ${typeof payload}`
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}

function throwLater(thrown: unknown): void {
  setTimeout(() => {
    throw thrown
  })
}
