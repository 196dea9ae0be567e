// The official MCP conformance suites against examples/conformance/main.rs: at its own HTTP endpoint, and through the proxy, where
// every message travels over a channel.

import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"

import { failures, runSuite } from "./support/conformance.js"
import { startMcpProxy } from "./support/mcp_proxy.js"
import { startExample } from "./support/server_process.js"

const ONE_SUITE = { timeout: 180_000 }

/** What is run, and how many scenarios that has: fewer would be a run that broke off. */
const SUITES = [
  { name: "0.1.16, all", version: "0.1.16", args: ["--suite", "all"], scenarios: 32 },
  { name: "0.2.0-alpha.12, 2025-11-25", version: "0.2.0-alpha.12", args: ["--requirements", "2025-11-25"], scenarios: 33 },
  { name: "0.2.0-alpha.12, 2026-07-28", version: "0.2.0-alpha.12", args: ["--requirements", "2026-07-28"], scenarios: 50 },
]

/** Scenarios that, through the proxy, test what is the proxy's: they have to pass, and say nothing of Bennu. */
const OF_THE_PROXY = {
  "dns-rebinding-protection": "Host and Origin are HTTP's",
  "server-sse-multiple-streams": "a POST's stream is HTTP's",
  "server-sse-polling": "event ids and Last-Event-ID are HTTP's",
  "server-session-lifecycle": "Mcp-Session-Id and DELETE are HTTP's",
  "http-header-validation": "headers are HTTP's",
  "http-custom-header-server-validation": "headers are HTTP's",
}

let bennu
let proxy

before(async () => {
  bennu = await startExample("conformance", 0, (port) => ["--port", `${port}`])
  proxy = await startMcpProxy(`ws://localhost:${bennu.port}/socket`, "conformance")
})
after(async () => {
  await proxy?.close()
  await bennu?.stop()
})

for (const [way, url] of [
  ["at Bennu's HTTP endpoint", () => `http://localhost:${bennu.port}/mcp`],
  ["over channels", () => proxy.url],
]) {
  describe(way, () => {
    const ran = new Set()

    for (const { name, version, args, scenarios } of SUITES) {
      test(name, ONE_SUITE, async (t) => {
        const result = await runSuite({ version, url: url(), args })
        for (const { scenario } of result.scenarios) ran.add(scenario)

        // Scenarios that count for no exit code, such as those of extensions, must not fail either.
        assert.deepEqual(failures(result), [], result.output)
        assert.equal(result.exitCode, 0, result.output)
        assert.equal(result.scenarios.length, scenarios, result.output)
        t.diagnostic(summary(result))
      })
    }

    test("what the proxy answers for has run", () => {
      assert.deepEqual(Object.keys(OF_THE_PROXY).filter((scenario) => !ran.has(scenario)), [])
    })
  })
}

function summary({ scenarios }) {
  const counts = {}
  for (const { status } of scenarios.flatMap(({ checks }) => checks)) counts[status] = (counts[status] ?? 0) + 1
  return Object.entries(counts).map(([status, count]) => `${count} ${status}`).join(", ")
}
