"""Answers that go on as they came: files, sounds, pictures, and whatever a forwarded request is answered with."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from msgspec import Struct

from gateway.core.call import Attempt, Operation
from gateway.core.errors import BadRequest, Broke, UpstreamFailed
from gateway.core.receipt import Receipt
from gateway.core.reply import Chunk, Reply
from gateway.engine.patience import Patience
from gateway.engine.transport import Response
from gateway.providers.masking import without_credentials

NEVER_BACK = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "content-encoding", "date", "server", "alt-svc", "strict-transport-security", "via"),
        *("set-cookie", "set-cookie2", "www-authenticate", "authorization", "proxy-authorization"),
        *("x-request-id", "server-timing"),
    }
)
"""Headers of an upstream's answer that are not for our client: about a connection that is not its own, credentials, or
said by ourselves."""


BODILESS = (204, 304)
"""Statuses without a body, whatever length the head says that one would have."""
MOST_MASKED_BYTES = 64 * 1024
"""Of an error. A longer one is no error message."""
DRAIN_S = 0.25
"""How long the end of a finished answer's body is waited for, off the client's path, to keep the connection."""


A_DIALECT = "a provider that speaks OpenAI's dialect"
WHO_HAS: dict[Operation, str] = {
    "rerank": "Cohere, or of a server of yours that has it (docs/embeddings.md)",
    "embeddings": "OpenAI, Gemini, Cohere, Bedrock or Ollama (docs/embeddings.md)",
}
"""Whom to ask, where it is not just anybody of OpenAI's dialect."""


class Lent(Struct):
    """An upstream's answer, lent to an attempt until it is over."""

    response: Response
    finished: bool = False
    """It said that it is done; what is left of its body says nothing."""

    def give_back(self, _: Receipt) -> None:
        """Give the connection back; of a finished answer, when its body's last bytes have come, which say nothing."""
        if self.finished:
            self.response.drain(DRAIN_S)
        else:
            self.response.close()


async def passed_on(lent: Lent, patience: Patience, sent: Mapping[str, str]) -> Reply:
    """Return an answer as it comes, whatever it is: status, head and bytes. An error may repeat a credential of what
    was `sent`, as headers: that is masked.

    Raises:
        UpstreamFailed: it broke off before its first byte.
    """
    response = lent.response
    pieces = _pieces(lent, patience)
    if response.status >= 400:
        pieces = _masked(pieces, sent)
    first = await anext(pieces, None)
    if first is None:
        return Reply(Chunk(b""), None, response.status, _head(response))
    return Reply(first, pieces, response.status, _head(response))


def is_no_text(content_type: str) -> bool:
    """Tell a sound, a picture or subtitles from JSON, and from the page of a broken proxy."""
    return bool(content_type) and "json" not in content_type and "html" not in content_type


def lacking(attempt: Attempt) -> BadRequest:
    """Return what to say where a deployment's provider does not do what is asked."""
    name = attempt.deployment.name
    return BadRequest(
        f"{name} has no {attempt.operation} here; ask a model of {WHO_HAS.get(attempt.operation, A_DIALECT)}",
        param="model",
        code="operation_not_supported",
    )


async def _masked(pieces: AsyncGenerator[Chunk, None], sent: Mapping[str, str]) -> AsyncGenerator[Chunk, None]:
    """Yield an error, its first `MOST_MASKED_BYTES` as one piece in which no credential is left."""
    async with aclosing(pieces):
        said = b""
        async for chunk in pieces:
            said += chunk.data
            if len(said) > MOST_MASKED_BYTES:
                break
        if said:
            yield Chunk(without_credentials(said, sent))
        async for chunk in pieces:
            yield chunk


async def _pieces(lent: Lent, patience: Patience) -> AsyncGenerator[Chunk, None]:
    said = False
    try:
        while data := await lent.response.more():
            patience.pause()
            said = True
            yield Chunk(data)
            patience.heard(len(data))
    except UpstreamFailed as error:
        if not said:
            raise
        broke = Broke(f"the answer broke off: {error.message}", code=error.code)
        broke.unhealthy = error.unhealthy
        raise broke from error
    lent.finished = True


def _head(response: Response) -> tuple[tuple[bytes, bytes], ...]:
    """Return the upstream's head as far as it is for our client."""
    headers = response.headers
    unpacked = headers.get("content-encoding", "identity").strip().lower() not in ("", "identity")
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return tuple(
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.items()
        if name not in NEVER_BACK
        and name not in named
        and not name.startswith(("x-gateway-", "x-ratelimit-"))
        and not (name == "content-length" and (unpacked or response.status in BODILESS or response.status >= 400))
    )
