// Shared contexts: data that several workflows read and change, in versions.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { openWorkflowSession, SESSION } from "./support/workflows/session.js"
import { startWorkflows } from "./support/workflows/server.js"

const ONE_TEST = { timeout: 30_000 }
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/
const NOBODY = `context_${"0".repeat(24)}`

let server
before(async () => {
  server = await startWorkflows()
})
after(() => server?.close())

/** A session, and the methods of contexts on it. */
async function open(t) {
  const session = await openWorkflowSession(t, server, SESSION)
  const method = (name) => (params) => session.result(`contexts/${name}`, params)
  const names = ["create", "get", "update", "merge", "delete", "list", "versions", "extend"]
  return Object.assign(session, { contexts: Object.fromEntries(names.map((name) => [name, method(name)])) })
}

/** Asserts that something is refused in band. */
function assertRefused(result, code) {
  assert.deepEqual([result.isError, result.reason], [true, code], JSON.stringify(result))
  assert.ok(result.error.startsWith(code), result.error)
}

describe("a shared context", () => {
  test("is made with the deployment's keys, and read again", ONE_TEST, async (t) => {
    const { contexts } = await open(t)
    const data = { user: "é", list: [1, null] }

    const made = await contexts.create({ data, metadata: { for: "test" }, accessPolicy: { read: ["role:admin", "*"], write: ["user:bob"] } })
    const read = await contexts.get({ contextId: made.context_id })

    assert.match(made.context_id, /^context_[0-9a-f]{24}$/)
    assert.deepEqual([made.status, made.data, made.version, made.expires_at], ["created", data, 1, undefined])
    assert.match(made.created_at, ISO)
    const { status, ...rest } = made
    assert.deepEqual(read, rest)
    assert.deepEqual([read.metadata, read.access_policy], [{ for: "test" }, { read: ["role:admin", "*"], write: ["user:bob"] }])
  })

  test("is replaced by an update, and joined deeply by a merge", ONE_TEST, async (t) => {
    const { contexts } = await open(t)
    const { context_id: contextId } = await contexts.create({ data: { a: { b: 1, c: 2 }, list: [1] } })

    const merged = await contexts.merge({ contextId, data: { a: { c: 3, d: 4 }, list: [2] } })
    const updated = await contexts.update({ contextId, data: { new: true } })

    assert.deepEqual([merged.data, merged.version], [{ a: { b: 1, c: 3, d: 4 }, list: [2] }, 2])
    assert.deepEqual([updated.data, updated.version], [{ new: true }, 3])
    assert.deepEqual((await contexts.get({ contextId })).data, { new: true })
  })

  test("is changed only in the version that the caller knows", ONE_TEST, async (t) => {
    const { contexts } = await open(t)
    const { context_id: contextId } = await contexts.create({ data: { n: 1 } })
    await contexts.update({ contextId, data: { n: 2 }, ifVersion: 1 })

    for (const change of [contexts.update, contexts.merge]) {
      assertRefused(await change({ contextId, data: { n: 3 }, ifVersion: 1 }), "version_conflict")
    }
    const { data, version } = await contexts.get({ contextId })
    assert.deepEqual([data, version], [{ n: 2 }, 2])
  })

  test("loses no change of two sessions at once", ONE_TEST, async (t) => {
    const [one, two] = [await open(t), await open(t)]
    const { context_id: contextId } = await one.contexts.create({ data: {} })
    const merges = (session, name) => Array.from({ length: 15 }, (_, n) => session.contexts.merge({ contextId, data: { [`${name}${n}`]: n } }))

    await Promise.all([...merges(one, "one"), ...merges(two, "two")])

    const { data, version } = await one.contexts.get({ contextId })
    assert.deepEqual([Object.keys(data).length, version], [30, 31])
  })

  test("has versions, of which the newest come first", ONE_TEST, async (t) => {
    const { contexts } = await open(t)
    const { context_id: contextId } = await contexts.create({ data: { n: 1 } })
    for (const n of [2, 3]) await contexts.update({ contextId, data: { n } })

    const { versions, total_count } = await contexts.versions({ contextId })

    assert.deepEqual(versions.map(({ version }) => version), [3, 2, 1])
    assert.equal(total_count, 3)
    for (const { updated_at } of versions) assert.match(updated_at, ISO)
    assert.deepEqual((await contexts.get({ contextId, version: 1 })).data, { n: 1 })
    assertRefused(await contexts.get({ contextId, version: 9 }), "not_found")
  })

  test("is listed by what is asked for, without its data", ONE_TEST, async (t) => {
    const { contexts } = await open(t)
    const { context_id: plain } = await contexts.create({ data: { n: 1 } })
    const { context_id: told } = await contexts.create({ data: { n: 2 }, metadata: { a: 1 } })
    await contexts.update({ contextId: plain, data: {} })
    const ids = async (params) => (await contexts.list(params)).contexts.map(({ context_id }) => context_id)

    const all = await contexts.list({})
    assert.equal(all.total_count, all.contexts.length)
    assert.ok(all.contexts.every(({ data }) => data === undefined))
    for (const id of [plain, told]) assert.ok((await ids({})).includes(id))
    assert.ok((await ids({ hasMetadata: true })).includes(told))
    assert.ok(!(await ids({ hasMetadata: true })).includes(plain))
    assert.ok((await ids({ version: 2 })).includes(plain))
    assert.ok(!(await ids({ version: 2 })).includes(told))
    assert.equal((await ids({ limit: 1 })).length, 1)
    assert.deepEqual(await ids({ createdAfterMs: Date.now() + 60_000 }), [])
  })

  test("is deleted with its versions", ONE_TEST, async (t) => {
    const { contexts } = await open(t)
    const { context_id: contextId } = await contexts.create({ data: {} })
    await contexts.update({ contextId, data: { n: 1 } })

    assert.deepEqual(await contexts.delete({ contextId }), { context_id: contextId, status: "deleted" })

    for (const name of ["get", "delete", "versions"]) assertRefused(await contexts[name]({ contextId }), "not_found")
    assertRefused(await contexts.get({ contextId, version: 1 }), "not_found")
    assert.ok(!(await contexts.list({})).contexts.some(({ context_id }) => context_id === contextId))
  })

  test("is gone when its time is over, which can be prolonged", ONE_TEST, async (t) => {
    const { contexts } = await open(t)
    const [{ context_id: short, expires_at, created_at }, { context_id: long }] = [await contexts.create({ data: {}, expiresIn: 1 }), await contexts.create({ data: {}, expiresIn: 1 })]
    const extended = await contexts.extend({ contextId: long, seconds: 60 })

    await new Promise((resolve) => setTimeout(resolve, 1_100))

    assert.equal(new Date(expires_at) - new Date(created_at), 1_000)
    assert.equal(new Date(extended.expires_at) - new Date(extended.created_at), 61_000)
    assertRefused(await contexts.get({ contextId: short }), "context_expired")
    assertRefused(await contexts.update({ contextId: short, data: {} }), "context_expired")
    assert.equal((await contexts.get({ contextId: long })).version, 1)
    const listed = (await contexts.list({})).contexts.map(({ context_id }) => context_id)
    assert.deepEqual([listed.includes(short), listed.includes(long)], [false, true])
  })

  test("is refused where it is none", ONE_TEST, async (t) => {
    const { contexts } = await open(t)
    const { context_id: contextId } = await contexts.create({})

    for (const data of [7, [], "text"]) assert.equal((await contexts.create({ data })).isError, true, JSON.stringify(data))
    for (const expiresIn of [0, -1, 1.5, "1"]) assert.equal((await contexts.create({ expiresIn })).isError, true, `${expiresIn}`)
    for (const read of [["bob"], "user:bob", ["user:"], [7]]) assert.equal((await contexts.create({ accessPolicy: { read } })).isError, true, JSON.stringify(read))
    assert.equal((await contexts.update({ contextId })).isError, true)
    assert.equal((await contexts.extend({ contextId, seconds: 0 })).isError, true)
    for (const id of [NOBODY, "none", `context_${"é".repeat(12)}`]) assertRefused(await contexts.get({ contextId: id }), "not_found")
    assert.equal((await contexts.get({})).error, "Missing required field: contextId")
  })

  test("is its owner's in whichever session, whatever its policy says of others", ONE_TEST, async (t) => {
    const [one, two] = [await open(t), await open(t)]
    const { context_id: contextId } = await one.contexts.create({ data: { n: 1 }, accessPolicy: { read: ["user:bob"], write: [] } })

    assert.equal((await two.contexts.merge({ contextId, data: { m: 2 } })).version, 2)
    assert.deepEqual((await one.contexts.get({ contextId })).data, { n: 1, m: 2 })
  })

  test("gives a workflow its values, beside those of the call", ONE_TEST, async (t) => {
    const session = await open(t)
    const { context_id } = await session.contexts.create({ data: { bytes: 16, seed: 1 } })
    const definition = { type: "sequential", steps: [{ tool: "stream_hash", input: { bytes: "$context/bytes", seed: "$context/seed" } }] }

    const shared = await session.run(definition, { context_id })
    const both = await session.run(definition, { context_id, context: { seed: 5 } })

    assert.deepEqual([shared.bytes, shared.seed], [16, 1])
    assert.deepEqual([both.bytes, both.seed], [16, 5])
    const missing = await session.execute(definition, { context_id: NOBODY })
    assert.deepEqual([missing.status, missing.isError, missing.error], ["creation_failed", true, "not_found"])
  })
})
