// server-filesystem and server-memory behind Bennu: what is written is there, for its own session or for all.

import assert from "node:assert/strict"
import { mkdir, readFile, realpath, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { pathToFileURL } from "node:url"

import { openLegacySession } from "./support/gateway/phoenix_session.js"
import { openSdkSession } from "./support/gateway/sdk_session.js"
import { makeFolder, startGateway } from "./support/gateway/server.js"
import { KINDS } from "./support/kinds.js"
import * as upstreams from "./support/upstreams.js"
import { until } from "./support/waiting.js"

const ONE_TEST = { timeout: 30_000 }
const ROOTS_CHANGED = "notifications/roots/list_changed"
const UPDATED = "notifications/resources/updated"
const UNABLE = { capabilities: {} }

let folder
let close
let gateway
before(async () => {
  const made = await makeFolder()
  folder = await realpath(made.folder)
  close = made.close
  for (const name of ["given", "one", "two"]) await mkdir(join(folder, name))
  gateway = await startGateway({
    files: upstreams.filesystem(join(folder, "given")),
    memory: upstreams.memory(join(folder, "memory.json")),
  })
})
after(async () => {
  await gateway?.close()
  await close?.()
})

describe("server-filesystem", () => {
  for (const kind of KINDS) {
    test(`${kind.name}: writes, reads back, lists, and is told what is wrong`, ONE_TEST, async (t) => {
      const session = await openSdkSession(t, gateway, kind, { server: "files", client: UNABLE })
      await session.list("listTools", "tools")
      const path = join(folder, "given", `${kind.line}-${kind.era}.txt`)
      const content = `grüße \u2028 🐦 of ${kind.name}\n`

      await session.call("write_file", { path, content })
      assert.equal(await readFile(path, "utf8"), content)
      assert.equal(await session.text("read_text_file", { path }), content)
      const listed = await session.text("list_directory", { path: join(folder, "given") })
      assert.ok(listed.split("\n").includes(`[FILE] ${kind.line}-${kind.era}.txt`), listed)
      const outside = await session.call("read_text_file", { path: join(folder, "secret.txt") })
      assert.equal(outside.isError, true)
      assert.match(outside.content[0].text, /Access denied/)
      assert.deepEqual(session.errors, [])
    })
  }

  for (const kind of KINDS.filter(({ era }) => era === "legacy")) {
    test(`${kind.name}: its roots are the server's folders, and others when it says so`, ONE_TEST, async (t) => {
      const roots = [{ uri: pathToFileURL(join(folder, "one")).href }]
      const client = { capabilities: { roots: { listChanged: true } }, roots }
      const session = await openSdkSession(t, gateway, kind, { server: "files", client })
      const allowed = () => session.text("list_allowed_directories")
      const are = (name) => until(async () => (await allowed()) === `Allowed directories:\n${join(folder, name)}`, `the root ${name}`)
      await writeFile(join(folder, "one", "a.txt"), "of one")

      await are("one")
      assert.equal(await session.text("read_text_file", { path: join(folder, "one", "a.txt") }), "of one")
      roots[0].uri = pathToFileURL(join(folder, "two")).href
      await session.client.sendRootsListChanged()
      await are("two")
      assert.equal((await session.call("read_text_file", { path: join(folder, "one", "a.txt") })).isError, true)
      assert.deepEqual(session.errors, [])
    })
  }

  test("bare phoenix.js: two sessions with roots of their own do not get each other's", ONE_TEST, async (t) => {
    const open = async (name) => {
      let asked = 0
      const roots = [{ uri: pathToFileURL(join(folder, name)).href }]
      const answers = { "roots/list": () => ((asked += 1), { roots }) }
      const session = await openLegacySession(t, gateway, "mcp:server:files", { capabilities: { roots: { listChanged: true } }, answers })
      const allowed = () => session.text("list_allowed_directories")
      await until(async () => (await allowed()).endsWith(`/${name}`), `the root ${name}`)
      return { session, allowed, roots, asked: () => asked }
    }
    const [one, two] = await Promise.all([open("one"), open("two")])
    assert.deepEqual([one.asked(), two.asked()], [1, 1])

    one.roots.push({ uri: pathToFileURL(join(folder, "given")).href })
    one.session.notify(ROOTS_CHANGED)

    await until(async () => (await one.allowed()).endsWith("/given"))
    assert.match(await one.allowed(), /\/one\n.*\/given$/)
    assert.match(await two.allowed(), /^[^\n]*\n[^\n]*\/two$/)
    assert.deepEqual([one.asked(), two.asked()], [2, 1])
  })
})

describe("server-memory", () => {
  const entity = (name) => ({ entities: [{ name, entityType: "person", observations: [`${name} was here`] }] })

  test("is one process for all clients, which see each other's graph", ONE_TEST, async (t) => {
    const open = (kind) => openSdkSession(t, gateway, kind, { server: "memory", client: UNABLE })
    const sessions = await Promise.all(KINDS.filter(({ era }) => era === "legacy").map(open))
    sessions.push(await openLegacySession(t, gateway, "mcp:server:memory"))

    for (const [at, session] of sessions.entries()) await session.call("create_entities", entity(`person ${at}`))

    const graphs = await Promise.all(sessions.map((session) => session.text("read_graph")))
    const names = JSON.parse(graphs[0]).entities.map(({ name }) => name)
    assert.deepEqual(names, ["person 0", "person 1", "person 2"])
    assert.deepEqual(graphs, Array(3).fill(graphs[0]))
    const { connections, started } = await gateway.health("memory")
    assert.deepEqual([connections, started], [1, 1])
  })

  for (const kind of KINDS) {
    test(`${kind.name}: is told of the graph's changes by others, as long as it wants`, ONE_TEST, async (t) => {
      const watching = await openSdkSession(t, gateway, kind, { server: "memory", client: UNABLE })
      // For all of its era there is one process, whose changes it hears of.
      const writing = await openSdkSession(t, gateway, kind, { server: "memory", client: UNABLE })
      const uri = (await watching.list("listResources", "resources"))[0].uri
      const stop = await watching.watch({ uri })

      await writing.call("create_entities", entity(`friend of ${kind.name}`))
      await watching.methodsHeard(1)
      await stop()
      await writing.call("create_entities", entity(`another of ${kind.name}`))
      await watching.call("read_graph")

      assert.deepEqual(watching.heard.map(([method, params]) => [method, params.uri]), [[UPDATED, uri]])
      assert.deepEqual(writing.heard, [])
    })
  }

  test("tells each of several who watch, and asks the server once", ONE_TEST, async (t) => {
    const sessions = await Promise.all([0, 1, 2].map(() => openLegacySession(t, gateway, "mcp:server:memory")))
    const { uri } = (await sessions[0].result("resources/list")).resources[0]
    for (const session of sessions.slice(0, 2)) await session.result("resources/subscribe", { uri })

    await sessions[0].result("resources/unsubscribe", { uri })
    await sessions[2].call("create_entities", entity("seen by one"))

    assert.deepEqual((await sessions[1].notification(UPDATED)).params, { uri })
    const updates = sessions.map(({ heard }) => heard.filter(({ method }) => method === UPDATED).length)
    assert.deepEqual(updates, [0, 1, 0])
  })
})
