"""How a request is read: from ASGI's scope and body to a Call.

A request that cannot be read becomes a call too, of the kind `invalid`: it is authenticated, logged and counted like
any other, and then told what is wrong with it.
"""

import re
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import msgspec
from litestar.types import HTTPScope, Receive
from msgspec import Raw, Struct

from gateway.core.call import OF_MODELS, Body, Call, Headers, Operation, Surface
from gateway.core.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    TooLarge,
    Unauthorized,
    UnknownModel,
    WrongMethod,
)
from gateway.core.receipt import Receipt
from gateway.core.reply import Chunk, Reply
from gateway.core.route import Route
from gateway.core.secret import Secret
from gateway.http.cycle import CLIENT, Cycle
from gateway.settings.build import Gateway
from gateway.wire.chat_request import StreamOptions
from gateway.wire.messages import count_answer

POLICY_FIELDS = frozenset(
    {
        *("model", "messages", "input", "stream", "stream_options"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "n"),
    }
)
"""What our decisions go by. A field that differs from one of these in case only is refused: some upstreams read JSON
without regard to case, and would obey the other one."""

LARGE_BODY = 64 * 1024
MOST_MODEL_CHARS = 256
"""Names are looked up, compared, remembered and shown, so they are not for clients to make as long as they like."""

TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

FULL_LIST, FULL_LIST_OR_TEXT = re.compile(rb"\s*\[\s*[^\]\s]"), re.compile(rb'\s*(?:"|\[\s*[^\]\s])')
EMPTY_LIST = re.compile(rb"\s*\[\s*\]")

T = TypeVar("T")

_object = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool | None)
_count = msgspec.json.Decoder(int | None)
_stream_options = msgspec.json.Decoder(StreamOptions | None)


class CallReader(Protocol):
    """Reads one kind of request."""

    async def __call__(self, gateway: Gateway, scope: HTTPScope, receive: Receive, id: str) -> Call:
        """Return the call; of the kind `invalid` if the request is none."""
        ...


class Shape(Struct, frozen=True):
    """What every request of a client surface must have, as far as our decisions go by it."""

    surface: Surface
    content: str
    """The field that holds what is asked."""
    begins: re.Pattern[bytes]
    """How that begins: a list with something in it, or perhaps a text."""
    counts: tuple[str, ...]
    """Fields that bound the answer, or multiply it."""


CHAT = Shape("chat", "messages", FULL_LIST, ("max_tokens", "max_completion_tokens", "n"))
MESSAGES = Shape("messages", "messages", FULL_LIST, ("max_tokens",))
RESPONSES = Shape("responses", "input", FULL_LIST_OR_TEXT, ("max_output_tokens",))


class GenerationReader:
    """Reads a request for a generated answer: `POST /v1/chat/completions`, `/v1/messages` or `/v1/responses`."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    async def __call__(self, gateway: Gateway, scope: HTTPScope, receive: Receive, id: str) -> Call:
        """Return the call."""
        headers, shape = Headers(dict(scope["headers"])), self._shape
        try:
            require_method(scope, "POST")
            require_same_origin(gateway, headers)
            return _generation(gateway, headers, await read_body(gateway, scope, headers, receive), id, shape)
        except GatewayError as error:
            return invalid_call(gateway, headers, id, error).but(surface=shape.surface)


async def read_count(gateway: Gateway, scope: HTTPScope, receive: Receive, id: str) -> Call:
    """Read `POST /v1/messages/count_tokens`: by estimate, for every model alike."""
    headers = Headers(dict(scope["headers"]))
    try:
        require_method(scope, "POST")
        require_same_origin(gateway, headers)
        asked = _generation(gateway, headers, await read_body(gateway, scope, headers, receive), id, MESSAGES)
    except GatewayError as error:
        return invalid_call(gateway, headers, id, error).but(surface="messages")

    async def count(call: Call) -> Reply:
        if call.route is None:
            raise UnknownModel(f'"{call.model}" is not a model here; {gateway.routes.near(call.model)}', param="model")
        return Reply(Chunk(count_answer(call.body)))

    return asked.but(operation="count", stream=False, own=count)


def require_same_origin(gateway: Gateway, headers: Headers) -> None:
    """Refuse what a page of another site has a browser send, where no key is asked for: it would spend ours.

    Raises:
        Forbidden: the request comes from such a page.
    """
    if gateway.has_auth:
        return
    origin = headers.get("origin")
    elsewhere = bool(origin) and origin.partition("://")[2] != headers.get("host")
    if elsewhere or headers.get("sec-fetch-site") == "cross-site":
        raise Forbidden("without keys, pages of other sites may not ask; turn on `auth`")


def require_key(gateway: Gateway, headers: Headers) -> None:
    """Refuse someone who will be turned away, before anything is read; `auth` says the rest.

    Raises:
        Unauthorized: keys are asked for, and this is none.
    """
    if not gateway.has_auth:
        return
    credential = credential_of(headers).reveal()
    if credential.count(".") != 2 and (not credential or gateway.resources.keys.find(credential) is None):
        raise Unauthorized("no such API key")


def has_large_body(headers: Headers) -> bool:
    """Tell whether the body is larger than `LARGE_BODY`, or of a length that nobody said."""
    length = headers.get("content-length")
    return not length.isdecimal() or int(length) > LARGE_BODY


def require_method(scope: HTTPScope, allowed: str) -> None:
    """Refuse other methods than `allowed`.

    Raises:
        WrongMethod: always with the method that is right.
    """
    if scope["method"] != allowed:
        raise WrongMethod(scope["method"], allowed)


def invalid_call(gateway: Gateway, headers: Headers, id: str, fault: GatewayError) -> Call:
    """Return a call whose answer is what is wrong with it."""

    async def refuse(_: Call) -> Reply:
        raise fault

    return new_call(gateway, headers, Body(), id, "invalid", "").but(own=refuse)


def _generation(gateway: Gateway, headers: Headers, body: Body, id: str, shape: Shape) -> Call:
    fields = body.fields
    model = named(field_of(fields, "model", _text))
    stream = "stream" in fields and bool(field_of(fields, "stream", _flag))
    asks_usage = "stream_options" in fields and asks_for_usage(fields)
    if not fields.keys().isdisjoint(shape.counts):
        check_counts(fields, shape.counts)
    content = fields.get(shape.content)
    if content is None or not shape.begins.match(content):
        raise _lacking_content(content, shape.content)
    # The other surfaces have no way not to ask for the usage.
    wants_usage = asks_usage or shape.surface != "chat"
    return new_call(
        gateway, headers, body, id, "chat", model, surface=shape.surface, stream=stream, wants_usage=wants_usage
    )


def named(model: str | None) -> str:
    """Return the name of the model that should answer.

    Raises:
        BadRequest: there is none, or it is too long for one.
    """
    if not model:
        raise BadRequest("say which `model` should answer", param="model", code="missing_required_parameter")
    if len(model) > MOST_MODEL_CHARS:
        problem = f"model: a name of at most {MOST_MODEL_CHARS} characters is expected"
        raise BadRequest(problem, param="model", code="string_above_max_length")
    return model


def asks_for_usage(fields: dict[str, Raw]) -> bool:
    """Tell whether a stream's usage is asked for.

    Raises:
        BadRequest: `stream_options` are not what they should be.
    """
    options = field_of(fields, "stream_options", _stream_options)
    return options is not None and bool(options.include_usage)


def check_counts(fields: dict[str, Raw], names: Iterable[str]) -> None:
    """Refuse a bound that bounds nothing.

    Raises:
        BadRequest: a field is no number, or less than one.
    """
    for name in names:
        count = field_of(fields, name, _count) if name in fields else None
        if count is not None and count < 1:
            raise BadRequest(f"{name}: expected at least 1", param=name, code="integer_below_min_value")


def field_of(fields: dict[str, Raw], name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Return one field, or `None` when it is absent.

    Raises:
        BadRequest: it is of the wrong type.
    """
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        param = f"{name}{path.rstrip('`')}"
        raise BadRequest(f"{param}: {problem[0].lower()}{problem[1:]}", param=param, code="invalid_type") from None


def new_call(
    gateway: Gateway,
    headers: Headers,
    body: Body,
    id: str,
    operation: Operation,
    model: str,
    *,
    surface: Surface = "chat",
    route: Route | None = None,
    stream: bool = False,
    wants_usage: bool = False,
) -> Call:
    """Return a call with everything that the headers say; `route`: where it leads, if `model` is not what says it."""
    now = gateway.clock.now()
    if route is None and operation in OF_MODELS:
        route = gateway.routes.find(model)
    total_s = route.timeouts.total_s if route else 60.0
    said = headers.raw
    trace = headers.get("traceparent") if b"traceparent" in said else ""
    return Call(
        id=id,
        operation=operation,
        surface=surface,
        model=model,
        stream=stream,
        wants_usage=wants_usage,
        body=body,
        headers=headers,
        receipt=Receipt(id, model, route.name if route else "", began_s=now),
        deadline_s=now + (min(total_s, _patience_s(headers)) if b"x-stainless-read-timeout" in said else total_s),
        clock=gateway.clock,
        route=route,
        credential=credential_of(headers),
        trace=trace if TRACEPARENT.fullmatch(trace) else "",
    )


async def read_body(gateway: Gateway, scope: HTTPScope, headers: Headers, receive: Receive) -> Body:
    """Return what is asked, of somebody who may ask so much.

    A body that is small and came with its head, as most do, is looked at where it is; others are received, at most as
    much as may be.

    Raises:
        Unauthorized: it is large, keys are asked for, and this is none: nothing of it is read.
        TooLarge: it says so, or is; the rest is not read.
        BadRequest: it is not what it should be, or the client left in the middle of it.
    """
    extensions: Any = scope["extensions"]
    cycle: Cycle | None = extensions.get(CLIENT)
    raw = cycle.whole_body if cycle is not None and b"content-length" in headers.raw else None
    most = gateway.server.max_body
    if raw is None or len(raw) > min(most, LARGE_BODY):
        if has_large_body(headers):
            require_key(gateway, headers)
        raw = await _bytes_of(headers, receive, most)
    return body_of(raw)


async def _bytes_of(headers: Headers, receive: Receive, most: int) -> bytes:
    """Return the request's body.

    Raises:
        TooLarge: it says so, or is; the rest is not read.
        BadRequest: the client left in the middle of it.
    """
    length = headers.get("content-length")
    if length.isdecimal() and int(length) > most:
        raise TooLarge(f"the body is {length} bytes; {most} are allowed (`server.max_body`)")
    pieces: list[bytes] = []
    size = 0
    while True:
        message: Any = await receive()
        if message["type"] != "http.request":
            raise BadRequest("the body broke off", code="incomplete_body")
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise TooLarge(f"the body is longer than {most} bytes, which is what is allowed (`server.max_body`)")
        pieces.append(piece)
        if not message.get("more_body"):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def body_of(raw: bytes) -> Body:
    """Return a JSON object's top-level fields, values untouched; of a repeated one the last, upstream too."""
    try:
        if not raw.isascii():
            raw.decode()  # or some field would turn out not to be text when it is read
        fields = _object.decode(raw)
    except msgspec.ValidationError:
        raise BadRequest("the body must be a JSON object", code="invalid_json") from None
    except RecursionError:
        raise BadRequest("the body is nested too deep", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = str(error).removeprefix("JSON is malformed: ") if raw.strip() else "it is empty"
        raise BadRequest(f"the body is not JSON: {problem}", code="invalid_json") from None
    for name in fields:
        if name not in POLICY_FIELDS and (meant := name.casefold()) in POLICY_FIELDS:
            raise BadRequest(f'"{name}" is not a field; did you mean "{meant}"?', param=name, code="unknown_parameter")
    return Body(raw, fields)


def _lacking_content(raw: Raw | None, name: str) -> BadRequest:
    """Return what is wrong with what cannot be a conversation; the upstream, or its translator, reads it in full."""
    if raw is None:
        return BadRequest(f"there is no `{name}`", param=name, code="missing_required_parameter")
    if EMPTY_LIST.match(raw):
        return BadRequest(f"{name}: at least one is needed", param=name, code="empty_array")
    return BadRequest(f"{name}: expected an array", param=name, code="invalid_type")


def credential_of(headers: Headers) -> Secret:
    """Return what the client presents: OpenAI's header, Anthropic's or Azure's."""
    scheme, _, value = headers.raw.get(b"authorization", b"").partition(b" ")
    if value and scheme.lower() == b"bearer":
        return Secret(value.decode("latin-1").strip())
    return Secret(headers.get("x-api-key") or headers.get("api-key"))


def _patience_s(headers: Headers) -> float:
    """Return how long the client's SDK waits before it gives up; there is no use in working longer."""
    try:
        return max(1.0, float(headers.get("x-stainless-read-timeout")))
    except ValueError:
        return float("inf")
