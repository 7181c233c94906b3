"""Cohere's embeddings, at its own API and at others that have its models.

Its own fields (`OWN`) go on as they came. Its models want to know what the vectors are for; who does not say it
(`input_type`) gets those of documents that are to be searched. Vectors are asked for as numbers, whatever the client
asks for: how Cohere writes them in base64 is not documented. Sources: docs.cohere.com/reference/embed;
docs.aws.amazon.com/bedrock, "Cohere Embed".
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Attempt
from gateway.providers.base import Request
from gateway.providers.embeddings import Embedded, Wanted, own_fields

OWN = ("max_tokens", "priority", "truncate")
"""Fields that only Cohere has."""
USUAL_TYPE = "search_document"


class CohereEmbeddings:
    """`v2/embed`.

    Args:
        url: of the API, up to its version.
        headers: of every request.
    """

    upstream = "Cohere"

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = f"{url}/embed"
        self._headers = headers

    def request(self, attempt: Attempt, wanted: Wanted) -> Request:
        """Return what to send."""
        body = {"model": attempt.deployment.model, **embed_body(attempt, wanted)}
        return Request(self._url, msgspec.json.encode(body), dict(self._headers))

    def embedded(self, attempt: Attempt, body: bytes) -> Embedded:
        """Return what an answer says."""
        return embedded(body)


def embed_body(attempt: Attempt, wanted: Wanted) -> dict[str, Any]:
    """Return a request for embeddings, the model apart."""
    said: dict[str, Any] = {
        "texts": wanted.texts,
        "input_type": wanted.input_type or USUAL_TYPE,
        "embedding_types": ["float"],
    }
    if wanted.dimensions is not None:
        said["output_dimension"] = wanted.dimensions
    return said | own_fields(attempt.body, OWN)


class _ByType(Struct):
    float: list[Raw]


class _Billed(Struct):
    input_tokens: float | None = None


class _Meta(Struct):
    billed_units: _Billed | None = None


class _Answer(Struct):
    embeddings: _ByType | list[Raw]
    meta: _Meta | None = None


_answer = msgspec.json.Decoder(_Answer)


def embedded(body: bytes) -> Embedded:
    """Return what an answer says; of older models it is a plain list.

    Raises:
        UNREADABLE: it is none.
    """
    answer = _answer.decode(body)
    found = answer.embeddings
    billed = answer.meta and answer.meta.billed_units
    return Embedded(found.float if isinstance(found, _ByType) else found, billed.input_tokens if billed else None)
