"""What providers do besides chat and answer whole: there is no stream to read, and errors are those of the chat."""

from collections.abc import Callable

from gateway.core.call import Attempt
from gateway.core.errors import BadRequest, UpstreamFailed
from gateway.providers.base import Reader

TellError = Callable[[int, dict[str, str], bytes], UpstreamFailed]
"""`Provider.error`, of the provider that does this beside chat."""


class AnsweredWhole:
    """Half of a provider for one operation; the other half is what it asks and reads.

    Args:
        upstream: its name, in errors.
        error: tells what an error of the upstream means.
    """

    def __init__(self, upstream: str, error: TellError) -> None:
        self._upstream = upstream
        self._error = error

    def reader(self, attempt: Attempt) -> Reader:
        """Refuse, as the request did: no stream is ever asked for."""
        raise streamed(self._upstream)

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an error means."""
        return self._error(status, headers, body)


def streamed(upstream: str) -> BadRequest:
    """Return what to say to those who ask for a stream."""
    return BadRequest(f"{upstream} answers this whole; leave stream out", param="stream", code="unsupported_parameter")
