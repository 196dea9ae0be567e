// Drives the phoenix-channels package: a port of the phoenix.js of 2017 to Node, V1.

import PhoenixChannels from "phoenix-channels"

import { Connection, obey, say } from "./driver.js"

const connection = new Connection()
// A heartbeat that is not answered before the next would disconnect.
const socket = new PhoenixChannels.Socket(process.argv[2], { heartbeatIntervalMs: 1_000 })
socket.onOpen(() => connection.made())
socket.onClose(() => connection.lost())
socket.connect()

const channels = new Map()

obey({
  join({ topic, params }) {
    const channel = socket.channel(topic, params)
    channels.set(topic, channel)
    channel.onMessage = (event, payload) => {
      if (!/^(phx_|chan_reply_)/.test(event)) say("event", { topic, event, payload })
      return payload
    }
    // A lost connection is an error of each channel too, without a reason.
    channel.onError((payload) => payload?.reason === "channel_crash" && say("crashed", { topic }))
    channel
      .join()
      .receive("ok", (response) => say("joined", { topic, response }))
      .receive("error", (response) => say("refused", { topic, response }))
  },
  push({ topic, event, payload }) {
    const push = channels.get(topic).push(event, payload)
    for (const status of ["ok", "error", "timeout"]) {
      push.receive(status, (response) => say("reply", { topic, status, response }))
    }
  },
  crash({ topic }) {
    channels.get(topic).push("boom", {})
  },
  leave({ topic }) {
    channels.get(topic).leave().receive("ok", () => say("left", { topic }))
  },
})
