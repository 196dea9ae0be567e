// The page's workflows: the form that begins one, and the list in which a run shows its steps.

import { $, far, make, seconds } from "/assets/elements.js"

/** Steps kept in a run's list; of further ones those that ended first go. */
const STEPS_SHOWN_MAX = 100

/** Definitions to begin with, on tools that every Bennu has: what they are about, and their text. */
const DEMOS = {
  demo_sequential: [
    "One step after another; the last takes a value from the one before it.",
    `{
  "type": "sequential",
  "name": "demo_sequential",
  "steps": [
    {"id": "wait", "tool": "countdown",
     "params": {"seconds": 3, "interval_ms": 250}},
    {"id": "hash", "tool": "stream_hash",
     "params": {"bytes": 5000000}},
    {"id": "again", "tool": "stream_hash",
     "params": {"seed": 1},
     "input": {"bytes": "hash/bytes"}}
  ]
}`,
  ],
  demo_parallel: [
    "Branches side by side; one of them is too slow, twice, and is replaced.",
    `{
  "type": "parallel",
  "name": "demo_parallel",
  "steps": [
    {"id": "short", "tool": "countdown",
     "params": {"seconds": 2, "interval_ms": 250}},
    {"id": "long", "tool": "countdown",
     "params": {"seconds": 4, "interval_ms": 250}},
    {"id": "too_slow", "tool": "countdown",
     "params": {"seconds": 60}, "timeout_ms": 1500,
     "retry": {"max": 1, "delay_ms": 500},
     "on_error": {"value": "gave up"}}
  ]
}`,
  ],
  demo_loop: [
    "Two steps for each item, two items at a time; gives the list of results.",
    `{
  "type": "loop",
  "name": "demo_loop",
  "items": [3, 1, 2],
  "max_concurrent": 2,
  "steps": [
    {"id": "wait", "tool": "countdown",
     "params": {"interval_ms": 250},
     "input": {"seconds": "$item"}},
    {"id": "hash", "tool": "stream_hash",
     "params": {"bytes": 1000000},
     "input": {"seed": "$index"}}
  ]
}`,
  ],
}

/** What built-in templates are tried with where their own examples do not say enough. */
const PRESETS = {
  api_integration: { params: { api_endpoint: `${location.origin}/healthz` } },
  batch_processing: { input: [" apples ", "pears", "", "pears"] },
  content_moderation: { input: { text: "FREE MONEY!!! CLICK HERE NOW: http://a.example" } },
}

// ---- the form ----

/** What can be chosen, by name: `{about, definition, input}`, with what the reader made of it. */
const choices = new Map(Object.entries(DEMOS).map(([name, [about, definition]]) => [name, { about, definition, input: "" }]))

/** Puts the demos into the form. `request(method, params)` reaches the server. */
export function openForm(request) {
  $("demos").replaceChildren(...Object.keys(DEMOS).map((name) => make("option", {}, name)))
  $("workflow-choice").addEventListener("change", choose)
  for (const id of ["definition", "workflow-input"]) $(id).addEventListener("input", keep)
  $("workflow-form").addEventListener("submit", (submit) => {
    submit.preventDefault()
    run(request)
  })
  choose()
}

/** Offers the server's templates beside the demos. */
export function showTemplates(templates) {
  for (const template of templates) {
    if (choices.has(template.name)) continue
    const { params = template.examples?.[0]?.params ?? {}, input } = PRESETS[template.name] ?? {}
    const definition = { type: "template", template: template.name, params }
    choices.set(template.name, {
      about: [template.description, ...(template.parameters ?? []).map(parameter)].join("\n"),
      definition: JSON.stringify(definition, null, 2),
      input: input === undefined ? "" : JSON.stringify(input),
    })
    $("templates").append(make("option", {}, template.name))
  }
  $("templates").hidden = $("templates").childElementCount === 0
}

/** A template's parameter in a line. */
function parameter({ name, type, required, default: preset, description }) {
  const needed = preset === undefined ? (required ? ", required" : "") : `, otherwise ${JSON.stringify(preset)}`
  return `${name} (${type}${needed})${description ? `: ${description}` : ""}`
}

function choose() {
  const { about, definition, input } = choices.get($("workflow-choice").value)
  $("workflow-about").textContent = about
  $("definition").value = definition
  $("workflow-input").value = input
  showFaults([])
  showStatus("")
}

/** What was written stays, whatever else is looked at meanwhile. */
function keep() {
  const choice = choices.get($("workflow-choice").value)
  choice.definition = $("definition").value
  choice.input = $("workflow-input").value
}

function showStatus(text, outcome = "") {
  $("workflow-status").textContent = text
  $("workflow-status").dataset.outcome = outcome
}

function showFaults(faults) {
  const lines = faults.map(({ path, message }) => make("li", { "data-testid": "fault" }, ...(path ? [make("code", {}, path), " "] : []), message))
  $("faults").replaceChildren(...lines)
  $("faults").hidden = faults.length === 0
  $("definition").setAttribute("aria-invalid", `${faults.length > 0}`)
  $("faults").scrollIntoView({ block: "nearest" })
}

/** Reads a field as JSON; throws the fault that is shown for it. */
function read(id, name) {
  try {
    return JSON.parse($(id).value)
  } catch (error) {
    throw { path: "", message: `${name} is not JSON: ${error.message}` }
  }
}

async function run(request) {
  showFaults([])
  const options = { streaming: true }
  let definition
  try {
    definition = read("definition", "the definition")
    if ($("workflow-input").value.trim() !== "") options.input = read("workflow-input", "the input")
  } catch (fault) {
    showStatus("not sent", "failed")
    return showFaults([fault])
  }
  // By this the run is known to whoever watches it.
  const workflowId = typeof definition?.name === "string" ? definition.name : $("workflow-choice").value
  $("workflow-run").disabled = true
  showStatus("running")
  try {
    const result = await request("workflows/execute", { workflowId, definition, options })
    showStatus(...outcome(result))
    if (result.status === "creation_failed") showFaults(result.errors ?? [{ path: "", message: result.error }])
  } catch (error) {
    showStatus(error.message, "failed")
  } finally {
    $("workflow-run").disabled = false
  }
}

function outcome(result) {
  if (!result.isError) return [`done in ${seconds(result.execution_time_ms)}`, "done"]
  if (result.status === "creation_failed") return ["not run", "failed"]
  return [result.reason === "cancelled" ? "cancelled" : (result.error ?? "failed"), "failed"]
}

// ---- the steps of a run ----

/** What becomes of a step that failed, by the word of the event: its state, and what is said of it. */
const FAILURES = { retried: ["retrying", ", tries again"], replaced: ["replaced", ", replaced"], failed: ["failed", ""] }

/** The steps of one run, each with its state, in the order in which they began. */
export class Steps {
  constructor() {
    this.more = make("p", { class: "more" })
    this.list = make("ol", { class: "steps", "aria-label": "Steps", "data-testid": "run-steps" })
    this.node = make("div", {}, this.more, this.list)
    this.reset()
  }

  reset() {
    this.byPath = new Map()
    this.forgotten = 0
    this.list.replaceChildren()
    this.node.hidden = true
    this.more.hidden = true
  }

  /** Takes an event of the run, if it is one of a step. */
  apply(type, data) {
    if (!type.startsWith("step_") || typeof data.step_path !== "string") return
    const step = this.open(data.step_path)
    if (type === "step_started") {
      step.bar.removeAttribute("value")
      this.show(step, "running", data.attempt > 1 ? `running, attempt ${data.attempt}` : "running")
    } else if (type === "step_progress") {
      const report = data.progress ?? {}
      if (report.total > 0) step.bar.value = report.progress / report.total
      step.note.textContent = far(report)
    } else if (type === "step_failed" && data.becomes === "cancelled") {
      this.show(step, "stopped", "stopped")
    } else if (type === "step_failed") {
      const [state, further] = FAILURES[data.becomes] ?? FAILURES.failed
      this.show(step, state, `failed after ${seconds(data.execution_time_ms)}${further}`, data.error)
    } else if (type === "step_completed" && step.row.dataset.state !== "replaced") {
      const attempts = data.attempt > 1 ? `, attempt ${data.attempt}` : ""
      this.show(step, "completed", `${seconds(data.execution_time_ms)}${attempts}`)
    }
  }

  /** Nothing follows: what has not ended was let go. */
  end() {
    for (const step of this.byPath.values()) if (isUnderWay(step)) this.show(step, "stopped", "stopped")
  }

  open(path) {
    let step = this.byPath.get(path)
    if (!step) {
      const name = make("b", {}, path)
      const word = make("span", { class: "word" })
      const bar = make("progress", { max: 1, "aria-label": `Progress of ${path}` })
      const note = make("small", {})
      const row = make("li", { "data-testid": "step", "data-step": path }, name, word, bar, note)
      step = { path, row, word, bar, note }
      this.show(step, "running", "running")
      this.byPath.set(path, step)
      this.list.append(row)
      this.node.hidden = false
      if (this.byPath.size > STEPS_SHOWN_MAX) this.forget()
    }
    return step
  }

  show(step, state, word, note = "") {
    step.row.dataset.state = state
    step.word.textContent = word
    step.bar.hidden = state !== "running"
    step.note.textContent = note
  }

  forget() {
    const steps = [...this.byPath.values()]
    const oldest = steps.find((step) => !isUnderWay(step)) ?? steps[0]
    this.byPath.delete(oldest.path)
    oldest.row.remove()
    this.forgotten += 1
    this.more.textContent = this.forgotten === 1 ? "1 more step, which is not shown" : `${this.forgotten} more steps, which are not shown`
    this.more.hidden = false
  }
}

const isUnderWay = ({ row }) => row.dataset.state === "running" || row.dataset.state === "retrying"
