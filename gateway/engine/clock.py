"""Time, as everything but tests sees it."""

import asyncio
import time


class SystemClock:
    """The machine's clocks, with nothing in between: a call asks some twenty times."""

    now = staticmethod(time.monotonic)
    """Seconds on a clock that never jumps; the event loop's clock too."""
    wall = staticmethod(time.time)
    """Seconds since 1970."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
