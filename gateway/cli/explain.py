"""`gateway explain`: what would become of a call, and why, without sending anything."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.cli.run import open_config
from gateway.core.call import Call
from gateway.core.errors import GatewayError
from gateway.core.middleware import Explains
from gateway.core.price import dollars
from gateway.core.route import Deployment, Route
from gateway.core.usage import Usage
from gateway.http.admin import admitted
from gateway.http.requests import CHAT, GenerationReader
from gateway.settings.build import Gateway
from gateway.settings.complaints import ConfigError
from gateway.settings.live import Live
from gateway.settings.process import Process
from gateway.wire.estimate import prompt_tokens

PLAIN = Route("", ())
"""A route of which nothing was said."""


@click.command()
@click.argument("body", type=click.File("rb"), required=False)
@click.option("--config", type=click.Path(path_type=Path), help="Default: as `serve` finds it.")
@click.option("--key", default="", help="The caller's key.")
@click.option("--model", help="Explain a call for this model, in place of a BODY.")
def explain(body: Any, config: Path | None, key: str, model: str | None) -> None:
    """Tell what would become of a call with this BODY (a file; - is standard input): who would be asked, in which
    order, at which cost at most, and what would stop it. Nothing is sent to any upstream.
    """
    if body is None and model is None:
        raise click.UsageError("give a BODY or --model")
    raw: bytes = body.read() if body is not None else _minimal(model or "")
    try:
        live = Live(open_config(config), Process())
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    said = asyncio.run(_explained(live, raw, key))
    click.echo(json.dumps(said, indent=2, ensure_ascii=False))
    if "answer" in said:
        sys.exit(1)


def _minimal(model: str) -> bytes:
    return msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "Hello"}]})


async def _explained(live: Live, raw: bytes, key: str) -> dict[str, Any]:
    async with live.looking():
        gateway = live.gateway
        try:
            call = await admitted(gateway, await _read(gateway, raw, key))
            knows = await live.fleet.learn()  # from Redis; this process itself has asked nobody
            return await _explanation(gateway, call, knows_rests=knows)
        except GatewayError as error:
            return {"answer": error.status, "code": error.code, "because": error.message}


async def _read(gateway: Gateway, raw: bytes, key: str) -> Call:
    """Return the call that the edge would make of this request.

    Raises:
        GatewayError: it can make none.
    """
    headers = [(b"content-length", b"%d" % len(raw))]
    if key:
        headers.append((b"authorization", f"Bearer {key}".encode()))

    async def receive() -> Any:
        return {"type": "http.request", "body": raw}

    scope: Any = {"type": "http", "method": "POST", "headers": headers, "extensions": {}}
    call = await GenerationReader(CHAT)(gateway, scope, receive, "explain")
    if call.own is not None:
        await call.own(call)  # raises what is wrong with it
    return call


async def _explanation(gateway: Gateway, call: Call, *, knows_rests: bool) -> dict[str, Any]:
    """Return who would be asked, and what every middleware that can tell would do.

    Args:
        gateway: the configuration.
        call: the call.
        knows_rests: whether anybody has told this process who rests.

    Raises:
        UnknownModel: nobody would be asked.
    """
    said: dict[str, Any] = {"config": gateway.config_id, "principal": call.principal.id, "model": call.model}
    if call.route is None:
        because = f'"{call.model}" is not a model here; {gateway.routes.near(call.model)}'
        return {**said, "answer": 404, "because": because}
    said["route"] = _route(call.route)
    places = gateway.resources.candidates.of(call.route, call.principal)
    said["asked"] = [await _place(gateway, call, place) for place in places]
    said["not_asked"] = _not_asked(call, call.route)
    if not knows_rests:
        because = gateway.resources.limiter.apart or "Redis does not say"
        said["resting"] = f"not known here: {because}, or see `/health`"
    for name, _, room in gateway.rooms:
        if isinstance(room, Explains):
            said[name] = await room.explain(call)
    return said


def _route(route: Route) -> dict[str, Any]:
    """Return what is to be known of a route: who is asked first, and what is not as it is without saying so."""
    said: dict[str, Any] = {"name": route.name, "order": route.order}
    for option in ("midstream", "client_leaves", "context_fallbacks"):
        if getattr(route, option) != getattr(PLAIN, option):
            said[option] = getattr(route, option)
    if route.hedge is not None:
        said["hedge"] = {"percentile": round(route.hedge.percentile * 100, 3), "share": route.hedge.share}
    return said


async def _place(gateway: Gateway, call: Call, place: Deployment) -> dict[str, Any]:
    """Return a deployment with its clocks, what the call may cost there by rule of thumb, and its rest, if known."""
    rest = gateway.resources.fleet.rest(place.name)
    price = await gateway.resources.prices.of(place)
    most = call.body.get("max_completion_tokens") or call.body.get("max_tokens")
    prompt = prompt_tokens(bytes(call.body.fields["messages"]))
    cost = None if price is None or most is None else price.cost_nusd(Usage(prompt, most))
    return {
        "deployment": place.name,
        **({} if rest is None else {"rests_for_s": round(rest.left_s, 1), "rests_in_a_row": rest.strikes}),
        "price": "unknown" if price is None else _price(price.prompt, price.completion),
        "prompt_tokens": prompt,
        "cost_usd_at_most": _most(cost, bounded=most is not None or price is None),
        "timeouts": msgspec.structs.asdict(place.timeouts),
    }


def _price(prompt: int, completion: int) -> str:
    if prompt < 0:
        return "not by tokens"
    return f"${prompt / 10**6:g} prompt, ${max(completion, 0) / 10**6:g} completion, per million tokens"


def _most(cost_nusd: int | None, *, bounded: bool) -> str:
    if cost_nusd is None:
        return "unknown" if bounded else "no bound: the call has no max_tokens"
    return dollars(cost_nusd)


def _not_asked(call: Call, route: Route) -> list[dict[str, str]]:
    """Return the fallbacks that are passed over, and the deployments that are off, each with the reason."""
    skipped = [
        {"fallback": name, "because": f"{call.principal.id} may not use it"}
        for name in route.fallbacks
        if not call.principal.may_use(name)
    ]
    return skipped + [{"deployment": name, "because": why} for name, why in route.off.items()]
