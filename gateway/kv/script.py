"""A Lua script: one step in Redis, with nothing in between."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.exceptions import NoScriptError

from gateway.kv.line import Line


class Script:
    """Is run by its digest; Redis is sent the whole of it when it does not know it (any more)."""

    def __init__(self, line: Line, text: str) -> None:
        self._line = line
        self._text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(
        self,
        keys: Sequence[str],
        *words: str,
        more_s: float = 0.0,
        unclaimed: Callable[[Any], None] | None = None,
    ) -> Any:
        """Return what the script returns for `keys` and `words`; see `Line.ask`.

        Raises:
            Gone: there was no reply in time.
        """
        command = (len(keys), *keys, *words)
        ask = partial(self._line.ask, more_s=more_s, unclaimed=unclaimed)
        before_s = self._line.waited_s
        try:
            return await ask("EVALSHA", self._digest, *command)
        except NoScriptError:
            return await ask("EVAL", self._text, *command, waited_s=self._line.waited_s - before_s)

    def tell(self, keys: Sequence[str], *words: str) -> None:
        """Have the script run for `keys` and `words`, of which nobody waits to hear; see `Line.tell`."""
        command = (len(keys), *keys, *words)
        whole = partial(self._line.tell, "EVAL", self._text, *command)
        self._line.tell("EVALSHA", self._digest, *command, unknown=whole)
