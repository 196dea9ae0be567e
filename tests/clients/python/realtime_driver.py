"""Drives realtime, Supabase's client: asyncio, V1. Topics are `realtime:NAME`; it has broadcast and presence of its own."""

import asyncio
import sys

from driver import Connection, commands, say
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates
from realtime.types import ChannelEvents, RealtimeAcknowledgementStatus


async def main(url, api_key):
    connection = Connection()
    client = AsyncRealtimeClient(url, token=api_key)
    channel = None

    def state(status, _error):
        match status:
            case RealtimeSubscribeStates.SUBSCRIBED:
                connection.made()
                say("joined")
            case RealtimeSubscribeStates.CHANNEL_ERROR:
                # A lost connection and a crashed channel alike.
                connection.lost()
            case RealtimeSubscribeStates.CLOSED:
                say("left")
            case other:
                say(str(other))

    def present():
        say("present", keys={
            key: [{name: value for name, value in meta.items() if name != "presence_ref"} for meta in metas]
            for key, metas in channel.presence_state().items()
        })

    told = commands()
    while command := await asyncio.to_thread(next, told, None):
        match command["do"]:
            case "join":
                channel = client.channel(command["name"], {"config": command["config"]})
                channel.on_broadcast("*", lambda heard: say("broadcast", event=heard["event"], payload=heard["payload"]))
                channel.on_presence_sync(present)
                channel.on_system(lambda told: say("system", message=told.message))
                await channel.subscribe(state)
            case "track":
                await channel.track(command["meta"])
            case "untrack":
                await channel.untrack()
            case "broadcast":
                await channel.send_broadcast(command["event"], command["payload"])
            case "broadcast_and_wait":
                message = {"type": "broadcast", "event": command["event"], "payload": command["payload"]}
                push = await channel.push(ChannelEvents.broadcast, message)
                push.receive(RealtimeAcknowledgementStatus.Ok, lambda _response: say("acknowledged"))
            case "set_auth":
                await client.set_auth(command["token"])
            case "crash":
                await channel.push("boom", {})
            case "leave":
                await channel.unsubscribe()
    await client.close()


asyncio.run(main(*sys.argv[1:]))
