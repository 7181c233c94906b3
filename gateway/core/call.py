"""A call: one request on its way inward."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, Self

import msgspec
from msgspec import Raw, Struct, field

from gateway.core.principal import ANYONE, Principal
from gateway.core.receipt import Receipt, Tried
from gateway.core.reply import Reply
from gateway.core.resources import Clock
from gateway.core.route import Deployment, Route
from gateway.core.secret import Secret

log = logging.getLogger("gateway")
FAILED_ENDING = "an ending of call %s failed"
"""A bug, told loudly: it must not keep a slot, a hold or a bill of the other endings."""

NO_SECRET = Secret()

Operation = Literal["chat", "models", "admin", "invalid"]
"""`invalid`: a request that could not be read; it still passes those who log, count and authenticate."""
Surface = Literal["chat"]
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
        return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})


class Headers(Struct, frozen=True):
    """The request's headers: lower-case names, bytes as ASGI gives them; of a repeated one, the last."""

    raw: Mapping[bytes, bytes] = {}

    def get(self, name: str) -> str:
        """Return the header of this (lower-case) name, or an empty string."""
        return self.raw.get(name.encode(), b"").decode("latin-1")


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
    trace: str = ""
    """The inbound W3C `traceparent`, if it was well formed."""
    own: "Callable[[Call], Awaitable[Reply]] | None" = None
    """What the gateway itself answers, where no upstream is asked."""
    wants_usage: bool = False
    """The client asked for a stream's usage (`stream_options.include_usage`)."""
    endings: list[Ending] = field(default_factory=list[Ending])

    def but(self, **changes: Any) -> Self:
        """Return this call with some fields replaced."""
        return msgspec.structs.replace(self, **changes)

    def at_end(self, ending: Ending) -> None:
        """Have `ending` run once when this call is over, however it ends; the last asked runs first."""
        self.endings.append(ending)

    @asynccontextmanager
    async def attempt(self, deployment: Deployment) -> AsyncGenerator["Attempt", None]:
        """Try one deployment. A failed attempt's endings run at once; a good one's with the call's."""
        tried = Tried(deployment.name, deployment.provider, deployment.model, self.clock.now(), price=deployment.price)
        self.receipt.tried.append(tried)
        attempt = Attempt(**{name: getattr(self, name) for name in _CALL_FIELDS}, deployment=deployment, tried=tried)
        try:
            yield attempt
        except BaseException as error:
            tried.error = type(error).__name__
            tried.total_s = self.clock.now() - tried.began_s
            if (rest := attempt.end()) is not None:
                await rest
            raise
        self.endings.extend(attempt.endings)
        msgspec.structs.force_setattr(attempt, "endings", self.endings)  # what is asked for from now on is the call's

    def end(self) -> Coroutine[Any, Any, None] | None:
        """Run the endings, each once, the last asked first; return the rest of them as soon as one has to wait."""
        while self.endings:
            try:
                waiting = self.endings.pop()(self.receipt)
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


_CALL_FIELDS = tuple(name for name in Call.__struct_fields__ if name != "endings")
