// Both MCP TypeScript SDKs over the transport, in their own words: what an application does with a client works on a channel.

import assert from "node:assert/strict"
import { describe, test } from "node:test"

import { connectClient, openSocket } from "./support/clients.js"
import { startFakePhoenix } from "./support/fake_phoenix.js"
import { KINDS, McpTransport } from "./support/kinds.js"
import { serveSdk } from "./support/sdk_servers.js"
import { finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 20_000 }

async function start(t, onJoin) {
  const fake = await startFakePhoenix(onJoin)
  finallyDo(t, () => fake.close())
  return { fake, socket: openSocket(t, fake.endpoint) }
}

for (const kind of KINDS) {
  describe(kind.name, () => {
    async function connect(t) {
      const seen = {}
      const { fake, socket } = await start(t, serveSdk(kind.era, seen))
      return { fake, seen, socket, ...(await connectClient(t, socket, kind, { server: "fixture" })) }
    }

    const watch = (client) =>
      kind.era === "legacy"
        ? client.subscribeResource({ uri: "test://watched" })
        : client.listen({ toolsListChanged: true, resourceSubscriptions: ["test://watched"] })

    test("lists and calls tools", ONE_TEST, async (t) => {
      const { client, errors } = await connect(t)

      assert.equal(client.getServerVersion().name, "fixture")
      assert.ok((await client.listTools()).tools.some(({ name }) => name === "echo"))
      assert.equal(await kind.call(client, "echo", { text: "Grüße" }), "Grüße")
      assert.equal((await client.readResource({ uri: "test://watched" })).contents[0].text, "content")
      assert.deepEqual(errors, [])
    })

    test("has many calls under way at once", ONE_TEST, async (t) => {
      const { client } = await connect(t)
      const texts = Array.from({ length: 50 }, (_, at) => `${at}`)
      assert.deepEqual(await Promise.all(texts.map((text) => kind.call(client, "echo", { text }))), texts)
    })

    test("gets progress before the result", ONE_TEST, async (t) => {
      const { client } = await connect(t)
      const seen = []
      assert.equal(await kind.call(client, "progress", {}, { onprogress: ({ progress }) => seen.push(progress) }), "done")
      assert.deepEqual(seen, [1, 2, 3])
    })

    test("is asked for input and for a model's words", ONE_TEST, async (t) => {
      const { client, errors } = await connect(t)
      assert.equal(await kind.call(client, "ask"), "Ada")
      assert.equal(await kind.call(client, "sample"), "something")
      assert.deepEqual(errors, [])
    })

    test("cancels by a message", ONE_TEST, async (t) => {
      const { client, fake, seen } = await connect(t)
      const controller = new AbortController()
      const calling = kind.call(client, "hang", {}, { signal: controller.signal })
      await until(() => seen.hanging)
      controller.abort("enough")
      await assert.rejects(calling)

      await until(() => seen.cancelled === 1)
      assert.equal(fake.messages().at(-1).method, "notifications/cancelled")
    })

    test("times out by itself, and tells the server", ONE_TEST, async (t) => {
      const { client, seen } = await connect(t)
      await assert.rejects(kind.call(client, "hang", {}, { timeout: 100 }), /timed out/i)
      await until(() => seen.cancelled === 1)
    })

    test("hears of changes", ONE_TEST, async (t) => {
      const { client } = await connect(t)
      const heard = []
      for (const method of ["notifications/tools/list_changed", "notifications/resources/updated"]) {
        client.setNotificationHandler(kind.named(method), ({ method, params }) => void heard.push([method, params?.uri]))
      }
      await watch(client)
      await kind.call(client, "change")
      await kind.call(client, "touch")

      await until(() => heard.length === 2)
      assert.deepEqual(heard, [["notifications/tools/list_changed", undefined], ["notifications/resources/updated", "test://watched"]])
    })

    test("shares a socket with others of its kind", ONE_TEST, async (t) => {
      const one = await connect(t)
      const others = await Promise.all(["b", true, true].map((session) => connectClient(t, one.socket, kind, { server: "fixture", session })))
      const clients = [one, ...others].map(({ client }) => client)
      assert.deepEqual(await Promise.all(clients.map((client, at) => kind.call(client, "echo", { text: `${at}` }))), ["0", "1", "2", "3"])
      assert.equal(one.fake.channels.length, 4)

      await clients[1].close()
      assert.equal(await kind.call(clients[2], "ask"), "Ada")
      await until(() => one.fake.channels.length === 3)
    })

    test("goes on after a lost connection, and calls under way fail", ONE_TEST, async (t) => {
      const { client, fake, seen, errors } = await connect(t)
      const updated = []
      client.setNotificationHandler(kind.named("notifications/resources/updated"), ({ params }) => void updated.push(params.uri))
      if (kind.era === "legacy") await watch(client)
      const hanging = kind.call(client, "hang")
      await until(() => seen.hanging)
      seen.subscribed = []
      fake.cut()

      await assert.rejects(hanging, ({ message, code }) => /connection lost/.test(message) && code === -32000)
      assert.equal(await kind.call(client, "echo", { text: "again" }), "again")
      assert.equal(await kind.call(client, "ask"), "Ada")
      assert.equal(fake.joins, 2)
      if (kind.era === "legacy") {
        await kind.call(client, "touch")
        await until(() => updated.length === 1)
      }
      assert.deepEqual(errors, [])
    })

    test("is told when the server closes its session", ONE_TEST, async (t) => {
      const { client, fake, seen } = await connect(t)
      let closed = 0
      client.onclose = () => (closed += 1)
      const hanging = kind.call(client, "hang")
      await until(() => seen.hanging)
      fake.channels[0].close()

      await assert.rejects(hanging)
      assert.equal(closed, 1)
    })

    test("can be connected again after it was refused", ONE_TEST, async (t) => {
      let joins = 0
      const { socket } = await start(t, (join) => ((joins += 1) === 1 ? { refuse: "unauthorized" } : serveSdk(kind.era)(join)))
      const client = kind.makeClient()
      await assert.rejects(client.connect(new McpTransport(socket, { server: "fixture" })), /unauthorized/)

      await client.connect(new McpTransport(socket, { server: "fixture" }))
      finallyDo(t, () => client.close())
      assert.equal(await kind.call(client, "echo", { text: "in" }), "in")
    })
  })
}

const [, legacyV2, modernV2] = KINDS

test("a client of 2026-07-28 is told when its subscription is lost", ONE_TEST, async (t) => {
  const { fake, socket } = await start(t, serveSdk("modern"))
  const { client } = await connectClient(t, socket, modernV2, { server: "fixture" })
  const subscription = await client.listen({ toolsListChanged: true })
  fake.cut()

  assert.equal(await subscription.closed, "remote")
  await client.listen({ toolsListChanged: true })
})

for (const [era, version] of [["legacy", "2025-11-25"], ["modern", "2026-07-28"]]) {
  test(`a client that asks for the era finds out ${version} on a channel`, ONE_TEST, async (t) => {
    const { socket } = await start(t, serveSdk(era))
    const { client } = await connectClient(t, socket, legacyV2, { server: "fixture", client: { versionNegotiation: { mode: "auto" } } })

    assert.equal(client.getNegotiatedProtocolVersion(), version)
    assert.equal(await legacyV2.call(client, "echo", { text: era }), era)
  })
}
