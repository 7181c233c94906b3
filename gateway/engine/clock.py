"""Time, as everything but tests sees it."""

import asyncio
import time


class SystemClock:
    """The machine's clocks. `now` is the event loop's clock too."""

    def now(self) -> float:
        """Seconds on a clock that never jumps."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
