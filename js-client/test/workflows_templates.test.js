// Templates of workflows: the five that every server has, and those that clients register.

import assert from "node:assert/strict"
import { once } from "node:events"
import { createServer } from "node:http"
import { after, before, describe, test } from "node:test"

import { HUB, openWorkflowSession, SESSION } from "./support/workflows/session.js"
import { startWorkflows } from "./support/workflows/server.js"

const ONE_TEST = { timeout: 30_000 }
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/

let server
before(async () => {
  server = await startWorkflows()
})
after(() => server?.close())

const open = (t, options) => openWorkflowSession(t, server, SESSION, options)
const openHub = (t, options) => openWorkflowSession(t, server, HUB, options)

const USERS = [{ id: 1, name: "Ada" }]

/** Serves users on this machine; gives where. */
async function serveUsers(t) {
  const api = createServer((_, response) => response.setHeader("content-type", "application/json").end(JSON.stringify(USERS)))
  api.listen(0, "127.0.0.1")
  await once(api, "listening")
  t.after(() => api.close())
  return `http://127.0.0.1:${api.address().port}/users`
}

describe("templates", () => {
  const BUILT_IN = ["api_integration", "batch_processing", "content_moderation", "data_processing_pipeline", "user_onboarding"]
  const KEYS = ["category", "created_at", "description", "examples", "name", "parameters", "version"]
  const list = async (session, params) => (await session.result("workflows/templates", params)).templates

  test("are five at first, with the deployment's keys", ONE_TEST, async (t) => {
    const session = await open(t)
    const { templates, total_count } = await session.result("workflows/templates")

    const ours = templates.filter(({ name }) => BUILT_IN.includes(name))
    assert.deepEqual(ours.map(({ name }) => name).sort(), BUILT_IN)
    assert.equal(total_count, templates.length)
    for (const template of ours) {
      for (const key of KEYS) assert.ok(key in template, `${template.name}: ${key}`)
      assert.equal(template.definition, undefined)
      assert.equal(template.version, "1.0.0")
      assert.match(template.created_at, ISO)
      assert.equal(template.examples.length, 1)
    }
    const pipeline = ours.find(({ name }) => name === "data_processing_pipeline")
    const told = pipeline.parameters.map(({ name, type, required, default: value }) => [name, type, required, value])
    assert.deepEqual(told, [["source", "string", true, undefined], ["destination", "string", true, undefined], ["format", "string", false, "json"]])
  })

  test("are found by category and name", ONE_TEST, async (t) => {
    const session = await open(t)
    const names = async (params) => (await list(session, params)).map(({ name }) => name)

    assert.deepEqual(await names({ category: "data_processing" }), ["batch_processing", "data_processing_pipeline"])
    assert.deepEqual(await names({ name: "user_onboarding" }), ["user_onboarding"])
    assert.deepEqual(await names({ category: "none" }), [])
    assert.equal((await names({ limit: 2 })).length, 2)
  })

  for (const name of BUILT_IN) {
    test(`execute by their own example: ${name}`, ONE_TEST, async (t) => {
      const session = await open(t)
      const [{ examples: [example] }] = await list(session, { name })
      // The example's own endpoint is nobody's; the development setting lets local ones be asked.
      const further = name === "api_integration" ? { api_endpoint: await serveUsers(t) } : {}

      const result = await session.execute({ type: "template", template: name, params: { ...example.params, ...further } })

      assert.equal(result.status, "completed", JSON.stringify(result))
    })
  }

  test("do what they are named for, with what they are given", ONE_TEST, async (t) => {
    const session = await open(t)
    const run = (template, params, options) => session.run({ type: "template", template, params }, options)

    const batches = await run("batch_processing", { batch_size: 2 }, { input: [1, 2, 3, 4, 5] })
    const asked = await run("api_integration", { api_endpoint: await serveUsers(t) })
    const rejected = await run("user_onboarding", { user_type: "nonsense" })

    assert.deepEqual([batches.batches, batches.result], [3, [1, 2, 3, 4, 5]])
    assert.deepEqual(asked.data, USERS)
    assert.deepEqual([rejected.status, rejected.reason], ["rejected", "validation_failed"])
  })

  test("become definitions by a name, or by an object with one", ONE_TEST, async (t) => {
    const session = await open(t)
    const params = { user_type: "premium" }
    for (const template of ["user_onboarding", { name: "user_onboarding" }, (await list(session, { name: "user_onboarding" }))[0]]) {
      const created = await session.result("workflows/create", { workflowId: "onboarding", definition: { type: "template", template, params } })
      assert.equal(created.status, "created", JSON.stringify(created))
    }
    for (const template of ["user_onboarding", { name: "user_onboarding", version: "1.0.0" }]) {
      const created = await session.result("workflows/create_from_template", { workflowId: "from", template, params })
      assert.deepEqual([created.status, created.workflow_id, created.template], ["created", "from", "user_onboarding"])
    }
    const [{ type }] = (await session.result("workflows/list")).workflows.filter(({ workflow_id }) => workflow_id === "from")
    assert.equal(type, "conditional")
  })

  test("say which parameters are missing, and which templates", ONE_TEST, async (t) => {
    const session = await open(t)
    const failed = async (params) => {
      const result = await session.result("workflows/create_from_template", params)
      assert.deepEqual([result.status, result.isError], ["error", true], JSON.stringify(result))
      return result.error
    }

    assert.equal(await failed({ template: "data_processing_pipeline" }), "Missing required parameters: source, destination")
    assert.equal(await failed({ template: "data_processing_pipeline", params: { source: "s" } }), "Missing required parameters: destination")
    assert.equal(await failed({ template: "none" }), "Template not found: none")
    assert.match(await failed({ template: "batch_processing", params: { batch_size: "50" } }), /^Parameter batch_size: expected integer, came string/)
    const run = await session.execute({ type: "template", template: "data_processing_pipeline", params: {} })
    assert.deepEqual([run.status, run.isError, run.error], ["creation_failed", true, "Missing required parameters: source, destination"])
  })

  describe("of clients", () => {
    const parameters = [
      { name: "text", type: "string", required: true },
      { name: "count", type: "integer", default: 3 },
      { name: "ratio", type: "float", default: 0.5 },
      { name: "on", type: "boolean", default: true },
      { name: "list", type: "list", default: [1, "2"] },
      { name: "map", type: "map", default: { a: null } },
      { name: "none", type: "any" },
    ]
    const params = { text: "{{text}}", count: "{{count}}", ratio: "{{ratio}}", on: "{{on}}", list: "{{list}}", map: "{{map}}", none: "{{none}}", all: "{{text}}: {{count}} of {{list}}" }
    const template = (name, version = "1.0.0", further = {}) => ({
      name,
      version,
      description: `of version ${version}`,
      parameters,
      definition: { type: "sequential", steps: [{ tool: "give", params: { ...params, version } }] },
      examples: [{ name: "one", params: { text: "t" } }],
      ...further,
    })
    const register = (session, template) => session.result("workflows/register_template", { template })

    test("are registered, with values typed and defaults applied", ONE_TEST, async (t) => {
      const session = await openHub(t)

      const registered = await register(session, template("typed"))
      const given = await session.run({ type: "template", template: "typed", params: { text: "é", count: 7 } })

      assert.match(registered.template_id, /^template_[0-9a-f]{16}$/)
      assert.deepEqual({ ...registered, template_id: "" }, { template_id: "", name: "typed", version: "1.0.0", status: "registered" })
      assert.deepEqual(given, { text: "é", count: 7, ratio: 0.5, on: true, list: [1, "2"], map: { a: null }, all: 'é: 7 of [1,"2"]', version: "1.0.0" })
      const [{ category }] = await list(session, { name: "typed" })
      assert.equal(category, "general")
    })

    test("have versions, of which the newest counts", ONE_TEST, async (t) => {
      const session = await openHub(t)
      for (const version of ["1.10.0", "1.9.0", "1.2.0"]) await register(session, template("versions", version))
      const run = async (further) => (await session.run({ type: "template", template: "versions", params: { text: "t" }, ...further })).version
      const got = (params) => session.result("workflows/get_template", { name: "versions", ...params })

      assert.equal(await run(), "1.10.0")
      assert.equal(await run({ version: "1.9.0" }), "1.9.0")
      assert.equal(await run({ template: { name: "versions", version: "1.2.0" } }), "1.2.0")
      assert.equal((await got()).template.version, "1.10.0")
      assert.deepEqual((await got({ version: "1.2.0" })).template.definition.steps[0].params.version, "1.2.0")
      assert.equal((await list(session, { name: "versions" })).length, 3)
      assert.equal((await list(session, {})).filter(({ name }) => name === "versions").length, 1)
      const missing = [await got({ version: "9.0.0" }), await session.result("workflows/get_template", { name: "none" })]
      assert.deepEqual(missing.map(({ error, isError }) => [error, isError]), [["version_not_found", true], ["template_not_found", true]])
    })

    test("stand as steps among others", ONE_TEST, async (t) => {
      const session = await openHub(t)
      await register(session, template("within"))

      const steps = [{ tool: "give", params: { a: 1 } }, { type: "template", template: "within", params: { text: "inner" }, id: "made" }, { tool: "give", input: { text: "made/text" } }]
      const { text } = await session.run({ type: "sequential", steps })

      assert.equal(text, "inner")
    })

    test("are refused with all their faults", ONE_TEST, async (t) => {
      const session = await open(t)
      const faults = async (template) => {
        const { isError, status, errors } = await register(session, template)
        assert.deepEqual([isError, status], [true, "error"])
        return errors.map(({ path, message }) => `${path}: ${message}`)
      }

      assert.deepEqual(await faults({}), ["name", "version", "description", "definition"].map((field) => `/${field}: Missing required field: ${field}`))
      assert.deepEqual(await faults(template("bad", "1.0.0", { examples: [{ name: "none", params: {} }] })), ["/examples/0/params: Missing required parameters: text"])
      const unknown = { type: "sequential", steps: [{ tool: "give", params: { a: "{{who}}" } }] }
      assert.deepEqual(await faults(template("bad", "1.0.0", { definition: unknown })), ["/definition/steps/0/params/a: Placeholder of no parameter: {{who}}"])
      const built = await register(session, template("user_onboarding", "2.0.0"))
      assert.deepEqual([built.isError, built.template_id], [true, undefined], "the built-in ones stay")
    })
  })
})
