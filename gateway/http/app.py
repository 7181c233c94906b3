"""The Litestar app: which URL leads where."""

import logging
from collections.abc import Mapping
from typing import Any

from litestar import Litestar, Request, Response, asgi
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.static_files import create_static_files_router  # pyright: ignore[reportUnknownVariableType]
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway import __version__
from gateway.core.call import PATHS
from gateway.core.errors import GatewayError
from gateway.http.admin import ReloadReader
from gateway.http.admission import Admission
from gateway.http.answers import error_headers
from gateway.http.docs import UI, openapi_json, redoc, swagger
from gateway.http.edge import Edge
from gateway.http.health import health, info, metrics, ready, welcome
from gateway.http.health import live as alive
from gateway.http.models import read_models
from gateway.http.observed import Observed
from gateway.http.operations import ForwardReader, OperationReader
from gateway.http.requests import CHAT, MESSAGES, RESPONSES, CallReader, GenerationReader, read_count
from gateway.http.responses import read_kept
from gateway.settings.live import Live
from gateway.wire.openai import error_body

log = logging.getLogger("gateway")

CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
PAGES = frozenset({"/", "/health", "/ready", "/live", "/metrics", "/info", "/docs", "/redoc", "/openapi.json"})
"""What HEAD is answered for as well as GET: probes, load balancers and Claude Code ask whether somebody is here."""
READERS: dict[str, CallReader] = {
    "/v1/chat/completions": GenerationReader(CHAT),
    "/v1/messages": GenerationReader(MESSAGES),
    "/v1/responses": GenerationReader(RESPONSES),
    **{f"/v1{path}": OperationReader(operation, path) for path, operation in PATHS.items()},
}
"""How the calls are read that ask a model, by their path."""
KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


def make_app(live: Live) -> ASGIApp:
    """Return the ASGI app that serves the configuration `live` holds."""
    admission = Admission(live.gateway.server)
    live.followers.append(lambda gateway: admission.follow(gateway.server))
    calls = {path: Edge(live, reader, admission) for path, reader in READERS.items()}
    app = Litestar(
        route_handlers=[
            *[asgi(path, copy_scope=False)(call.__call__) for path, call in calls.items()],
            asgi("/v1/messages/count_tokens", copy_scope=False)(Edge(live, read_count).__call__),
            asgi("/v1", is_mount=True, copy_scope=False)(under_v1(live, admission).__call__),
            asgi("/proxy", is_mount=True, copy_scope=False)(Edge(live, ForwardReader("proxy"), admission).__call__),
            asgi("/admin/reload", copy_scope=False)(Edge(live, ReloadReader(live)).__call__),
            *(welcome, health, ready, alive, metrics, info),
            *(swagger, redoc, openapi_json),
            create_static_files_router(path="/ui", directories=[UI], name="ui", include_in_schema=False),
        ],
        lifespan=[live.running],
        exception_handlers={GatewayError: refuse, HTTPException: refuse_http, Exception: fail},
        openapi_config=OpenAPIConfig(
            title="LLM gateway",
            version=__version__,
            description="An OpenAI-compatible door to every provider: point an SDK's base URL at `/v1`.",
            path="/openapi",
            render_plugins=[JsonRenderPlugin()],
        ),
        logging_config=None,  # ours; Litestar's would log every request, and replace the root's handlers
        debug=False,
    )
    app.state.live = live
    app.state.admission = admission
    return Observed(HeadLikeGet(app), calls, live)


def under_v1(live: Live, admission: Admission) -> "Branches":
    """Return who answers what has no route of its own under `/v1`."""
    forward = Edge(live, ForwardReader("v1"), admission)
    return Branches("/v1", {"models": Edge(live, read_models), "responses": Edge(live, read_kept)}, forward)


class Branches:
    """Leads a request below a mount to whom the next part of its path names: Litestar mounts nothing below a mount.

    Args:
        mount: the path of the mount.
        named: who answers, by that part; each sees what is left of the path, as below a mount of its own.
        otherwise: who answers for all others.
    """

    def __init__(self, mount: str, named: Mapping[str, ASGIApp], otherwise: ASGIApp) -> None:
        self._mount = mount
        self._named = named
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        _, _, below = scope["path"].partition("/")
        name, slash, rest = below.partition("/")
        app = self._named.get(name)
        if app is None:
            await self._otherwise(scope, receive, send)
            return
        scope["path"], scope["path_template"] = slash + rest, f"{self._mount}/{name}"
        await app(scope, receive, send)


class HeadLikeGet:
    """Answers HEAD of `PAGES` as GET is: the server, which knows what was asked, leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD" and (path := scope["path"]) in PAGES:
            asked: Any = {**scope, "method": "GET"}
            scope["path_template"] = path  # for the metrics, which see this scope and not the app's
            await self._app(asked, receive, send)
            return
        await self._app(scope, receive, send)


def refuse(_: Request[Any, Any, Any], error: GatewayError) -> Response[bytes]:
    """Render our own errors."""
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    return Response(error_body(error), status_code=error.status, media_type="application/json", headers=headers)


def refuse_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Render Litestar's errors: 404, 405, 400, 413."""
    message = error.detail
    if error.status_code == 404:
        message = f"there is nothing at {request.method} {request.url.path}; {_meant(request.url.path)}"
    ours = GatewayError(message, code=CODES.get(error.status_code, "invalid_request"))
    ours.status, ours.kind = error.status_code, KINDS.get(error.status_code, "invalid_request_error")
    response = refuse(request, ours)
    response.headers.update(error.headers or {})
    return response


def _meant(path: str) -> str:
    """Return what someone may have meant who found nothing: most often, a base URL without its `/v1`."""
    return f"did you mean /v1{path}?" if path.startswith(("/chat/", "/models")) else "see /docs"


def fail(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Render a bug of ours: told to the log, not to the client."""
    log.error("a bug of ours, at %s %s", request.method, request.url.path, exc_info=error)
    return refuse(request, GatewayError("the gateway failed at this; its log knows why"))
