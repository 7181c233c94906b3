"""Who is charged for a call, and what they may use."""

from fnmatch import fnmatchcase

from msgspec import Struct


class Limits(Struct, frozen=True):
    """How much may be used. `None`: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


class Principal(Struct, frozen=True):
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
        return any(pattern in ("*", model) or fnmatchcase(model, pattern) for pattern in self.models)


ANYONE = Principal("anyone")
"""Who calls where the chain has no `auth`."""
