// A blank page on http://localhost, whose origin the reference application accepts, with each phoenix build beside it.

import { once } from "node:events"
import { readFile } from "node:fs/promises"
import { createServer } from "node:http"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"

/** The lines of the stock client, newest first: the package's name here and its classic-script build. */
export const LINES = [
  { line: "1.8", module: "phoenix" },
  { line: "1.7", module: "phoenix-1.7" },
  { line: "1.6", module: "phoenix-1.6" },
  { line: "1.5", module: "phoenix-1.5" },
].map((entry) => ({ ...entry, ...describe(entry.module) }))

function describe(module) {
  const root = new URL(`../../node_modules/${module}/`, import.meta.url)
  const { version } = createRequire(import.meta.url)(fileURLToPath(new URL("package.json", root)))
  // The lines before 1.6 come with this one build, minified already.
  return { version, build: fileURLToPath(new URL("priv/static/phoenix.js", root)) }
}

const CONVERSATIONS = fileURLToPath(new URL("conversations.js", import.meta.url))

/** Serves `/<line>` (a page with that client as the global `Phoenix`) until `close` is called. */
export async function startSite() {
  const files = new Map([["/conversations.js", CONVERSATIONS], ...LINES.map(({ line, build }) => [`/phoenix-${line}.js`, build])])
  const server = createServer(async (request, response) => {
    const file = files.get(request.url)
    if (file) {
      response.writeHead(200, { "content-type": "text/javascript" }).end(await readFile(file))
    } else if (LINES.some(({ line }) => request.url === `/${line}`)) {
      response.writeHead(200, { "content-type": "text/html" }).end(page(request.url.slice(1)))
    } else {
      response.writeHead(404).end()
    }
  })
  server.listen(0, "localhost")
  await once(server, "listening")
  const close = async () => {
    server.close()
    server.closeAllConnections()
    await once(server, "close")
  }
  return { origin: `http://localhost:${server.address().port}`, close }
}

const page = (line) => `<!doctype html><meta charset="utf-8"><title>${line}</title><link rel="icon" href="data:,"><script src="/phoenix-${line}.js"></script>`
