"""What probes, scrapers and people ask of the gateway itself."""

import asyncio
from typing import Any

from litestar import MediaType, Request, Response, get
from litestar.datastructures import State

from gateway import __version__
from gateway.core.call import Headers
from gateway.http.admin import sees_inside
from gateway.http.admission import Admission
from gateway.http.observed import exposition
from gateway.http.page import page
from gateway.settings.build import Gateway
from gateway.settings.live import Live

MOST_SHOWN = 100
"""Deployments that `/health` tells of: patterns may make them many."""

KEY_OR_NONE: list[dict[str, list[str]]] = [{"key": []}, {}]
"""All may ask; with a key, some are told more."""


@get("/", tags=["Gateway"], summary="What this is", sync_to_thread=False)
def welcome(request: Request[Any, Any, Any], state: State) -> Response[Any]:
    """Return the gateway's name, its models and where to read on; a page for browsers."""
    live: Live = state.live
    models = live.gateway.routes.names
    if "text/html" in request.headers.get("accept", ""):
        return Response(
            page(str(request.base_url).rstrip("/"), models, has_auth=live.gateway.has_auth), media_type=MediaType.HTML
        )
    if live.gateway.has_auth:
        models = []  # for those with a key, at /v1/models
    links = {
        "docs": "/docs",
        "redoc": "/redoc",
        "openapi": "/openapi.json",
        "health": "/health",
    }
    return Response({"name": "llm-gateway", "version": __version__, "models": models, **links})


@get("/health", tags=["Gateway"], summary="How it is, in full", security=KEY_OR_NONE)
async def health(request: Request[Any, Any, Any], state: State) -> dict[str, Any]:
    """Return the state of the gateway, of what it depends on, and of the deployments that were asked, the unwell first.

    Where keys are asked for, providers, deployments and what is wrong with a newer configuration are told to a key with
    `admin: true`.

    Never asks an upstream: health costs nothing, and what upstreams do makes nothing `degraded`.
    """
    live: Live = state.live
    admission: Admission = state.admission
    gateway = live.gateway
    return {
        "status": "draining" if live.draining else "degraded" if "gone" in (live.redis, live.database) else "ok",
        "version": __version__,
        "config": gateway.config_id,
        "uptime_s": round(gateway.clock.now() - live.began_s, 1),
        "redis": live.redis,
        "database": live.database,
        "calls": {"under_way": admission.under_way, "waiting": admission.waiting},
        **await _inside(
            gateway,
            request,
            providers={"on": gateway.providers_on, "off": gateway.providers_off},
            last_reload_error=live.last_error,
            deployments=live.fleet.conditions(MOST_SHOWN),
        ),
    }


async def _inside(gateway: Gateway, request: Request[Any, Any, Any], **details: object) -> dict[str, object]:
    """Return what only operators may know: all of it, or nothing."""
    return details if await sees_inside(gateway, Headers(dict(request.scope["headers"]))) else {}


@get("/ready", tags=["Gateway"], summary="May it be sent traffic?", sync_to_thread=False)
def ready(state: State) -> Response[dict[str, str]]:
    """Return 200 while calls are welcome, 503 while the last ones are finishing before a stop."""
    live: Live = state.live
    if live.draining:
        return Response({"status": "draining"}, status_code=503)
    return Response({"status": "ready"})


@get("/live", tags=["Gateway"], summary="Does the process work?", sync_to_thread=False)
def live() -> dict[str, str]:
    """Return 200; it depends on nothing but this process."""
    return {"status": "alive"}


@get("/metrics", tags=["Gateway"], summary="For Prometheus", media_type=MediaType.TEXT)
async def metrics() -> Response[bytes]:
    """Return every metric of every worker; rendered beside the event loop, which goes on answering calls."""
    content_type, data = await asyncio.to_thread(exposition)
    return Response(data, media_type=content_type)


@get("/info", tags=["Gateway"], summary="Which build and configuration this is", security=KEY_OR_NONE)
async def info(request: Request[Any, Any, Any], state: State) -> dict[str, Any]:
    """Return what is running; names only, never a secret.

    Where keys are asked for, all but the version and the configuration's id is told to a key with `admin: true`.
    """
    live: Live = state.live
    gateway = live.gateway
    return {
        "name": "llm-gateway",
        "version": __version__,
        "config": gateway.config_id,
        **await _inside(
            gateway,
            request,
            config_file=live.name,
            chain=gateway.chain,
            models=[route.name for route in gateway.routes],
            providers=gateway.providers_on,
        ),
    }
