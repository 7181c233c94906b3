"""Upstreams' answers, read in a test."""

from collections.abc import AsyncGenerator

from gateway.engine.transport import Response


async def pieces_of(response: Response) -> AsyncGenerator[bytes, None]:
    """Yield a body as it comes, piece by piece."""
    while data := await response.more():
        yield data
