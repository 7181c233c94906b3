"""Ollama's embeddings, by its own API.

Its own fields (`OWN`) and its options go on as they came. A text that is longer than the context is an error: by itself
Ollama would embed its beginning, without a word. `input_type` is left out: its models know no such difference, or want
it as a part of the text. Source: docs.ollama.com/api/embed.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Attempt
from gateway.providers.base import Request
from gateway.providers.embeddings import Embedded, Wanted, own_fields
from gateway.providers.ollama_request import own_options

OWN = ("keep_alive", "truncate")
"""Fields that only Ollama has, beside `options`."""


class OllamaEmbeddings:
    """`/api/embed`.

    Args:
        url: of the API.
        headers: of every request.
        options: for the model, where the client says no other.
        keep_alive: how long the model stays in memory; empty: as Ollama is set up.
    """

    upstream = "Ollama"

    def __init__(self, url: str, headers: Mapping[str, str], options: Mapping[str, Any], keep_alive: str) -> None:
        self._url = f"{url}/embed"
        self._headers = headers
        self._options = options
        self._keep_alive = {"keep_alive": keep_alive} if keep_alive else {}

    def request(self, attempt: Attempt, wanted: Wanted) -> Request:
        """Return what to send.

        Raises:
            BadRequest: `options` are no object.
        """
        said: dict[str, Any] = {"model": attempt.deployment.model, "input": wanted.texts, "truncate": False}
        if wanted.dimensions is not None:
            said["dimensions"] = wanted.dimensions
        if options := {**self._options, **own_options(attempt.body)}:
            said["options"] = options
        said |= self._keep_alive | own_fields(attempt.body, OWN)
        return Request(self._url, msgspec.json.encode(said), dict(self._headers))

    def embedded(self, attempt: Attempt, body: bytes) -> Embedded:
        """Return what an answer says."""
        answer = _answer.decode(body)
        return Embedded(answer.embeddings, answer.prompt_eval_count)


class _Answer(Struct):
    embeddings: list[Raw]
    prompt_eval_count: float | None = None


_answer = msgspec.json.Decoder(_Answer)
