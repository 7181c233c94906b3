"""How requests about kept responses are read: `/v1/responses/{id}`, its `/cancel` and its `/input_items`."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, cast
from urllib.parse import parse_qs

from litestar.types import HTTPScope, Receive

from gateway.core.call import Body, Call, Headers
from gateway.core.errors import BadRequest, GatewayError, NotFound, WrongMethod
from gateway.core.reply import Reply
from gateway.engine.kept_responses import KeptResponses
from gateway.http.requests import invalid_call, new_call
from gateway.settings.build import Gateway
from gateway.wire.responses_kept import SEALED, Page

MOST_ITEMS = 100
"""On one page, as OpenAI has it."""
STREAM_CURE = "a kept response is not told again as a stream; ask without it, until its status says that it is over"

PATHS = {
    "": "/v1/responses/{response_id}",
    "cancel": "/v1/responses/{response_id}/cancel",
    "input_items": "/v1/responses/{response_id}/input_items",
}
"""The names that metrics have for paths, by what stands behind the id."""

Own = Callable[[Call], Awaitable[Reply]]
Query = dict[str, list[str]]


async def read_kept(gateway: Gateway, scope: HTTPScope, receive: Receive, id: str) -> Call:
    """Read a request about a kept response."""
    headers, request = Headers(dict(scope["headers"])), cast("dict[str, Any]", scope)
    request["path_template"] = PATHS.get(_parts(scope)[1], "unmatched")
    try:
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        own = _own(gateway.responses, scope, query)
    except GatewayError as error:
        return invalid_call(gateway, headers, id, error).but(surface="responses")
    return new_call(gateway, headers, Body(), id, "responses", "").but(surface="responses", own=own)


def _parts(scope: HTTPScope) -> tuple[str, str]:
    """Return the id and what stands behind it; the path comes without what leads here."""
    id, _, verb = scope["path"].strip("/").partition("/")
    return id, verb


def _own(kept: KeptResponses, scope: HTTPScope, query: Query) -> Own:
    """Return who answers.

    Raises:
        GatewayError: nobody does, or what is asked for there is not.
    """
    id, verb = _parts(scope)
    method = scope["method"]
    if verb not in PATHS:
        raise NotFound(f"there is nothing at /v1/responses/{id[:100]}/{verb[:100]}; see /docs")
    if verb == "cancel":
        _require(method, "POST")
        return partial(kept.cancel, id=id)
    if verb == "input_items":
        _require(method, "GET")
        page = Page(_limit(query), _order(query), _last(query, "after", ""))
        return partial(kept.input_items, id=id, page=page, sealed=_sealed(query))
    _require(method, "GET", "DELETE")
    if method == "DELETE":
        return partial(kept.delete, id=id)
    if _last(query, "stream", "false") != "false" or "starting_after" in query:
        param = "starting_after" if "starting_after" in query else "stream"
        raise BadRequest(f"{param}: {STREAM_CURE}", param=param, code="unsupported_parameter")
    return partial(kept.retrieve, id=id, sealed=_sealed(query))


def _require(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise WrongMethod(method, ", ".join(allowed))


def _sealed(query: Query) -> bool:
    """Tell whether `include` asks for `encrypted_content`.

    Raises:
        BadRequest: it asks for something else, which was not kept unless it was asked for before.
    """
    asked = [*query.get("include", ()), *query.get("include[]", ())]
    for name in asked:
        if name != SEALED:
            problem = f'include: "{name[:100]}" cannot be added to a kept response; ask for it with the request itself'
            raise BadRequest(problem, param="include", code="unsupported_parameter")
    return bool(asked)


def _limit(query: Query) -> int:
    said = _last(query, "limit", "20")
    if not said.isdecimal() or not 1 <= int(said[:6]) <= MOST_ITEMS:
        raise BadRequest(f"limit: expected a whole number from 1 to {MOST_ITEMS}", param="limit", code="invalid_value")
    return int(said)


def _order(query: Query) -> Literal["asc", "desc"]:
    match _last(query, "order", "desc"):
        case "asc":
            return "asc"
        case "desc":
            return "desc"
        case _:
            raise BadRequest("order: expected asc or desc", param="order", code="invalid_value")


def _last(query: Query, name: str, default: str) -> str:
    return query.get(name, [default])[-1]
