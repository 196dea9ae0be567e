// What the drivers share: commands come on stdin and what was seen goes to stdout, a JSON object a line.
// The tests below tests/clients start them.

import { createInterface } from "node:readline"

/** Tells the test what was seen. */
export const say = (saw, what = {}) => process.stdout.write(`${JSON.stringify({ saw, ...what })}\n`)

/** Does what the test tells, by name, until `quit` or until the test has gone; then ends the process. */
export async function obey(deeds) {
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    if (command.do === "quit") break
    await deeds[command.do](command)
  }
  process.exit(0)
}

/** Whether the library is connected, so that a loss is told once. */
export class Connection {
  #up = false

  made() {
    this.#up = true
  }

  lost() {
    if (this.#up) say("disconnected")
    this.#up = false
  }
}
