"""Ports for servers that others start."""

import random
import socket

OURS = range(20_000, 32_000)
"""Below those that Linux gives to whoever does not care: nobody gets one while its server is not up, or down again."""


def free_port() -> int:
    """Return a port of the loopback interface on which nobody listens."""
    for port in random.sample(OURS, 100):
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"of a hundred ports from {OURS.start} to {OURS.stop} none is free")
