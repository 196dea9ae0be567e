// Both MCP TypeScript SDKs in a page, over the transport and the page's own phoenix.js socket.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { launchChromium } from "./support/browser.js"
import { startFakePhoenix } from "./support/fake_phoenix.js"
import { KINDS } from "./support/kinds.js"
import { startMcpPage } from "./support/mcp_page.js"
import { serveSdk } from "./support/sdk_servers.js"
import { finallyDo, until } from "./support/waiting.js"

const ONE_TEST = { timeout: 45_000 }

let browser
let site

before(async () => {
  site = await startMcpPage()
  browser = await launchChromium()
})
after(async () => {
  await browser?.close()
  await site?.close()
})

/** Opens a page whose `session` is a connected client of the kind, and what it takes to use it. */
async function open(t, kind, endpoint) {
  const page = await browser.newPage()
  finallyDo(t, () => page.close())
  page.faults = []
  page.on("pageerror", (error) => page.faults.push(error.message))
  await page.goto(site.origin)
  await page.evaluate(
    async ({ name, endpoint }) => {
      const { KINDS, McpTransport, Socket } = await import("/kinds.js")
      const kind = KINDS.find((one) => one.name === name)
      const socket = new Socket(endpoint, { reconnectAfterMs: () => 50, rejoinAfterMs: () => 50 })
      const connect = async (session) => {
        const client = kind.makeClient()
        await client.connect(new McpTransport(socket, { server: "fixture", session }))
        return client
      }
      window.session = { kind, socket, connect, client: await connect() }
    },
    { name: kind.name, endpoint },
  )
  return page
}

for (const kind of KINDS) {
  describe(`${kind.name} in Chromium`, () => {
    async function start(t) {
      const seen = {}
      const fake = await startFakePhoenix(serveSdk(kind.era, seen))
      finallyDo(t, () => fake.close())
      return { fake, seen, page: await open(t, kind, fake.endpoint) }
    }

    test("tools, progress, questions and a second session", ONE_TEST, async (t) => {
      const { fake, page } = await start(t)

      const told = await page.evaluate(async () => {
        const { kind, connect, client } = window.session
        const progress = []
        const onprogress = (one) => progress.push(one.progress)
        const other = await connect(true)
        return {
          server: client.getServerVersion().name,
          echo: await kind.call(client, "echo", { text: "Grüße" }),
          done: await kind.call(client, "progress", {}, { onprogress }),
          progress,
          ask: await kind.call(client, "ask"),
          sample: await kind.call(other, "sample"),
        }
      })

      assert.deepEqual(told, { server: "fixture", echo: "Grüße", done: "done", progress: [1, 2, 3], ask: "Ada", sample: "something" })
      assert.equal(fake.channels.length, 2)
      assert.deepEqual(page.faults, [])
    })

    test("goes on after a lost connection", ONE_TEST, async (t) => {
      const { fake, seen, page } = await start(t)
      await page.evaluate(() => {
        const { kind, client } = window.session
        window.hanging = kind.call(client, "hang").catch((error) => error.message)
      })
      await until(() => seen.hanging)
      fake.cut()

      assert.match(await page.evaluate(() => window.hanging), /connection lost/)
      assert.equal(await page.evaluate(() => window.session.kind.call(window.session.client, "echo", { text: "again" })), "again")
      assert.equal(fake.joins, 2)
      assert.deepEqual(page.faults, [])
    })

    test("closing leaves the channel and keeps the socket", ONE_TEST, async (t) => {
      const { fake, page } = await start(t)
      const connected = await page.evaluate(async () => {
        await window.session.client.close()
        return window.session.socket.isConnected()
      })
      await until(() => fake.channels.length === 0)
      assert.equal(connected, true)
    })
  })
}
