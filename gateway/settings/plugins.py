"""The one door by which middlewares and providers come in, ours and third parties'.

A name in gateway.yaml is one of ours, an entry point of the group `gateway.middleware` or `gateway.providers`, or a
place: `package.module:Class`. Only what is configured is imported: the start takes as long as what it uses.
"""

import importlib
from importlib import metadata
from typing import TypeVar

from gateway.middleware.base import Options
from gateway.providers.base import ProviderOptions
from gateway.settings.complaints import near

MIDDLEWARES = {
    "log": "gateway.middleware.log:LogOptions",
    "metrics": "gateway.middleware.metrics:MetricsOptions",
    "auth": "gateway.middleware.auth:AuthOptions",
    "limits": "gateway.middleware.limits:LimitsOptions",
    "cache": "gateway.middleware.cache:CacheOptions",
    "cost": "gateway.middleware.cost:CostOptions",
    "retry": "gateway.middleware.retry:RetryOptions",
}
PROVIDERS = {
    "openai": "gateway.providers.openai:OpenAIOptions",
    "azure": "gateway.providers.azure:AzureOptions",
    "anthropic": "gateway.providers.anthropic:AnthropicOptions",
    "gemini": "gateway.providers.gemini:GeminiOptions",
    "cohere": "gateway.providers.cohere:CohereOptions",
    "ollama": "gateway.providers.ollama:OllamaOptions",
    "bedrock": "gateway.providers.bedrock:BedrockOptions",
    "vertex": "gateway.providers.vertex:VertexOptions",
    "echo": "gateway.providers.echo:EchoOptions",
}
VENDORS = "gateway.providers.vendors"
"""Has `vendor_names()`: the vendors that speak OpenAI's dialect."""

AnyOptions = TypeVar("AnyOptions", Options, ProviderOptions)


class Unusable(Exception):
    """A name that leads to no options class."""

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.cure = cure


def middleware(use: str) -> tuple[str, type[Options]]:
    """Return the middleware that `use` names: its shortest name and its options.

    Raises:
        Unusable: there is none, or it cannot be imported.
    """
    ours = {place: name for name, place in MIDDLEWARES.items()}
    return ours.get(use, use), _find(use, "middleware", "gateway.middleware", MIDDLEWARES, Options)


def provider(kind: str) -> tuple[type[ProviderOptions], str]:
    """Return the options of the provider that `kind` names, and the vendor, if it is one that speaks OpenAI's dialect.

    Raises:
        Unusable: there is none, or it cannot be imported.
    """
    if kind in PROVIDERS:
        return _find(kind, "kind of provider", "gateway.providers", PROVIDERS, ProviderOptions), ""
    vendors = dict.fromkeys(sorted(vendor_names()), PROVIDERS["openai"])
    vendor = kind if kind in vendors else ""
    return _find(kind, "kind of provider", "gateway.providers", PROVIDERS | vendors, ProviderOptions), vendor


def vendor_names() -> frozenset[str]:
    """Return the vendors that need no translator of their own."""
    return importlib.import_module(VENDORS).vendor_names()


def _find(name: str, what: str, group: str, known: dict[str, str], base: type[AnyOptions]) -> type[AnyOptions]:
    place = known.get(name) or (name if ":" in name else _entry_point(name, what, group, known))
    found = _imported(place)
    if not (isinstance(found, type) and issubclass(found, base)) or found is base:
        raise Unusable(f'"{place}" is not a subclass of {base.__module__}.{base.__qualname__}')
    return found


def _entry_point(name: str, what: str, group: str, known: dict[str, str]) -> str:
    points = metadata.entry_points(group=group)
    places = sorted({point.value.partition(" ")[0] for point in points if point.name == name})
    if not places:
        raise Unusable(f'unknown {what} "{name}"', near(name, [*known, *points.names]))
    if len(places) > 1:
        raise Unusable(f'several packages call theirs "{name}"', f"name the place: {' or '.join(places)}")
    return places[0]


def _imported(place: str) -> object:
    module, _, attribute = place.partition(":")
    try:
        found: object = importlib.import_module(module)
    except Exception as error:  # it is someone else's code that runs here: whatever it raises is the cause
        missing = isinstance(error, ModuleNotFoundError)
        cure = "is it installed where the gateway runs?" if missing else ""
        raise Unusable(f'cannot import "{module}": {type(error).__name__}: {error}', cure) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise Unusable(f'"{module}" has no "{attribute}"', near(attribute, _classes(found)))
        found = getattr(found, part)
    return found


def _classes(module: object) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, type) and name.endswith("Options")]
