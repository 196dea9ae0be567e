// What MCP clients over the transport and a server of Bennu's say to each other. The same functions run in a page and in Node:
// each has an application, talks, and returns plain values, which the test compares with what the conversation comes to.

import { KINDS, LongPoll, Socket } from "../kinds.js"
import { Application } from "./application.js"
import * as calls from "./calls.js"
import * as contents from "./contents.js"
import * as polling from "./polling.js"
import * as questions from "./questions.js"
import * as sessions from "./sessions.js"

export { KINDS, LongPoll, Socket }

/** With the example `conformance`. */
export const OVER_WEB_SOCKET = { ...sessions, ...calls, ...questions, ...contents }
/** With `bennu`. */
export const OVER_LONG_POLL = polling

/** Holds a conversation on a socket, and gives what came of it. */
export async function converse(name, kindName, socket, act) {
  const application = new Application(KINDS.find((kind) => kind.name === kindName), socket, act)
  try {
    return await { ...OVER_WEB_SOCKET, ...OVER_LONG_POLL }[name].hold(application)
  } finally {
    await application.close()
  }
}
