// The tests' own proxy from Streamable HTTP to channels, by the SDKs' clients: so that what the conformance suites find through it
// is the server's.

import assert from "node:assert/strict"
import { describe, test } from "node:test"

import { StreamableHTTPClientTransport as HttpV2 } from "@modelcontextprotocol/client"
import { StreamableHTTPClientTransport as HttpV1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js"

import { startFakePhoenix } from "./support/fake_phoenix.js"
import { KINDS } from "./support/kinds.js"
import { startMcpProxy } from "./support/mcp_proxy.js"
import { serveSdk } from "./support/sdk_servers.js"
import { finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 20_000 }
const META = { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} }

async function start(t, era) {
  const seen = {}
  const fake = await startFakePhoenix(serveSdk(era, seen))
  finallyDo(t, () => fake.close())
  const proxy = await startMcpProxy(fake.endpoint, "fixture")
  finallyDo(t, () => proxy.close())
  return { fake, seen, proxy }
}

for (const kind of KINDS) {
  describe(`${kind.name} over HTTP`, () => {
    async function connect(t, { url }) {
      const client = kind.makeClient()
      finallyDo(t, () => client.close())
      const Http = kind.line === 1 ? HttpV1 : HttpV2
      await client.connect(new Http(new URL(url)))
      return client
    }

    test("two clients of the same ids do on the proxy what they do on a channel", ONE_TEST, async (t) => {
      const { fake, seen, proxy } = await start(t, kind.era)
      const clients = [await connect(t, proxy), await connect(t, proxy)]
      await Promise.all(
        clients.map(async (client, at) => {
          const progress = []
          const onprogress = (one) => progress.push(one.progress)
          assert.equal(await kind.call(client, "echo", { text: `${at}` }), `${at}`)
          assert.equal(await kind.call(client, "progress", {}, { onprogress }), "done")
          assert.deepEqual(progress, [1, 2, 3])
          assert.equal(await kind.call(client, "ask"), "Ada")
          assert.equal(await kind.call(client, "sample"), "something")
        }),
      )
      const controller = new AbortController()
      const hanging = kind.call(clients[0], "hang", {}, { signal: controller.signal })
      await until(() => seen.hanging)
      controller.abort("enough")
      await assert.rejects(hanging)
      await until(() => seen.cancelled === 1)

      assert.equal(fake.channels.length, kind.era === "legacy" ? 2 : 1)
      assert.deepEqual(proxy.faults, [])
    })

    test("changes are heard", ONE_TEST, async (t) => {
      const { proxy } = await start(t, kind.era)
      const client = await connect(t, proxy)
      const heard = []
      for (const method of ["notifications/tools/list_changed", "notifications/resources/updated"]) {
        client.setNotificationHandler(kind.named(method), ({ method }) => void heard.push(method))
      }
      if (kind.era === "legacy") await client.subscribeResource({ uri: "test://watched" })
      else await client.listen({ toolsListChanged: true, resourceSubscriptions: ["test://watched"] })
      await until(async () => {
        // The stream for what belongs to no request is opened in the background.
        await kind.call(client, "change")
        return heard.length > 0
      })
      await kind.call(client, "touch")
      await until(() => heard.includes("notifications/resources/updated"))
    })
  })
}

describe("statuses of 2026-07-28", () => {
  const body = (method, params = {}) => ({ jsonrpc: "2.0", id: 7, method, params: { _meta: META, ...params } })
  const headers = (method, more = {}) => ({ "mcp-protocol-version": "2026-07-28", "mcp-method": method, ...more })
  const call = body("tools/call", { name: "echo", arguments: { text: "x" } })

  for (const [what, request, sent, status, code] of [
    ["a result", body("server/discover"), headers("server/discover"), 200, undefined],
    ["an unknown method", body("no/such"), headers("no/such"), 404, -32601],
    ["another method in the header", body("tools/list"), headers("prompts/list"), 400, -32020],
    ["another version in the header", body("tools/list"), headers("tools/list", { "mcp-protocol-version": "2025-11-25" }), 400, -32020],
    ["no name in the headers", call, headers("tools/call"), 400, -32020],
    ["another name in the headers", call, headers("tools/call", { "mcp-name": "other" }), 400, -32020],
    ["a name in base64", call, headers("tools/call", { "mcp-name": "=?base64?ZWNobw==?=" }), 200, undefined],
    ["a foreign origin", call, headers("tools/call", { "mcp-name": "echo", origin: "http://evil.example.com" }), 403, -32600],
    ["a notification", { jsonrpc: "2.0", method: "notifications/x", params: {} }, headers("notifications/x"), 202, undefined],
  ]) {
    test(`${what} is ${status}`, ONE_TEST, async (t) => {
      const { proxy } = await start(t, "modern")
      // The fixture takes a channel that does not open with 2026-07-28 for one of the other eras.
      const post = (body, headers) => fetch(proxy.url, { method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) })
      await (await post(body("server/discover"), headers("server/discover"))).text()
      const response = await post(request, sent)
      const text = await response.text()

      assert.equal(response.status, status)
      const answer = text === "" ? {} : JSON.parse(text)
      assert.equal(answer.error?.code, code)
      if (status === 200) assert.equal(answer.id, 7)
    })
  }
})
