"""The API's description, and two readers for it that work offline.

Litestar describes its own handlers. Calls are answered at the edge, past its handlers, so they are described here.
"""

from pathlib import Path
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get

from gateway.http.docs_models import SCHEMAS, model_routes
from gateway.wire.chat_request import ChatRequest

UI = Path(__file__).parent / "ui"

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>LLM gateway: {title}</title>{head}</head><body style="margin: 0">{body}</body></html>"""


@get("/docs", media_type=MediaType.HTML, include_in_schema=False, sync_to_thread=False)
def swagger() -> str:
    """Swagger UI: read the API and try it."""
    options = 'url: "/openapi.json", dom_id: "#ui", deepLinking: true, persistAuthorization: true, validatorUrl: null'
    script = f"SwaggerUIBundle({{{options}}});"
    return PAGE.format(
        title="API",
        head='<link rel="stylesheet" href="/ui/swagger-ui.css">',
        body=f'<div id="ui"></div><script src="/ui/swagger-ui-bundle.js"></script><script>{script}</script>',
    )


@get("/redoc", media_type=MediaType.HTML, include_in_schema=False, sync_to_thread=False)
def redoc() -> str:
    """Redoc: the API as a document."""
    script = (
        'Redoc.init("/openapi.json", {disableSearch: true, hideDownloadButton: true}, document.getElementById("ui"));'
    )
    return PAGE.format(
        title="reference",
        head="",
        body=f'<div id="ui"></div><script src="/ui/redoc.standalone.js"></script><script>{script}</script>',
    )


@get("/openapi.json", include_in_schema=False, sync_to_thread=False)
def openapi_json(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """Return the OpenAPI document of every route."""
    schema: dict[str, Any] = request.app.openapi_schema.to_schema()
    return Response(with_calls(schema))


def with_calls(schema: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` with the routes of the edge added."""
    _, components = msgspec.json.schema_components([ChatRequest, *SCHEMAS], ref_template="#/components/schemas/{name}")
    own = schema.get("components", {})
    return {
        **schema,
        "paths": {**{path: _with_key(item) for path, item in CALLS.items()}, **schema["paths"]},
        "components": {
            **own,
            "schemas": {**own.get("schemas", {}), **components, "Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _with_key(item: dict[str, Any]) -> dict[str, Any]:
    """Say that a route takes a key, where keys are configured."""
    return {method: {**operation, "security": [{"key": []}, {}]} for method, operation in item.items()}


ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong, and the cure."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field it is about."},
                "code": {"type": ["string", "null"], "description": "A stable word for programs."},
            },
        }
    },
}


def _answer(description: str, schema: dict[str, Any], media: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}}


_ERROR = {"$ref": "#/components/schemas/Error"}
_ERRORS = {
    "400": _answer("The request is wrong; `param` names the field.", _ERROR),
    "401": _answer("No key, or not one of ours.", _ERROR),
    "403": _answer("The key may not use this model.", _ERROR),
    "404": _answer("No such model; the message names those that are near.", _ERROR),
    "413": _answer("The body is over `server.max_body`.", _ERROR),
    "429": _answer("A limit is reached; `retry-after` says when to ask again.", _ERROR),
    "502": _answer("No upstream answered, or none with sense.", _ERROR),
    "504": _answer("A clock fired; the message names it.", _ERROR),
}

_EXAMPLE = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}


def _generation(summary: str, of: str, schema: dict[str, Any], example: dict[str, Any], answer: str) -> dict[str, Any]:
    """Describe a route that generates an answer, whole or streamed."""
    return {
        "post": {
            "tags": ["Calls"],
            "summary": summary,
            "description": f"As {of}'s. Fields not listed here reach an upstream of the same dialect untouched.",
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}},
            "responses": {
                "200": {
                    "description": f"{answer}; with `stream: true`, its events.",
                    "content": {
                        "application/json": {"schema": {"type": "object"}},
                        "text/event-stream": {"schema": {"type": "string"}},
                    },
                },
                **_ERRORS,
            },
        }
    }


def _kept(summary: str, answer: str, **query: dict[str, Any]) -> dict[str, Any]:
    """Describe a route about a kept response."""
    path = {"name": "response_id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "tags": ["Calls"],
        "summary": summary,
        "parameters": [path, *({"name": name, "in": "query", "schema": schema} for name, schema in query.items())],
        "responses": {
            "200": _answer(answer, {"type": "object"}),
            "401": _ERRORS["401"],
            "404": _answer("There is none of this id, or it is another's.", _ERROR),
            "503": _answer("What is kept cannot be reached at the moment.", _ERROR),
        },
    }


_CHAT = {"$ref": "#/components/schemas/ChatRequest"}
_ANY = {"type": "object", "required": ["model"], "properties": {"model": {"type": "string"}}}


def _form(file: str, *texts: str) -> dict[str, Any]:
    """Describe a form with a file."""
    text, binary = {"type": "string"}, {"type": "string", "format": "binary"}
    names = ("model", *texts)
    return {
        "type": "object",
        "required": [*names, file],
        "properties": {**dict.fromkeys(names, text), file: binary},
    }


_EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "/completions": ("Complete a text (the API before chat)", {"prompt": "Once upon a time"}),
    "/embeddings": ("Embed texts", {"model": "echo", "input": "Hello"}),
    "/moderations": ("Tell what is wrong with a text", {"input": "Hello"}),
    "/rerank": (
        "Sort documents by how well they answer",
        {"model": "cohere/rerank-v3.5", "query": "capital", "documents": ["Oslo", "Fish"]},
    ),
    "/images/generations": ("Make an image", {"prompt": "a cat"}),
    "/images/edits": ("Change an image", _form("image", "prompt")),
    "/images/variations": ("Vary an image", _form("image")),
    "/audio/speech": ("Speak a text", {"input": "Hello", "voice": "alloy"}),
    "/audio/transcriptions": ("Write down what is said", _form("file")),
    "/audio/translations": ("Write down in English what is said", _form("file")),
}
"""What the paths of `gateway.core.call.PATHS` do, and the fields of a request, or the schema of a form."""


def _operation(summary: str, said: dict[str, Any]) -> dict[str, Any]:
    """Describe a route whose request names a model and goes on as it came."""
    if said.get("type") == "object":
        content = {"multipart/form-data": {"schema": said}}
    else:
        content = {"application/json": {"schema": _ANY, "example": {"model": "openai/…", **said}}}
    return {
        "post": {
            "tags": ["Calls"],
            "summary": summary,
            "description": "As OpenAI's. To providers of its dialect all fields but `model` go on as they came.",
            "requestBody": {"required": True, "content": content},
            "responses": {"200": {"description": "What the upstream answered, as it came."}, **_ERRORS},
        }
    }


def _forwarded(summary: str, description: str, *names: str) -> dict[str, Any]:
    """Describe a route whose requests go on as they came, whatever their method."""
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    operation = {
        "tags": ["Forwarded"],
        "summary": summary,
        "description": description,
        "parameters": parameters,
        "responses": {"default": {"description": "What was answered, as it came."}},
    }
    return dict.fromkeys(("get", "post", "put", "patch", "delete"), operation)


CALLS: dict[str, Any] = {
    "/v1/chat/completions": _generation("Complete a chat", "OpenAI", _CHAT, _EXAMPLE, "A chat completion"),
    "/v1/messages": _generation(
        "Answer a message", "Anthropic", _ANY, {**_EXAMPLE, "max_tokens": 100}, "A message, in Anthropic's form"
    ),
    "/v1/responses": _generation(
        "Create a response",
        "OpenAI",
        _ANY,
        {"model": "echo", "input": "Hello"},
        "A response, kept unless `store` is false",
    ),
    "/v1/responses/{response_id}": {
        "get": _kept("Give a response again", "The response; of one made in the background, how far it is."),
        "delete": _kept("Delete a response", "It is deleted, here and where it was made."),
    },
    "/v1/responses/{response_id}/cancel": {
        "post": _kept("Stop a response that is made in the background", "The response, as far as it came."),
    },
    "/v1/responses/{response_id}/input_items": {
        "get": _kept(
            "List what a response was made from",
            "A page of items, those of the responses before it included.",
            limit={"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
            order={"enum": ["asc", "desc"], "default": "desc"},
            after={"type": "string"},
        ),
    },
    "/v1/messages/count_tokens": {
        "post": {
            "tags": ["Calls"],
            "summary": "Count a message's tokens",
            "description": "By estimate, and without asking anybody.",
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ANY}}},
            "responses": {"200": _answer("`input_tokens`.", {"type": "object"}), **_ERRORS},
        }
    },
    **{f"/v1{path}": _operation(*said) for path, said in _EXAMPLES.items()},
    "/v1/{path}": _forwarded("Anything else under /v1", "To the provider that `forward:` names for the path.", "path"),
    "/proxy/{name}/{path}": _forwarded("A service", "To the service that `proxy:` configures.", "name", "path"),
    "/admin/reload": {
        "post": {
            "tags": ["Operators"],
            "summary": "Read gateway.yaml again",
            "description": "In every worker. A file with mistakes is refused, and the old one goes on serving.",
            "responses": {
                "200": _answer("The configuration that now serves.", {"type": "object"}),
                "400": _answer("The file has mistakes; the message lists them all.", _ERROR),
                "401": _ERRORS["401"],
                "403": _answer("It takes a key with `admin: true`, or, without keys, this machine.", _ERROR),
            },
        }
    },
    **model_routes(_ERRORS),
}
