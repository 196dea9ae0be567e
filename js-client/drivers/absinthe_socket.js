// Drives @absinthe/socket over the newest phoenix package: GraphQL documents on the topic `__absinthe__:control`, V2.

import AbsintheSocket from "@absinthe/socket"
import { Socket } from "phoenix"
import WebSocket from "ws"

import { Connection, obey, say } from "./driver.js"

const connection = new Connection()
const phoenixSocket = new Socket(process.argv[2], { transport: WebSocket })
phoenixSocket.onOpen(() => connection.made())
phoenixSocket.onClose(() => connection.lost())
// The library does not tell when it has joined, and joins only once there is something to send.
phoenixSocket.onMessage(({ event, ref, join_ref: joinRef }) => {
  if (event === "phx_reply" && ref === joinRef) say("joined")
})
const absintheSocket = AbsintheSocket.create(phoenixSocket)

const notifiers = new Map()

obey({
  /** Sends a query, a mutation or a subscription; what becomes of it is told under the name `as`. */
  send({ as, operation, variables }) {
    const notifier = AbsintheSocket.send(absintheSocket, { operation, variables })
    notifiers.set(as, notifier)
    AbsintheSocket.observe(absintheSocket, notifier, {
      onAbort: (error) => say("abort", { as, message: error.message }),
      onCancel: () => say("cancel", { as }),
      onError: (error) => say("error", { as, message: error.message }),
      // A query on a joined channel has started before anybody can observe it.
      onStart: ({ operationType }) => operationType === "subscription" && say("start", { as }),
      onResult: (result) => say("result", { as, result }),
    })
  },
  cancel({ as }) {
    const { request } = notifiers.get(as)
    AbsintheSocket.cancel(absintheSocket, absintheSocket.notifiers.find((notifier) => notifier.request === request))
  },
})
