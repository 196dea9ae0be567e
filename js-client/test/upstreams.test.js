// The MCP servers that gateways are tested with: each starts from what is installed and shows the TypeScript SDKs its tools.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { fileURLToPath } from "node:url"

import { Client as ClientV2, StreamableHTTPClientTransport as HttpV2 } from "@modelcontextprotocol/client"
import { StdioClientTransport as StdioV2 } from "@modelcontextprotocol/client/stdio"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"

import { startExample } from "./support/server_process.js"
import * as upstreams from "./support/upstreams.js"
import { finallyDo, until } from "./support/waiting.js"

const INFO = { name: "test", version: "1" }
const REPOSITORY = fileURLToPath(new URL("../..", import.meta.url))
const ONE_TEST = { timeout: 60_000 }
const MODERN = "2026-07-28"

/** Connects a client of the legacy era, or of 2026-07-28. */
async function connected(t, transport, era) {
  const client = era === "legacy" ? new Client(INFO) : new ClientV2(INFO, { versionNegotiation: { mode: { pin: MODERN } } })
  await client.connect(transport)
  finallyDo(t, () => client.close())
  return client
}

const overStdio = (t, { command, args, env }, era = "legacy") => {
  const Transport = era === "legacy" ? StdioClientTransport : StdioV2
  return connected(t, new Transport({ command, args, env: { ...process.env, ...env }, stderr: "ignore" }), era)
}

const overHttp = (t, port, era = "legacy") => {
  const Transport = era === "legacy" ? StreamableHTTPClientTransport : HttpV2
  return connected(t, new Transport(new URL(`http://127.0.0.1:${port}/mcp`)), era)
}

/** The names of all tools, page by page. */
async function tools(client) {
  const names = []
  let cursor
  do {
    const page = await client.listTools({ cursor })
    names.push(...page.tools.map(({ name }) => name))
    cursor = page.nextCursor
  } while (cursor !== undefined)
  return names
}

/** Starts a server that does not say its port, at one that was free just now. */
async function startAt(t, upstream) {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address()
  server.close()
  await once(server, "close")
  const { command, args, env } = upstream(port)
  const child = spawn(command, args, { stdio: "ignore", env: { ...process.env, ...env } })
  finallyDo(t, async () => {
    child.kill("SIGKILL")
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit")
  })
  await until(() => fetch(`http://127.0.0.1:${port}/`).then(() => true, () => false), `port ${port}`, 20_000)
  return port
}

let folder
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "upstreams-"))
})
after(() => rm(folder, { recursive: true }))

describe("over stdio", () => {
  for (const [name, upstream, era, tool] of [
    ["server-everything", () => upstreams.everything(), "legacy", "echo"],
    ["server-filesystem", () => upstreams.filesystem(folder), "legacy", "read_text_file"],
    ["server-memory", () => upstreams.memory(join(folder, "memory.json")), "legacy", "create_entities"],
    ["mcp-server-time", () => upstreams.time(), "legacy", "convert_time"],
    ["mcp-server-time", () => upstreams.time(), "stateless", "convert_time"],
    ["mcp-server-git", () => upstreams.git(REPOSITORY), "legacy", "git_status"],
    ["mcp-server-git", () => upstreams.git(REPOSITORY), "stateless", "git_status"],
    ["odd_upstream", () => upstreams.odd("--plain-envelope"), "legacy", "echo_raw"],
    ["odd_upstream", () => upstreams.odd("--plain-envelope"), "stateless", "echo_raw"],
  ]) {
    test(`${name}, ${era}`, ONE_TEST, async (t) => {
      const found = await tools(await overStdio(t, upstream(), era))
      assert.ok(found.includes(tool), found.join())
    })
  }
})

describe("over Streamable HTTP", () => {
  test("server-everything", ONE_TEST, async (t) => {
    const port = await startAt(t, upstreams.everythingOverHttp)
    assert.ok((await tools(await overHttp(t, port))).includes("echo"))
  })

  for (const era of ["legacy", "stateless"]) {
    test(`mcp-server-time behind mcp-proxy, ${era}`, ONE_TEST, async (t) => {
      const port = await startAt(t, (port) => upstreams.mcpProxy(port, upstreams.time()))
      assert.ok((await tools(await overHttp(t, port, era))).includes("convert_time"))
    })

    test(`odd_upstream, ${era}`, ONE_TEST, async (t) => {
      const server = await startExample("odd_upstream", 0, (port) => ["--http", `${port}`, "--plain-envelope"])
      finallyDo(t, () => server.stop())
      const client = await overHttp(t, server.port, era)

      assert.ok((await tools(client)).includes("flood"))
      const { structuredContent } = await client.callTool({ name: "echo_raw", arguments: { one: 1 } })
      assert.deepEqual(structuredContent.params.arguments, { one: 1 })
    })
  }
})
