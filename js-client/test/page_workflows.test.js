// The page's workflows with a real Bennu: a demo that runs step by step in two tabs, one that is cancelled, one with faults.

import assert from "node:assert/strict"
import { mkdir } from "node:fs/promises"
import { after, before, test } from "node:test"
import { fileURLToPath } from "node:url"

import { launchChromium } from "./support/browser.js"
import { startBennu } from "./support/server_process.js"

const ARTIFACTS = fileURLToPath(new URL("artifacts/", import.meta.url))
const ONE_TEST = { timeout: 60_000 }

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

/** Opens the page at its workflows and waits until its session has listed the templates. */
async function openTab(context, faults) {
  const tab = await context.newPage()
  tab.on("pageerror", (error) => faults.push(error.message))
  tab.on("console", (message) => message.type() === "error" && faults.push(message.text()))
  await tab.goto(`http://localhost:${server.port}/#workflows`)
  await tab.locator('option:text-is("user_onboarding")').waitFor({ state: "attached" })
  return tab
}

async function openContext(t, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 760 }, ...options })
  t.after(() => context.close())
  return context
}

/** Begins a run with what the form has, and gives where its card is. */
async function run(tab) {
  const before = await tab.getByTestId("run").count()
  await tab.getByTestId("workflow-run").click()
  await tab.waitForFunction((before) => document.querySelectorAll('[data-testid="run"]').length > before, before)
  const id = await tab.getByTestId("run").first().getAttribute("data-run-id")
  return `[data-testid="run"][data-run-id="${id}"]`
}

/** The state of each step of a run, as the tab shows it. */
const states = (tab, run) =>
  tab.locator(`${run} [data-testid="step"]`).evaluateAll((steps) => steps.map(({ dataset }) => `${dataset.step} ${dataset.state}`))

/** Waits until the tab shows that the first step has got somewhere, and no other has begun. */
const showsProgress = (tab, run) =>
  tab.waitForFunction((run) => {
    const steps = [...document.querySelectorAll(`${run} [data-testid="step"]`)]
    return steps.length === 1 && steps[0].dataset.state === "running" && steps[0].querySelector("progress").value > 0
  }, run)

test("the sequential demo goes step by step, in another tab too, and shows its result", ONE_TEST, async (t) => {
  const faults = []
  const context = await openContext(t)
  const tab = await openTab(context, faults)
  const other = await openTab(context, faults)

  const card = await run(tab)
  await Promise.all([showsProgress(tab, card), showsProgress(other, card)])
  await tab.screenshot({ path: `${ARTIFACTS}/page-workflow-running.png` })
  const completed = `${card}[data-status="completed"]`
  await Promise.all([tab.locator(completed).waitFor(), other.locator(completed).waitFor()])
  await tab.getByTestId("workflow-status").filter({ hasText: /^done in 3\.\d s$/ }).waitFor()
  await tab.screenshot({ path: `${ARTIFACTS}/page-workflow-completed.png` })

  for (const each of [tab, other]) {
    assert.deepEqual(await states(each, card), ["wait completed", "hash completed", "again completed"])
    assert.match(await each.locator(`${card} [data-step="wait"]`).textContent(), /^wait3\.\d s$/)
    const result = JSON.parse(await each.locator(`${card} [data-testid="run-result"]`).textContent())
    assert.deepEqual([result.bytes, result.seed], [5_000_000, 1], "the last step's, whose bytes are those of the one before")
    assert.equal(await each.locator(`${card} [data-testid="run-cancel"]`).isVisible(), false)
  }
  assert.equal(await tab.locator(`${card} [data-testid="run-own"]`).isVisible(), true)
  assert.equal(await other.locator(`${card} [data-testid="run-own"]`).isVisible(), false)
  assert.deepEqual(faults, [])
})

test("a run is cancelled from any tab, and its steps are stopped", ONE_TEST, async (t) => {
  const faults = []
  const context = await openContext(t)
  const tab = await openTab(context, faults)
  const other = await openTab(context, faults)
  await tab.getByTestId("workflow-choice").selectOption("demo_loop")

  const card = await run(tab)
  await other.locator(`${card} [data-step="loop[1]/wait"]`).waitFor()
  await other.locator(`${card} [data-testid="run-cancel"]`).click()

  await tab.locator(`${card}[data-status="cancelled"] [data-step="loop[0]/wait"][data-state="stopped"]`).waitFor()
  await tab.getByTestId("workflow-status").filter({ hasText: "cancelled" }).waitFor()
  assert.deepEqual(faults, [])
})

test("what is too slow is tried again and replaced", ONE_TEST, async (t) => {
  const context = await openContext(t)
  const tab = await openTab(context, [])
  await tab.getByTestId("workflow-choice").selectOption("demo_parallel")

  const card = await run(tab)
  await tab.locator(`${card} [data-step="too_slow"]`).filter({ hasText: "running, attempt 2" }).waitFor()
  await tab.locator(`${card}[data-status="completed"]`).waitFor()

  assert.deepEqual(await states(tab, card), ["short completed", "long completed", "too_slow replaced"])
  const result = JSON.parse(await tab.locator(`${card} [data-testid="run-result"]`).textContent())
  assert.equal(result.too_slow, "gave up")
})

test("a definition with faults is not run, in a narrow window and with the keyboard too", ONE_TEST, async (t) => {
  const faults = []
  const context = await openContext(t, { viewport: { width: 360, height: 700 } })
  const tab = await openTab(context, faults)
  await tab.getByTestId("workflows-tab").focus()
  await tab.keyboard.press("ArrowLeft")
  assert.equal(await tab.getByTestId("workflow-form").isVisible(), false)
  await tab.keyboard.press("ArrowRight")

  await tab.getByTestId("definition").fill('{"type": "sequential", "steps": [{"tool": "countdown", "parms": {}}, {"id": "a b"}]}')
  await tab.getByTestId("workflow-run").focus()
  await tab.keyboard.press("Enter")
  await tab.getByTestId("fault").first().waitFor()
  await tab.screenshot({ path: `${ARTIFACTS}/page-workflow-faults.png`, fullPage: true })

  assert.deepEqual(await tab.getByTestId("fault").locator("code").allTextContents(), ["/steps/0/parms", "/steps/1"])
  assert.equal(await tab.evaluate(() => document.documentElement.scrollWidth), 360, "nothing is wider than the window")
  assert.deepEqual(faults, [])
})
