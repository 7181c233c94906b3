"""`gateway explain`: what would happen to a call, and why, without sending anything."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.cli.serve import default_config
from gateway.core.call import Call
from gateway.core.errors import GatewayError
from gateway.core.principal import Principal
from gateway.core.reply import Chunk, Reply
from gateway.core.route import Deployment
from gateway.core.usage import Usage, dollars
from gateway.http.requests import read_chat
from gateway.middleware.cache import Cache
from gateway.middleware.limits import Limits
from gateway.middleware.retry import Retry
from gateway.settings.build import Gateway
from gateway.settings.complaints import ConfigError
from gateway.settings.live import File, Live
from gateway.settings.process import Process
from gateway.wire.estimate import prompt_tokens

EXPLAINED = ("auth",)


@click.command()
@click.argument("body", type=click.File("rb"), required=False)
@click.option("--config", type=click.Path(path_type=Path), help="Default: as `serve` finds it.")
@click.option("--key", default="", help="The caller's key.")
@click.option("--model", help="Ask for this model, in place of a BODY.")
def explain(body: Any, config: Path | None, key: str, model: str | None) -> None:
    """Tell what would become of a call with this BODY (a file; - is standard input): who would be asked, in which
    order, at which cost at most, and what would stop it. Nothing is sent to any upstream.
    """
    if body is None and model is None:
        raise click.UsageError("give a BODY or --model")
    raw: bytes = body.read() if body is not None else _minimal(model or "")
    try:
        live = Live(File(config or default_config()), Process())
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(asyncio.run(_explained(live, raw, key)), indent=2))


def _minimal(model: str) -> bytes:
    return msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "Hello"}]})


async def _explained(live: Live, raw: bytes, key: str) -> dict[str, Any]:
    async with live.running():
        gateway = live.gateway
        call = await _read(gateway, raw, key)
        try:
            call = await _admitted(gateway, call)
        except GatewayError as error:
            return {"answer": error.status, "because": error.message, "code": error.code}
        return await explanation(gateway, call)


async def _read(gateway: Gateway, raw: bytes, key: str) -> Call:
    """Return the call that the edge would make of this request."""
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []

    async def receive() -> Any:
        return {"type": "http.request", "body": raw}

    scope: Any = {"type": "http", "method": "POST", "headers": headers}
    return await read_chat(gateway, scope, receive, "explain")
