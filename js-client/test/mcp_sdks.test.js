// Both MCP TypeScript SDKs over the transport, in their own words: what an application does with a client works on a channel.

import assert from "node:assert/strict"
import { describe, test } from "node:test"

import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js"

import { connectClient, KINDS, openSocket } from "./support/clients.js"
import { startFakePhoenix } from "./support/fake_phoenix.js"
import { serveSdk } from "./support/sdk_servers.js"
import { finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 20_000 }
const said = ({ content }) => content[0].text
const SCHEMAS = {
  "sampling/createMessage": CreateMessageRequestSchema,
  "elicitation/create": ElicitRequestSchema,
  "notifications/resources/updated": ResourceUpdatedNotificationSchema,
  "notifications/tools/list_changed": ToolListChangedNotificationSchema,
}

for (const kind of KINDS) {
  describe(kind.kind, () => {
    /** The first line of the SDK names a method by its schema, the second by its name. */
    const named = (method) => (kind.line === 1 ? SCHEMAS[method] : method)
    const options = {
      client: { capabilities: { sampling: {}, elicitation: {} } },
      setUp(client) {
        client.setRequestHandler(named("elicitation/create"), () => ({ action: "accept", content: { name: "Ada" } }))
        client.setRequestHandler(named("sampling/createMessage"), () => ({ role: "assistant", model: "m", content: { type: "text", text: "something" } }))
      },
    }

    async function connect(t, { socket: given, ...more } = {}) {
      const seen = {}
      const fake = await startFakePhoenix(serveSdk(kind.era, seen))
      finallyDo(t, () => fake.close())
      const socket = openSocket(t, fake.endpoint)
      return { fake, seen, socket, ...(await connectClient(t, socket, kind, { server: "fixture", ...options, ...more })) }
    }

    test("lists and calls tools", ONE_TEST, async (t) => {
      const { client, errors } = await connect(t)
      assert.equal(client.getServerVersion().name, "fixture")
      assert.ok((await client.listTools()).tools.some(({ name }) => name === "echo"))
      assert.equal(said(await client.callTool({ name: "echo", arguments: { text: "Grüße" } })), "Grüße")
      assert.equal((await client.readResource({ uri: "test://watched" })).contents[0].text, "content")
      assert.deepEqual(errors, [])
    })

    test("has many calls under way at once", ONE_TEST, async (t) => {
      const { client } = await connect(t)
      const texts = Array.from({ length: 50 }, (_, at) => `${at}`)
      const calls = texts.map((text) => client.callTool({ name: "echo", arguments: { text } }))
      assert.deepEqual((await Promise.all(calls)).map(said), texts)
    })

    test("gets progress before the result", ONE_TEST, async (t) => {
      const { client } = await connect(t)
      const seen = []
      const onprogress = ({ progress }) => seen.push(progress)
      const args = [{ name: "progress" }, undefined, { onprogress }]
      if (kind.line === 2) args.splice(1, 1)
      assert.equal(said(await client.callTool(...args)), "done")
      assert.deepEqual(seen, [1, 2, 3])
    })

    test("is asked for input and for a model's words", ONE_TEST, async (t) => {
      const { client, errors } = await connect(t)
      assert.equal(said(await client.callTool({ name: "ask" })), "Ada")
      assert.equal(said(await client.callTool({ name: "sample" })), "something")
      assert.deepEqual(errors, [])
    })

    test("cancels by a message", ONE_TEST, async (t) => {
      const { client, fake, seen } = await connect(t)
      const controller = new AbortController()
      const args = [{ name: "hang" }, undefined, { signal: controller.signal }]
      if (kind.line === 2) args.splice(1, 1)
      const calling = client.callTool(...args)
      await until(() => seen.hanging)
      controller.abort("enough")
      await assert.rejects(calling)

      await until(() => seen.cancelled === 1)
      assert.equal(fake.messages().at(-1).method, "notifications/cancelled")
    })

    test("hears of changes", ONE_TEST, async (t) => {
      const { client } = await connect(t)
      const heard = []
      for (const method of ["notifications/tools/list_changed", "notifications/resources/updated"]) {
        client.setNotificationHandler(named(method), (notification) => void heard.push([notification.method, notification.params?.uri]))
      }
      if (kind.era === "legacy") await client.subscribeResource({ uri: "test://watched" })
      else await client.listen({ toolsListChanged: true, resourceSubscriptions: ["test://watched"] })
      await client.callTool({ name: "change" })
      await client.callTool({ name: "touch" })

      await until(() => heard.length === 2)
      assert.deepEqual(heard, [["notifications/tools/list_changed", undefined], ["notifications/resources/updated", "test://watched"]])
    })

    test("shares a socket with others of its kind", ONE_TEST, async (t) => {
      const one = await connect(t)
      const others = await Promise.all(["b", true, true].map((session) => connectClient(t, one.socket, kind, { server: "fixture", session, ...options })))
      const clients = [one, ...others].map(({ client }) => client)
      const answers = await Promise.all(clients.map((client, at) => client.callTool({ name: "echo", arguments: { text: `${at}` } })))
      assert.deepEqual(answers.map(said), ["0", "1", "2", "3"])
      assert.equal(one.fake.channels.length, 4)

      await clients[1].close()
      assert.equal(said(await clients[2].callTool({ name: "ask" })), "Ada")
      await until(() => one.fake.channels.length === 3)
    })

    test("goes on after a lost connection, and calls under way fail", ONE_TEST, async (t) => {
      const { client, fake, seen, errors } = await connect(t)
      const updated = []
      client.setNotificationHandler(named("notifications/resources/updated"), ({ params }) => void updated.push(params.uri))
      if (kind.era === "legacy") await client.subscribeResource({ uri: "test://watched" })
      const hanging = client.callTool({ name: "hang" })
      await until(() => seen.hanging)
      seen.subscribed = []
      fake.cut()

      await assert.rejects(hanging, (error) => /connection lost/.test(error.message) && (kind.line === 2 || error.code === -32000))
      assert.equal(said(await client.callTool({ name: "echo", arguments: { text: "again" } })), "again")
      assert.equal(said(await client.callTool({ name: "ask" })), "Ada")
      assert.equal(fake.joins, 2)
      if (kind.era === "legacy") {
        await client.callTool({ name: "touch" })
        await until(() => updated.length === 1)
      }
      assert.deepEqual(errors, [])
    })

    test("can be connected again after it was refused", ONE_TEST, async (t) => {
      let refusals = 0
      const fake = await startFakePhoenix((join) => ((refusals += 1) === 1 ? { refuse: "unauthorized" } : serveSdk(kind.era)(join)))
      finallyDo(t, () => fake.close())
      const socket = openSocket(t, fake.endpoint)
      const client = kind.makeClient(options.client)
      const { McpTransport } = await import("bennu-client")
      await assert.rejects(client.connect(new McpTransport(socket, { server: "fixture" })), /unauthorized/)

      await client.connect(new McpTransport(socket, { server: "fixture" }))
      finallyDo(t, () => client.close())
      assert.equal(said(await client.callTool({ name: "echo", arguments: { text: "in" } })), "in")
    })

    test("times out by itself, and tells the server", ONE_TEST, async (t) => {
      const { client, seen } = await connect(t)
      const args = [{ name: "hang" }, undefined, { timeout: 100 }]
      if (kind.line === 2) args.splice(1, 1)
      await assert.rejects(client.callTool(...args), /timed out/i)
      await until(() => seen.cancelled === 1)
    })

    test("is told when the server closes its session", ONE_TEST, async (t) => {
      const { client, fake, seen } = await connect(t)
      let closed = 0
      client.onclose = () => (closed += 1)
      const hanging = client.callTool({ name: "hang" })
      await until(() => seen.hanging)
      fake.channels[0].close()
      await assert.rejects(hanging)
      assert.equal(closed, 1)
    })
  })
}

test("a client of 2026-07-28 is told when its subscription is lost", ONE_TEST, async (t) => {
  const kind = KINDS.find(({ era }) => era === "modern")
  const fake = await startFakePhoenix(serveSdk("modern"))
  finallyDo(t, () => fake.close())
  const { client } = await connectClient(t, openSocket(t, fake.endpoint), kind, { server: "fixture" })
  const subscription = await client.listen({ toolsListChanged: true })
  fake.cut()
  assert.equal(await subscription.closed, "remote")
  await client.listen({ toolsListChanged: true })
})

test("a client that asks which era it is, finds it out on a channel", ONE_TEST, async (t) => {
  const [, kind] = KINDS
  for (const [era, version] of [["legacy", "2025-11-25"], ["modern", "2026-07-28"]]) {
    const fake = await startFakePhoenix(serveSdk(era))
    finallyDo(t, () => fake.close())
    const { client } = await connectClient(t, openSocket(t, fake.endpoint), kind, { server: "fixture", client: { versionNegotiation: { mode: "auto" } } })
    assert.equal(client.getNegotiatedProtocolVersion(), version)
    assert.equal(said(await client.callTool({ name: "echo", arguments: { text: era } })), era)
  }
})
