"""Ports of this machine for servers that can't choose one by themselves."""

from __future__ import annotations

import contextlib
import random
import socket

# Systems give out ports from 32,768 on where a program asks for any: below that, nobody takes one by chance between
# this look and the server's start.
FIRST, LAST = 20_000, 32_000


def free_port() -> int:
    """Return a port at which nobody listens, and which no program gets that asks for any port."""
    choose = random.SystemRandom()
    for _ in range(1_000):
        port = choose.randint(FIRST, LAST)
        with contextlib.suppress(OSError), socket.socket() as at:
            at.bind(("127.0.0.1", port))
            return port
    raise OSError(f"No port from {FIRST} to {LAST} is free.")
