// A relay before a server, whose connections a test can cut: what a lost network does, at the moment that the test wants.

import { once } from "node:events"
import { connect, createServer } from "node:net"

/** Relays connections to a port of this machine. Gives `{ port, cut, close }`; `cut` breaks those there are, on both sides. */
export async function startRelay(to) {
  const open = new Set()
  const relay = createServer((near) => {
    const far = connect(to, "127.0.0.1")
    for (const [one, other] of [[near, far], [far, near]]) {
      open.add(one)
      one.setNoDelay()
      one.pipe(other)
      // What a side sent before its regular end still arrives.
      one.on("error", () => other.destroy())
      one.on("close", () => open.delete(one))
    }
  })
  relay.listen(0, "localhost")
  await once(relay, "listening")
  const cut = () => open.forEach((socket) => socket.resetAndDestroy())
  return {
    port: relay.address().port,
    cut,
    async close() {
      cut()
      relay.close()
      await once(relay, "close")
    },
  }
}
