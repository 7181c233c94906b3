"""Where calls lead, built from the settings: models and their deployments, and what names no model."""

from collections.abc import Mapping

from msgspec.structs import asdict, replace

from gateway.core.price import Price
from gateway.core.route import Deployment, Hedge, Route, Timeouts
from gateway.engine.passages import Passages
from gateway.engine.prices import PriceBook
from gateway.providers.base import LocalProvider, Provider, beside_chat
from gateway.settings.load import Loaded
from gateway.settings.schema import DeploymentSettings, RouteSettings, Settings, ThenSettings, TimeoutSettings


def routes_of(settings: Settings, off: Mapping[str, str], prices: PriceBook) -> tuple[list[Route], dict[str, str]]:
    """Return the routes that can be asked, without the deployments that cannot; and why the others cannot."""
    routes: list[Route] = []
    without: dict[str, str] = {}
    for name, route in settings.models.items():
        deployments = [_deployment(route, deployment) for deployment in route.deployments]
        usable = tuple(deployment for deployment in deployments if deployment.provider not in off)
        if route.order == "cheapest":
            usable = tuple(_compared(deployment, prices.at_once(deployment)) for deployment in usable)
        if usable:
            why_not = {d.name: _off(d, off) for d in deployments if d.provider in off}
            routes.append(_route(name, route, usable, why_not))
        else:
            without[name] = _off(deployments[0], off)
    return routes, without


def passages_of(loaded: Loaded, providers: Mapping[str, Provider | LocalProvider], off: Mapping[str, str]) -> Passages:
    """Return where requests lead that name no model.

    Raises:
        ConfigError: a provider is named that passes nothing on.
    """
    settings, v1, without = loaded.settings, dict[str, Route](), dict[str, str]()
    for path, name in settings.forward.items():
        if name in off:
            without[path] = f"provider {name} is off: {off[name]}"
            continue
        if not _passes_on(providers[name]):
            problem = f'"{name}" passes nothing on but what its models are asked'
            raise loaded.complaint(("forward", path), problem, "name one that speaks OpenAI's dialect")
        v1[path] = _passage(f"v1/{path}", name, TimeoutSettings())
    return Passages(
        v1,
        {
            name: _passage(f"proxy/{name}", f"proxy/{name}", TimeoutSettings(**asdict(it.timeouts)))
            for name, it in settings.proxy.items()
        },
        without,
    )


def forwarders(providers: Mapping[str, Provider | LocalProvider]) -> dict[str, Deployment]:
    """Return the providers that pass on what names no model, each as a place to ask."""
    return {name: Deployment(f"v1/{name}", name, "") for name, it in providers.items() if _passes_on(it)}


def _passes_on(provider: Provider | LocalProvider) -> bool:
    return not isinstance(provider, LocalProvider) and "forward" in beside_chat(provider)


def _passage(name: str, provider: str, said: TimeoutSettings) -> Route:
    """Return the route of requests that name no model: one place, under a name that keys and limits may use."""
    timeouts = _timeouts(said, TimeoutSettings())
    return Route(name, (Deployment(name, provider, "", timeouts=timeouts),), timeouts=timeouts)


def _route(name: str, route: RouteSettings, usable: tuple[Deployment, ...], why_not: Mapping[str, str]) -> Route:
    hedge = route.hedge
    return Route(
        name,
        usable,
        route.order,
        fallbacks=tuple(route.fallbacks),
        context_fallbacks=tuple(route.context_fallbacks),
        midstream=route.midstream,
        client_leaves=route.client_leaves,
        unsupported=route.unsupported,
        hedge=None if hedge is None else Hedge(hedge.percentile / 100, hedge.share),
        timeouts=_timeouts(route.timeouts, TimeoutSettings()),
        off=why_not,
    )


def _off(deployment: Deployment, off: Mapping[str, str]) -> str:
    return f"provider {deployment.provider} is off: {off[deployment.provider]}"


def _compared(deployment: Deployment, price: Price | None) -> Deployment:
    if price is None or price.prompt < 0:
        return deployment
    return replace(deployment, dearness=price.prompt + max(price.completion, 0))


def _deployment(route: RouteSettings, deployment: DeploymentSettings) -> Deployment:
    provider, _, model = deployment.target.partition("/")
    return Deployment(
        name=deployment.target,
        provider=provider,
        model=model,
        label=deployment.target,
        weight=deployment.weight,
        prefill=deployment.prefill,
        timeouts=_timeouts(deployment.timeouts, route.timeouts),
        price=None if deployment.price is None else deployment.price.price(),
        rejects=frozenset(deployment.rejects),
    )


def _timeouts(own: TimeoutSettings, else_from: TimeoutSettings) -> Timeouts:
    """Join a deployment's, its route's and the default clocks."""
    said = {
        f"{clock}_s": float(value)
        for clock in ("connect", "headers", "first_token", "idle", "total")
        if (value := getattr(own, clock) or getattr(else_from, clock)) is not None
    }
    then = {
        clock: value
        for clock in ThenSettings.__struct_fields__
        if (value := getattr(own.then, clock) or getattr(else_from.then, clock)) is not None
    }
    return Timeouts(**said, tokens_per_s=own.tokens_per_second or else_from.tokens_per_second or 0.0, then=then)
