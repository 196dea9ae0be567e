// The newest stock phoenix client in Node, with the `ws` package as its WebSocket.

import assert from "node:assert/strict"
import { once } from "node:events"
import { after, before, describe, test } from "node:test"

import * as Phoenix from "phoenix"
import WebSocket from "ws"

import * as conversations from "./support/conversations.js"
import { expected } from "./support/expected.js"
import { startReference } from "./support/server_process.js"

const ONE_TEST = { timeout: 45_000 }
/** Far above what a close takes, far below the seconds for which clients and servers wait for each other's end. */
const LET_GO_MS_MAX = 1_000

describe("phoenix in Node over ws", () => {
  let server
  const setup = () => ({ Phoenix, endpoint: `ws://127.0.0.1:${server.port}/socket`, webSocket: WebSocket })

  before(async () => {
    server = await startReference()
  })
  after(() => server?.stop())

  for (const [name, what] of [
    ["talk", "join, push and reply"],
    ["talkBinary", "binary both ways"],
    ["meet", "presence of two clients"],
  ]) {
    test(what, ONE_TEST, async () => {
      assert.deepEqual(await conversations[name](setup()), expected[name])
    })
  }

  test("a client that closes is let go at once, joined or not", ONE_TEST, async () => {
    for (const topics of [[], ["room:one", "room:two"]]) {
      const client = new WebSocket(`${setup().endpoint}/websocket?vsn=2.0.0`)
      await once(client, "open")
      for (const topic of topics) {
        client.send(JSON.stringify([topic, topic, topic, "phx_join", {}]))
        await once(client, "message")
      }

      const began = Date.now()
      client.close(1000)
      const [code] = await once(client, "close")

      const took = Date.now() - began
      assert.equal(code, 1000)
      assert.ok(took < LET_GO_MS_MAX, `with ${topics.length} channels the stream ended after ${took} ms`)
    }
  })

  test("rejoins by itself after a restart", ONE_TEST, async () => {
    const story = await conversations.stay(setup())

    await server.restart()

    assert.deepEqual(await story.goOn(), expected.goOn)
  })
})
