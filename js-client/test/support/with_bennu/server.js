// The servers that the conversations are held with, behind a relay, and what conversations may have done to them.

import { startRelay } from "../relay.js"
import { startBennu, startExample } from "../server_process.js"
import { PAGE_ITEMS } from "./application.js"

/** The example that has all of MCP. Gives `{ endpoint, act, close }`, as the next one does. */
export const startConformanceServer = () =>
  behindRelay(startExample("conformance", 0, (port) => ["--port", `${port}`, "--page-size", `${PAGE_ITEMS}`]))

/** Bennu itself, whose socket also has long poll. */
export const startBennuServer = () => behindRelay(startBennu())

async function behindRelay(starting) {
  const server = await starting
  const relay = await startRelay(server.port)
  const acts = { cut: () => relay.cut(), restart: () => server.restart() }
  return {
    endpoint: `ws://localhost:${relay.port}/socket`,
    act: (name) => acts[name](),
    async close() {
      await relay.close()
      await server.stop()
    },
  }
}
