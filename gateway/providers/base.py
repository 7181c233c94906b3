"""What a provider is: a translator of one dialect that never opens a socket."""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from msgspec import Meta, Struct

from gateway.core.call import Attempt, Operation, Surface, Upload
from gateway.core.errors import UpstreamFailed
from gateway.core.model import NOTHING_KNOWN, ModelFacts
from gateway.core.reply import Chunk
from gateway.core.route import Prefill
from gateway.core.secret import Secret
from gateway.core.units import Duration
from gateway.core.usage import Usage


class Request(Struct, frozen=True):
    """An HTTP request for an upstream."""

    url: str
    body: bytes
    headers: dict[str, str]
    """Lower-case names. `host`, `content-length`, `user-agent` and `traceparent` are added on the way out."""
    method: str = "POST"
    upload: Upload | None = None
    """The body, where it is passed on as it comes; `body` is empty then."""


class Reader(Protocol):
    """Turns the bytes of one streamed answer into chunks. Made anew for each attempt, so it may remember."""

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that `data` completes, however the bytes were cut.

        Raises:
            UpstreamFailed: the upstream says, within the stream, that it failed.
        """
        ...

    def end(self) -> list[Chunk]:
        """Return what the end of the stream completes, however it ended: of an answer that is `complete`, always.

        Raises:
            Broke: the stream ended before the answer did.
        """
        ...

    @property
    def complete(self) -> bool:
        """The answer is whole: all of it has its reason to end. What it used, or a last frame, may still follow."""
        ...

    @property
    def finished(self) -> bool:
        """Nothing more is to be waited for: the answer's last frame was seen, or it has failed; `end` tells which."""
        ...


class Provider(Protocol):
    """Translates between a client's surface and one upstream's dialect."""

    def request(self, attempt: Attempt) -> Request:
        """Return what to send.

        Raises:
            BadRequest: the upstream's dialect has no way to say this.
        """
        ...

    def reader(self, attempt: Attempt) -> Reader:
        """Return a reader for a streamed answer."""
        ...

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer.

        Raises:
            UpstreamFailed: it is none, whatever its status said.
        """
        ...

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an upstream's error means; `headers` have lower-case names."""
        ...


class Grant(Protocol):
    """A credential that is not sent to the upstream itself: access tokens are asked for with it (OAuth 2.0, RFC 6749).

    The engine asks, keeps the token and renews it, and sends it as `authorization: Bearer …` with each request. Grants
    that are equal share their tokens, so a grant is frozen, and its secrets are `Secret`s.
    """

    def request(self, wall_s: float) -> Request:
        """Return what to ask for a token with; `wall_s` is now, in seconds since 1970."""
        ...

    def __hash__(self) -> int:
        """By value."""
        ...


def grant_of(provider: Provider) -> Grant | None:
    """Return the grant whose tokens a provider's requests need: its `grant`; `None`: they carry their credential."""
    return getattr(provider, "grant", None)


AProvider = TypeVar("AProvider", "Provider", "LocalProvider")


class ListedModel(Struct, frozen=True):
    """A model of an upstream's own list."""

    id: str
    """As a deployment's target names it, behind the provider."""
    facts: ModelFacts = NOTHING_KNOWN
    """What the list says of it."""


class ModelPage(Struct, frozen=True):
    """A page of an upstream's list of models."""

    models: list[ListedModel]
    next: str = ""
    """What to ask the next page by; empty: this is the last one."""


@runtime_checkable
class Lister(Protocol):
    """A provider whose upstream can be asked which models it has."""

    def list_request(self, page: str, wall_s: float) -> Request:
        """Return what to send for a page of the list.

        Args:
            page: what the page before it said is `next`; empty: the first.
            wall_s: now, in seconds since 1970, for those whose requests are signed.
        """
        ...

    def listed(self, body: bytes) -> ModelPage:
        """Return what a page says.

        Raises:
            Unreachable: it is no list of models.
        """
        ...

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an upstream's error means."""
        ...


@runtime_checkable
class CountsEarly(Protocol):
    """A reader, or the decoder in it, whose upstream says before the answer's end what it has used by then."""

    @property
    def so_far(self) -> Usage | None:
        """The counts by now; `None`: none were said yet."""
        ...


def used_so_far(reader: object) -> Usage | None:
    """Return what an answer has used by now, as far as its upstream has said so."""
    return reader.so_far if isinstance(reader, CountsEarly) else None


CHAT_ONLY: frozenset[Surface] = frozenset({"chat"})


Surfaces = frozenset[Surface] | Callable[[str], frozenset[Surface]]


def speaks(provider: Provider, model: str) -> frozenset[Surface]:
    """Return the client surfaces whose bytes a provider passes on to `model`.

    They are its `surfaces`, which may be a function of the model; chat completions if it has none. A client of another
    surface is answered too: what it asks is translated (`bridge`).
    """
    surfaces: Surfaces = getattr(provider, "surfaces", CHAT_ONLY)
    return surfaces(model) if callable(surfaces) else surfaces


def beside_chat(provider: AProvider) -> Mapping[Operation, AProvider]:
    """Return who does what a provider does besides generating answers: its `beside_chat`; nobody if it has none.

    Each is a provider for one operation. `forward` is that of whatever goes on as it came.
    """
    return getattr(provider, "beside_chat", {})


@runtime_checkable
class LocalProvider(Protocol):
    """A provider that answers by itself, without an upstream. Its `models`, if it has any, are listed."""

    def answer(self, attempt: Attempt) -> list[Chunk]:
        """Return the answer: its chunks, or the one chunk of a whole answer."""
        ...


@runtime_checkable
class KeepsResponses(Protocol):
    """A provider whose upstream may keep responses, so that it can be asked for them again."""

    @property
    def keeps_responses(self) -> bool:
        """Whether it does."""
        ...

    def used_in(self, response: bytes) -> Usage | None:
        """Return what a response used; `None`: it does not say."""
        ...

    def kept_request(self, attempt: Attempt, method: str, path: str) -> Request:
        """Return what to ask: `GET /resp_1`, `DELETE /resp_1` or `POST /resp_1/cancel`, below where they are made."""
        ...

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an upstream's error means."""
        ...


HTTP = Literal["native", "http2", "httpx"]
"""How HTTP is spoken."""


class ProviderOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of one entry under `providers:`. A subclass's fields are what may be written there.

    A third party's provider is a subclass of this too, named by an entry point of the group `gateway.providers`
    or by `kind: package.module:Class`.
    """

    kind: str = ""
    """Which translator this is; the entry's own name when left out."""

    documents: ClassVar[frozenset[str]] = frozenset()
    """Its secrets that are no line to be sent, but a text such as JSON, or the path of one."""

    def off(self) -> str:
        """Return why this provider cannot be used as configured (`OPENAI_API_KEY is not set`); empty: it can."""
        return ""

    def price_table(self) -> str:
        """Return what the price table (genai-prices) calls the vendor; empty: it has no prices for this provider."""
        return ""

    def known_as(self) -> str:
        """Return by which name `config/models.yaml` knows whoever is asked: its kind, or its vendor; empty: by none."""
        return self.kind

    def facts(self, model: str) -> ModelFacts:
        """Return what is known of `model` where its upstream's list does not say."""
        return NOTHING_KNOWN

    def prefill(self, model: str) -> Prefill:
        """Return whether `model` is known to go on from a last message of the assistant's."""
        return "none"

    def build(self, name: str) -> Provider | LocalProvider:
        """Make the provider that the configuration calls `name`."""
        raise NotImplementedError


class Keyed(ProviderOptions, frozen=True, kw_only=True):
    """Options of a provider that needs a credential and has an address."""

    api_key: Secret = Secret()
    """The credential. Empty: the provider is off, and so are the routes that only it could answer."""
    base_url: str = ""
    """Where the API is; the vendor's own address when left out."""
    headers: dict[str, str] = {}
    """More headers for each request, such as an organisation."""
    traceparent: bool = False
    """Send the W3C `traceparent` on to this upstream. It tells a third party your trace ids."""
    http: HTTP = "native"
    """How to speak HTTP: `native` (fast, HTTP/1.1), `http2` (many calls share a connection), or `httpx` (slower)."""
    proxy: Secret = Secret()
    """The proxy that leads there: `http://user:password@host:3128`; `none`: none does. As the environment says
    (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) when left out."""
    ca: str = ""
    """A file of authorities (PEM) that are trusted there too, besides certifi's or those of `SSL_CERT_FILE`."""
    max_connections: Annotated[int, Meta(ge=1)] = 1_000
    """The most connections to one host and port, of each worker. Calls beyond wait in line, and their clocks run."""
    discover: Duration | None = None
    """Ask the upstream for its list of models at the start and so often from then on, so that `/v1/models` has the real
    names that a pattern such as `openai/*` stands for, and what the list tells of them. Not asked when left out."""

    key_variable: ClassVar[str] = ""
    """The usual variable of the key, for those who have not set it."""

    def off(self) -> str:
        """It needs a key."""
        which = f"; set {self.key_variable}" if self.key_variable else ""
        return "" if self.api_key else f"its api_key is empty{which}"
