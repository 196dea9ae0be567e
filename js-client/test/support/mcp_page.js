// A blank page on http://localhost with MCP clients for it: a module of this folder, with both SDKs, phoenix and the transport in it.

import { once } from "node:events"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"

import { build } from "esbuild"

/** Serves the page at `/` and the module at its own name until `close` is called. */
export async function startMcpPage(module = "kinds.js") {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(module, import.meta.url))],
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    write: false,
    logLevel: "warning",
  })
  const files = new Map([
    ["/", ["text/html", `<!doctype html><meta charset="utf-8"><title>MCP</title><link rel="icon" href="data:,">`]],
    [`/${module}`, ["text/javascript", outputFiles[0].text]],
  ])
  const server = createServer((request, response) => {
    const [type, content] = files.get(request.url) ?? []
    if (!type) return response.writeHead(404).end()
    response.writeHead(200, { "content-type": type }).end(content)
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
