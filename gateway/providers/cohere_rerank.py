"""Cohere's rerank, asked and answered in its own shape, which is Jina's too and what `/v1/rerank` speaks.

Its own fields (`OWN`) go on as they came. The documents that a client wants back are put into the answer here: this
version of the API does not return them. Refused, naming the field: documents that are no text, and the fields of its
first version. Source: docs.cohere.com/reference/rerank.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Attempt
from gateway.core.errors import Unreachable
from gateway.core.reply import Chunk
from gateway.providers.answered_whole import AnsweredWhole, TellError, streamed
from gateway.providers.base import Request
from gateway.providers.beside_usage import usage_beside
from gateway.providers.chat import refuse
from gateway.providers.embeddings import own_fields
from gateway.providers.failures import UNREADABLE, error_object
from gateway.wire.chat_request import decoded

OWN = ("max_tokens_per_doc", "priority", "top_n")
"""Fields that are the same there."""
OLD = {
    "rank_fields": "write what is to be ranked by into each document's text",
    "max_chunks_per_doc": "use max_tokens_per_doc",
}
"""Fields that its second version does not have, and the cures."""


class CohereRerank(AnsweredWhole):
    """`v2/rerank`.

    Args:
        url: of the API, up to its version.
        headers: of every request.
        error: tells what an error of the upstream means.
    """

    def __init__(self, url: str, headers: Mapping[str, str], error: TellError) -> None:
        super().__init__("Cohere", error)
        self._url = f"{url}/rerank"
        self._headers = headers

    def request(self, attempt: Attempt) -> Request:
        """Return what to send.

        Raises:
            BadRequest: Cohere has no way to say this.
        """
        asked = decoded(_request, attempt.body.raw)
        if asked.stream:
            raise streamed(self._upstream)
        for old, cure in OLD.items():
            if old in attempt.body.fields:
                refuse(f"Cohere no longer has {old}; {cure}", old)
        body: dict[str, Any] = {
            "model": attempt.deployment.model,
            "query": asked.query,
            "documents": [_text(document, f"documents[{at}]") for at, document in enumerate(asked.documents)],
            **own_fields(attempt.body, OWN),
        }
        return Request(self._url, msgspec.json.encode(body), dict(self._headers))

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer.

        Raises:
            UpstreamFailed: it is none, whatever its status said.
        """
        try:
            answer = _answer.decode(body)
        except UNREADABLE:
            told = error_object(body)["message"] or "nothing"
            raise Unreachable(f"the upstream answered 200, but with no results: {told[:200]}") from None
        asked = decoded(_request, attempt.body.raw)
        if any(not 0 <= result.index < len(asked.documents) for result in answer.results):
            raise Unreachable("the upstream answered 200, but ranked documents that it was not given")
        said: dict[str, Any] = {
            "id": answer.id or attempt.id,
            "model": attempt.model,
            "results": [_result(result, asked) for result in answer.results],
        }
        if bytes(answer.meta):
            said["meta"] = answer.meta
        return Chunk(msgspec.json.encode(said), usage=usage_beside({"meta": answer.meta} if "meta" in said else {}))


class _Request(Struct):
    query: str
    documents: list[str | dict[str, Any]]
    return_documents: bool | None = None
    stream: bool | None = None


class _Result(Struct):
    index: int
    relevance_score: float


class _Answer(Struct):
    results: list[_Result]
    id: str | None = None
    meta: Raw = Raw()


_request = msgspec.json.Decoder(_Request)
_answer = msgspec.json.Decoder(_Answer)


def _text(document: str | dict[str, Any], where: str) -> str:
    if isinstance(document, str):
        return document
    text = document.get("text")
    if not isinstance(text, str):
        refuse("Cohere ranks texts; a document is a string, or an object with a `text`", where)
    return text


def _result(result: _Result, asked: _Request) -> dict[str, Any]:
    said: dict[str, Any] = {"index": result.index, "relevance_score": result.relevance_score}
    if asked.return_documents:
        document = asked.documents[result.index]
        said["document"] = {"text": document} if isinstance(document, str) else document
    return said
