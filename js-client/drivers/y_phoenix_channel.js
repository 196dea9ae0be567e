// Drives y-phoenix-channel over the newest phoenix package: a Yjs document in binary frames, V2.

import { Socket } from "phoenix"
import WebSocket from "ws"
import { PhoenixChannelProvider } from "y-phoenix-channel"
import * as Y from "yjs"

import { Connection, obey, say } from "./driver.js"

const connection = new Connection()
const socket = new Socket(process.argv[2], { transport: WebSocket })
socket.onOpen(() => connection.made())
socket.onClose(() => connection.lost())
socket.connect()

const doc = new Y.Doc()
const text = doc.getText("text")
let provider

obey({
  join({ topic }) {
    // Without a broadcast channel nothing but the server connects two documents.
    provider = new PhoenixChannelProvider(socket, topic, doc, { disableBc: true })
    provider.on("status", ({ status }) => {
      if (status === "connected") say("joined", { topic })
    })
    doc.on("update", (_update, origin) => {
      if (origin === provider) say("text", { text: `${text}` })
    })
    provider.awareness.on("change", (_changes, origin) => {
      if (origin !== provider) return
      const states = [...provider.awareness.getStates().entries()]
      const others = states.filter(([client]) => client !== doc.clientID).map(([, state]) => state)
      say("others", { states: others })
    })
  },
  /** Inserts at a place, or at the end. */
  insert({ at, what }) {
    text.insert(at ?? text.length, what)
  },
  /** Tells the text and a digest of the whole document, the same where documents are the same. */
  read() {
    say("document", { text: `${text}`, state: Buffer.from(Y.encodeStateAsUpdate(doc)).toString("hex") })
  },
  be({ state }) {
    provider.awareness.setLocalState(state)
  },
  leave() {
    provider.disconnect()
    say("left")
  },
})
