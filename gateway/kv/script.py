"""A Lua script: one step in Redis, with nothing in between."""

import hashlib
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from gateway.kv.line import Line
from gateway.kv.link import pack


class Script:
    """Is run by its digest; Redis is sent the whole of it when it does not know it (any more)."""

    def __init__(self, line: Line, text: str) -> None:
        self._line = line
        self._text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def run(
        self,
        keys: Sequence[str],
        *words: str,
        more_s: float = 0.0,
        unclaimed: Callable[[Any], None] | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Return what the script returns for `keys` and `words`; see `Line.ask`.

        Raises:
            Gone: there was no reply in time.
        """
        called = (len(keys), *keys, *words)
        whole = partial(self._whole, called)
        return self._line.ask("EVALSHA", self._digest, *called, more_s=more_s, unclaimed=unclaimed, whole=whole)

    def tell(self, keys: Sequence[str], *words: str) -> None:
        """Have the script run for `keys` and `words`, of which nobody waits to hear; see `Line.tell`."""
        called = (len(keys), *keys, *words)
        self._line.tell("EVALSHA", self._digest, *called, whole=partial(self._whole, called))

    def _whole(self, called: tuple[Any, ...]) -> bytes:
        return pack(("EVAL", self._text, *called))
