"""Where a public model name leads: routes, deployments, and how long to wait for them."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from gateway.core.price import Price

Order = Literal["as_written", "weighted", "least_busy", "fastest", "cheapest"]

ClockName = Literal["connect", "headers", "first_token", "idle", "throughput", "total"]

Then = Literal["retry", "fall_over", "error"]
"""What follows when a clock fires before anything was shown. `retry`: others first, then the same again. `fall_over`:
others only; the same again where there is no other. `error`: the client is told."""

Midstream = Literal["fail", "restart", "continue", "buffer"]
"""What follows when a stream breaks that the client has begun to see."""

Unsupported = Literal["drop", "refuse", "pass"]
"""What follows when a model is known not to take a parameter. `drop`: it is left out, and the client is told, where the
answer is still the one that was asked for; else, and with `refuse`, we refuse the call. `pass`: it is sent as it came,
whatever is known, and the upstream's error is passed on."""

Prefill = Literal["none", "plain", "prefix"]
"""Whether a model goes on from a last message of the assistant's: it does not; it does; if that says `prefix: true`."""


class Timeouts(Struct, frozen=True):
    """How long each part of an attempt may take, in seconds."""

    connect_s: float = 5.0
    """Until the connection stands, TLS included."""
    headers_s: float = 300.0
    """From asking until the answer's head. Most send that of a whole answer only with its body, so it is long."""
    first_token_s: float = 60.0
    """From asking until a stream says its first content. A whole answer has no first token."""
    idle_s: float = 60.0
    """Between two pieces of an answer's content; comments, pings and blank lines do not count."""
    total_s: float = 600.0
    """The whole call, with all its attempts and waits."""
    tokens_per_s: float = 0.0
    """The slowest an answer may be once it has begun: it may fall behind this pace by `idle_s`. 0: as it likes."""
    then: Mapping[str, Then] = {}
    """What follows when a clock fires, where it is not `then_after`'s."""

    def then_after(self, clock: str) -> Then:
        """Return what follows when `clock` fires. A connection that failed may stand the next time; silence repeats."""
        return self.then.get(clock, "retry" if clock == "connect" else "fall_over")


class Deployment(Struct, frozen=True):
    """A model at one place with one credential."""

    name: str
    """`provider/model`: unique within the gateway, shown in `x-gateway-deployment`."""
    provider: str
    model: str
    """The upstream's own name of the model."""
    label: str = ""
    """The target as it is configured, `*` included: bounded, hence safe as a metric label."""
    weight: int = 1
    timeouts: Timeouts = Timeouts()
    prefill: Prefill | None = None
    """From the configuration. `None`: as it is known of the provider's model."""
    price: Price | None = None
    """From the configuration. `None`: look it up."""
    rejects: frozenset[str] = frozenset()
    """From the configuration: parameters that it does not take, besides those that are known."""
    dearness: float = float("inf")
    """What `cheapest` goes by, known at load: the price of a prompt and a completion token. Infinite: unknown."""


class Hedge(Struct, frozen=True):
    """When a stream's first token is late, ask a second deployment, and take whoever speaks first."""

    percentile: float
    """Late is later than this share of the deployment's last streams, 0 to 1."""
    share: float
    """At most this share of the route's streams may be asked twice."""


ALL = "*"
"""In place of a path under `/v1`: every one that nobody else is named for."""


class Route(Struct, frozen=True):
    """A public model name and the deployments that can answer for it."""

    name: str
    """As configured: `fast`, or a pattern such as `openai/*`. Bounded, hence safe as a metric label."""
    deployments: tuple[Deployment, ...]
    order: Order = "as_written"
    fallbacks: tuple[str, ...] = ()
    """Public names to try when no deployment of this route answers."""
    context_fallbacks: tuple[str, ...] = ()
    """Public names to try when a prompt is too long for this route's models."""
    midstream: Midstream = "fail"
    client_leaves: Literal["stop", "finish"] = "stop"
    """When the client leaves: `stop` its upstream, or read the answer to its end, so that its usage is exact."""
    unsupported: Unsupported = "drop"
    """What follows when a model is known not to take a parameter."""
    hedge: Hedge | None = None
    timeouts: Timeouts = Timeouts()
    off: Mapping[str, str] = {}
    """Deployments that cannot be asked as configured, each with the reason."""
