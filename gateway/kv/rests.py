"""Which deployments rest, told to all workers. Redis forgets a rest when it is over, and who is back soon after."""

import contextlib
import os
from pathlib import Path

from gateway.core.resources import News, Rest
from gateway.kv.line import Gone, Line
from gateway.kv.script import Script

SCRIPT = Path(__file__).with_name("rests.lua").read_text()
RESTS = "gateway:rests"
PROBES = "gateway:probes:"
MOST = 10_000
"""Rests that are kept, those that end last: patterns let clients name deployments, so there is an end."""
TOLD_FOR_S = 10.0
"""How long it is told that a deployment answers again: all ask every second."""
READ_S = 0.2
"""What reading them may take on top of the usual: where there are that many, 15 ms on an idle machine."""
LONGEST_NAME = 256
"""In bytes. No model is called so: a longer name is a client's invention, and stays in the worker that was asked."""


class RedisRests:
    """See `Rests`. Whoever owns the line opens and closes it."""

    def __init__(self, line: Line, *, most: int = MOST) -> None:
        self._line = line
        self._script = Script(line, SCRIPT)
        self._most = most
        self._me = os.urandom(8).hex()

    async def rest(self, name: str, seconds: float, strikes: int) -> None:
        """Tell all workers that `name` rests."""
        ms = round(seconds * 1000)
        if ms > 0 and _is_shared(name):
            with contextlib.suppress(Gone):
                await self._script.run((RESTS, PROBES + name), "rest", name, f"{ms}", f"{strikes}", f"{self._most}")

    async def back(self, name: str) -> None:
        """Tell all workers that `name` answers again."""
        if _is_shared(name):
            ms = round(TOLD_FOR_S * 1000)
            with contextlib.suppress(Gone):
                await self._script.run((RESTS, PROBES + name), "back", name, f"{ms}", f"{self._most}")

    async def news(self) -> News | None:
        """Return who rests now and who is back; `None` while Redis is gone."""
        try:
            now_ms, found = await self._script.run((RESTS,), "news", more_s=READ_S)
        except Gone:
            return None
        news = News({}, {})
        for name, score in zip(found[::2], found[1::2], strict=True):
            until_ms, strikes = divmod(int(score), 1000)  # as `rests.lua` has written it
            left_s = (until_ms - now_ms) / 1000
            if strikes:
                news.resting[name.decode()] = Rest(left_s, strikes)
            else:
                news.back[name.decode()] = TOLD_FOR_S - left_s + 0.001  # milliseconds were rounded
        return news

    async def may_probe(self, name: str, seconds: float) -> bool:
        """Tell whether this worker may try `name`: one of all, for so long; each, while Redis is gone."""
        if not _is_shared(name):
            return True
        ms = max(1, round(seconds * 1000))
        try:
            return bool(await self._line.ask("SET", PROBES + name, self._me, "NX", "PX", ms))
        except Gone:
            return True

    async def give_up(self, name: str) -> None:
        """Let another worker try `name`."""
        if _is_shared(name):
            with contextlib.suppress(Gone):
                await self._script.run((RESTS, PROBES + name), "give_up", self._me)


def _is_shared(name: str) -> bool:
    return len(name.encode()) <= LONGEST_NAME
