"""Drives phxsocket: threads, V1. It leaves connecting again, and joining again, to `on_close`, as its readme shows."""

import sys
import time

import phxsocket
from driver import Connection, commands, say
from phxsocket.channel import ChannelConnectError

RETRY_S = 0.05

client = phxsocket.Client(f"{sys.argv[1]}/websocket")
connection = Connection()
joined = {}


def join(topic):
    channel = joined[topic]
    try:
        say("joined", topic=topic, response=channel.join())
    except ChannelConnectError as error:
        say("refused", topic=topic, response=error.args[0])


def hear(topic):
    def on_message(_socket, event, payload):
        if event == "phx_error":
            say("crashed", topic=topic)
        elif not event.startswith("phx_"):
            say("event", topic=topic, event=event, payload=payload)

    return on_message


def connect_again(_client):
    connection.lost()
    time.sleep(RETRY_S)
    try:
        client.connect()
    except Exception:
        # A connection that could not be made calls on_close as well.
        return
    connection.made()
    for topic in list(joined):
        join(topic)


client.on_close = connect_again
client.connect()
connection.made()

for command in commands():
    topic = command["topic"]
    if command["do"] == "join":
        channel = client.channel(topic, command["params"])
        channel.on_message = hear(topic)
        joined[topic] = channel
        join(topic)
    elif command["do"] == "push":
        reply = client.channels[topic].push(command["event"], command["payload"], reply=True).wait_for_response()
        say("reply", topic=topic, status=reply["status"], response=reply["response"])
    elif command["do"] == "crash":
        client.channels[topic].push("boom", {})
    elif command["do"] == "leave":
        channel = joined.pop(topic)
        channel.on_close = lambda: say("left", topic=topic)
        channel.leave()

client.on_close = None
client.close()
