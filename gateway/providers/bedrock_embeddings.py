"""Embeddings of the models that Amazon Bedrock has, each in its own dialect (`InvokeModel`).

Titan takes one text a call, and no word of what the vector is for; Cohere takes a batch, and its answer does not say
what was used, so that is estimated. Their own fields go on as they came. Sources: docs.aws.amazon.com/bedrock, "Amazon
Titan Text Embeddings", "Cohere Embed".
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Attempt
from gateway.core.errors import BadRequest
from gateway.providers.base import Request
from gateway.providers.bedrock_models import plain_name
from gateway.providers.chat import refuse
from gateway.providers.cohere_embeddings import embed_body
from gateway.providers.cohere_embeddings import embedded as cohere_embedded
from gateway.providers.embeddings import Embedded, Wanted, own_fields

TITANS_OWN = ("normalize",)
"""Fields that only Titan has."""


class Runtime(Protocol):
    """Bedrock, as far as a request is the same whatever it asks for."""

    def sent(self, attempt: Attempt, method: str, body: bytes) -> Request:
        """Return the request for what `method` does at an attempt's model."""
        ...


class BedrockEmbeddings:
    """`model/{model}/invoke`.

    Args:
        runtime: makes the requests.
        behind: by ARN, the model behind it, where the ARN does not say.
    """

    upstream = "Bedrock"

    def __init__(self, runtime: Runtime, behind: Mapping[str, str]) -> None:
        self._runtime = runtime
        self._behind = behind

    def request(self, attempt: Attempt, wanted: Wanted) -> Request:
        """Return what to send.

        Raises:
            BadRequest: the model takes one text, or is none that is known to make embeddings.
        """
        body, _ = self._words(attempt)
        return self._runtime.sent(attempt, "invoke", msgspec.json.encode(body(attempt, wanted)))

    def embedded(self, attempt: Attempt, body: bytes) -> Embedded:
        """Return what an answer says."""
        _, embedded = self._words(attempt)
        return embedded(body)

    def _words(self, attempt: Attempt) -> "_Words":
        """Return how the model is asked, and how its answer is read.

        Raises:
            BadRequest: nobody knows.
        """
        model = attempt.deployment.model
        name = plain_name(self._behind.get(model, model))
        words = next((words for prefix, words in _MODELS.items() if name.startswith(prefix)), None)
        if words is None:
            raise BadRequest(
                f"{name} is not known to make embeddings; at Bedrock, {' and '.join(f'{one}…' for one in _MODELS)} do "
                "(which model is behind an ARN is said by `behind`)",
                param="model",
                code="operation_not_supported",
            )
        return words


def _titan_body(attempt: Attempt, wanted: Wanted) -> dict[str, Any]:
    if len(wanted.texts) != 1:
        refuse(
            f"Titan embeds one text a call, got {len(wanted.texts)}; send each by itself "
            "(langchain-openai: chunk_size=1), or ask a model that takes several, such as cohere.embed-…",
            "input",
        )
    said: dict[str, Any] = {"inputText": wanted.texts[0]}
    if wanted.dimensions is not None:
        said["dimensions"] = wanted.dimensions
    return said | own_fields(attempt.body, TITANS_OWN)


class _Titan(Struct, rename="camel"):
    embedding: Raw
    input_text_token_count: float | None = None


_titan = msgspec.json.Decoder(_Titan)


def _titan_embedded(body: bytes) -> Embedded:
    answer = _titan.decode(body)
    return Embedded([answer.embedding], answer.input_text_token_count)


_Words = tuple[Callable[[Attempt, Wanted], dict[str, Any]], Callable[[bytes], Embedded]]
_MODELS: dict[str, _Words] = {
    "amazon.titan-embed-text-": (_titan_body, _titan_embedded),
    "cohere.embed-": (embed_body, cohere_embedded),
}
"""By the beginning of a model's id behind its region."""
