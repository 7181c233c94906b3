"""Bodies that go on as they come: read no faster than the upstream takes them, and never held as a whole."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from litestar.types import Receive

from gateway.core.errors import BadRequest, TooLarge
from gateway.wire.form import Field, FormReader

KEPT_BYTES = 256 * 1024
"""The beginning of a body that is kept, so that another attempt can send it again. Of a form, the model is in it."""


class Incoming:
    """A request's body on its way. Satisfies `Upload`.

    Args:
        receive: ASGI's.
        length: what the client says; `None`: it does not.
        most: bytes that are allowed.

    Raises:
        TooLarge: it says that it is longer.
    """

    def __init__(self, receive: Receive, length: int | None, most: int) -> None:
        if length is not None and length > most:
            raise TooLarge(f"the body is {length} bytes; {most} are allowed (`server.max_upload`)")
        self.length = length
        self.ended = asyncio.Event()
        self._receive = receive
        self._most = most
        self._size = 0
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._spent = False

    @property
    def spent(self) -> bool:
        """More of it was taken than is kept."""
        return self._spent

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield it from its beginning.

        Raises:
            BadRequest: the client left in the middle of it.
            TooLarge: it is longer than allowed.
        """
        for piece in list(self._kept):
            yield piece
        while (piece := await self.more()) is not None:
            yield piece

    async def more(self) -> bytes | None:
        """Return the next piece that nobody has had yet; `None`: there is none."""
        while not self.ended.is_set():
            message: Any = await self._receive()
            if message["type"] != "http.request":
                raise BadRequest("the body broke off", code="incomplete_body")
            piece: bytes = message.get("body", b"")
            if not message.get("more_body"):
                self.ended.set()
            self._size += len(piece)
            if self._size > self._most:
                raise TooLarge(f"the body is longer than {self._most} bytes (`server.max_upload`)")
            if piece:
                self._keep(piece)
                return piece
        return None

    def _keep(self, piece: bytes) -> None:
        self._kept_bytes += len(piece)
        if self._kept_bytes <= KEPT_BYTES:
            self._kept.append(piece)
        else:
            self._spent = True


class IncomingForm:
    """A form on its way, whose beginning says who is to answer. Satisfies `Form`."""

    def __init__(self, incoming: Incoming, content_type: str) -> None:
        self._incoming = incoming
        self._reader = FormReader(content_type)
        self._written: list[bytes | Field] = []
        """What was read so far, as it goes on."""
        self._ended = False

    @property
    def length(self) -> int | None:
        """Nobody knows: it is written anew."""
        return None

    @property
    def spent(self) -> bool:
        """More of it was taken than is kept."""
        return self._incoming.spent

    @property
    def content_type(self) -> str:
        """What the form is sent on as."""
        return self._reader.content_type

    async def look(self) -> dict[str, str]:
        """Return the fields that decide where the form goes, read as far as the beginning reaches that is kept.

        Raises:
            BadRequest: it is no form.
        """
        while "model" not in self._reader.said and not self._ended and not self._incoming.spent:
            self._written += await self._next()
        return self._reader.said

    def to(self, model: str) -> "FormTo":
        """Return the form with another `model`."""
        return FormTo(self, model)

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the form as it came, written anew."""
        return self.rewritten({})

    async def rewritten(self, changes: dict[str, str]) -> AsyncGenerator[bytes, None]:
        """Yield the form with some of its deciding fields changed."""
        for at in range(len(self._written)):
            yield _bytes(self._written[at], changes)
        while not self._ended:
            read = await self._next()
            if not self._incoming.spent:
                self._written += read
            if data := b"".join(_bytes(piece, changes) for piece in read):
                yield data

    async def _next(self) -> list[bytes | Field]:
        piece = await self._incoming.more()
        if piece is None:
            self._ended = True
            return [self._reader.end()]
        return list(self._reader.feed(piece))


class FormTo:
    """A form on its way to one model. Satisfies `Upload`."""

    length = None

    def __init__(self, form: IncomingForm, model: str) -> None:
        self._form = form
        self._model = model

    @property
    def spent(self) -> bool:
        """It cannot be sent once more."""
        return self._form.spent

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield it from its beginning."""
        async with aclosing(self._form.rewritten({"model": self._model})) as pieces:
            async for piece in pieces:
                yield piece


def _bytes(piece: bytes | Field, changes: dict[str, str]) -> bytes:
    return piece if isinstance(piece, bytes) else piece.written(changes.get(piece.name))
