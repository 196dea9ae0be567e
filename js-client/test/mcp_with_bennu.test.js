// Both MCP TypeScript SDKs in Node with Bennu itself, over the transport and a stock phoenix.js socket.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { connectClient, openSocket } from "./support/clients.js"
import { converse, KINDS, LongPoll, OVER_LONG_POLL, OVER_WEB_SOCKET } from "./support/with_bennu/index.js"
import { startBennuServer, startConformanceServer } from "./support/with_bennu/server.js"

const ONE_TEST = { timeout: 20_000 }

let conformance
let bennu

before(async () => {
  conformance = await startConformanceServer()
  bennu = await startBennuServer()
})
after(async () => {
  await conformance?.close()
  await bennu?.close()
})

for (const [way, conversations, server, options] of [
  ["WebSocket", OVER_WEB_SOCKET, () => conformance, {}],
  ["long poll", OVER_LONG_POLL, () => bennu, { transport: LongPoll }],
]) {
  for (const kind of KINDS) {
    describe(`${kind.name} over ${way}`, () => {
      for (const [name, { what, comesTo }] of Object.entries(conversations)) {
        test(what, ONE_TEST, async (t) => {
          const { endpoint, act } = server()
          const socket = openSocket(t, endpoint, options)
          assert.deepEqual(await converse(name, kind.name, socket, act), comesTo(kind))
        })
      }
    })
  }
}

describe("client v2", () => {
  const legacy = KINDS.find(({ line, era }) => line === 2 && era === "legacy")
  const connect = (t, client) => connectClient(t, openSocket(t, conformance.endpoint), legacy, { server: "conformance", client })

  for (const version of ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]) {
    test(`that speaks ${version} alone is answered in it`, ONE_TEST, async (t) => {
      const { client, errors } = await connect(t, { supportedProtocolVersions: [version] })

      assert.equal(client.getNegotiatedProtocolVersion(), version)
      assert.equal(await legacy.call(client, "echo", { text: version }), version)
      assert.deepEqual(errors, [])
    })
  }

  test("that asks for the era finds out 2026-07-28", ONE_TEST, async (t) => {
    const { client, errors } = await connect(t, { versionNegotiation: { mode: "auto" } })

    assert.equal(client.getNegotiatedProtocolVersion(), "2026-07-28")
    assert.equal(await legacy.call(client, "test_streaming_elicitation"), "Hello, Ada!")
    assert.deepEqual(errors, [])
  })
})
