// Bennu with tools to compose: its own, which `mcp:session` has, and behind the hub those of steps.mjs too.

import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

import { makeFolder, startGateway } from "../gateway/server.js"

const STEPS = fileURLToPath(new URL("./steps.mjs", import.meta.url))

/** Starts it; what is kept is kept in a file if `isDurable`. Gives what `startGateway` gives, and `noted`. */
export async function startWorkflows({ isDurable = false } = {}) {
  const { folder, close } = await makeFolder()
  const log = join(folder, "steps.log")
  const others = isDurable ? { store: { path: join(folder, "store") } } : {}
  const steps = { command: process.execPath, args: [STEPS], env: { STEPS_LOG: log } }
  const gateway = await startGateway({ steps }, { others })
  const closeGateway = gateway.close
  return Object.assign(gateway, {
    /** The calls that steps.mjs noted with a mark: `{ tool }` where one began, `{ ended }` or `{ cancelled }` where it ended. */
    async noted(mark) {
      const lines = (await readFile(log, "utf8").catch(() => "")).split("\n").filter(Boolean)
      return lines.map((line) => JSON.parse(line)).filter((entry) => entry.arguments.mark === mark)
    },
    async close() {
      await closeGateway()
      await close()
    },
  })
}
