// The script of the page at /: one MCP session over the stock `phoenix` client, and every run live.
//
// A run is drawn from its own topic, `mcp:run:<id>`, whose join reply holds the events so far: so a tab that
// opens late, or comes back after a loss, shows the run from its start. Whatever the server sends is put on the page as text.

import { askForCredential, isMissing, joinParams, sessionTopic, socketOptions, stopAsking } from "/assets/credential.js"
import { $, count, far, make, seconds } from "/assets/elements.js"
import { Socket } from "/assets/phoenix.js"
import { Steps, openForm, showTemplates } from "/assets/workflows.js"

/** How often the session says that it lives; the server ends a silent one after 60 s unless set otherwise. */
const SESSION_HEARTBEAT_MS = 25_000
/** Runs kept on the page; a socket may have 100 channels, of which each unfinished run takes one. */
const RUNS_SHOWN_MAX = 40
/** Lines kept in a run's list of events; the oldest go first. */
const EVENTS_SHOWN_MAX = 200

const STATUS_AFTER = {
  tool_started: "running",
  tool_completed: "completed",
  tool_failed: "failed",
  workflow_started: "running",
  workflow_completed: "completed",
  workflow_failed: "failed",
}

// ---- the connection ----

function showConnection(state, text = state) {
  $("connection").dataset.state = state
  $("connection").textContent = text
}

function showNotice(text) {
  $("notice").textContent = text
  $("notice").hidden = !text
}

const socket = new Socket(document.querySelector('meta[name="bennu-socket"]').content, socketOptions)
const session = socket.channel(sessionTopic, { clientInfo: { name: "bennu-page", version: "1" }, streaming: true, ...joinParams })
const announcements = socket.channel("mcp:runs", joinParams)
/** How often the connection was lost, or did not come about, since it was last open. */
let losses = 0

socket.onOpen(() => {
  losses = 0
  stopAsking()
})
socket.onClose(async () => {
  showConnection("offline", "reconnecting")
  losses += 1
  // A server that answers, and lets nobody in again, refuses the credential.
  const refuses = losses > 1 && (await fetch("/livez").then((answer) => answer.ok, () => false))
  if (refuses) {
    showConnection("refused")
    askForCredential("The server refuses the connection. Sign in with another token or key.")
  }
})

// ---- JSON-RPC over the session ----

/** Requests that wait for their response, by JSON-RPC id. */
const calls = {
  lastId: 0,
  waiting: new Map(),

  /** Sends a request; `onProgress` hears the `notifications/progress` of this request. */
  request(method, params, onProgress) {
    const id = ++this.lastId
    const message = { jsonrpc: "2.0", id, method, params }
    if (onProgress) message.params = { ...params, _meta: { progressToken: id } }
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, onProgress })
      session
        .push("mcp_message", message)
        .receive("error", (response) => this.settle(id, { error: { message: response.reason ?? "the server refused the message" } }))
        .receive("timeout", () => this.settle(id, { error: { message: "the server did not take the message in time" } }))
    })
  },

  receive(message) {
    if (message.method === "notifications/progress") {
      this.waiting.get(message.params?.progressToken)?.onProgress?.(message.params)
    } else if (!message.method) {
      this.settle(message.id, message)
    }
  },

  settle(id, { result, error }) {
    const call = this.waiting.get(id)
    this.waiting.delete(id)
    if (error) call?.reject(new Error(error.message))
    else call?.resolve(result)
  },

  dropAll(reason) {
    for (const id of [...this.waiting.keys()]) this.settle(id, { error: { message: reason } })
  },
}

session.on("mcp_message", (message) => calls.receive(message))
session.on("streaming_event", (event) => {
  // The stream of a workflow is not named as its run is.
  const run = runs.open(event.run_id ?? event.stream_id, event.workflow_id ?? event.data?.tool)
  run?.markOwn()
  run?.applyUnfollowed(event)
})
session.onError(() => {
  showConnection("offline", "reconnecting")
  calls.dropAll("the session was cut off; a run may go on without it")
})

session
  .join()
  .receive("ok", (reply) => {
    showConnection("live")
    showNotice("")
    $("server").textContent = `${reply.serverInfo?.name ?? "server"} ${reply.serverInfo?.version ?? ""} · MCP ${reply.protocolVersion ?? ""}`
    $("session").textContent = reply.sessionId ?? ""
    calls
      .request("tools/list", {})
      .then((result) => tools.show(result.tools ?? []))
      .catch((error) => showNotice(`The tools could not be listed: ${error.message}`))
    calls.request("workflows/templates", {}).then(
      (result) => showTemplates(result.templates ?? []),
      // A server without workflows says so again to whoever runs one.
      () => {},
    )
  })
  .receive("error", (response) => {
    showConnection("refused")
    showNotice(`The session was refused: ${response.reason ?? "no reason given"}`)
  })

setInterval(() => {
  if (session.state === "joined") session.push("heartbeat", {})
}, SESSION_HEARTBEAT_MS)

// ---- what to run ----

const tabs = [...document.querySelectorAll('[role="tab"]')]

function showTab(shown) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", `${tab === shown}`)
    tab.tabIndex = tab === shown ? 0 : -1
    $(tab.getAttribute("aria-controls")).hidden = tab !== shown
  }
}

for (const [at, tab] of tabs.entries()) {
  tab.addEventListener("click", () => showTab(tab))
  tab.addEventListener("keydown", ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return
    const next = tabs[(at + (key === "ArrowRight" ? 1 : tabs.length - 1)) % tabs.length]
    showTab(next)
    next.focus()
  })
}
if (location.hash === "#workflows") showTab($("workflows-tab"))
openForm((method, params) => calls.request(method, params))

// ---- tools ----

const tools = {
  chosen: null,
  /** It stands below the tool that is chosen. */
  form: $("tool-form"),

  show(list) {
    const choices = list.map((tool) => {
      const radio = make("input", { type: "radio", name: "tool", value: tool.name })
      const streams = tool.capabilities?.supportsStreaming ? [make("em", { title: "reports progress while it runs" }, "streams")] : []
      const label = make("label", { class: "tool", "data-testid": "tool", "data-tool": tool.name }, radio, ...streams)
      label.append(make("b", {}, tool.name), make("span", {}, tool.description ?? ""))
      const choice = { tool, radio, label }
      radio.addEventListener("change", () => this.choose(choice))
      return choice
    })
    $("tools").replaceChildren(...choices.map((choice) => choice.label))
    if (choices.length === 0) $("tools").append(make("p", { class: "empty" }, "This server has no tools"))

    const again = choices.find((choice) => choice.tool.name === this.chosen?.name)
    const first = again ?? choices[0]
    if (first) first.radio.checked = true
    if (again) again.label.after(this.form)
    else if (first) this.choose(first)
    else $("tools").after(this.form)
    this.form.hidden = !first
  },

  choose({ tool, label }) {
    this.chosen = tool
    label.after(this.form)
    const { properties = {}, required = [] } = tool.inputSchema ?? {}
    const fields = Object.entries(properties)
      .sort(([a], [b]) => required.includes(b) - required.includes(a))
      .map(([name, schema]) => field(name, schema, required.includes(name)))
    $("fields").replaceChildren(...fields)
    this.form.setAttribute("aria-label", `Arguments of ${tool.name}`)
    showCall("")
  },
}

/** Makes the input for one property of a tool's schema; its value is read back by `readArguments`. */
function field(name, schema, required) {
  const id = `field-${name}`
  const about = [schema.description, range(schema)].filter(Boolean).join(", ")
  const common = { id, name, "data-testid": id, required, "aria-describedby": about && `${id}-hint` }
  const preset = schema.default === undefined ? "" : schema.default
  const text = typeof preset === "string" ? preset : JSON.stringify(preset)
  let input
  let kind = "text"
  if (Array.isArray(schema.enum)) {
    const options = schema.enum.map((value) => make("option", { value: JSON.stringify(value), selected: value === schema.default }, String(value)))
    if (!required) options.unshift(make("option", { value: "" }, ""))
    input = make("select", common, ...options)
    kind = "json"
  } else if (schema.type === "boolean") {
    input = make("input", { ...common, type: "checkbox", required: false, checked: schema.default === true })
    kind = "boolean"
  } else if (schema.type === "integer" || schema.type === "number") {
    const step = schema.type === "integer" ? "1" : "any"
    input = make("input", { ...common, type: "number", step, min: schema.minimum, max: schema.maximum, value: text })
    kind = "json"
  } else if (schema.type === "string") {
    const bounds = { minlength: schema.minLength, maxlength: schema.maxLength, pattern: schema.pattern }
    input = make("input", { ...common, ...bounds, type: "text", value: text })
  } else {
    input = make("textarea", { ...common, rows: 3, placeholder: "JSON" }, preset === "" ? "" : JSON.stringify(preset))
    kind = "json"
  }
  input.dataset.kind = kind
  const label = make("label", { for: id }, name, ...(required ? [" ", make("i", { title: "required" }, "*")] : []))
  const hint = about ? [make("small", { class: "hint", id: `${id}-hint` }, about)] : []
  return kind === "boolean"
    ? make("div", { class: "field check" }, input, label, ...hint)
    : make("div", { class: "field" }, label, input, ...hint)
}

/** The numbers that a schema lets through, in words; empty where it does not say. */
function range({ minimum, maximum }) {
  if (minimum === undefined || maximum === undefined) return ""
  return `${count(minimum)} to ${count(maximum)}`
}

/** Reads the form as the tool's arguments; an input left empty is left out. Throws where an input holds no JSON. */
function readArguments() {
  const values = []
  for (const input of $("fields").querySelectorAll("[data-kind]")) {
    if (input.dataset.kind === "boolean") {
      values.push([input.name, input.checked])
    } else if (input.value !== "") {
      try {
        values.push([input.name, input.dataset.kind === "json" ? JSON.parse(input.value) : input.value])
      } catch {
        throw new Error(`${input.name} is not JSON`)
      }
    }
  }
  return Object.fromEntries(values)
}

function showCall(text, outcome = "") {
  $("call-status").textContent = text
  $("call-status").dataset.outcome = outcome
}

$("tool-form").addEventListener("submit", async (submit) => {
  submit.preventDefault()
  const tool = tools.chosen
  try {
    const params = { name: tool.name, arguments: readArguments() }
    $("run-button").disabled = true
    showCall("sent")
    const result = await calls.request("tools/call", params, ({ progress, total }) => showCall(far({ progress, total })))
    if (result.isError) showCall("failed", "failed")
    else showCall("done", "done")
  } catch (error) {
    showCall(error.message, "failed")
  } finally {
    $("run-button").disabled = false
  }
})

// ---- runs ----

/** One run on the page: its card, and its channel until it has ended. */
class Run {
  constructor(id, tool) {
    this.id = id
    this.followed = false
    this.message = make("p", { class: "message", "data-testid": "run-message" })
    this.progress = make("progress", { max: 1, "data-testid": "run-progress" })
    this.name = make("h3", { "data-testid": "run-tool" })
    this.state = make("span", { class: "state", "data-testid": "run-state" })
    this.own = make("em", { hidden: true, "data-testid": "run-own" }, "yours")
    this.cancel = make("button", { type: "button", class: "quiet", hidden: true, "data-testid": "run-cancel" }, "Cancel")
    this.cancel.addEventListener("click", () => this.askToEnd())
    this.steps = new Steps()
    this.result = make("pre", { hidden: true, tabindex: "0", "aria-label": "Result", "data-testid": "run-result" })
    this.summary = make("summary", {})
    this.events = make("ol", { class: "events", "data-testid": "run-events" })
    this.card = make("li", { class: "run", "data-testid": "run", "data-run-id": id }, this.own, this.cancel, this.name, this.state)
    this.card.append(this.progress, this.message, this.steps.node, this.result, make("details", {}, this.summary, this.events))
    this.reset(tool)
    this.follow()
  }

  get status() {
    return this.card.dataset.status
  }

  markOwn() {
    this.own.hidden = false
  }

  reset(tool) {
    this.startedAt = null
    this.eventCount = 0
    this.setTool(tool)
    this.setStatus("running")
    this.progress.removeAttribute("value")
    this.progress.hidden = false
    this.message.textContent = ""
    this.message.hidden = false
    this.result.hidden = true
    this.cancel.hidden = true
    this.cancel.disabled = false
    this.steps.reset()
    this.events.replaceChildren()
    this.summary.textContent = "no events yet"
  }

  setTool(tool) {
    if (!tool) return
    this.name.textContent = tool
    this.progress.setAttribute("aria-label", `Progress of ${tool}`)
    this.cancel.setAttribute("aria-label", `Cancel ${tool}`)
  }

  setStatus(status, text = status) {
    this.card.dataset.status = status
    this.state.textContent = text
  }

  /** Joins the run's topic; a rejoin after a loss draws the run anew from the events so far. */
  follow() {
    this.channel = socket.channel(`mcp:run:${this.id}`, joinParams)
    this.channel.on("streaming_event", (event) => this.apply(event))
    this.channel
      .join()
      .receive("ok", (reply) => {
        this.followed = true
        this.reset(reply.run?.tool)
        for (const event of reply.events ?? []) this.apply(event)
      })
      .receive("error", () => {
        // The run may end on the session's events alone; a run that the server does not know has gone with a restart.
        if (this.followed || this.eventCount === 0) this.lose()
        else this.unfollow()
      })
  }

  unfollow() {
    this.channel?.leave()
    this.channel = null
  }

  lose() {
    this.setStatus("lost", "lost: the server no longer has this run")
    this.stop()
  }

  /** Nothing of this run goes on, as far as the page can know. */
  stop() {
    this.progress.hidden = true
    this.cancel.hidden = true
    this.steps.end()
    this.unfollow()
  }

  async askToEnd() {
    this.cancel.disabled = true
    try {
      const result = await calls.request("workflows/cancel", { runId: this.id })
      if (result.isError) throw new Error(result.error)
    } catch (error) {
      this.message.textContent = error.message
      this.message.hidden = false
      this.cancel.disabled = false
    }
  }

  /** Takes an event of the caller's session, for as long as the run's own topic has not been joined. */
  applyUnfollowed(event) {
    if (!this.followed) this.apply(event)
  }

  apply(event) {
    const { type, data = {}, timestamp } = event
    const at = Date.parse(timestamp)
    this.startedAt ??= at
    this.log(type, data, at)
    this.setTool(data.tool ?? data.workflow_id)
    if (type === "tool_progress") {
      if (data.total > 0) this.progress.value = data.progress / data.total
      this.message.textContent = far(data)
    }
    if (type === "workflow_started") {
      // Its steps tell how far it is.
      this.progress.hidden = true
      this.message.hidden = true
      this.cancel.hidden = false
    }
    this.steps.apply(type, data)
    const status = data.reason === "cancelled" && STATUS_AFTER[type] === "failed" ? "cancelled" : STATUS_AFTER[type]
    if (status) this.setStatus(status, status === "running" ? status : `${status} after ${seconds(at - this.startedAt)}`)
    if (status && status !== "running") this.end(type, data)
  }

  end(type, data) {
    this.stop()
    this.message.hidden = true
    this.result.textContent = outcomeText(type, data)
    this.result.hidden = this.result.textContent === ""
  }

  log(type, data, at) {
    this.eventCount += 1
    this.summary.textContent = this.eventCount === 1 ? "1 event" : `${this.eventCount} events`
    const clock = Number.isNaN(at) ? "" : new Date(at).toLocaleTimeString([], { hourCycle: "h23" })
    this.events.append(make("li", {}, make("time", {}, clock), make("span", {}, type), make("code", {}, JSON.stringify(data))))
    if (this.events.childElementCount > EVENTS_SHOWN_MAX) this.events.firstElementChild.remove()
  }
}

/** The text of what a run's last event says came of it. */
function outcomeText(type, { result, error, result_bytes_omitted: omitted }) {
  if (STATUS_AFTER[type] === "failed") return resultText(error)
  if (omitted) return `a result of ${count(omitted)} bytes, too large to be shown to all`
  // Of a workflow it may be any value, and what looks like an error or a content is none.
  const isText = typeof result === "string"
  return type === "workflow_completed" && !isText ? JSON.stringify(result, null, 2) : resultText(result)
}

/** The text of a tool's result, an error or any other value. */
function resultText(value) {
  if (value === undefined || typeof value === "string") return value ?? ""
  if (typeof value?.message === "string") return value.message
  if (Array.isArray(value?.content)) {
    return value.content.map((part) => (part.type === "text" ? part.text : `[${part.type}]`)).join("\n")
  }
  return JSON.stringify(value, null, 2)
}

const runs = {
  byId: new Map(),

  /** Gives the run of that id, and puts it on the page where it is new. */
  open(id, tool) {
    if (typeof id !== "string") return undefined
    let run = this.byId.get(id)
    if (!run) {
      run = new Run(id, tool)
      this.byId.set(id, run)
      $("runs").prepend(run.card)
      $("no-runs").hidden = true
      this.forgetOldest()
    }
    return run
  },

  forgetOldest() {
    const [[id, oldest]] = this.byId
    if (this.byId.size <= RUNS_SHOWN_MAX) return
    oldest.unfollow()
    oldest.card.remove()
    this.byId.delete(id)
  },
}

announcements.on("run_started", (run) => runs.open(run.run_id, run.tool))
announcements.join().receive("ok", (reply) => {
  const known = (reply.runs ?? []).slice(-RUNS_SHOWN_MAX)
  for (const run of known) runs.open(run.run_id, run.tool)
})

if (isMissing) {
  showConnection("offline", "signed out")
  askForCredential("This server wants to know who you are.")
} else {
  socket.connect()
}
