"""Embeddings: how OpenAI's clients ask for them and read them, for providers that speak another dialect.

Translated: `input`, a text or several; `dimensions`; `encoding_format`; and what the vectors are for, which is no field
of OpenAI's: Cohere's `input_type` or Gemini's `task_type`. A dialect may take more fields, and says which. Left out:
`user`, and whatever else only OpenAI knows. Refused, naming the field: tokens, which only mean something to the model
that they were made for; and `stream`. How many texts a call may have, and how long, is for the upstream to say.

Source: platform.openai.com/docs/api-reference/embeddings.
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Attempt, Body
from gateway.core.errors import BadRequest, Rejected, Unreachable
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.providers.answered_whole import AnsweredWhole, TellError, streamed
from gateway.providers.base import Request
from gateway.providers.chat import refuse
from gateway.providers.counting import count
from gateway.providers.failures import UNREADABLE, error_object
from gateway.wire.chat_request import decoded
from gateway.wire.estimate import request_tokens

ENCODINGS = ("float", "base64")
TASKS = {
    "search_document": "RETRIEVAL_DOCUMENT",
    "search_query": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
"""What vectors are for: Gemini's word for Cohere's."""
_INPUT_TYPES = {task: input_type for input_type, task in TASKS.items()}


class Wanted(Struct, frozen=True):
    """What a client asks for."""

    texts: list[str]
    dimensions: int | None = None
    """Numbers a vector; `None`: as many as the model makes by itself."""
    input_type: str = ""
    """What the vectors are for, in Cohere's word (`search_query`) if it has one; empty: not said."""


class Embedded(Struct, frozen=True):
    """What an upstream made of the texts."""

    vectors: Sequence[Raw]
    """A list of numbers for each text, as it came."""
    tokens: float | None = None
    """`None` or 0: the upstream does not say."""


class Dialect(Protocol):
    """How one upstream is asked for embeddings, and how it gives them."""

    @property
    def upstream(self) -> str:
        """Its name, in errors."""
        ...

    def request(self, attempt: Attempt, wanted: Wanted) -> Request:
        """Return what to send.

        Raises:
            BadRequest: there is no way to say this.
        """
        ...

    def embedded(self, attempt: Attempt, body: bytes) -> Embedded:
        """Return what an answer says.

        Raises:
            UNREADABLE: it is none.
        """
        ...


class Embeddings(AnsweredWhole):
    """A provider of embeddings, and of nothing else.

    Args:
        dialect: of the upstream.
        error: tells what an error of the upstream means.
    """

    def __init__(self, dialect: Dialect, error: TellError) -> None:
        super().__init__(dialect.upstream, error)
        self._dialect = dialect

    def request(self, attempt: Attempt) -> Request:
        """Return what to send.

        Raises:
            BadRequest: the upstream's dialect has no way to say this.
        """
        return self._dialect.request(attempt, wanted_of(attempt.body, self._upstream))

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer.

        Raises:
            UpstreamFailed: it is none, or not the one that was asked for.
        """
        try:
            embedded = self._dialect.embedded(attempt, body)
        except UNREADABLE:
            told = error_object(body)["message"] or "nothing"
            raise Unreachable(f"the upstream answered 200, but with no embeddings: {told[:200]}") from None
        wanted, vectors = wanted_of(attempt.body, self._upstream), embedded.vectors
        if not all(map(is_vector, vectors)):
            raise Unreachable("the upstream answered 200, but with no embeddings")
        if len(vectors) != len(wanted.texts):
            raise Unreachable(f"the upstream answered 200, but with {len(vectors)} of {len(wanted.texts)} embeddings")
        made = length_of(vectors[0]) if vectors else 0
        if wanted.dimensions is not None and made != wanted.dimensions:
            problem = f"the model makes {made} dimensions and cannot make {wanted.dimensions}; leave dimensions out"
            raise Rejected(problem, status=400, param="dimensions", code="unsupported_parameter")
        used = Usage(count(embedded.tokens)) if count(embedded.tokens) else estimated(attempt)
        return answer_of(attempt, vectors, used)


def estimated(attempt: Attempt) -> Usage:
    """Return about what an attempt used, whose upstream does not say it."""
    return Usage(request_tokens(attempt.body.fields), estimated=True)


# ── What is asked for ────────────────────────────────────────────────────────────────────────────────────────────


class _Request(Struct):
    input: str | list[str | int | list[int]]
    dimensions: int | None = None
    encoding_format: str | None = None
    input_type: str | None = None
    task_type: str | None = None
    stream: bool | None = None


_request = msgspec.json.Decoder(_Request)


def wanted_of(body: Body, upstream: str) -> Wanted:
    """Read a request for translation.

    Raises:
        BadRequest: a field is of the wrong type, or `upstream` has no way to do what it says.
    """
    if "input" not in body.fields:
        raise BadRequest("there is no `input`", param="input", code="missing_required_parameter")
    asked = decoded(_request, body.raw)
    if asked.stream:
        raise streamed(upstream)
    if asked.encoding_format not in (None, *ENCODINGS):
        message = f'encoding_format is one of {", ".join(ENCODINGS)}; got "{asked.encoding_format}"'
        raise BadRequest(message, param="encoding_format", code="invalid_value")
    texts: list[str] = []
    for one in [asked.input] if isinstance(asked.input, str) else asked.input:
        if not isinstance(one, str):
            refuse(
                f"{upstream} reads text, not another model's tokens; send strings as input "
                "(langchain-openai: check_embedding_ctx_length=False)",
                "input",
            )
        texts.append(one)
    purpose = asked.input_type or asked.task_type or ""
    return Wanted(texts, asked.dimensions, _INPUT_TYPES.get(purpose.upper(), purpose))


def own_fields(body: Body, names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a request that only its upstream knows, as they came."""
    return {name: body.fields[name] for name in names if name in body.fields}


# ── What is answered ─────────────────────────────────────────────────────────────────────────────────────────────


def answer_of(attempt: Attempt, vectors: Sequence[Raw], usage: Usage) -> Chunk:
    """Return embeddings as OpenAI answers with them, encoded as the client asks.

    Raises:
        Unreachable: they are to be base64, and are no lists of numbers.
    """
    data = [
        {"object": "embedding", "index": at, "embedding": vector}
        for at, vector in enumerate(encoded(vectors, attempt.body))
    ]
    used = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
    said = {"object": "list", "data": data, "model": attempt.model, "usage": used}
    return Chunk(msgspec.json.encode(said), usage=usage)


def as_asked(body: bytes, said: Mapping[str, Raw], request: Body) -> bytes:
    """Return an answer in OpenAI's dialect with its embeddings in base64 where that was asked for, and in order.

    The bytes as they came where nothing has to be mended: clients take the first embedding for that of the first text,
    whatever its `index` says.

    Raises:
        Unreachable: it has no embeddings.
    """
    try:
        data = msgspec.json.decode(said["data"], type=list[dict[str, Raw]])
        came = [one["embedding"] for one in data]
        said_places = [_place.decode(one.get("index", b"null")) for one in data]
    except (*UNREADABLE, KeyError):
        raise Unreachable("the upstream answered 200, but with no embeddings") from None
    if not all(map(is_vector, came)):
        raise Unreachable("the upstream answered 200, but with no embeddings")
    if not data and bytes(request.fields.get("input", b"")).strip(b"[] \n\r\t"):
        raise Unreachable("the upstream answered 200, but without embeddings")
    vectors = encoded(came, request)
    places = [at if place is None else place for at, place in enumerate(said_places)]
    if vectors is came and places == said_places == sorted(places):
        return body
    for one, vector, place in zip(data, vectors, places, strict=True):
        one |= {"embedding": vector, "index": Raw(b"%d" % place)}
    ordered = [data[at] for at in sorted(range(len(data)), key=places.__getitem__)]
    return msgspec.json.encode({**said, "data": ordered})


def encoded(vectors: Sequence[Raw], request: Body) -> Sequence[Raw]:
    """Return vectors in base64 where a request asks for that; as they came where they are, or where it does not.

    OpenAI's Node SDK asks for base64 by itself, decodes whatever comes, and makes garbage of numbers.

    Raises:
        Unreachable: they are no lists of numbers.
    """
    if request.get("encoding_format") != "base64" or all(map(is_text, vectors)):
        return vectors
    try:
        return [vector if is_text(vector) else Raw(b'"%b"' % packed(_numbers.decode(vector))) for vector in vectors]
    except (*UNREADABLE, OverflowError):
        raise Unreachable("the upstream answered 200, but its embeddings are no lists of numbers") from None


_numbers = msgspec.json.Decoder(list[float])
_place = msgspec.json.Decoder(int | None)


def is_vector(vector: Raw) -> bool:
    """Tell numbers, in whichever encoding, from what cannot be any."""
    return bytes(memoryview(vector)[:1]) in (b"[", b'"')


def is_text(vector: Raw) -> bool:
    """Tell base64 from a list of numbers."""
    return bytes(memoryview(vector)[:1]) == b'"'


def length_of(vector: Raw) -> int:
    """Return how many numbers a list of numbers has."""
    written = bytes(vector)
    return written.count(b",") + bool(written.strip(b"[] \n\r\t"))


def packed(numbers: Sequence[float]) -> bytes:
    """Return numbers as OpenAI writes them in base64: 32-bit floats, the least byte first."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers))
