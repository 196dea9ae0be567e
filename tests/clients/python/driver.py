"""What the drivers share: commands come on stdin and what was seen goes to stdout, a JSON object a line."""

import json
import sys
import threading

_lock = threading.Lock()


def say(saw, **what):
    """Tells the test what was seen. From any thread."""
    with _lock:
        print(json.dumps({"saw": saw, **what}), flush=True)


def commands():
    """The commands up to `quit`, or until the test has gone. Blocks."""
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "quit":
            return
        yield command


class Connection:
    """Whether the library is connected, so that a loss is told once."""

    def __init__(self):
        self._lock = threading.Lock()
        self._up = False

    def made(self):
        with self._lock:
            self._up = True

    def lost(self):
        with self._lock:
            was_up, self._up = self._up, False
        if was_up:
            say("disconnected")
