// MCP servers to put behind a gateway, as `{ command, args, env }`: those of others, which scripts/install.sh installs, and
// examples/odd_upstream. They need no network. `env` is what each needs besides the environment. tests/support/upstreams.rs is the
// same list for Rust.

import { fileURLToPath } from "node:url"

import { exampleBinary } from "./server_process.js"

const module = (path) => fileURLToPath(new URL(`../../node_modules/${path}`, import.meta.url))
const inPython = (name) => fileURLToPath(new URL(`../../../tests/peers/.venv/bin/${name}`, import.meta.url))
const inNode = (path, args, env = {}) => ({ command: process.execPath, args: [module(path), ...args], env })

const EVERYTHING = "@modelcontextprotocol/server-everything/dist/index.js"

/** Legacy era: progress, sampling, elicitation, logs, subscriptions, tasks of 2025-11-25. */
export const everything = () => inNode(EVERYTHING, ["stdio"])

/** The same over Streamable HTTP at `/mcp`. It says on stderr that it listens; 0 is no port that it would tell. */
export const everythingOverHttp = (port) => inNode(EVERYTHING, ["streamableHttp"], { PORT: `${port}` })

/** Legacy era: the files below a folder. */
export const filesystem = (folder) => inNode("@modelcontextprotocol/server-filesystem/dist/index.js", [folder])

/** Legacy era: a graph of knowledge, kept in a file. */
export const memory = (file) => inNode("@modelcontextprotocol/server-memory/dist/index.js", [], { MEMORY_FILE_PATH: file })

/** Both eras, whichever a process is first spoken to in: two tools with `outputSchema`. */
export const time = () => ({ command: inPython("mcp-server-time"), args: ["--local-timezone", "UTC"], env: {} })

/** Both eras: twelve tools on a git repository. */
export const git = (repository) => ({ command: inPython("mcp-server-git"), args: ["--repository", repository], env: {} })

/** Another gateway: Streamable HTTP of both eras at `/mcp`, before an upstream of which it speaks an era as `protocol` says. */
export const mcpProxy = (port, upstream, protocol = "auto") =>
  inNode(
    "mcp-proxy/dist/bin/mcp-proxy.mjs",
    ["--port", `${port}`, "--host", "127.0.0.1", "--upstreamProtocol", protocol, "--", upstream.command, ...upstream.args],
    upstream.env,
  )

/** Our own that is odd, or wrong on request: examples/odd_upstream says how. The TypeScript SDKs want `--plain-envelope`. */
export const odd = (...flags) => ({ command: exampleBinary("odd_upstream"), args: flags, env: {} })
