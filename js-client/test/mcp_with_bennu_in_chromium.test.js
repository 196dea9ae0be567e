// Both MCP TypeScript SDKs in a page with Bennu itself, over the transport and the page's own phoenix.js socket.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { launchChromium } from "./support/browser.js"
import { startMcpPage } from "./support/mcp_page.js"
import { KINDS, OVER_LONG_POLL, OVER_WEB_SOCKET } from "./support/with_bennu/index.js"
import { startBennuServer, startConformanceServer } from "./support/with_bennu/server.js"

const ONE_TEST = { timeout: 45_000 }

let conformance
let bennu
let site
let browser

before(async () => {
  conformance = await startConformanceServer()
  bennu = await startBennuServer()
  site = await startMcpPage("with_bennu/index.js")
  browser = await launchChromium()
})
after(async () => {
  await browser?.close()
  await site?.close()
  await bennu?.close()
  await conformance?.close()
})

for (const [way, conversations, server] of [
  ["WebSocket", OVER_WEB_SOCKET, () => conformance],
  ["long poll", OVER_LONG_POLL, () => bennu],
]) {
  for (const kind of KINDS) {
    describe(`${kind.name} in Chromium over ${way}`, () => {
      const faults = []
      let page

      before(async () => {
        page = await browser.newPage()
        page.on("pageerror", (error) => faults.push(error.message))
        await page.exposeFunction("act", server().act)
        await page.goto(site.origin)
      })
      after(() => page?.close())

      for (const [name, { what, comesTo }] of Object.entries(conversations)) {
        test(what, ONE_TEST, async () => {
          const told = await page.evaluate(
            async ({ name, kind, way, endpoint }) => {
              const { converse, LongPoll, Socket } = await import("/with_bennu/index.js")
              const transport = way === "long poll" ? LongPoll : WebSocket
              const socket = new Socket(endpoint, { transport, reconnectAfterMs: () => 20, rejoinAfterMs: () => 20 })
              try {
                return await converse(name, kind, socket, window.act)
              } finally {
                socket.disconnect()
              }
            },
            { name, kind: kind.name, way, endpoint: server().endpoint },
          )

          assert.deepEqual(told, comesTo(kind))
          assert.deepEqual(faults.splice(0), [])
        })
      }
    })
  }
}
