// The page at / of a production server: who signs in, by which credential, and who signs out.

import assert from "node:assert/strict"
import { mkdir } from "node:fs/promises"
import { after, before, test } from "node:test"
import { fileURLToPath } from "node:url"

import { launchChromium } from "./support/browser.js"
import { inSeconds, jwt } from "./support/credentials.js"
import { startProduction } from "./support/production.js"

const ARTIFACTS = process.env.ARTIFACTS ?? fileURLToPath(new URL("artifacts/", import.meta.url))
const ONE_TEST = { timeout: 60_000 }
const JWT_SECRET = "a secret of JSON web tokens, of forty bytes"
const UNSAFE = /[\w-]{20,}/

let browser
let server

before(async () => {
  await mkdir(ARTIFACTS, { recursive: true })
  server = await startProduction({
    settings: { jwt: { algorithms: ["HS256"], secret: JWT_SECRET }, auth: { sessions_per_user_max: 0 } },
    keys: {
      ada: { user: "ada", roles: ["user"] },
      reader: { user: "reader", roles: ["readonly"] },
      dashboard: { user: "dashboard", roles: ["dashboard"] },
    },
  })
  browser = await launchChromium()
})

after(async () => {
  await browser?.close()
  await server?.close()
})

async function openTab(t, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 760 }, ...options })
  t.after(() => context.close())
  const tab = await context.newPage()
  const faults = []
  tab.on("pageerror", (error) => faults.push(error.message))
  // A socket that is refused is an error of the browser's own.
  tab.on("console", (message) => message.type() === "error" && !message.text().includes("WebSocket") && faults.push(message.text()))
  await tab.goto(`${server.origin}/`)
  return { tab, faults, find: (id) => tab.getByTestId(id) }
}

async function signIn({ tab, find }, credential) {
  await find("credential").fill(credential)
  await find("sign-in-button").click()
  await tab.waitForLoadState("load")
}

const reason = (find, text) => find("sign-in-reason").filter({ hasText: text }).waitFor()
const live = (tab) => tab.locator('[data-testid="connection"][data-state="live"]').waitFor()

async function runCountdown({ tab, find }) {
  await tab.locator('[data-tool="countdown"]').click()
  await find("field-seconds").fill("1")
  await find("run-button").click()
  await tab.locator('[data-testid="run"][data-status="completed"]:has([data-testid="run-own"]:visible)').first().waitFor()
}

test("whoever has not signed in sees the form, and no socket is asked for", ONE_TEST, async (t) => {
  const it = await openTab(t)
  const sockets = []
  it.tab.on("websocket", (socket) => sockets.push(socket.url()))
  await it.tab.reload()

  await it.find("sign-in").waitFor()
  await it.tab.screenshot({ path: `${ARTIFACTS}/page-sign-in.png` })

  assert.equal(await it.find("sign-out").isVisible(), false)
  assert.deepEqual([sockets, it.faults], [[], []])
})

test("a wrong key is refused and asked for again; a right one runs a tool, until it is signed out", ONE_TEST, async (t) => {
  const it = await openTab(t)
  const { tab, find } = it

  await signIn(it, "bennu_a-wrong-key")
  await reason(find, "refuses")
  await tab.screenshot({ path: `${ARTIFACTS}/page-sign-in-refused.png` })
  await signIn(it, server.keys.ada.text)
  await live(tab)
  assert.equal(await find("sign-in").isVisible(), false)
  await runCountdown(it)
  await tab.screenshot({ path: `${ARTIFACTS}/page-signed-in.png` })
  assert.ok(!(await tab.content()).includes(server.keys.ada.text), "the key is nowhere on the page")
  assert.doesNotMatch(tab.url(), UNSAFE)
  await find("sign-out").click()
  await find("sign-in").waitFor()
  await tab.screenshot({ path: `${ARTIFACTS}/page-signed-out.png` })

  assert.equal(await tab.evaluate(() => sessionStorage.length + localStorage.length), 0)
  assert.equal(await find("tool").count(), 0)
  assert.deepEqual(it.faults, [])
})

test("a JWT and a Phoenix token sign in as well, and stay over a reload", ONE_TEST, async (t) => {
  const credentials = [
    jwt({ sub: "ada", exp: inSeconds(600), roles: ["user"] }, { secret: JWT_SECRET }),
    server.userToken("ada"),
  ]
  for (const credential of credentials) {
    const it = await openTab(t)
    await signIn(it, credential)
    await live(it.tab)
    await it.tab.reload()
    await live(it.tab)
    await runCountdown(it)
    assert.deepEqual(it.faults, [])
  }
})

test("what a role may not do is said where it is done", ONE_TEST, async (t) => {
  const it = await openTab(t)
  await signIn(it, server.keys.reader.text)
  await live(it.tab)

  await it.tab.locator('[data-tool="countdown"]').click()
  await it.find("run-button").click()
  await it.find("call-status").filter({ hasText: "Missing capability: tools:call" }).waitFor()
  await it.tab.screenshot({ path: `${ARTIFACTS}/page-not-allowed.png` })

  assert.deepEqual(it.faults, [])
})

test("a role without tools is told so", ONE_TEST, async (t) => {
  const it = await openTab(t)
  await signIn(it, server.keys.dashboard.text)

  await it.find("notice").filter({ hasText: /unknown MCP server|not/ }).waitFor()
  await it.tab.screenshot({ path: `${ARTIFACTS}/page-no-session.png` })
})

test("a key that is revoked asks to sign in again", ONE_TEST, async (t) => {
  const key = await server.createKey({ user: "gone", roles: ["user"] })
  const it = await openTab(t)
  await signIn(it, key.text)
  await live(it.tab)

  await server.admin("DELETE", `keys/${key.id}`)
  await it.find("sign-in").waitFor({ timeout: 10_000 })
  await it.tab.screenshot({ path: `${ARTIFACTS}/page-revoked.png` })
})

test("the form fits a narrow window, and the keyboard is enough", ONE_TEST, async (t) => {
  const it = await openTab(t, { viewport: { width: 360, height: 700 } })
  await it.find("credential").focus()
  await it.tab.keyboard.type(server.keys.ada.text)
  await it.tab.screenshot({ path: `${ARTIFACTS}/page-sign-in-narrow.png` })
  assert.equal(await it.tab.evaluate(() => document.documentElement.scrollWidth), 360, "nothing is wider than the window")

  await it.tab.keyboard.press("Enter")

  await live(it.tab)
})
