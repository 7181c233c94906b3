"""Where a public model name leads: routes, deployments, and how long to wait for them."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from gateway.core.usage import Price

Order = Literal["as_written", "weighted", "least_busy", "fastest", "cheapest"]


class Timeouts(Struct, frozen=True):
    """How long each part of an attempt may take, in seconds."""

    connect_s: float = 5.0
    """Until the connection stands, TLS included."""
    first_token_s: float = 60.0
    """From asking until a stream says its first content. A whole answer is bounded by `total_s` alone."""
    idle_s: float = 60.0
    """Between two pieces of a stream; comments and pings do not count."""
    total_s: float = 600.0
    """The whole call, with all its attempts and waits."""


class Deployment(Struct, frozen=True):
    """A model at one place with one credential."""

    name: str
    """`provider/model`: unique within the gateway, shown in `x-gateway-deployment`."""
    provider: str
    model: str
    """The upstream's own name of the model."""
    weight: int = 1
    timeouts: Timeouts = Timeouts()
    price: Price | None = None
    """From the configuration. `None`: look it up."""
    dearness: float = float("inf")
    """What `cheapest` goes by, known at load: the price of a prompt and a completion token. Infinite: unknown."""


class Route(Struct, frozen=True):
    """A public model name and the deployments that can answer for it."""

    name: str
    """As configured: `fast`, or a pattern such as `openai/*`. Bounded, hence safe as a metric label."""
    deployments: tuple[Deployment, ...]
    order: Order = "as_written"
    fallbacks: tuple[str, ...] = ()
    """Public names to try when no deployment of this route answers."""
    timeouts: Timeouts = Timeouts()
    off: Mapping[str, str] = {}
    """Deployments that cannot be asked as configured, each with the reason."""
