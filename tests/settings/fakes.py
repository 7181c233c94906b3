"""Middlewares and providers of a third party, as small as they come; and vendors, as `gateway.providers.vendors`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from gateway.core.secret import Secret
from gateway.core.units import Duration, Size
from gateway.middleware.base import Options
from gateway.providers.base import Keyed, ProviderOptions


def vendor_names() -> frozenset[str]:
    return frozenset({"groq", "ollama"})


class OpenAIOptions(Keyed, frozen=True, kw_only=True):
    """Any server that speaks OpenAI's dialect."""

    vendor: str = ""
    """Whose quirks to mind."""


class EchoOptions(ProviderOptions, frozen=True, kw_only=True):
    """Answers with what was said."""


class LogOptions(Options, frozen=True, kw_only=True):
    """Logs."""

    format: Literal["auto", "json", "console"] = "auto"
    """How it looks."""


class JwtOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens."""

    secret: Secret
    """What they are signed with."""
    algorithms: list[str] = []


class AuthOptions(Options, frozen=True, kw_only=True):
    """Asks who it is."""

    jwt: JwtOptions | None = None


class LimitsOptions(Options, frozen=True, kw_only=True):
    """Keeps limits."""

    inside: ClassVar[Mapping[str, str]] = {"auth": "limits are a key's, so it must be known whose call this is"}


class CacheOptions(Options, frozen=True, kw_only=True):
    """Remembers."""

    inside: ClassVar[Mapping[str, str]] = {"auth": "or anybody would be answered from it"}

    ttl: Duration = Duration(3600)
    """How long."""
    largest: Size = Size(1000)
    scope: Literal["principal", "shared"] = "principal"


class RetryOptions(Options, frozen=True, kw_only=True):
    """Tries again."""

    inside: ClassVar[Mapping[str, str]] = {"cache": "an answer from the cache needs no attempt"}

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    jitter: float = 0.5
    eager: bool = False


class Picky(Options, frozen=True, kw_only=True):
    """Has rules of its own."""

    low: int
    high: int
    words: Annotated[tuple[str, ...], Meta(max_length=2)] = ()

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low must not be above high")


NotOptions = dict
