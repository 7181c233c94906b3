"""A call: one request on its way inward."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from operator import attrgetter
from typing import Any, Literal, Protocol, Self, get_args

import msgspec
from msgspec import Raw, Struct, field

from gateway.core.errors import UpstreamFailed
from gateway.core.principal import ANYONE, Principal
from gateway.core.receipt import Receipt, Tried, Why
from gateway.core.reply import Reply
from gateway.core.resources import Clock
from gateway.core.route import Deployment, Route
from gateway.core.secret import Secret

log = logging.getLogger("gateway")
FAILED_ENDING = "an ending of call %s failed"
"""A bug, told loudly: it must not keep a slot, a hold or a bill of the other endings."""

NO_SECRET = Secret()

_encode = msgspec.json.Encoder().encode

Operation = Literal[
    "chat",
    "completions",
    "embeddings",
    "moderations",
    "rerank",
    "images",
    "audio",
    "forward",
    "count",
    "models",
    "responses",
    "admin",
    "invalid",
]
"""`chat`: an answer is generated, on whichever surface · `forward`: a request that goes on as it came, to whom the
configuration names for its path · `responses`: about a response that is kept · `invalid`: one that could not be read;
it still passes those who log, count and authenticate. The others are named as their paths are."""
OF_MODELS: frozenset[Operation] = frozenset(
    {"chat", "completions", "embeddings", "moderations", "rerank", "images", "audio"}
)
"""Those that ask a model, which the request names."""
PATHS: dict[str, Operation] = {
    "/completions": "completions",
    "/embeddings": "embeddings",
    "/moderations": "moderations",
    "/rerank": "rerank",
    "/images/generations": "images",
    "/images/edits": "images",
    "/images/variations": "images",
    "/audio/speech": "audio",
    "/audio/transcriptions": "audio",
    "/audio/translations": "audio",
}
"""Below `/v1`, the paths of requests that name a model and go on as they came."""
ASKING: frozenset[Operation] = frozenset({*OF_MODELS, "forward"})
"""Those that ask an upstream."""
EVERY: frozenset[Operation] = frozenset(get_args(Operation))
Surface = Literal["chat", "messages", "responses"]
"""The dialect the client speaks. An upstream of the same dialect gets, and gives, bytes as they came."""

Ending = Callable[[Receipt], Awaitable[None] | None]


class Body(Struct, frozen=True):
    """A JSON object as it came: the bytes, and its top-level fields with their values untouched."""

    raw: bytes = b"{}"
    fields: dict[str, Raw] = {}

    def get(self, name: str, type: Any = Any) -> Any:
        """Return one field decoded as `type`; `None` when it is absent.

        Raises:
            msgspec.ValidationError: it is of another type.
        """
        raw = self.fields.get(name)
        return None if raw is None else msgspec.json.decode(raw, type=type)

    def but(self, **changes: object) -> bytes:
        """Return the object as bytes with some fields replaced (`None`: removed) and all others as they came."""
        fields: dict[str, object] = {**self.fields, **changes}
        if None in changes.values():
            fields = {name: value for name, value in fields.items() if value is not None}
        return _encode(fields)


class Headers(Struct, frozen=True):
    """The request's headers: lower-case names, bytes as ASGI gives them; of a repeated one, the last."""

    raw: Mapping[bytes, bytes] = {}

    def get(self, name: str) -> str:
        """Return the header of this (lower-case) name, or an empty string."""
        value = self.raw.get(name.encode())
        return value.decode("latin-1") if value else ""


class Upload(Protocol):
    """A request's body that goes on as it comes, and is never held as a whole."""

    @property
    def length(self) -> int | None:
        """How long it is in bytes; `None`: nobody knows before its end."""
        ...

    @property
    def spent(self) -> bool:
        """It was taken further than it is kept: it cannot be sent once more."""
        ...

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield it from its beginning.

        Raises:
            BadRequest: the client left in the middle of it, or it is not what it has to be.
            TooLarge: it is longer than allowed.
        """
        ...


class Form(Upload, Protocol):
    """A form whose field `model` says who is to answer."""

    def to(self, model: str) -> Upload:
        """Return the form with another `model`, and all else as it came."""
        ...


class Passage(Struct, frozen=True):
    """How a request came that goes on as it came, or nearly so."""

    method: str
    path: str
    """Below the upstream's address, beginning with a slash, percent-encoded as it came."""
    query: str = ""
    headers: dict[str, str] = {}
    """Those that the upstream may see: no credential, and nothing about the connection."""
    upload: Upload | None = None
    """The body, where it is not in `Call.body`."""
    form: Form | None = None
    """The body, where it is a form that names a model."""

    @property
    def spent(self) -> bool:
        """Its body cannot be sent once more."""
        return any(body is not None and body.spent for body in (self.upload, self.form))


class Turn(Struct, frozen=True):
    """What a request of the Responses surface builds on, and whether its answer is to be kept.

    The call's own body has everything that was said before in it, so that anybody can answer it.
    """

    body: Body
    """As it came, naming the response before it."""
    keeps: bool
    builds: bool = False
    """It builds on something that is kept."""
    chain: tuple[str, ...] = ()
    """The ids of the responses that it builds on, oldest first."""
    size: int = 0
    """Bytes of what it builds on."""
    provider: str = ""
    """Whose upstream has all of that itself, and gets `body`; empty: nobody's."""

    @property
    def previous(self) -> str:
        """The id of the response before it; empty: it is the first."""
        return self.chain[-1] if self.chain else ""


class Lookup(Struct, frozen=True):
    """What is kept for a call, found in the question that held its limits: the cache need not ask again."""

    call: "Call"
    """As it was then. What is found is for this question, and no other that was made of it since."""
    key: str
    answer: bytes | None
    put: Callable[[str, bytes, float], Awaitable[None] | None]
    """Keeps another answer, for so many seconds; see `LooksUp.put_after_hold`."""


class Call(Struct, frozen=True):
    """One request. Frozen: a middleware refines it by passing `call.but(...)` inward."""

    id: str
    operation: Operation
    surface: Surface
    model: str
    stream: bool
    body: Body
    headers: Headers
    receipt: Receipt
    deadline_s: float
    """On the monotonic clock: when the client is answered, one way or the other."""
    clock: Clock
    route: Route | None = None
    """Where `model` leads; `None`: it is no model here."""
    credential: Secret = NO_SECRET
    principal: Principal = ANYONE
    waited_s: float = 0.0
    """How long it has waited for what all workers share (Redis): its patience is one, wherever it is spent."""
    lookup: Lookup | None = None
    """What was found for it in the cache, before it is there."""
    trace: str = ""
    """The inbound W3C `traceparent`, if it was well formed."""
    own: "Callable[[Call], Awaitable[Reply]] | None" = None
    """What the gateway itself answers, where no upstream is asked."""
    translated: bool = False
    """Its body was written from another surface's, whose fields may still be in it."""
    passage: Passage | None = None
    """How it came; `None`: its body alone says all."""
    wants_usage: bool = False
    """The client asked for a stream's usage (`stream_options.include_usage`)."""
    turn: Turn | None = None
    """On the Responses surface: what came before."""
    endings: list[Ending] = field(default_factory=list[Ending])

    def but(self, **changes: Any) -> Self:
        """Return this call with some fields replaced."""
        return msgspec.structs.replace(self, **changes)

    def at_end(self, ending: Ending) -> None:
        """Have `ending` run once when this call is over, however it ends; the last asked runs first."""
        self.endings.append(ending)

    def attempt(self, deployment: Deployment, why: Why = "first") -> "Attempt":
        """Begin an attempt at `deployment`; used with `async with`.

        Its endings run at once when the block fails, or when it is told that it is `over`; else with the call's.
        """
        price = deployment.price
        tried = Tried(deployment.name, deployment.provider, deployment.model, self.clock.now(), why=why, price=price)
        self.receipt.tried.append(tried)
        attempt = Attempt(*_all_but_endings(self), deployment=deployment, tried=tried)
        self.endings.append(attempt.end_with_call)
        return attempt

    def end(self) -> Coroutine[Any, Any, None] | None:
        """Run the endings, each once, the last asked first; return the rest of them as soon as one has to wait."""
        endings, receipt = self.endings, self.receipt
        while endings:
            try:
                waiting = endings.pop()(receipt)
            except Exception:
                log.exception(FAILED_ENDING, self.id)
            else:
                if waiting is not None:
                    return self._end_waiting(waiting)
        return None

    async def _end_waiting(self, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except Exception:
            log.exception(FAILED_ENDING, self.id)
        if (rest := self.end()) is not None:
            await rest


class Attempt(Call, frozen=True, kw_only=True):
    """A call on its way to one deployment: what providers see."""

    deployment: Deployment
    tried: Tried

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Leave it open if it answers; it is over if it failed."""
        if error is not None:
            await self.over(error)

    async def over(self, error: BaseException) -> None:
        """End the attempt: it failed, before or after it had begun to answer."""
        self.failed(error)
        if (rest := self.end_with_call(self.receipt)) is not None:
            await rest

    def failed(self, error: BaseException) -> None:
        """Write down what went wrong."""
        tried = self.tried
        tried.error = type(error).__name__
        if isinstance(error, UpstreamFailed):
            tried.unhealthy, tried.retry_after_s = error.unhealthy, error.retry_after_s

    def end_with_call(self, _: Receipt) -> Coroutine[Any, Any, None] | None:
        """Run its endings, of which nothing is left the second time."""
        if not self.tried.total_s:
            self.tried.total_s = self.clock.now() - self.tried.began_s
        return self.end()


_all_but_endings = attrgetter(*Call.__struct_fields__[:-1])
"""`endings` is the last field, and an attempt's are its own. In one step: field by field it took 2 µs more."""
