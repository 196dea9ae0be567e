// The library's examples as their readers run them: the pages in Chromium, the channels with the stock client in Node.

import assert from "node:assert/strict"
import { mkdir } from "node:fs/promises"
import { after, before, describe, test } from "node:test"
import { fileURLToPath } from "node:url"

import { Socket } from "phoenix"
import WebSocket from "ws"

import { launchChromium } from "./support/browser.js"
import { startExample } from "./support/server_process.js"

const ONE_TEST = { timeout: 60_000 }
const ARTIFACTS = fileURLToPath(new URL("artifacts/", import.meta.url))

let browser

before(async () => {
  await mkdir(ARTIFACTS, { recursive: true })
  browser = await launchChromium()
})
after(() => browser?.close())

/** Starts an example for the tests of one suite. */
function example(name) {
  const app = {}
  before(async () => {
    app.server = await startExample(name)
  })
  after(() => app.server?.stop())
  app.open = async (t, path = "/", { width = 900, height = 560 } = {}) => {
    const page = await browser.newPage({ viewport: { width, height } })
    t.after(() => page.close())
    page.faults = []
    page.on("pageerror", (error) => page.faults.push(error.message))
    await page.goto(`http://localhost:${app.server.port}${path}`)
    return page
  }
  app.connect = (t) => {
    const socket = new Socket(`ws://localhost:${app.server.port}/socket`, { transport: WebSocket })
    t.after(() => new Promise((resolve) => socket.disconnect(resolve)))
    socket.connect()
    return socket
  }
  return app
}

/** What a join or a push is answered, as a promise. */
const answer = (push) =>
  new Promise((resolve, reject) => {
    push
      .receive("ok", (response) => resolve(["ok", response]))
      .receive("error", (response) => resolve(["error", response]))
      .receive("timeout", () => reject(new Error("no answer")))
  })

/** What a channel gets of one event, one promise after another. */
function events(channel, event) {
  const got = []
  const waiting = []
  channel.on(event, (payload) => (waiting.length > 0 ? waiting.shift()(payload) : got.push(payload)))
  return () => (got.length > 0 ? Promise.resolve(got.shift()) : new Promise((resolve) => waiting.push(resolve)))
}

const hasTexts = (page, selector, texts) =>
  page.waitForFunction(
    ({ selector, texts }) => {
      const shown = [...document.querySelectorAll(selector)].map((element) => element.textContent)
      return JSON.stringify(shown) === JSON.stringify(texts)
    },
    { selector, texts },
  )

describe("chat", () => {
  const app = example("chat")
  const isIn = (page) => page.locator('#status[data-state="joined"]').waitFor()
  const isOut = (page) => page.locator('#status:not([data-state="joined"])').waitFor()
  const SAID = "#messages .bubble"

  async function enter(t, name, room) {
    const page = await app.open(t, `/#${room}`)
    await rename(page, name)
    return page
  }

  async function rename(page, name) {
    await page.locator("#name").fill(name)
    await page.locator("#name").press("Enter")
    await page.locator("#people").getByText(name, { exact: false }).waitFor()
    await isIn(page)
  }

  async function say(page, text) {
    await page.locator("#text").fill(text)
    await page.locator("#text").press("Enter")
    await page.waitForFunction(() => document.querySelector("#text").value === "")
  }

  /** Who the page says is here: the letters of their faces are left out. */
  const showsPeople = (page, names) =>
    page.waitForFunction((names) => {
      const shown = [...document.querySelectorAll("#people li")].map((item) => item.childNodes[1].textContent)
      return JSON.stringify(shown) === JSON.stringify(names)
    }, names)

  test("two people see each other and what they say, and nothing of other rooms", ONE_TEST, async (t) => {
    const ada = await enter(t, "Ada", "den")
    const grace = await enter(t, "Grace", "den")
    const other = await enter(t, "Edsger", "elsewhere")
    await Promise.all([ada, grace].map((page) => showsPeople(page, ["Ada", "Grace"])))
    await showsPeople(other, ["Edsger"])

    await say(ada, "Hello, is anyone here?")
    await say(grace, "<b>I</b> am. Grüße 🐦")
    await say(other, "to myself")

    const said = ["Hello, is anyone here?", "<b>I</b> am. Grüße 🐦"]
    await Promise.all([ada, grace].map((page) => hasTexts(page, SAID, said)))
    await hasTexts(other, SAID, ["to myself"])
    await ada.screenshot({ path: `${ARTIFACTS}/chat.png` })
    await grace.emulateMedia({ colorScheme: "dark" })
    await grace.screenshot({ path: `${ARTIFACTS}/chat-dark.png` })
    assert.deepEqual([...ada.faults, ...grace.faults, ...other.faults], [])
  })

  test("a room and a name can be changed", ONE_TEST, async (t) => {
    const ada = await enter(t, "Ada", "here")
    const grace = await enter(t, "Grace", "here")
    await showsPeople(ada, ["Ada", "Grace"])

    await rename(grace, "constructor")
    await showsPeople(ada, ["Ada", "constructor"])
    await grace.evaluate(() => { location.hash = "there" })
    await Promise.all([showsPeople(ada, ["Ada"]), showsPeople(grace, ["constructor"])])
    await ada.evaluate(() => { location.hash = "there" })
    await Promise.all([ada, grace].map((page) => showsPeople(page, ["Ada", "constructor"])))

    await grace.locator("#name").fill(" ")
    await grace.locator("#name").press("Enter")
    await grace.locator("#status").getByText("names have 1 to 40 letters").waitFor()
    await showsPeople(ada, ["Ada"])
  })

  test("everyone comes back after a restart", ONE_TEST, async (t) => {
    const ada = await enter(t, "Ada", "den")
    const grace = await enter(t, "Grace", "den")
    await showsPeople(grace, ["Ada", "Grace"])

    const left = Promise.all([ada, grace].map(isOut))
    await app.server.restart()
    await left
    await Promise.all([ada, grace].map(isIn))
    await Promise.all([ada, grace].map((page) => showsPeople(page, ["Ada", "Grace"])))

    await say(grace, "again")
    await hasTexts(ada, SAID, ["again"])
  })
})

describe("counter", () => {
  const app = example("counter")

  test("ticks are pushed from start to stop, and a reply comes when its count does", ONE_TEST, async (t) => {
    const channel = app.connect(t).channel("counter:node")
    const tick = events(channel, "tick")
    assert.deepEqual(await answer(channel.join()), ["ok", {}])
    assert.deepEqual(await answer(channel.push("set_interval", { ms: 20 })), ["ok", {}])
    const third = answer(channel.push("await", { count: 3 }))
    assert.deepEqual(await answer(channel.push("start", {})), ["ok", { count: 0 }])

    for (const count of [1, 2, 3]) assert.deepEqual(await tick(), { count })
    assert.deepEqual(await third, ["ok", { count: 3 }])
    const [status, { count }] = await answer(channel.push("stop", {}))
    assert.equal(status, "ok")
    assert.ok(count >= 3)
    assert.equal((await answer(channel.push("set_interval", { ms: 1 })))[0], "error")
  })

  test("the page counts", ONE_TEST, async (t) => {
    const page = await app.open(t)
    await page.locator("#interval").fill("50")
    await page.locator("#await").click()
    await page.locator("#start").click()

    await page.getByText("there it is: 10").waitFor()
    await page.locator("#stop").click()
    await page.screenshot({ path: `${ARTIFACTS}/counter.png` })
    assert.deepEqual(page.faults, [])
  })
})

describe("image", () => {
  const app = example("image")
  const bytes = (buffer) => [...new Uint8Array(buffer)]
  const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]

  test("binary goes both ways, and what is no picture is refused", ONE_TEST, async (t) => {
    const [one, two] = [app.connect(t), app.connect(t)].map((socket) => socket.channel("images:node"))
    const pictures = events(two, "image")
    const joined = await Promise.all([one, two].map((channel) => answer(channel.join())))
    assert.deepEqual(joined, Array(2).fill(["ok", { bytes_max: 1_048_576 }]))

    const small = new Uint8Array([...PNG, 0, 255, 128])
    const large = new Uint8Array(1_048_576)
    large.set(PNG)
    assert.deepEqual(await answer(one.push("image", small.buffer)), ["ok", { type: "image/png" }])
    assert.deepEqual(await answer(one.push("image", new ArrayBuffer(8))), ["error", { reason: "expected a PNG, JPEG, GIF or WebP picture" }])
    assert.deepEqual(await answer(one.push("image", { data: "" })), ["error", { reason: "a picture is binary data" }])
    assert.deepEqual(await answer(one.push("image", large.buffer)), ["ok", { type: "image/png" }])

    assert.deepEqual(bytes(await pictures()), [...small])
    assert.equal((await pictures()).byteLength, large.length)
  })

  test("a picture chosen on one page is shown on another", ONE_TEST, async (t) => {
    const [one, two] = [await app.open(t, "/#den"), await app.open(t, "/#den")]
    for (const page of [one, two]) await page.getByText("up to 1024 KiB a picture").waitFor()
    const picture = { name: "shot.png", mimeType: "image/png", buffer: await one.screenshot() }

    await one.locator("#file").setInputFiles(picture)

    for (const [page, caption] of [[one, "from you"], [two, "from someone else"]]) {
      await page.locator("figcaption").getByText(caption).waitFor()
      await page.waitForFunction(() => document.querySelector("figure img").naturalWidth === 900)
    }
    await one.getByText("sent as image/png").waitFor()
    await one.locator("#file").setInputFiles({ name: "a.svg", mimeType: "image/svg+xml", buffer: Buffer.from("<svg/>") })
    await one.getByText("expected a PNG, JPEG, GIF or WebP picture").waitFor()
    await two.screenshot({ path: `${ARTIFACTS}/image.png` })
    assert.equal(await two.locator("figure").count(), 1)
    assert.deepEqual([...one.faults, ...two.faults], [])
  })
})

describe("embed", () => {
  const app = example("embed")
  const orders = (path, status) => {
    const request = { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify({ status }) }
    return fetch(`http://localhost:${app.server.port}/orders/${path}`, status === undefined ? {} : request)
  }

  test("what the REST interface changes is pushed, and sockets are told when the application stops", ONE_TEST, async (t) => {
    const socket = app.connect(t)
    const order = socket.channel("order:7")
    const status = events(order, "status")
    assert.deepEqual(await answer(order.join()), ["ok", { status: "paid" }])
    const unknown = socket.channel("order:8")
    assert.deepEqual(await answer(unknown.join()), ["error", { reason: "no such order" }])
    unknown.leave()

    for (const change of ["packed", "sent"]) {
      assert.equal((await orders("7", change)).status, 204)
      assert.deepEqual(await status(), { status: change })
    }
    assert.deepEqual(await (await orders("7")).json(), { status: "sent" })
    assert.equal((await orders("8")).status, 404)
    assert.equal((await orders("7", 7)).status, 400)

    const closed = new Promise((resolve) => socket.onClose(({ code }) => resolve(code)))
    await app.server.stop()
    assert.equal(await closed, 1012)
    assert.equal(app.server.child.exitCode, 0)
    await app.server.launch(app.server.port)
  })
})
