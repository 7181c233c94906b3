"""Who is charged for a call, and what they may use."""

import re
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How much may be used. What is left out is not limited."""

    requests_per_minute: Count | None = None
    """Calls in any 60 seconds."""
    tokens_per_minute: Count | None = None
    """Prompt and completion tokens in any 60 seconds."""
    concurrent: Count | None = None
    """Calls at the same time. With Redis, the place of one that is over is free at once for the calls that its own
    worker takes, and at most some milliseconds later for those of others."""


class Principal(Struct, frozen=True, dict=True, cache_hash=True):
    """The virtual key, or the subject of a token, that a call is charged to."""

    id: str
    """Names the principal in logs, limits and cache keys; never the secret itself."""
    user: str = ""
    team: str = ""
    models: tuple[str, ...] = ("*",)
    """Public model names, or patterns with `*`, that may be used; fallbacks are checked against it too."""
    limits: Limits = Limits()
    admin: bool = False
    """May reload the configuration and read what only operators should."""

    def may_use(self, model: str) -> bool:
        """Tell whether this principal may ask for the public name `model`."""
        names = self._names
        return model in names or "*" in names or any(fnmatchcase(model, pattern) for pattern in self._patterns)

    @cached_property
    def _names(self) -> frozenset[str]:
        """What is meant as it is written: of a thousand models one is found as fast as of ten."""
        return frozenset(self.models)

    @cached_property
    def _patterns(self) -> tuple[str, ...]:
        return tuple(name for name in self.models if re.search(r"[*?\[]", name))


ANYONE = Principal("anyone")
"""Who calls where the chain has no `auth`."""
