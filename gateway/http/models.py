"""Reads what is asked under `/v1/models`: the list, one model, providers, a search, a comparison, a refresh.

An id may contain slashes. A model that is called like one of the words here is asked for by `GET /v1/models?id=…`.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from urllib.parse import parse_qs

from litestar.types import HTTPScope, Receive

from gateway.core.call import Body, Call, Headers
from gateway.core.errors import BadRequest, GatewayError, NotFound
from gateway.core.reply import Reply
from gateway.http.admin import require_admin, require_operator
from gateway.http.requests import MOST_MODEL_CHARS, invalid_call, new_call, require_method
from gateway.services.models import CAPABILITIES, MOST_COMPARED, MOST_FOUND, MOST_PAGE, Filter, Page
from gateway.settings.build import Gateway

Query = Mapping[str, Sequence[str]]

WORDS = ("providers", "search", "compare")
SEARCHED = ("q", "provider", "capability", "limit", "offset")
"""The parameters of a search."""
MEANT = {"query": "q", "search": "q", "text": "q", "name": "q"}
"""What others call them."""


async def read_models(gateway: Gateway, scope: HTTPScope, receive: Receive, id: str) -> Call:
    """Return the call; Anthropic's clients, who say so by `anthropic-version`, are answered in Anthropic's words."""
    headers = Headers(dict(scope["headers"]))
    surface = "messages" if headers.get("anthropic-version") else "chat"
    try:
        raw_path = scope["raw_path"].partition(b"?")[0].decode("latin-1")
        if not raw_path.startswith("/v1/models/") and raw_path != "/v1/models":
            raise NotFound(f"there is nothing at {raw_path}; see /docs")
        path = scope["path"].strip("/")
        if path == "refresh" and scope["method"] == "POST":
            require_operator(gateway, scope, headers)
            return _refresh(gateway, headers, id).but(surface=surface)
        require_method(scope, "GET")
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return _question(gateway, headers, id, path, query).but(surface=surface)
    except GatewayError as error:
        return invalid_call(gateway, headers, id, error).but(surface=surface)


def _refresh(gateway: Gateway, headers: Headers, id: str) -> Call:
    async def refresh(call: Call) -> Reply:
        require_admin(gateway, call)
        return await gateway.models.refresh(call)

    return new_call(gateway, headers, Body(), id, "admin", "").but(own=refresh)


def _question(gateway: Gateway, headers: Headers, id: str, path: str, query: Query) -> Call:
    models, name = gateway.models, ""
    match path:
        case "providers":
            own = models.providers
        case "search":
            _check_known(query, SEARCHED)
            own = partial(models.search, wanted=_filter(query), page=_page(query, MOST_FOUND))
        case "compare":
            own = partial(models.compare, names=_names(query))
        case _:
            name = path or _last(query, "id")
            if name:
                own = partial(models.one, name=name)
            elif headers.get("anthropic-version"):
                own = partial(models.page, wanted=_filter(query), page=_page(query, MOST_PAGE))
            else:
                own = partial(models.all, wanted=_filter(query))
    return new_call(gateway, headers, Body(), id, "models", name).but(own=own)


def _last(query: Query, name: str) -> str:
    return query.get(name, [""])[-1]


def _each(query: Query, name: str) -> list[str]:
    """Return what is said of `name`, several times or with commas between."""
    return [word for said in query.get(name, ()) for word in said.split(",") if word]


def _check_known(query: Query, known: Sequence[str]) -> None:
    """Refuse a parameter that nothing would come of: a search that finds all models looks like one that works.

    Raises:
        BadRequest: a name is none of `known`.
    """
    for name in query:
        if name not in known:
            meant = MEANT.get(name) or next(iter(get_close_matches(name, known, n=1)), "")
            cure = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
            raise BadRequest(f'"{name[:100]}" is no parameter here; {cure}', param=name[:100], code="unknown_parameter")


def _filter(query: Query) -> Filter:
    capabilities = tuple(_each(query, "capability"))
    for name in capabilities:
        if name not in CAPABILITIES:
            problem = f'capability: "{name}" is none; there are {", ".join(CAPABILITIES)}'
            raise BadRequest(problem, param="capability", code="invalid_value")
    text = _last(query, "q")
    if len(text) > MOST_MODEL_CHARS:
        problem = f"q: at most {MOST_MODEL_CHARS} characters are expected"
        raise BadRequest(problem, param="q", code="string_above_max_length")
    return Filter(_last(query, "provider"), capabilities, text)


def _page(query: Query, most: int) -> Page:
    return Page(
        limit=_number(query, "limit", 20, 1, most),
        offset=_number(query, "offset", 0, 0, 1_000_000),
        after_id=_last(query, "after_id"),
        before_id=_last(query, "before_id"),
    )


def _number(query: Query, name: str, usual: int, least: int, most: int) -> int:
    said = _last(query, name)
    if not said:
        return usual
    number = int(said) if said.isdecimal() and len(said) < 10 else -1
    if not least <= number <= most:
        problem = f"{name}: expected a whole number from {least} to {most}"
        raise BadRequest(problem, param=name, code="invalid_value")
    return number


def _names(query: Query) -> list[str]:
    names = _each(query, "model_ids")
    if not 2 <= len(set(names)) <= MOST_COMPARED:
        problem = f"model_ids: expected 2 to {MOST_COMPARED} models, with commas between: ?model_ids=a,b"
        raise BadRequest(problem, param="model_ids", code="invalid_value")
    return names
