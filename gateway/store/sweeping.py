"""Deletes what has expired, again and again."""

from gateway.core.errors import Unavailable
from gateway.core.resources import Clock, Objects

EVERY_S = 60.0


async def keep_sweeping(objects: Objects, clock: Clock) -> None:
    """Sweep until cancelled. Several processes may do so in one database: what one has deleted no other finds."""
    while True:
        await clock.sleep(EVERY_S)
        try:
            await objects.sweep()
        except Unavailable:
            pass  # told already; the next sweep takes it along
