// The package as it would be published: what is in it, its types, and its README.

import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js"

import { hostServer, startFakePhoenix } from "./support/fake_phoenix.js"
import { finallyDo } from "./support/waiting.js"

const ROOT = fileURLToPath(new URL("..", import.meta.url))
const tool = (name) => join(ROOT, "node_modules", ".bin", name)
const ONE_TEST = { timeout: 60_000 }

/** Runs a program in a folder and gives its output; where it fails, that is the error's text. */
async function run(program, args, cwd = ROOT) {
  try {
    return (await promisify(execFile)(program, args, { cwd, env: { ...process.env, FORCE_COLOR: "0" } })).stdout
  } catch (error) {
    throw new Error(`${program} ${args.join(" ")}: ${error.stdout}${error.stderr}`)
  }
}

describe("the package", () => {
  let folder
  let tarball
  let files

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "bennu-client-"))
    // The build is what `npm test` has just made.
    const [packed] = JSON.parse(await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder]))
    tarball = join(folder, packed.filename)
    files = packed.files.map(({ path }) => path)
  })
  after(() => folder && rm(folder, { recursive: true }))

  test("has the build, the sources, the README and the licences, and nothing else", () => {
    assert.deepEqual(
      files.filter((path) => !/^(dist\/(esm|cjs)|src)\/(index|mcp|phoenix|reliable|resume)\.(ts|js|d\.ts)(\.map)?$/.test(path)),
      ["LICENSE", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "dist/cjs/package.json", "package.json"],
    )
    for (const path of ["dist/esm/index.js", "dist/esm/index.d.ts", "dist/cjs/index.js", "dist/cjs/index.d.ts", "src/index.ts"]) {
      assert.ok(files.includes(path), path)
    }
  })

  test("is one that publint finds no fault with", ONE_TEST, () => run(tool("publint"), ["run", "--strict", tarball]))

  test("has types that are right for each kind of import", ONE_TEST, () => run(tool("attw"), [tarball, "--no-definitely-typed"]))

  test("is imported and required where nothing else is installed", ONE_TEST, async () => {
    const installed = join(folder, "node_modules", "bennu-client")
    await mkdir(installed, { recursive: true })
    await run("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"])
    const check = `console.log(typeof McpTransport, new McpTransport({}, { server: "one" }).topic)`
    await writeFile(join(folder, "esm.mjs"), `import { McpTransport } from "bennu-client"\n${check}`)
    await writeFile(join(folder, "cjs.cjs"), `const { McpTransport } = require("bennu-client")\n${check}`)

    for (const file of ["esm.mjs", "cjs.cjs"]) assert.equal(await run(process.execPath, [file], folder), "function mcp:server:one\n")
  })

  test("fits both SDKs' Transport and phoenix's Socket", ONE_TEST, async () => {
    await run(tool("tsc"), ["-p", "test/types"])
    await run(tool("tsc"), ["-p", "test/types", "--exactOptionalPropertyTypes", "false"])
  })

  test("says its version where it names itself to mcp:session", async () => {
    const { version } = JSON.parse(await readFile(join(ROOT, "package.json")))
    assert.match(await readFile(join(ROOT, "src", "mcp.ts"), "utf8"), new RegExp(`name: "bennu-client", version: "${version.replaceAll(".", "\\.")}"`))
  })

  test("does what its README begins with", ONE_TEST, async (t) => {
    const fake = await startFakePhoenix(({ channel }) =>
      hostServer(channel, (transport) => {
        const server = new McpServer({ name: "everything", version: "1" })
        server.registerTool("echo", {}, () => ({ content: [] }))
        return server.connect(transport)
      }),
    )
    finallyDo(t, () => fake.close())
    const [, code] = /```js\n(.*?)```/s.exec(await readFile(join(ROOT, "README.md"), "utf8"))
    const example = join(ROOT, "test", "artifacts", "readme.mjs")
    await mkdir(join(ROOT, "test", "artifacts"), { recursive: true })
    // Node 20 has no WebSocket of its own.
    const said = [`import WebSocket from "ws"\nglobalThis.WebSocket ??= WebSocket`, code.replace("ws://127.0.0.1:4000/socket", fake.endpoint), "socket.disconnect()"]
    await writeFile(example, said.join("\n"))

    assert.match(await run(process.execPath, [example]), /name: 'echo'/)
  })
})
