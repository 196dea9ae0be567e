// A stock phoenix socket whose server is the test, frame by frame: for what a real server does at no certain moment, or never.

import { finallyDo, until } from "./waiting.js"

/** Opens a socket of a line of the client over a wire of the test's own. */
export function openScripted(t, Phoenix) {
  const script = new Script()
  script.socket = new Phoenix.Socket("ws://scripted/socket", {
    transport: wireOf(script),
    reconnectAfterMs: () => 1,
    rejoinAfterMs: () => 1,
    timeout: 2_000,
  })
  finallyDo(t, () => new Promise((resolve) => script.socket.disconnect(resolve)))
  script.socket.connect()
  return script
}

class Script {
  /** The joins that came in, as `{ joinRef, ref, topic, params }`. */
  joins = []
  wire = undefined

  /** Waits for the join with that number, the first being 1. */
  async join(number) {
    await until(() => this.joins.length >= number, `join ${number}`)
    return this.joins[number - 1]
  }

  /** Waits for a join and answers it. */
  async accept(number, response = {}) {
    const join = await this.join(number)
    this.say([join.joinRef, join.ref, join.topic, "phx_reply", { status: "ok", response }])
    return join
  }

  /** A frame comes in, in text or binary. */
  say(frame) {
    this.wire.onmessage({ data: frame instanceof ArrayBuffer ? frame : JSON.stringify(frame) })
  }

  /** A broadcast comes in with its offset. */
  broadcast(topic, event, offset, payload) {
    this.say([null, `@${offset}`, topic, event, payload])
  }

  /** A binary broadcast comes in, which has no place for its offset. */
  broadcastBinary(topic, event, bytes) {
    const [topicBytes, eventBytes] = [topic, event].map((text) => new TextEncoder().encode(text))
    this.say(new Uint8Array([2, topicBytes.length, eventBytes.length, ...topicBytes, ...eventBytes, ...bytes]).buffer)
  }

  /** The connection is lost, and made again by phoenix.js. */
  lose() {
    const { wire } = this
    wire.readyState = 3
    wire.onclose({ code: 1006 })
  }
}

function wireOf(script) {
  return class Wire {
    readyState = 0
    bufferedAmount = 0
    skipHeartbeat = true

    constructor() {
      script.wire = this
      setTimeout(() => {
        if (this.readyState !== 0) return
        this.readyState = 1
        this.onopen({})
      })
    }

    send(text) {
      const [joinRef, ref, topic, event, params] = JSON.parse(text)
      if (event === "phx_join") script.joins.push({ joinRef, ref, topic, params })
    }

    close(code = 1000) {
      if (this.readyState === 3) return
      this.readyState = 3
      this.onclose?.({ code })
    }
  }
}
