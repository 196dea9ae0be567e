// The page at / of a real Bennu, in two tabs of one Chromium and a third that opens when all is over.

import assert from "node:assert/strict"
import { mkdir } from "node:fs/promises"
import { after, before, test } from "node:test"
import { fileURLToPath } from "node:url"

import { launchChromium } from "./support/browser.js"
import { startBennu } from "./support/server_process.js"

const ARTIFACTS = fileURLToPath(new URL("artifacts/", import.meta.url))
const COUNTDOWN_SECONDS = 3
const COUNTDOWN_STEPS = 6

let browser
let server

before(async () => {
  await mkdir(ARTIFACTS, { recursive: true })
  server = await startBennu()
  browser = await launchChromium()
})

after(async () => {
  await browser?.close()
  await server?.stop()
})

/** Opens the page and waits until its session has listed the tools. */
async function openTab(context, faults) {
  const tab = await context.newPage()
  tab.on("pageerror", (error) => faults.push(error.message))
  tab.on("console", (message) => message.type() === "error" && faults.push(message.text()))
  await tab.goto(`http://localhost:${server.port}/`)
  await tab.locator('[data-testid="connection"][data-state="live"]').waitFor()
  await tab.locator('[data-tool="countdown"]').waitFor()
  return tab
}

/** The types of a run's events as the tab shows them, first to last. */
const eventTypes = (tab, run) => tab.locator(`${run} [data-testid="run-events"] li span`).allTextContents()

/** Waits until the tab shows that the run has got somewhere and has not ended. */
const showsProgress = (tab, run) =>
  tab.waitForFunction((run) => {
    const card = document.querySelector(run)
    const bar = card?.querySelector("progress")
    return card?.dataset.status === "running" && bar.value > 0 && bar.value < 1
  }, run)

test("a run started in one tab is live in another, and whole in a third", { timeout: 60_000 }, async (t) => {
  const faults = []
  const context = await browser.newContext({ viewport: { width: 1200, height: 760 } })
  t.after(() => context.close())
  const first = await openTab(context, faults)
  const second = await openTab(context, faults)

  await first.locator('[data-tool="countdown"]').click()
  await first.getByTestId("field-seconds").fill(`${COUNTDOWN_SECONDS}`)
  await first.getByTestId("field-interval_ms").fill(`${(COUNTDOWN_SECONDS * 1000) / COUNTDOWN_STEPS}`)
  await first.getByTestId("run-button").click()
  const id = await first.getByTestId("run").getAttribute("data-run-id")
  const run = `[data-testid="run"][data-run-id="${id}"]`

  await Promise.all([showsProgress(first, run), showsProgress(second, run)])
  await first.screenshot({ path: `${ARTIFACTS}/page-running.png` })
  await second.screenshot({ path: `${ARTIFACTS}/page-second-tab.png` })

  const completed = `${run}[data-status="completed"]`
  await Promise.all([first.locator(completed).waitFor(), second.locator(completed).waitFor()])
  const third = await openTab(context, faults)
  await third.locator(completed).waitFor()
  await third.emulateMedia({ colorScheme: "dark" })
  await third.screenshot({ path: `${ARTIFACTS}/page-dark.png` })

  const whole = ["tool_started", ...Array(COUNTDOWN_STEPS).fill("tool_progress"), "tool_completed"]
  for (const tab of [first, second, third]) {
    assert.deepEqual(await eventTypes(tab, run), whole)
    assert.match(await tab.locator(`${run} [data-testid="run-result"]`).textContent(), /counted down 3 s in 6 steps/)
    assert.equal(await tab.getByTestId("run").count(), 1)
  }
  await first.getByTestId("call-status").filter({ hasText: "done" }).waitFor()
  assert.equal(await first.locator(`${run} [data-testid="run-own"]`).isVisible(), true)
  assert.equal(await second.locator(`${run} [data-testid="run-own"]`).isVisible(), false)
  assert.deepEqual(faults, [])
})

test("the page comes back by itself after a restart and runs tools again", { timeout: 60_000 }, async (t) => {
  const context = await browser.newContext()
  t.after(() => context.close())
  const tab = await openTab(context, [])
  const session = await tab.getByTestId("session").textContent()

  await server.restart()
  await tab.waitForFunction((old) => document.querySelector('[data-testid="session"]').textContent !== old, session)
  await tab.locator('[data-tool="countdown"]').click()
  await tab.getByTestId("field-seconds").fill("1")
  await tab.getByTestId("run-button").click()

  await tab.locator('[data-testid="run"][data-status="completed"]').waitFor()
})
