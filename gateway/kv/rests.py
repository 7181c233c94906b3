"""Which deployments rest, told to all workers. Redis forgets a rest when it is over."""

import contextlib
from pathlib import Path

from gateway.core.resources import Rest
from gateway.kv.line import Gone, Line
from gateway.kv.script import Script

SCRIPT = Path(__file__).with_name("rests.lua").read_text()
RESTS = "gateway:rests"
PROBES = "gateway:probes:"
MOST = 10_000
"""Rests that are kept, those that end last: patterns let clients name deployments, so there is an end."""
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

    async def rest(self, name: str, seconds: float, strikes: int) -> None:
        """Tell all workers that `name` rests."""
        ms = round(seconds * 1000)
        if ms > 0 and _is_shared(name):
            with contextlib.suppress(Gone):
                await self._script.run((RESTS, PROBES + name), "rest", name, f"{ms}", f"{strikes}", f"{self._most}")

    async def back(self, name: str) -> None:
        """Tell all workers that `name` answers again."""
        if _is_shared(name):
            with contextlib.suppress(Gone):
                await self._script.run((RESTS, PROBES + name), "back", name)

    async def resting(self) -> dict[str, Rest] | None:
        """Return who rests now; `None` while Redis is gone."""
        try:
            now_ms, found = await self._script.run((RESTS,), "resting", more_s=READ_S)
        except Gone:
            return None
        return {name.decode(): _rest(int(score), now_ms) for name, score in zip(found[::2], found[1::2], strict=True)}

    async def may_probe(self, name: str, seconds: float) -> bool:
        """Tell whether this worker may try `name`: one of all, for so long; each, while Redis is gone."""
        if not _is_shared(name):
            return True
        ms = max(1, round(seconds * 1000))
        try:
            return bool(await self._line.ask("SET", PROBES + name, "1", "NX", "PX", ms))
        except Gone:
            return True


def _rest(score: int, now_ms: int) -> Rest:
    """Read what `rests.lua` has written."""
    until_ms, strikes = divmod(score, 1000)
    return Rest((until_ms - now_ms) / 1000, strikes)


def _is_shared(name: str) -> bool:
    return len(name.encode()) <= LONGEST_NAME
