// The servers under test, as child processes on a port that the system chooses.

import { spawn } from "node:child_process"
import { statSync } from "node:fs"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

const TARGET = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL("../../../target", import.meta.url))
/** How long a server may take until it listens, and until it has ended after a signal. */
const PATIENCE_MS = 20_000

/** The servers' environment: Bennu refuses `BENNU_*` variables that are no settings of its, and a developer's own must not count. */
const ENVIRONMENT = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("BENNU_")))

/** The application that the recorded conversations talk to. */
export const startReference = (port = 0) => Server.start(binary("REFERENCE_BIN", "examples/reference"), (p) => ["--port", `${p}`], port)

/** Bennu itself, with its embedded defaults. */
export const startBennu = (port = 0) => Server.start(binary("BENNU_BIN", "bennu"), (p) => ["serve", "--server-listen", `127.0.0.1:${p}`], port)

/** Bennu with a settings file, which says where to listen. */
export const startBennuWith = (file) => Server.start(binary("BENNU_BIN", "bennu"), () => ["serve", "--config", file], 0)

/** One of the library's examples, by its name. `args` gives its command line for a port; it finds the port in PORT as well. */
export const startExample = (name, port = 0, args = () => []) => Server.start(exampleBinary(name), args, port)

/** Where an example is. */
export const exampleBinary = (name) => (process.env.EXAMPLES_BIN ? `${process.env.EXAMPLES_BIN}/${name}` : binary("", `examples/${name}`))

/** Finds a binary: the one that the environment names, else the newest build. */
function binary(variable, name) {
  if (process.env[variable]) return process.env[variable]
  const built = ["release", "debug"]
    .map((profile) => `${TARGET}/${profile}/${name}`)
    .map((path) => ({ path, stat: statSync(path, { throwIfNoEntry: false }) }))
    .filter(({ stat }) => stat)
    .sort((a, b) => b.stat.mtimeMs - a.stat.mtimeMs)
  if (built.length === 0) throw new Error(`${name} is not built: run cargo build --bins --examples, or set ${variable}`)
  return built[0].path
}

class Server {
  static async start(path, args, port) {
    const server = new Server()
    server.path = path
    server.args = args
    await server.launch(port)
    return server
  }

  /** Starts the process and waits until it says where it listens. */
  async launch(port) {
    const child = spawn(this.path, this.args(port), { stdio: ["ignore", "pipe", "pipe"], env: { ...ENVIRONMENT, PORT: `${port}` } })
    const killChild = () => child.kill("SIGKILL")
    process.once("exit", killChild)
    this.child = child
    this.ended = new Promise((resolve) => child.once("exit", (_code, signal) => resolve(signal)))
    this.ended.then(() => process.off("exit", killChild))

    const said = []
    this.port = await new Promise((resolve, reject) => {
      const fail = (why) => {
        clearTimeout(deadline)
        reject(new Error(`${this.path} ${this.args(port).join(" ")}: ${why}\n${said.join("\n")}`))
      }
      const deadline = setTimeout(() => fail(`does not listen after ${PATIENCE_MS} ms`), PATIENCE_MS)
      child.once("error", (error) => fail(error.message))
      child.once("exit", (code, signal) => fail(`ended with ${signal ?? code} before it listened`))
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on("line", (line) => {
          said.push(line)
          if (said.length > 50) said.shift()
          const found = /listening on (?:https?:\/\/)?(?:127\.0\.0\.1|localhost):(\d+)/.exec(line)
          if (found && stream === child.stdout) {
            clearTimeout(deadline)
            resolve(Number(found[1]))
          }
        })
      }
    })
  }

  /** Ends the process and waits until it is gone. */
  async stop(signal = "SIGTERM") {
    this.child.kill(signal)
    const deadline = setTimeout(() => this.child.kill("SIGKILL"), PATIENCE_MS)
    const endedBy = await this.ended
    clearTimeout(deadline)
    if (endedBy === "SIGKILL" && signal !== "SIGKILL") throw new Error(`${this.path} did not end within ${PATIENCE_MS} ms of ${signal}`)
  }

  /** Ends the process and starts it again on the same port. `meanwhile` is awaited while nothing listens there. */
  async restart(signal = "SIGTERM", meanwhile = async () => {}) {
    const { port } = this
    await this.stop(signal)
    await meanwhile()
    await this.launch(port)
  }
}
