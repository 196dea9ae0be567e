// A relay before a server, whose connections a test can cut: what a lost network does, at the moment that the test wants.

import { once } from "node:events"
import { connect, createServer } from "node:net"

/**
 * Relays connections to a port of this machine. Gives `{ port, cut, silence, block, close }`: `cut` breaks those there are, on both
 * sides; `silence` passes nothing on any more, and breaks them a while later; `block` cuts them, and refuses others while it awaits
 * something.
 */
export async function startRelay(to) {
  /** Each side of a connection, with the other. */
  const open = new Map()
  let isBlocked = false
  const relay = createServer((near) => {
    if (isBlocked) return near.resetAndDestroy()
    const far = connect(to, "127.0.0.1")
    for (const [one, other] of [[near, far], [far, near]]) {
      open.set(one, other)
      one.setNoDelay()
      one.pipe(other)
      // What a side sent before its regular end still arrives.
      one.on("error", () => other.destroy())
      one.on("close", () => open.delete(one))
    }
  })
  relay.listen(0, "localhost")
  await once(relay, "listening")
  const cut = () => [...open.keys()].forEach((socket) => socket.resetAndDestroy())
  const silence = (forMs) => {
    const silent = [...open.keys()]
    for (const socket of silent) socket.unpipe().resume()
    setTimeout(() => silent.forEach((socket) => socket.resetAndDestroy()), forMs).unref()
  }
  const block = async (meanwhile) => {
    isBlocked = true
    cut()
    await meanwhile()
    isBlocked = false
  }
  return {
    port: relay.address().port,
    cut,
    silence,
    block,
    async close() {
      cut()
      relay.close()
      await once(relay, "close")
    },
  }
}
