// Four lines of the stock phoenix client in headless Chromium, over WebSocket and over long poll.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { launchChromium } from "./support/browser.js"
import { expected } from "./support/expected.js"
import { startReference } from "./support/server_process.js"
import { LINES, startSite } from "./support/site.js"

const ONE_TEST = { timeout: 45_000 }

let browser
let site
let server

before(async () => {
  server = await startReference()
  site = await startSite()
  browser = await launchChromium()
})

after(async () => {
  await browser?.close()
  await site?.close()
  await server?.stop()
})

for (const { line, version } of LINES) {
  for (const longPoll of [false, true]) {
    describe(`phoenix ${version}, ${longPoll ? "long poll" : "WebSocket"}`, () => {
      test("join, push and reply", ONE_TEST, async (t) => {
        assert.deepEqual(await converse(t, line, longPoll, "talk"), expected.talk)
      })

      if (!longPoll) {
        test("binary both ways", ONE_TEST, async (t) => {
          assert.deepEqual(await converse(t, line, longPoll, "talkBinary"), expected.talkBinary)
        })
      } else if (line === "1.7" || line === "1.8") {
        // Older lines cannot send binary over long poll, and none can receive it.
        test("binary from the client", ONE_TEST, async (t) => {
          assert.deepEqual(await converse(t, line, longPoll, "sendBinary"), expected.sendBinary)
        })
      }

      test("presence of two clients", ONE_TEST, async (t) => {
        assert.deepEqual(await converse(t, line, longPoll, "meet"), expected.meet)
      })

      for (const signal of ["SIGTERM", "SIGKILL"]) {
        test(`rejoins by itself after a restart (${signal})`, ONE_TEST, async (t) => {
          const page = await openPage(t, line)
          const stay = await page.evaluateHandle(async (setup) => {
            const { stay } = await import("/conversations.js")
            return stay({ ...setup, Phoenix: window.Phoenix })
          }, setup(longPoll))

          // The older lines take the new long-poll session of a server that is back before any of their polls has failed, and
          // believe that their channels are still joined: phoenixframework/phoenix#6538.
          const needsNotice = longPoll && line !== "1.8"
          await server.restart(signal, () => needsNotice && stay.evaluate((story) => story.noticeLoss()))

          assert.deepEqual(await stay.evaluate((story) => story.goOn()), expected.goOn)
        })
      }
    })
  }
}

const setup = (longPoll) => ({ endpoint: `ws://127.0.0.1:${server.port}/socket`, longPoll })

async function openPage(t, line) {
  const page = await browser.newPage()
  t.after(() => page.close())
  page.on("pageerror", (error) => t.diagnostic(`page error: ${error.message}`))
  await page.goto(`${site.origin}/${line}`)
  return page
}

async function converse(t, line, longPoll, name) {
  const page = await openPage(t, line)
  return page.evaluate(
    async ({ name, setup }) => {
      const conversations = await import("/conversations.js")
      return conversations[name]({ ...setup, Phoenix: window.Phoenix })
    },
    { name, setup: setup(longPoll) },
  )
}
