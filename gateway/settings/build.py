"""Settings become objects: the one place where everything meets."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from gateway.core.call import ASKING, Call, Operation
from gateway.core.middleware import Handler, Middleware, chain
from gateway.core.principal import Principal
from gateway.core.receipt import Receipt
from gateway.core.reply import Reply
from gateway.core.resources import Clock, Objects, Resources, WithoutRedis
from gateway.core.route import Prefill
from gateway.engine.discovery import Source
from gateway.engine.engine import Engine
from gateway.engine.fits import KnownFits
from gateway.engine.health import Rules
from gateway.engine.kept_responses import KeptResponses
from gateway.engine.outgoing import head_of, target_of
from gateway.engine.passages import Passages
from gateway.engine.prices import PriceBook
from gateway.engine.routes import RouteCandidates, RouteTable
from gateway.engine.upstream import Place, Upstream
from gateway.middleware.base import Options
from gateway.middleware.cache import Cache, CacheOptions
from gateway.middleware.cost import CostOptions
from gateway.middleware.limits import Ahead, Limits, LimitsOptions
from gateway.middleware.owners import Owners
from gateway.middleware.retry import Retry, RetryOptions
from gateway.middleware.turns import Turns
from gateway.providers.base import (
    KeepsResponses,
    Keyed,
    Lister,
    LocalProvider,
    Provider,
    ProviderOptions,
    Request,
    beside_chat,
    grant_of,
)
from gateway.providers.beside import AsItCame, Service
from gateway.services.models import Models
from gateway.settings.build_models import check_discovery, models_of, sources_of
from gateway.settings.build_routes import forwarders, passages_of, routes_of
from gateway.settings.complaints import OptionError
from gateway.settings.keys import VirtualKey, VirtualKeys, digest_of
from gateway.settings.load import Loaded
from gateway.settings.process import Process
from gateway.settings.reach import Reach, led_astray
from gateway.settings.schema import (
    HealthSettings,
    KeySettings,
    Server,
    Settings,
)
from gateway.store.recorder import Recorder

if TYPE_CHECKING:
    from gateway.kv.redis import RedisStore

ELSEWHERE = "https://upstream.invalid"
"""Stands for an address that only a provider knows."""
OPERATIONS: tuple[Operation, ...] = (*sorted(ASKING), "count", "models", "responses", "admin", "invalid")
SPENDING = (LimitsOptions, CacheOptions, CostOptions, RetryOptions)
"""Who counts, remembers or spends: has to see the whole of what is asked, so `Turns` stands before the first of them,
and behind whoever finds out whose call it is."""
ONE_TRY = RetryOptions(attempts=1)
"""What a chain without `retry` does: someone has to choose a deployment."""


class Gateway(Struct, frozen=True):
    """One configuration, ready to serve."""

    config_id: str
    """The first digits of its text's SHA-256: the same text, the same id, on every machine."""
    server: Server
    engine: Engine
    routes: RouteTable
    clock: Clock
    resources: Resources
    store: "RedisStore | None"
    """Where limits and answers are shared, if they are."""
    without_redis: WithoutRedis
    """What limits do while it is gone."""
    cache_bytes: int
    """What cached answers may take of this process's memory."""
    rules: Rules
    """When a deployment rests."""
    prices: PriceBook
    responses: KeptResponses
    """Answers about responses that are kept."""
    kept_in: Literal["nothing", "memory", "database"]
    """Where they are."""
    recorder: Recorder | None
    """Writes every chat call down. `None`: no database is configured."""
    rooms: "list[tuple[str, Options, Middleware]]"
    """The chain, outermost first: what each is called in it, its options, itself."""
    has_auth: bool
    """Callers are asked who they are."""
    passages: Passages
    """Where requests lead that name no model."""
    models: Models
    """Answers what is asked under `/v1/models`."""
    sources: dict[str, Source]
    """The providers that are to be asked for their lists of models, by their names."""
    providers_on: list[str]
    providers_off: dict[str, str]
    """Those that cannot be used as configured, each with the reason."""
    astray: dict[str, str]
    """Providers and services to whom a proxy of the environment should lead and cannot, each with the reason."""

    @property
    def chain(self) -> list[str]:
        """What the middlewares are called, outermost first."""
        return [name for name, _, _ in self.rooms]


def build(loaded: Loaded, process: Process) -> Gateway:
    """Make everything that `loaded` asks for.

    Raises:
        ConfigError: parts that are right by themselves do not go together.
    """
    settings = loaded.settings
    providers, off = _providers(loaded)
    prices = _price_book(settings, providers, process)
    config_id = hashlib.sha256(loaded.text.encode()).hexdigest()[:12]
    recorder, objects = _recorder(loaded, process), _objects(loaded, process)
    table = RouteTable(*routes_of(settings, off, prices))
    store = _store(loaded, process)
    resources = Resources(
        clock=process.clock,
        limiter=store or process.limiter,
        answers=store or process.answers,
        keys=VirtualKeys([_key(key) for key in settings.keys], process.clock),
        prices=prices,
        candidates=RouteCandidates(table, process.fleet, partial(_prefill, settings)),
        routes=table,
        fleet=process.fleet,
        objects=objects,
        lines=process.lines,
        key_sets=process.key_sets,
        fits=KnownFits(process.lessons, partial(_known_as, settings)),
    )
    rooms = [_room(loaded, i, options, resources) for i, options in enumerate(settings.chain)]
    _look_ahead(rooms, store)
    limits = [options for options in settings.chain if isinstance(options, LimitsOptions)]
    caches = [options.max_bytes for options in settings.chain if isinstance(options, CacheOptions)]
    places = {name: _place(loaded, name, it, process) for name, it in providers.items()}
    upstream = Upstream(places | _services(loaded, process))
    keepers = {name for name, it in providers.items() if isinstance(it, KeepsResponses) and it.keeps_responses}
    turns = Turns(objects, settings.responses.keep, keepers)
    owners = Owners(objects, forwarders(providers))
    return Gateway(
        config_id=config_id,
        server=settings.server,
        engine=Engine(
            {operation: _handler(operation, rooms, upstream, turns, owners, resources) for operation in OPERATIONS},
            partial(_record, recorder, config_id) if recorder is not None else None,
        ),
        routes=table,
        clock=process.clock,
        resources=resources,
        store=store,
        without_redis=limits[0].without_redis if limits else "local",
        cache_bytes=caches[0] if caches else 0,
        rules=_rules(settings.health),
        prices=prices,
        responses=KeptResponses(objects, places, table),
        kept_in="nothing" if not settings.responses.keep else "database" if settings.database else "memory",
        recorder=recorder,
        rooms=rooms,
        has_auth="auth" in loaded.uses,
        passages=passages_of(loaded, providers, off),
        models=models_of(settings, providers, off, table=table, prices=prices, process=process),
        sources=sources_of(settings, providers, process),
        providers_on=list(providers),
        providers_off=off,
        astray=led_astray(_led_by_environment(settings, providers, process.clock), process.proxies),
    )


def _record(recorder: Recorder, config_id: str, call: Call, receipt: Receipt) -> None:
    """Write a call down that asked for a model, now or, for what was made in the background, before."""
    if call.operation != "responses" or receipt.usage is not None:
        recorder.take(config_id, call, receipt)


def _handler(
    operation: Operation,
    rooms: "Sequence[tuple[str, Options, Middleware]]",
    upstream: Upstream,
    turns: Turns,
    owners: Owners,
    resources: Resources,
) -> Handler:
    """Return the chain of those who have a say in `operation`."""
    having = [(options, room) for _, options, room in rooms if operation in options.operations]
    mine = [room for _, room in having]
    if operation not in ASKING:
        return chain(mine, _own)
    if operation == "chat":
        spending = (i for i, (options, _) in enumerate(having) if isinstance(options, SPENDING))
        mine.insert(next(spending, len(mine)), turns)
    if operation == "forward":
        mine.append(owners)
    if not any(isinstance(room, Retry) for room in mine):
        mine.append(ONE_TRY.build(resources))
    return chain(mine, upstream)


async def _own(call: Call) -> Reply:
    """The last handler where no upstream is asked."""
    assert call.own is not None, "a call that no upstream answers carries its answer"
    return await call.own(call)


def _room(loaded: Loaded, i: int, options: Options, resources: Resources) -> "tuple[str, Options, Middleware]":
    try:
        return loaded.uses[i], options, options.build(resources)
    except ValueError as error:
        raise loaded.complaint(("chain", i), str(error)) from None
    except Exception as error:
        problem = f'"{loaded.uses[i]}" cannot be built: {_said(error)}'
        raise loaded.complaint(("chain", i), problem) from error


def _look_ahead(rooms: "Sequence[tuple[str, Options, Middleware]]", store: "RedisStore | None") -> None:
    """Have limits look up what the cache behind them would: Redis is asked once for both."""
    match [room for _, _, room in rooms if isinstance(room, Limits | Cache)]:
        case [Limits() as limits, Cache() as cache] if store is not None:
            limits.ahead = Ahead(store, cache.key_ahead)
        case _:
            pass


def _store(loaded: Loaded, process: Process) -> "RedisStore | None":
    url = loaded.settings.redis.reveal()
    try:
        return process.redis(url) if url else None
    except ValueError as error:
        raise loaded.complaint(("redis",), str(error)) from None


def _recorder(loaded: Loaded, process: Process) -> Recorder | None:
    url = loaded.settings.database.reveal()
    try:
        return process.recorder(url) if url else None
    except ValueError as error:
        raise loaded.complaint(("database",), str(error)) from None


def _objects(loaded: Loaded, process: Process) -> Objects:
    url = loaded.settings.database.reveal()
    try:
        return process.objects(url)
    except ValueError as error:
        raise loaded.complaint(("database",), str(error)) from None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _providers(loaded: Loaded) -> tuple[dict[str, Provider | LocalProvider], dict[str, str]]:
    """Return the providers that can be used, and why the others cannot."""
    on: dict[str, Provider | LocalProvider] = {}
    off: dict[str, str] = {}
    for name, options in loaded.settings.providers.items():
        if reason := options.off():
            off[name] = reason
            continue
        try:
            on[name] = options.build(name)
            if isinstance(options, Keyed):
                _check_url(options.base_url or "https://localhost", options.headers)
                check_discovery(options, on[name])
        except ValueError as error:
            raise loaded.about(("providers", name), error) from None
        except Exception as error:
            raise loaded.complaint(("providers", name), f"cannot be built: {_said(error)}") from error
    return on, off


def _check_url(base_url: str, headers: Mapping[str, str]) -> None:
    """Refuse what no request could be sent with.

    Raises:
        OptionError: the base_url is none that a path can be added to, or a header cannot be one.
    """
    if re.search("[?#]", base_url):
        raise OptionError(
            "base_url", "a base_url ends with a path, without ? and #: the paths of requests are added to it"
        )
    try:
        target = target_of(base_url)
    except ValueError as error:
        raise OptionError("base_url", str(error)) from None
    lowered = {name.lower(): value for name, value in headers.items()}
    try:
        head_of(target, Request(base_url, b"", lowered))
    except ValueError as error:
        raise OptionError("headers", str(error)) from None


def _place(loaded: Loaded, name: str, provider: Provider | LocalProvider, process: Process) -> Place | LocalProvider:
    if isinstance(provider, LocalProvider):
        return provider
    options = loaded.settings.providers[name]
    keyed = options if isinstance(options, Keyed) else None
    try:
        reach = Reach() if keyed is None else Reach.of(keyed)
        transport = process.transport(reach)
    except ValueError as error:
        raise loaded.about(("providers", name), error) from None
    grant = grant_of(provider)
    access = None if grant is None else process.access(grant, reach)
    return Place(provider, transport, keyed is not None and keyed.traceparent, beside_chat(provider), access)


def _services(loaded: Loaded, process: Process) -> dict[str, Place | LocalProvider]:
    """Return the places of the services behind `/proxy`."""
    places: dict[str, Place | LocalProvider] = {}
    for name, service in loaded.settings.proxy.items():
        headers = {header.lower(): value for header, value in service.headers.items()}
        try:
            _check_url(service.base_url, headers)
            transport = process.transport(Reach.of(service))
        except ValueError as error:
            raise loaded.about(("proxy", name), error) from None
        as_it_came = AsItCame(Service(service.base_url.rstrip("/"), headers))
        places[f"proxy/{name}"] = Place(as_it_came, transport, beside_chat={"forward": as_it_came})
    return places


def _led_by_environment(
    settings: Settings, providers: Mapping[str, Provider | LocalProvider], clock: Clock
) -> dict[str, str]:
    """Return the URLs of those who have not said by which proxy they are reached."""
    urls: dict[str, str] = {}
    for name, provider in providers.items():
        options = settings.providers[name]
        if isinstance(options, Keyed) and not isinstance(provider, LocalProvider) and not options.proxy:
            listing = provider.list_request("", clock.wall()).url if isinstance(provider, Lister) else ELSEWHERE
            urls[name] = options.base_url or listing
    return urls | {f"proxy/{name}": it.base_url for name, it in settings.proxy.items() if not it.proxy}


def _price_book(settings: Settings, providers: Mapping[str, Provider | LocalProvider], process: Process) -> PriceBook:
    options: dict[str, ProviderOptions] = settings.providers
    return PriceBook(
        process.clock,
        overrides=process.price_overrides,
        vendors={name: table for name in providers if (table := options[name].price_table())},
        free=frozenset(name for name, provider in providers.items() if isinstance(provider, LocalProvider)),
    )


def _key(key: KeySettings) -> VirtualKey:
    principal = Principal(
        key.name, user=key.user, team=key.team, models=tuple(key.models), limits=key.limits, admin=key.admin
    )
    return VirtualKey(digest_of(key.key.reveal()), principal, _moment_s(key.expires) if key.expires else None)


def _moment_s(said: str) -> float:
    """Return an ISO date or time as seconds since 1970; UTC unless it says otherwise."""
    moment = datetime.fromisoformat(said)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _known_as(settings: Settings, provider: str) -> str:
    options = settings.providers.get(provider)
    return "" if options is None else options.known_as()  # a service behind `/proxy` has no models


def _prefill(settings: Settings, provider: str, model: str) -> Prefill:
    return settings.providers[provider].prefill(model)


def _rules(said: HealthSettings) -> Rules:
    return Rules(
        failures=said.failures,
        error_rate=said.error_rate,
        of_at_least=said.of_at_least,
        window_s=said.window,
        rest_s=said.rest,
        longest_rest_s=said.longest_rest,
    )
