"""The types of gateway.yaml. A docstring under a field is what editors and the documentation show for it."""

import re
from datetime import datetime
from typing import Annotated, Literal, Self

from msgspec import Meta, Struct, field

from gateway.core.principal import Limits
from gateway.core.route import Midstream, Order, Prefill, Then, Unsupported
from gateway.core.secret import Secret
from gateway.core.units import Duration, Size
from gateway.engine.price_options import PriceOptions
from gateway.middleware.base import Options
from gateway.providers.base import HTTP, ProviderOptions

Count = Annotated[int, Meta(ge=1)]


class Moment(str):
    """A date or a time as ISO 8601 writes it. Kept as written; without an offset, it is UTC."""

    __slots__ = ()

    @classmethod
    def parse(cls, said: object) -> Self:
        """Read a date or a time.

        Raises:
            ValueError: it is neither.
        """
        if said != "":
            try:
                datetime.fromisoformat(str(said))
            except ValueError:
                raise ValueError(f"expected a date like 2027-01-31 or 2027-01-31T12:00:00Z, got {said}") from None
        return cls(said)


class ThenSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows when a clock fires before anything was shown: `retry`, `fall_over` or `error`."""

    connect: Then | None = None
    """`retry` when left out: others are asked first, then the same again."""
    headers: Then | None = None
    """`fall_over` when left out: others are asked, and the same again only where there is no other."""
    first_token: Then | None = None
    """`fall_over` when left out."""
    idle: Then | None = None
    """`fall_over` when left out. Of a stream that was begun, the route's `midstream` decides."""
    throughput: Then | None = None
    """`fall_over` when left out. Of a stream that was begun, the route's `midstream` decides."""


class TimeoutSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait. A deployment's beats its route's."""

    connect: Duration | None = None
    """Until the connection stands, TLS included. 5s when left out."""
    headers: Duration | None = None
    """From asking until the answer's head; most send that of a whole answer only with its body. 5m when left out."""
    first_token: Duration | None = None
    """From asking until a stream says its first content. 60s when left out."""
    idle: Duration | None = None
    """Between two pieces of an answer; comments, pings and blank lines do not count. 60s when left out."""
    total: Duration | None = None
    """The whole call, with all its attempts and waits; for routes only. 10m when left out."""
    tokens_per_second: Annotated[float, Meta(gt=0)] | None = None
    """The slowest an answer may be once it has begun: it may fall behind this pace by `idle`. Any pace when left
    out."""
    then: ThenSettings = ThenSettings()
    """What follows when one of them fires."""


class DeploymentSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model at one place. Short form: its target alone."""

    target: str
    """`provider/model`: a name under `providers:`, and the model as the upstream calls it.

    In a route whose name ends in `*`, a `*` here stands for what the client wrote in its place.
    """
    weight: Annotated[int, Meta(ge=0)] = 1
    """Its share among the route's deployments; 0: only when no other is left."""
    timeouts: TimeoutSettings = TimeoutSettings()
    """How long to wait for this deployment, where it differs from its route."""
    prefill: Prefill | None = None
    """Whether it goes on from a last message of the assistant's, for `midstream: continue`: `none`, `plain`, or
    `prefix` (that message says `prefix: true`). As far as is known of the model when left out."""
    price: PriceOptions | None = None
    """What it costs, where the price table does not know or is wrong."""
    rejects: list[str] = []
    """Parameters that it does not take, besides those that are known of the model; the route's `unsupported` says what
    follows."""


class HedgeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a stream's first token is late, ask a second deployment beside the first; who speaks first is heard."""

    percentile: Annotated[float, Meta(gt=0, lt=100)] = 95.0
    """Late is later than so many percent of the deployment's last streams."""
    share: Annotated[float, Meta(gt=0, le=1)] = 0.05
    """The most of the route's streams that may be asked for twice: 0.05 is one in twenty."""


class RouteSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a public model name leads. Short form: one target, `provider/model`."""

    deployments: list[DeploymentSettings] = []
    """Who can answer for it."""
    order: Order = "as_written"
    """Who is asked first: `as_written`; by chance (`weighted`); the `least_busy`, `fastest` or `cheapest`."""
    fallbacks: list[str] = []
    """Other models of this gateway to try, in this order, when no deployment answers."""
    context_fallbacks: list[str] = []
    """Other models of this gateway to try, in this order, when the prompt is too long for this one's."""
    midstream: Midstream = "fail"
    """What follows when a stream breaks that was begun: the client is told (`fail`); another attempt answers while
    nothing but white space was shown (`restart`); another goes on from what was shown (`continue`); or nothing is
    shown before the answer is complete (`buffer`)."""
    client_leaves: Literal["stop", "finish"] = "stop"
    """When the client leaves: `stop` the upstream at once, or `finish` quietly, so that the usage is exact."""
    unsupported: Unsupported = "drop"
    """When a model is known not to take a parameter, such as `temperature`: `drop` it and tell the client, or `refuse`
    the call; one that changes what is asked for (`tools`, `stop`, `response_format`) is never dropped. `pass`: send all
    as it came. What nobody knew is learnt from the upstream's error: with `drop` it is asked once more without."""
    hedge: HedgeSettings | None = None
    """Ask a second deployment when the first is late to speak. Not done when left out."""
    timeouts: TimeoutSettings = TimeoutSettings()
    """How long to wait."""


class KeySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A virtual key: a secret that we issue, and what its owner may do."""

    name: str
    """Names the key in logs and limits; it is no secret."""
    key: Secret
    """The secret itself (better: `${TEAM_A_KEY}`), or `sha256:` and the 64 digits that `sha256sum` prints of it."""
    models: list[str] = field(default_factory=lambda: ["*"])
    """The models it may use; `*` stands for any text."""
    user: str = ""
    """The person it belongs to."""
    team: str = ""
    """The team it belongs to."""
    limits: Limits = Limits()
    """How much it may use."""
    admin: bool = False
    """May reload the configuration (`POST /admin/reload`), and is told by `/health` and `/info` which providers and
    deployments there are, how they are, and what is wrong with a newer configuration."""
    expires: Moment = Moment("")
    """When it stops to work: a date or a time, UTC unless it says otherwise. Never, when left out."""


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the gateway listens."""

    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0`: all of this machine's."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    """The port to listen on; 0: any that is free."""
    max_body: Size = Size(32_000_000)
    """The largest request that is read."""
    max_upload: Size = Size(512_000_000)
    """The largest file, or body of a forwarded request: these are passed on as they come, and never held as a whole."""
    shutdown_delay: Duration = Duration(0)
    """At a stop, how long calls are still taken while `/ready` says 503: what a load balancer needs to notice."""
    drain: Duration = Duration(30)
    """Then, how long calls that are under way may still take."""
    max_calls: Count = 1000
    """How many calls may be under way at a time, in each worker; those that come later wait for a place."""
    queue: Annotated[int, Meta(ge=0)] = 500
    """How many may wait, in each worker; callers take turns. More are refused (503), of the caller with the most."""
    queue_wait: Duration = Duration(5)
    """How long a call may wait before it is refused (503)."""


class ServiceTimeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait for a service. It is asked once; whatever fires is told."""

    connect: Duration | None = None
    """Until the connection stands, TLS included. 5s when left out."""
    headers: Duration | None = None
    """From the request's end until the answer's head. 5m when left out."""
    idle: Duration | None = None
    """Between two pieces of an answer. 60s when left out."""
    total: Duration | None = None
    """All of it, the request's sending included. 10m when left out."""


class ServiceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An HTTP service behind the chain, at `/proxy/{name}/…`: method, path, query and body go on as they come."""

    base_url: str
    """Where it is; what stands behind the name in the request's path is added to it. Nothing else can change it."""
    headers: dict[str, str] = {}
    """Headers that are sent to it with each request, such as its credential. The client's own never are."""
    http: HTTP = "native"
    """How to speak HTTP: `native` (fast, HTTP/1.1), `http2` (many calls share a connection), or `httpx` (slower)."""
    proxy: Secret = Secret()
    """The proxy that leads there: `http://user:password@host:3128`; `none`: none does. As the environment says
    (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) when left out."""
    ca: str = ""
    """A file of authorities (PEM) that are trusted there too, besides certifi's or those of `SSL_CERT_FILE`."""
    max_connections: Annotated[int, Meta(ge=1)] = 1_000
    """The most connections to one host and port, of each worker. Calls beyond wait in line, and their clocks run."""
    timeouts: ServiceTimeouts = ServiceTimeouts()
    """How long to wait."""


class HealthSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a deployment that fails is left in peace, and for how long. It is learnt from calls alone."""

    failures: Count = 5
    """So many in a row, and it rests. A call counts once, and a request that it rejects is no failure."""
    error_rate: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """Or this share of its attempts within `window`."""
    of_at_least: Count = 20
    """Attempts that a share is taken of; of fewer it says nothing."""
    window: Duration = Duration(30)
    """How far back attempts count for the share."""
    rest: Duration = Duration(5)
    """The first rest, with jitter; then one call tries it, and if that fails too it rests twice as long."""
    longest_rest: Duration = Duration(60)
    """The most that a rest grows to."""


class ResponsesSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Responses that clients can follow up (`previous_response_id`), retrieve and delete, whoever answered them."""

    keep: Duration = Duration(30 * 86400)
    """How long a response is kept, unless its client says `store: false`; `0s`: none is. In `database:`; where that is
    empty, a while in the memory of the worker that answered, which no other worker knows of."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of gateway.yaml."""

    server: Server = Server()
    """Where the gateway listens."""
    database: Secret = Secret()
    """`sqlite:///gateway.db` or, for many machines, `postgresql://…`: one row a call, and what is kept for
    clients. Empty: no call is recorded."""
    redis: Secret = Secret()
    """`redis://…`: shared by all workers and machines for limits and cached answers. Empty: this process's memory."""
    providers: dict[str, ProviderOptions] = {}
    """Who can be asked, each by a name of your choice. `kind` says which translator it is; it defaults to the name."""
    models: dict[str, RouteSettings] = {}
    """The models that clients may ask for. A name may end in `*`, which stands for any text."""
    forward: dict[str, str] = {}
    """What else is asked for under `/v1`, and the provider that answers it: `files: openai`. `"*"`: all the rest."""
    proxy: dict[str, ServiceSettings] = {}
    """HTTP services behind the chain, each at `/proxy/{name}/…`."""
    health: HealthSettings = HealthSettings()
    """When a deployment that fails is left in peace."""
    responses: ResponsesSettings = ResponsesSettings()
    """What is kept of answers on the Responses surface."""
    keys: list[KeySettings] = []
    """Virtual keys. They need `auth` in the chain."""
    chain: list[Options] = []
    """What each call passes through, outermost first; `use` says what, its options stand beside it."""


def is_database(url: str) -> bool:
    """Tell whether `url` names a database that can be used."""
    return re.fullmatch(r"sqlite:///.+|postgres(ql)?://.+", url) is not None


def is_redis(url: str) -> bool:
    """Tell whether `url` names a Redis server."""
    return re.fullmatch(r"(rediss?|unix)://.+", url) is not None
