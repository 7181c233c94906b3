"""One model at several scripted upstreams, with the receipts of its calls: what rescues and hedges are tried on."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from gateway.core.receipt import Receipt, Tried
from gateway.middleware.base import Options
from gateway.wire.openai import DONE
from tests.script import MOST_S, ScriptedUpstream
from tests.serving import Serving, serving

PRICES = {"a": (1, 2), "b": (10, 20), "c": (100, 200)}
"""Dollars per million prompt and completion tokens: a sum tells whose tokens are in it."""
RETRY = {"use": "retry", "attempts": 3, "first_wait": "10ms", "longest_wait": "50ms"}
PATIENT = {"failures": 100_000, "of_at_least": 100_000}
"""Nothing rests where rests are not the subject."""

receipts: list[Receipt] = []
"""Of all calls that are over, since the last gateway was started."""


class KeepOptions(Options, frozen=True, kw_only=True):
    """Keeps receipts."""

    def build(self, resources: Any) -> "Keep":
        return Keep()


class Keep:
    async def __call__(self, call: Any, next: Any) -> Any:
        call.at_end(receipts.append)
        return await next(call)


class Places:
    """The gateway, and its upstreams by their names."""

    def __init__(self, gateway: Serving, upstreams: dict[str, ScriptedUpstream]) -> None:
        self.gateway = gateway
        self.upstreams = upstreams

    def __getattr__(self, name: str) -> ScriptedUpstream:
        return self.upstreams[name]

    async def stream(self, **fields: Any) -> "Told":
        """Ask for a stream, and wait until the call is over."""
        answer = await self.gateway.ask(**{"stream": True, **fields})
        return Told(answer.status_code, answer.text, await self.receipt())

    async def receipt(self) -> Receipt:
        """Wait until all calls so far are over; return the last one's receipt."""
        async with asyncio.timeout(MOST_S):
            while self.gateway.live.gateway.engine.busy:
                await asyncio.sleep(0.005)
        return receipts[-1]

    def measured(self, name: str, first_chunk_s: float, *, unhealthy: bool = False) -> None:
        """Have the gateway know how soon a place's last streams began."""
        fleet = self.gateway.live.fleet
        (place,) = [d for d in self.gateway.live.gateway.routes.find("mock").deployments if d.provider == name]
        for _ in range(1 if unhealthy else 20):
            tried = Tried(place.name, place.provider, place.model, 0.0, unhealthy=unhealthy)
            fleet.begin(place, tried)
            if not unhealthy:
                tried.first_chunk_s = first_chunk_s
                fleet.spoke(tried, stream=True)
            fleet.end(tried, Receipt("measured", tried=[tried]))


class Told:
    """What a client was told in a stream."""

    def __init__(self, status: int, raw: str, receipt: Receipt) -> None:
        self.status = status
        self.raw = raw
        self.receipt = receipt
        self.seams = [line for line in raw.split("\n") if line.startswith(": x-gateway-seam")]
        self.cost = raw.partition(": x-gateway-cost: ")[2].partition("\n")[0]
        said = [json.loads(line[6:]) for line in raw.split("\n") if line.startswith("data: {")]
        said += [json.loads(raw)] if raw.startswith("{") else []
        self.error: dict[str, Any] | None = next((one["error"] for one in said if "error" in one), None)
        self.chunks = [one for one in said if "error" not in one]
        self.choices = [choice for one in self.chunks for choice in one["choices"]]
        self.text = "".join(choice["delta"].get("content") or "" for choice in self.choices)
        self.finishes = [choice["finish_reason"] for choice in self.choices if choice["finish_reason"]]
        self.usage = next((one["usage"] for one in self.chunks if one.get("usage")), None)

    @property
    def is_whole(self) -> bool:
        """It ended well: one finish, `[DONE]`, no error."""
        return self.error is None and len(self.finishes) == 1 and self.raw.endswith(DONE.decode())

    @property
    def is_broken(self) -> bool:
        """It says that it broke: an error, and neither a finish nor `[DONE]`."""
        return self.error is not None and not self.finishes and "[DONE]" not in self.raw


@contextlib.asynccontextmanager
async def places(
    names: str = "ab",
    *,
    each: dict[str, dict[str, Any]] | None = None,
    kinds: dict[str, str] | None = None,
    chain: tuple[dict[str, Any], ...] = ({"use": "cost"}, RETRY),
    more: dict[str, Any] | None = None,
    **route: Any,
) -> AsyncIterator[Places]:
    """Serve `mock`, which `a/m-a`, `b/m-b` and so on can answer for, in this order.

    Args:
        names: of the upstreams.
        each: options of single deployments.
        kinds: dialects, where they are not OpenAI's.
        chain: what stands behind the room that keeps the receipts.
        more: sections of the configuration.
        route: options of the route.
    """
    async with contextlib.AsyncExitStack() as stack:
        upstreams = {name: await stack.enter_async_context(ScriptedUpstream()) for name in names}
        providers, deployments = {}, []
        for name, upstream in upstreams.items():
            kind = (kinds or {}).get(name, "openai")
            providers[name] = {"kind": kind, "base_url": upstream.url if kind == "openai" else upstream.origin}
            providers[name]["api_key"] = "secret"
            price = dict(zip(("prompt", "completion"), PRICES[name], strict=True))
            deployments.append({"target": f"{name}/m-{name}", "price": price, **(each or {}).get(name, {})})
        config = {
            "providers": providers,
            "models": {"mock": {"deployments": deployments, **route}},
            "health": PATIENT,
            "chain": [{"use": "tests.places:KeepOptions"}, *chain],
            **(more or {}),
        }
        receipts.clear()
        gateway = await stack.enter_async_context(serving(json.dumps(config)))
        yield Places(gateway, upstreams)
