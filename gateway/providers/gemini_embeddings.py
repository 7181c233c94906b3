"""Gemini's embeddings, many texts a call (`batchEmbedContents`).

A purpose that Cohere has no word for goes on as it came. The API need not say what was used; then it is estimated.
Vectors of fewer `dimensions` than the model makes by itself are not of length 1. Source: ai.google.dev/api/embeddings.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Attempt
from gateway.providers.base import Request
from gateway.providers.embeddings import TASKS, Embedded, Wanted


class GeminiEmbeddings:
    """`models/{model}:batchEmbedContents`.

    Args:
        models_url: what a model's name is written behind.
        headers: of every request.
    """

    upstream = "Gemini"

    def __init__(self, models_url: str, headers: Mapping[str, str]) -> None:
        self._url = models_url
        self._headers = headers

    def request(self, attempt: Attempt, wanted: Wanted) -> Request:
        """Return what to send."""
        model = attempt.deployment.model.removeprefix("models/")
        each: dict[str, Any] = {"model": f"models/{model}"}
        if wanted.dimensions is not None:
            each["outputDimensionality"] = wanted.dimensions
        if wanted.input_type:
            each["taskType"] = TASKS.get(wanted.input_type, wanted.input_type)
        requests = [{**each, "content": {"parts": [{"text": text}]}} for text in wanted.texts]
        url = f"{self._url}{quote(model, safe='')}:batchEmbedContents"
        return Request(url, msgspec.json.encode({"requests": requests}), dict(self._headers))

    def embedded(self, attempt: Attempt, body: bytes) -> Embedded:
        """Return what an answer says."""
        answer = _answer.decode(body)
        used = answer.usage_metadata
        return Embedded([one.values for one in answer.embeddings], used.prompt_token_count if used else None)


class _Vector(Struct):
    values: Raw


class _Usage(Struct, rename="camel"):
    prompt_token_count: float | None = None


class _Answer(Struct, rename="camel"):
    embeddings: list[_Vector]
    usage_metadata: _Usage | None = None


_answer = msgspec.json.Decoder(_Answer)
