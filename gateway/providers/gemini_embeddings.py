"""Gemini's embeddings, many texts a call (`batchEmbedContents`).

What the vectors are for is said in Cohere's words or in Gemini's own, as `input_type` or as `task_type`; one that is
unknown goes on as it came. The API does not say what was used, so that is estimated where it does not. Vectors of fewer
`dimensions` than the model makes by itself are not of length 1. Source: ai.google.dev/api/embeddings.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Attempt
from gateway.providers.base import Request
from gateway.providers.embeddings import Embedded, Wanted

TASKS = {
    "search_document": "RETRIEVAL_DOCUMENT",
    "search_query": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
"""Gemini's word for Cohere's."""


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
        if task := _task(attempt, wanted):
            each["taskType"] = task
        requests = [{**each, "content": {"parts": [{"text": text}]}} for text in wanted.texts]
        url = f"{self._url}{quote(model, safe='')}:batchEmbedContents"
        return Request(url, msgspec.json.encode({"requests": requests}), dict(self._headers))

    def embedded(self, attempt: Attempt, body: bytes) -> Embedded:
        """Return what an answer says."""
        answer = _answer.decode(body)
        used = answer.usage_metadata
        return Embedded([one.values for one in answer.embeddings], used.prompt_token_count if used else None)


def _task(attempt: Attempt, wanted: Wanted) -> object:
    """Return what the vectors are for, in Gemini's words; nothing if it is not said."""
    own = attempt.body.fields.get("task_type") or attempt.body.fields.get("taskType")
    return own or TASKS.get(wanted.input_type.lower(), wanted.input_type)


class _Vector(Struct):
    values: Raw


class _Usage(Struct, rename="camel"):
    prompt_token_count: float | None = None


class _Answer(Struct, rename="camel"):
    embeddings: list[_Vector]
    usage_metadata: _Usage | None = None


_answer = msgspec.json.Decoder(_Answer)
