"""What is asked about models: built from the settings, and the providers that are to be asked for their lists."""

from collections.abc import Mapping

from gateway.engine.discovery import Source
from gateway.engine.prices import PriceBook
from gateway.engine.routes import RouteTable
from gateway.providers.base import Keyed, Lister, LocalProvider, Provider
from gateway.services.catalogue import Catalogue
from gateway.services.models import Models
from gateway.settings.complaints import OptionError
from gateway.settings.process import Process
from gateway.settings.reach import Reach
from gateway.settings.schema import Settings

LEAST_DISCOVER_S = 1.0
"""Lists change by the week."""


def models_of(
    settings: Settings,
    providers: Mapping[str, Provider | LocalProvider],
    off: Mapping[str, str],
    *,
    table: RouteTable,
    prices: PriceBook,
    process: Process,
) -> Models:
    """Return what answers questions about models."""
    local = {name: getattr(it, "models", ()) for name, it in providers.items() if isinstance(it, LocalProvider)}
    discovery, clock = process.discovery, process.clock
    catalogue = Catalogue(table, settings.providers, local, discovery=discovery, prices=prices, clock=clock)
    return Models(catalogue, table, settings.providers, off, discovery=discovery, fleet=process.fleet, clock=clock)


def sources_of(
    settings: Settings, providers: Mapping[str, Provider | LocalProvider], process: Process
) -> dict[str, Source]:
    """Return how to ask those providers for their lists of models that are to be asked, by their names."""
    sources: dict[str, Source] = {}
    for name, provider in providers.items():
        options = settings.providers[name]
        if isinstance(options, Keyed) and options.discover is not None:
            assert isinstance(provider, Lister), "it was checked"
            sources[name] = Source(options, provider, process.transport(Reach.of(options)), float(options.discover))
    return sources


def check_discovery(options: Keyed, provider: Provider | LocalProvider) -> None:
    """Refuse to ask a provider for its list of models that has none, or all the time.

    Raises:
        OptionError: it is so.
    """
    if options.discover is not None and not isinstance(provider, Lister):
        raise OptionError("discover", "this provider has no list of models; name them under `models:`")
    if options.discover is not None and options.discover < LEAST_DISCOVER_S:
        raise OptionError("discover", f"expected at least {LEAST_DISCOVER_S:g}s, such as 1h")
