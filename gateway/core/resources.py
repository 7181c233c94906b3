"""What a middleware may borrow. `kv`, `engine` and `settings` satisfy these; `settings/build.py` introduces them.

A test passes a ten-line fake; a middleware never learns which.
"""

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct
from msgspec.structs import force_setattr

from gateway.core.fit import Fit
from gateway.core.price import Price
from gateway.core.principal import Principal
from gateway.core.receipt import Receipt, Tried
from gateway.core.route import Deployment, Order, Prefill, Route


class Clock(Protocol):
    """Time. Nothing else may ask what time it is, so that tests can say."""

    def now(self) -> float:
        """Seconds on a clock that never jumps."""
        ...

    def wall(self) -> float:
        """Seconds since 1970."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Meter(Struct, frozen=True):
    """One limit on one subject: `key:team-a`, 60 requests a minute."""

    subject: str
    """Who is limited, as `scope:name` with scope key, user, team or model."""
    kind: Literal["requests", "tokens", "concurrent"]
    limit: int
    id: str = ""
    """Unique among meters, the same on every worker: made of subject and kind, once."""

    def __post_init__(self) -> None:
        """Work out the id."""
        force_setattr(self, "id", f"{self.subject}:{self.kind}")


class Standing(Struct, frozen=True):
    """How a meter stands: what a client may still use, and when it is whole again."""

    meter: Meter
    remaining: int
    reset_s: float
    """Seconds until all of the limit is free again, if nothing more is used."""


class Held(Struct, frozen=True):
    """What one call holds of its meters until it is settled."""

    id: str
    asks: tuple[tuple[Meter, int], ...]
    at_s: int
    """The second, on the limiter's own clock, in which it was held."""
    standings: tuple[Standing, ...]
    waited_s: float = 0.0
    """How long the shared count was waited for; what this process was busy with meanwhile is not part of it."""
    looked_up: bool = False
    """Whether `answer` is what the cache has; else it has to be asked. See `LooksUp`."""
    answer: bytes | None = None


class Denied(Struct, frozen=True):
    """The meter that said no; nothing was taken from any other."""

    meter: Meter
    wanted: int
    retry_after_s: float | None
    """When there may be room. `None`: never, it is more than the whole limit."""
    standings: tuple[Standing, ...]


WithoutRedis = Literal["local", "open", "closed"]
"""What limits do while the Redis that counts them is gone: each process counts by itself, so that at worst every
process lets the whole limit pass; or nothing is limited; or calls that have limits are refused."""


class Limiter(Protocol):
    """Counts requests and tokens in a window that slides by the second, and calls in flight.

    In no 60 seconds does more pass than the limit; a hold that nobody settles (a dead worker's) comes back by itself.
    While what is counted is out of reach, `WithoutRedis` holds; a count in this process's own memory never is.
    """

    @property
    def apart(self) -> str:
        """Why what is counted here is no other process's, and what to do about it; empty: all have the same."""
        ...

    async def hold(self, id: str, asks: Sequence[tuple[Meter, int]]) -> Held | Denied:
        """Take all of `asks`, or nothing: every meter is checked before any is charged.

        Nothing is taken either, and none stands anyhow, while nothing is limited (`open`).

        Raises:
            Unavailable: what is counted is out of reach (`closed`).
        """
        ...

    def settle(self, held: Held, tokens: int | None) -> Awaitable[None] | None:
        """Free the call's places and replace the tokens held by the `tokens` used; `None`: what was held was used.

        Returns what there is to wait for, if anything: where nothing is, a call's end needs no task of its own.
        """
        ...

    async def standings(self, meters: Sequence[Meter]) -> tuple[Standing, ...]:
        """Tell how `meters` stand, taking nothing; nothing, where they are out of reach and not counted here."""
        ...


class Answers(Protocol):
    """Cached answers, as bytes, each with a time to live."""

    @property
    def apart(self) -> str:
        """Why what is kept here is no other process's, and what to do about it; empty: all have the same."""
        ...

    async def get(self, key: str, *, waited_s: float = 0.0) -> bytes | None:
        """Return what is kept under `key`; `None` when nothing is, or the store cannot say in time.

        Args:
            key: what it was put under.
            waited_s: see `Call.waited_s`.
        """
        ...

    def put(self, key: str, answer: bytes, ttl_s: float) -> Awaitable[None] | None:
        """Keep `answer` for `ttl_s` seconds at most; returns what there is to wait for, as `Limiter.settle` does."""
        ...


class LooksUp(Protocol):
    """A limiter that has the cache's answers beside it: what a call needs of both is one question."""

    async def hold(self, id: str, asks: Sequence[tuple[Meter, int]], key: str = "") -> Held | Denied:
        """Hold as a `Limiter` does; for a call that may pass, look up the answer under `key`, unless that is empty."""
        ...

    def put_after_hold(self, key: str, answer: bytes, ttl_s: float) -> Awaitable[None] | None:
        """Keep an answer as `Answers` do, for a call that was held here: it leaves with what settles the call."""
        ...


class Stored(Struct, frozen=True):
    """Something that is kept for a client, by an id."""

    id: str
    kind: str
    """What it is: `response`."""
    owner: str
    """The id of the principal whose it is. For everybody else it does not exist."""
    data: bytes
    at_s: float
    """When it was made, in seconds since 1970."""
    expires_s: float
    """When it is forgotten. From then on it is not found; not long after, it is deleted."""
    provider: str = ""
    deployment: str = ""
    """Who made it; empty: nobody but the gateway."""


class Objects(Protocol):
    """What is kept for clients by id: for each owner its own, as if there were no others.

    All of them raise `Unavailable` while it cannot be reached.
    """

    @property
    def hint(self) -> str:
        """What to tell somebody who looked for what is not there, behind a sentence; empty: nothing."""
        ...

    async def put(self, *stored: Stored) -> None:
        """Keep all of them, or none, each in place of what its owner has under the same kind and id."""
        ...

    async def update(self, stored: Stored, data: bytes) -> bool:
        """Replace the data of `stored`, if it is still there and as it was; return whether it was.

        Of several who change the same thing at once, one does; and what was deleted stays so.
        """
        ...

    async def get(self, kind: str, owner: str, ids: Sequence[str]) -> dict[str, Stored]:
        """Return what is there of `ids`."""
        ...

    async def newest(self, kind: str, owner: str, *, limit: int, after: str = "") -> list[Stored]:
        """Return at most `limit`, newest first; those behind the one called `after`, where it is said."""
        ...

    async def delete(self, kind: str, owner: str, *ids: str) -> int:
        """Forget them for good; return how many were there."""
        ...

    async def sweep(self) -> int:
        """Delete what has expired; return how much it was."""
        ...


class Rest(Struct, frozen=True):
    """Why a deployment is not asked at the moment, and for how long."""

    left_s: float
    strikes: int = 0
    """How many times in a row it has had to rest. 0: its upstream asked for it (`Retry-After`)."""


class News(Struct, frozen=True):
    """What workers have told each other of deployments."""

    resting: dict[str, Rest]
    back: dict[str, float]
    """Those that answer again, and how many seconds ago, at most, that was told. All hear of it, and then no more."""


class Rests(Protocol):
    """Which deployments rest, as all workers have found. Nothing but `may_probe` is waited for by a call.

    While Redis is gone nobody is told and nothing is known: each worker goes by what it has seen itself.
    """

    async def rest(self, name: str, seconds: float, strikes: int) -> None:
        """Tell all workers that the deployment `name` rests for so long, for the `strikes`th time in a row.

        Of several that say so, the one with the latest end and the most strikes counts.
        """
        ...

    async def back(self, name: str) -> None:
        """Tell all workers that it answers again."""
        ...

    async def news(self) -> News | None:
        """Return who rests now and who is back, by the server's own clock; `None`: nobody can say."""
        ...

    async def may_probe(self, name: str, seconds: float) -> bool:
        """Tell whether this worker may try a deployment that has rested: one of all may, until its time is over or
        somebody tells of `rest` or `back`. While Redis is gone everyone may."""
        ...

    async def give_up(self, name: str) -> None:
        """Let another worker try it: this one, if it had leave, will not find out."""
        ...


class Keys(Protocol):
    """Virtual keys."""

    def find(self, secret: str) -> Principal | None:
        """Return whom `secret` belongs to; `None`: nobody.

        Raises:
            Unauthorized: its time is over.
        """
        ...

    def __len__(self) -> int:
        """How many keys there are."""
        ...


class KeySets(Protocol):
    """The public keys that token issuers publish (JWKS, RFC 7517)."""

    async def find(self, url: str, kid: str) -> Mapping[str, object] | None:
        """Return the key that the set at `url` calls `kid` (empty: its only key); `None`: it has no such key.

        Raises:
            Unavailable: the set was never fetched, and cannot be now.
        """
        ...


class Priced(Protocol):
    """A model at a place, with perhaps a price of its own: a `Deployment`, or a `Tried` that remembers one."""

    @property
    def provider(self) -> str:
        """The configured provider's name."""
        ...

    @property
    def model(self) -> str:
        """The upstream's own name of the model."""
        ...

    @property
    def price(self) -> Price | None:
        """From the configuration. `None`: look it up."""
        ...


class Prices(Protocol):
    """What models cost."""

    def at_hand(self, place: Priced, /) -> Price | None:
        """Return the same as `of`, where that is known by now.

        Raises:
            LookupError: it is to be asked for.
        """
        ...

    async def of(self, place: Priced, /) -> Price | None:
        """Return what `place` costs, from the configuration or the price table; `None`: nobody knows."""
        ...


class Candidates(Protocol):
    """Which deployments may answer a call, best first."""

    def of(self, route: Route, principal: Principal) -> Iterator[Deployment]:
        """Yield the route's deployments in its order, then its fallbacks' that `principal` may use, none twice."""
        ...

    def for_long(self, route: Route, principal: Principal) -> Iterator[Deployment]:
        """Yield who may answer when the prompt is too long for `route`: its context fallbacks, in the same way."""
        ...

    def prefill(self, deployment: Deployment) -> Prefill:
        """Return whether the deployment goes on from a last message of the assistant's, as far as is known."""
        ...


class Routes(Protocol):
    """The public model names."""

    def __iter__(self) -> Iterator[Route]:
        """Every route as it is configured, names before patterns."""
        ...

    def find(self, model: str) -> Route | None:
        """Return where `model` leads; a pattern's route has its deployments' models filled in."""
        ...

    def near(self, model: str) -> str:
        """Return a hint for a name that leads nowhere: `did you mean "fast"?`."""
        ...


class Fleet(Protocol):
    """Live measurements of deployments, and who of them rests. Every attempt is told to it, from asking to its end."""

    def order(self, deployments: Sequence[Deployment], order: Order) -> list[Deployment]:
        """Return `deployments`, best first by `order`."""
        ...

    def rest(self, name: str) -> Rest | None:
        """Return why the deployment called `name` is not to be asked now; `None`: it may be."""
        ...

    def is_free(self, name: str) -> bool:
        """Tell whether everybody may ask it at once: it has neither rested nor asked not to be asked. Nearly always."""
        ...

    def is_well(self, name: str) -> bool:
        """Tell whether nothing was wrong with it of late."""
        ...

    def late_s(self, name: str, percentile: float) -> float | None:
        """Return after how long its first token is late; `None`: too few streams were seen to say."""
        ...

    async def admit(self, deployment: Deployment) -> bool:
        """Ask leave for an attempt: of those who want to try what has rested, one gets it."""
        ...

    def begin(self, deployment: Deployment, tried: Tried) -> None:
        """Note that an attempt began."""
        ...

    def spoke(self, tried: Tried, *, stream: bool) -> None:
        """Note that an attempt has begun to answer."""
        ...

    def end(self, tried: Tried, receipt: Receipt) -> None:
        """Note that an attempt is over, of the call with this receipt."""
        ...


class Fits(Protocol):
    """What deployments are known not to take."""

    def of(self, deployment: Deployment) -> Fit | None:
        """Return what has to be done to a request for it; `None`: nothing. Costs a look-up."""
        ...

    def learn(self, deployment: Deployment, more: Fit) -> None:
        """Remember for a while what its upstream has just said."""
        ...


class Lines(Protocol):
    """Where the log's lines go."""

    @property
    def is_terminal(self) -> bool:
        """Whether people read along."""
        ...

    def write(self, line: bytes) -> None:
        """Have a line, its end included, written soon; never waits."""
        ...


class Resources(Struct, frozen=True):
    """All of it, handed to every middleware's `build`."""

    clock: Clock
    limiter: Limiter
    answers: Answers
    keys: Keys
    prices: Prices
    candidates: Candidates
    routes: Routes
    fleet: Fleet
    objects: Objects
    lines: Lines
    key_sets: KeySets | None = None
    """`None`: nothing may be fetched, and so no `jwks_url` be configured."""
    fits: Fits | None = None
    """`None`: nothing is known of what models take."""
