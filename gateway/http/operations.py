"""How requests are read that do not ask for a generated answer: embeddings, images, speech, files, and what goes on."""

import re
from typing import Literal

import msgspec
from litestar.types import HTTPScope, Receive

from gateway.core.call import Body, Call, Headers, Operation, Passage
from gateway.core.errors import BadRequest, GatewayError, NotFound, TooLarge, Unauthorized
from gateway.core.route import Route
from gateway.http.requests import (
    LARGE_BODY,
    asks_for_usage,
    check_counts,
    field_of,
    invalid_call,
    named,
    new_call,
    read_body,
    require_key,
    require_method,
    require_same_origin,
)
from gateway.http.uploads import Incoming, IncomingForm
from gateway.settings.build import Gateway

COUNTS = ("n", "max_tokens")
"""Fields that bound or multiply what is asked for."""
WITH_FILES: frozenset[Operation] = frozenset({"images", "audio"})
"""Those whose requests may be forms."""
WHEN_UNSAID: dict[Operation, str] = {"moderations": "omni-moderation-latest"}
"""The models of requests that need not name one: OpenAI's own defaults."""

WITH_V1 = frozenset(
    {
        *("accept", "content-type", "content-encoding", "idempotency-key", "range", "if-match", "if-none-match"),
        *("openai-beta", "anthropic-beta", "anthropic-version"),
    }
)
"""Headers that go on with a request under `/v1`, all others being of no concern to a provider."""
NEVER_ON = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
        *("host", "content-length", "accept-encoding", "x-request-id", "forwarded", "via", "traceparent", "tracestate"),
        *("authorization", "proxy-authorization", "x-api-key", "api-key", "cookie"),
    }
)
"""Headers that never go on to a service: about a connection that is not its own, credentials, or said by ourselves."""
MOST_DRAINED_BYTES = 64 * 1024 * 1024
"""Of a body whose sender was refused, until it has heard that."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_text = msgspec.json.Decoder(str)
_nullable_text = msgspec.json.Decoder(str | None)
_flag = msgspec.json.Decoder(bool | None)


class OperationReader:
    """Reads a request that names a model, and goes on as it came: as JSON or, with a file in it, as a form."""

    def __init__(self, operation: Operation, path: str) -> None:
        self._operation: Operation = operation
        self._path = path

    async def __call__(self, gateway: Gateway, scope: HTTPScope, receive: Receive, id: str) -> Call:
        """Return the call."""
        headers = Headers(dict(scope["headers"]))
        try:
            require_method(scope, "POST")
            require_same_origin(gateway, headers)
            if headers.get("content-type").lower().startswith("multipart/"):
                if self._operation not in WITH_FILES:
                    raise BadRequest(f"/v1{self._path} takes JSON, not a form", code="invalid_content_type")
                return await self._form(gateway, headers, receive, id)
            return self._json(gateway, headers, await read_body(gateway, scope, headers, receive), id)
        except GatewayError as error:
            return unread_call(gateway, scope, receive, id, error)

    def _json(self, gateway: Gateway, headers: Headers, body: Body, id: str) -> Call:
        fields = body.fields
        model = named(field_of(fields, "model", _nullable_text) or WHEN_UNSAID.get(self._operation))
        check_counts(fields, COUNTS)
        stream = bool(field_of(fields, "stream", _flag)) or field_of(fields, "stream_format", _text) == "sse"
        call = new_call(gateway, headers, body, id, self._operation, model)
        passage = Passage("POST", self._path)
        return call.but(stream=stream, wants_usage=asks_for_usage(fields), passage=passage)

    async def _form(self, gateway: Gateway, headers: Headers, receive: Receive, id: str) -> Call:
        require_key(gateway, headers)
        incoming = Incoming(receive, length_of(headers), gateway.server.max_upload)
        form = IncomingForm(incoming, headers.get("content-type"))
        said = await form.look()
        if "model" not in said and incoming.spent:
            raise BadRequest("say which `model` should answer before the file, not behind it", param="model")
        call = new_call(gateway, headers, Body(), id, self._operation, named(said.get("model")))
        passage = Passage("POST", self._path, headers={"content-type": form.content_type}, upload=incoming, form=form)
        return call.but(stream=said.get("stream", "").lower() in ("true", "1"), passage=passage)


class ForwardReader:
    """Reads whatever goes on as it came: what else there is under `/v1`, or below `/proxy/{name}`."""

    def __init__(self, kind: Literal["v1", "proxy"]) -> None:
        self._kind = kind

    async def __call__(self, gateway: Gateway, scope: HTTPScope, receive: Receive, id: str) -> Call:
        """Return the call."""
        headers = Headers(dict(scope["headers"]))
        try:
            require_same_origin(gateway, headers)
            require_key(gateway, headers)
            path = path_of(scope, f"/{self._kind}")
            passages = gateway.passages
            route, path = passages.under_v1(path) if self._kind == "v1" else passages.to_service(path)
            return self._call(gateway, scope, receive, id, route, path)
        except GatewayError as error:
            return unread_call(gateway, scope, receive, id, error)

    def _call(self, gateway: Gateway, scope: HTTPScope, receive: Receive, id: str, route: Route, path: str) -> Call:
        headers, method = Headers(dict(scope["headers"])), scope["method"]
        if method not in METHODS:
            raise NotFound(f"{method} goes nowhere; use one of {', '.join(sorted(METHODS))}")
        length = length_of(headers)
        upload = None
        if length or headers.get("transfer-encoding"):
            upload = Incoming(receive, length, gateway.server.max_upload)
        query = scope["query_string"].decode("latin-1")
        if not re.fullmatch(r"[!-~]*", query):
            raise BadRequest("the query has characters that have to be percent-encoded", code="invalid_url")
        goes_on = _v1_headers(headers) if self._kind == "v1" else _service_headers(scope, headers)
        call = new_call(gateway, headers, Body(), id, "forward", route.name, route=route)
        return call.but(passage=Passage(method, path, query, goes_on, upload))


def unread_call(gateway: Gateway, scope: HTTPScope, receive: Receive, id: str, fault: GatewayError) -> Call:
    """Return a call whose answer is what is wrong with it, though its body may still be on the way."""
    headers = Headers(dict(scope["headers"]))
    call = invalid_call(gateway, headers, id, fault)
    length = length_of(headers)
    is_large = length > LARGE_BODY if length is not None else bool(headers.get("transfer-encoding"))
    if not is_large or not isinstance(fault, Unauthorized | TooLarge | NotFound):
        return call
    incoming = Incoming(receive, None, MOST_DRAINED_BYTES)
    return call.but(passage=Passage(scope["method"], scope["path"], upload=incoming))


def path_of(scope: HTTPScope, mount: str) -> str:
    """Return a request's path below `mount`, percent-encoded as it came.

    Raises:
        BadRequest: it could leave the folder that it is to stay in.
    """
    path = scope["raw_path"].partition(b"?")[0].decode("latin-1")
    plain = re.sub("%2e", ".", path, flags=re.IGNORECASE)
    parts = re.split(r"/|\\|%2f|%5c", plain, flags=re.IGNORECASE)
    below = path.removeprefix(mount)
    if not re.fullmatch(r"(/[!-~]*)?", below) or below == path or "." in parts or ".." in parts:
        problem = "the path has parts that lead elsewhere, or characters that have to be percent-encoded"
        raise BadRequest(problem, code="invalid_url")
    return below


def length_of(headers: Headers) -> int | None:
    """Return how long the client says its body is."""
    said = headers.get("content-length")
    return int(said) if said.isdecimal() else None


def _v1_headers(headers: Headers) -> dict[str, str]:
    return {name: said for name in sorted(WITH_V1) if (said := headers.get(name))}


def _service_headers(scope: HTTPScope, headers: Headers) -> dict[str, str]:
    named = {name.strip().lower() for name in headers.get("connection").split(",")}
    goes_on: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name not in NEVER_ON and name not in named and not name.startswith("x-gateway-"):
            goes_on[name] = f"{goes_on[name]}, {value}" if name in goes_on else value
    return goes_on
