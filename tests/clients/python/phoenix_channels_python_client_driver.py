"""Drives phoenix-channels-python-client: asyncio, V1 or V2. It has no push of its own; its protocol handler sends one."""

import asyncio
import itertools
import sys

from driver import Connection, commands, say
from phoenix_channels_python_client import PHXChannelsClient, ReconnectPolicy
from phoenix_channels_python_client.exceptions import PHXTopicError
from phoenix_channels_python_client.phx_messages import PHXEvent
from phoenix_channels_python_client.utils import make_message

# Its own patience, seconds after a connection that lasted less than five, is for servers that flap.
POLICY = ReconnectPolicy(
    base_delay_s=0.05,
    service_restart_min_delay_s=0.05,
    service_restart_max_delay_s=0.1,
    rapid_disconnect_uptime_s=0,
)

HEARTBEAT_S = 0.1
PATIENCE_S = 10.0
LOOK_S = 0.005


async def main(url, version):
    connection = Connection()
    heartbeat_answered = asyncio.Event()
    pushed = {}
    refs = (f"push-{n}" for n in itertools.count())

    async def push(topic, event, payload, ref):
        message = make_message(
            event=event,
            topic=topic,
            ref=ref,
            payload=payload,
            join_ref=client.get_current_subscriptions()[topic].join_ref,
        )
        await client.get_protocol_handler().send_message(client.connection, message)

    async def until_joined(topic, is_joined):
        while client.is_topic_joined(topic) != is_joined:
            await asyncio.sleep(LOOK_S)

    async def hear(message):
        if message.event is PHXEvent.reply:
            if message.ref in pushed:
                say("reply", topic=pushed.pop(message.ref), **message.payload)
        elif not isinstance(message.event, PHXEvent):
            say("event", topic=message.topic, event=message.event, payload=message.payload)

    async def lost(_error):
        connection.lost()

    async def there_again():
        connection.made()
        for topic in client.get_current_subscriptions():
            if client.is_topic_joined(topic):
                say("joined", topic=topic, response=None)

    client = PHXChannelsClient(
        f"{url}/websocket",
        "no key",
        protocol_version=version,
        reconnect_policy=POLICY,
        heartbeat_interval_s=HEARTBEAT_S,
        on_heartbeat_ack=heartbeat_answered.set,
        on_disconnect=lost,
        on_reconnect=there_again,
    )
    async with client:
        connection.made()
        await asyncio.wait_for(heartbeat_answered.wait(), PATIENCE_S)
        told = commands()
        while command := await asyncio.to_thread(next, told, None):
            topic = command["topic"]
            if command["do"] == "join":
                try:
                    await client.subscribe_to_topic(topic, hear)
                    say("joined", topic=topic, response=None)
                except PHXTopicError as error:
                    say("refused", topic=topic, response={"reason": str(error)})
            elif command["do"] == "push":
                ref = next(refs)
                pushed[ref] = topic
                await push(topic, command["event"], command["payload"], ref)
            elif command["do"] == "crash":
                await push(topic, "boom", {}, "crash")
                # It calls nobody back when it joins again; its delay before that is longer than two looks.
                await until_joined(topic, False)
                say("crashed", topic=topic)
                await until_joined(topic, True)
                say("joined", topic=topic, response=None)
            elif command["do"] == "leave":
                await client.unsubscribe_from_topic(topic)
                say("left", topic=topic)


asyncio.run(main(*sys.argv[1:]))
