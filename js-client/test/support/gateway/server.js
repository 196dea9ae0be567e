// Bennu before other MCP servers, as its settings file names them, in a folder of its own.

import { mkdtemp, mkdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { startBennuWith } from "../server_process.js"

/** What a word of TOML may look like without quotes. */
const text = (value) => JSON.stringify(value)
const table = (object) => `{ ${Object.entries(object).map(([key, value]) => `${text(key)} = ${text(value)}`).join(", ")} }`
const toml = (value) => (Array.isArray(value) ? `[${value.map(text).join(", ")}]` : typeof value === "object" ? table(value) : text(value))

const section = (name, settings) => [`[${name}]`, ...Object.entries(settings).map(([key, value]) => `${key} = ${toml(value)}`)].join("\n")

/** Folders for what upstreams keep; `close` removes them. */
export async function makeFolder() {
  const folder = await mkdtemp(join(tmpdir(), "gateway-"))
  return { folder, close: () => rm(folder, { recursive: true, force: true }) }
}

/**
 * Starts Bennu before `servers`: settings of `mcp.servers.NAME` by their names, such as support/upstreams.js gives. `others` are
 * settings of other sections. Gives what is needed to reach it, and `close`.
 */
export async function startGateway(servers, { others = {} } = {}) {
  const { folder, close } = await makeFolder()
  const file = join(folder, "bennu.toml")
  const sections = [
    section("server", { listen: "127.0.0.1:0", log: "warn" }),
    ...Object.entries(others).map(([name, settings]) => section(name, settings)),
    ...Object.entries(servers).map(([name, settings]) => section(`mcp.servers.${name}`, settings)),
  ]
  await mkdir(folder, { recursive: true })
  await writeFile(file, `${sections.join("\n\n")}\n`)
  const server = await startBennuWith(file)
  const origin = () => `http://127.0.0.1:${server.port}`
  return {
    get endpoint() {
      return `ws://127.0.0.1:${server.port}/socket`
    },
    /** Where a server is reached over HTTP, or all of them as one. */
    url: (name) => (name === undefined ? `${origin()}/mcp` : `${origin()}/mcp/${name}`),
    /** How an upstream stands. */
    health: async (name) => (await (await fetch(`${origin()}/healthz`)).json()).upstreams[name],
    /** Ends the process by a signal and starts it again, on another port. `meanwhile` is awaited in between. */
    restart: (signal, meanwhile) => server.restart(signal, meanwhile),
    async close() {
      await server.stop()
      await close()
    },
  }
}

/** What odd_upstream wrote to the file that its `ODD_LOG` names, a line each, as the texts and as values. */
export async function readOddLog(file) {
  const lines = (await readFile(file, "utf8").catch(() => "")).split("\n").filter((line) => line !== "")
  return lines.map((line) => ({ line, ...JSON.parse(line) }))
}
