// A session of one of the SDKs' clients with a server behind the gateway, on a socket of its own.

import { openSocket } from "../clients.js"
import { finallyDo } from "../waiting.js"
import { Application } from "../with_bennu/application.js"

/** What a client can do that can be asked everything. */
export const ABLE = { sampling: {}, elicitation: { form: {} }, roots: { listChanged: true } }

/** Connects a client of a kind. `options` are those of `Application.connect`. */
export async function openSdkSession(t, { endpoint }, kind, options) {
  const application = new Application(kind, openSocket(t, endpoint))
  finallyDo(t, () => application.close())
  const session = await application.connect(options)
  return Object.assign(session, { application })
}
