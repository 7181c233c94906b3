"""What the API's description says of `/v1/models` and what is below it."""

from collections.abc import Mapping
from typing import Any

from gateway.services.models import CAPABILITIES, MOST_COMPARED, MOST_FOUND
from gateway.wire.models import Compared, Found, Model, ModelList, ProviderList

SCHEMAS = (Compared, Found, Model, ModelList, ProviderList)
"""What the routes answer with."""


def model_routes(errors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of the routes; `errors` are those of all routes, by their status."""
    wrong = {status: errors[status] for status in ("400", "401")}
    missing = {status: errors[status] for status in ("401", "404")}
    described = {
        "/v1/models": _get(
            "List the models you may use",
            "Those of the configuration, and those that a pattern stands for by the upstreams' own lists (`discover`). "
            "With the header `anthropic-version`, Anthropic's list, page by page (`limit`, `after_id`, `before_id`). "
            "`?id=` answers with that model, also where its id is one of the words below.",
            "ModelList",
            [*_FILTER, _query("id", "One model, by its id.")],
            wrong,
        ),
        "/v1/models/{model}": _get(
            "Tell of one model",
            "`gateway` has what is known of it; `null` is what nobody has said. Of a model with several deployments, "
            "what holds whichever of them answers. Prices are decimal numbers as text.",
            "Model",
            [_path("model", "May contain slashes.")],
            missing,
        ),
        "/v1/models/providers": _get(
            "List the providers",
            "On or off, how many models they have, how their own list stands, how they are. An operator sees all, and "
            "why; others those whose models they may use.",
            "ProviderList",
            [],
            {"401": errors["401"]},
        ),
        "/v1/models/search": _get(
            "Search the models you may use",
            "The best first.",
            "Found",
            [
                _query("q", "Words that all of them occur in its names or its providers; `gpt4o` finds `gpt-4o`."),
                *_FILTER,
                _query("limit", f"20, if it is not said; {MOST_FOUND} at most."),
                _query("offset", "How many of the first are left out."),
            ],
            wrong,
        ),
        "/v1/models/compare": _get(
            "Compare models",
            "`differences` has the fields in which they differ.",
            "Compared",
            [_query("model_ids", f"2 to {MOST_COMPARED} ids, with commas between.")],
            {**wrong, **missing},
        ),
    }
    refresh = _get("Ask the upstreams for their lists now", "In the worker that answers.", "ProviderList", [], {})
    forbidden = {**errors["403"], "description": "It takes a key with `admin: true`, or, without keys, this machine."}
    refresh["get"]["responses"] |= {"401": errors["401"], "403": forbidden}
    return {**described, "/v1/models/refresh": {"post": refresh["get"]}}


def _get(
    summary: str, description: str, schema: str, parameters: list[dict[str, Any]], errors: Mapping[str, Any]
) -> dict[str, Any]:
    answer = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        "get": {
            "tags": ["Models"],
            "summary": summary,
            "description": description,
            "parameters": parameters,
            "responses": {"200": {"description": "As described.", "content": answer}, **errors},
        }
    }


def _query(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string"}, "description": description}


def _path(name: str, description: str) -> dict[str, Any]:
    return {**_query(name, description), "in": "path", "required": True}


_FILTER = [
    _query("provider", "Only those that this provider can answer for."),
    _query("capability", f"Only those that are known to have it: {', '.join(CAPABILITIES)}."),
]
