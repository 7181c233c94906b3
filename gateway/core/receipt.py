"""What happened to one call, written as it travels and closed exactly once."""

from typing import Literal

from msgspec import Struct, field

from gateway.core.price import Price
from gateway.core.principal import ANYONE, Principal
from gateway.core.usage import Usage

Outcome = Literal["open", "finished", "abandoned", "broken", "failed", "refused"]
"""refused: by us, before anyone was asked · failed: no answer began · broken: it began and did not end ·
abandoned: the client left · finished: all went well."""

CacheVerdict = Literal["", "hit", "miss", "bypass"]


Why = Literal["first", "retry", "hedge", "continue", "restart"]
"""How an attempt came about: the call's first · the one before failed · the one before was late · the one before broke
off, and this one goes on from what the client had seen, or begins anew because it had seen nothing yet."""

JOINED: frozenset[Why] = frozenset({"continue", "restart"})


class Tried(Struct):
    """One attempt at one deployment."""

    deployment: str
    provider: str
    model: str
    began_s: float
    """On the gateway's monotonic clock."""
    first_chunk_s: float | None = None
    """Seconds from the attempt's begin to its first content."""
    total_s: float = 0.0
    error: str = ""
    """The class of what went wrong, empty when it answered."""
    unhealthy: bool = False
    """What went wrong speaks against the deployment; a request that it rejected does not."""
    trial: bool = False
    """It was to find out whether a deployment that had rested answers again."""
    retry_after_s: float | None = None
    """The patience that the upstream asked for."""
    status: int = 0
    """The upstream's HTTP status; 0 when none came."""
    upstream_id: str = ""
    """The upstream's own request id, to quote to its support."""
    reason: str = ""
    """Why there was no answer at all, in our own words: nothing that a client or an upstream said."""
    why: Why = "first"
    usage: Usage | None = None
    """What the attempt used, whoever saw it. `None`: nothing that is known of; it said nothing."""
    chars: int = 0
    """Of all that it generated, seen or not; for an estimate."""
    wasted: bool = False
    """What it used is paid for, and no part of what the client was given."""
    price: Price | None = None
    """The deployment's own, from the configuration."""


class Receipt(Struct):
    """The record of one call. Middlewares decide from the Call and record here; none decides from here."""

    call_id: str
    model: str = ""
    """As the client asked for it."""
    route: str = ""
    """The configured name or pattern it matched; empty when none did."""
    principal: Principal = ANYONE
    outcome: Outcome = "open"
    error: str = ""
    code: str = ""
    """Of an error of our own, its `code`; an upstream's may hold anything."""
    status: int = 200
    """What the client was answered, before any chunk."""
    cache: CacheVerdict = ""
    tried: list[Tried] = field(default_factory=list[Tried])
    usage: Usage | None = None
    """Of the answer the client saw. `None`: there was no answer."""
    cost_nusd: int | None = None
    """Of all attempts, those included that were of no use. `None`: unknown, which is not the same as nothing."""
    finish_reason: str = ""
    chunks: int = 0
    completion_chars: int = 0
    """Of all that was generated, seen or not."""
    began_s: float = 0.0
    first_chunk_s: float | None = None
    total_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """What middlewares want the client to be told, whatever becomes of the call (`x-ratelimit-…`)."""

    skipped: int = 0
    """Events of the upstream that could not be read and were left out."""

    @property
    def joined(self) -> list[Tried]:
        """The attempts whose answers were joined to one that had broken off."""
        if len(self.tried) < 2:
            return []
        return [tried for tried in self.tried if tried.why in JOINED and tried.first_chunk_s is not None]

    @property
    def answered_by(self) -> Tried | None:
        """The attempt that answered, or the last that failed."""
        tried = self.tried
        if not tried:
            return None
        last = tried[-1]
        return last if not last.error else next((one for one in reversed(tried) if not one.error), last)
