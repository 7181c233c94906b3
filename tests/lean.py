"""A lean HTTP/1.1 client: it hides nothing of how an answer ended, and hundreds of calls cost little."""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

MOST_S = 30.0
"""How long anything may take."""


@dataclass(frozen=True)
class Answer:
    """An answer, or what came of it."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool
    """HTTP's own end was there: the body's length, or the last chunk."""
    heard_s: float
    """When the last piece of its body came, by the loop's clock."""

    @property
    def done(self) -> bool:
        """It looks complete, to a client that knows OpenAI's dialect."""
        return self.whole and (self.body.endswith(b"data: [DONE]\n\n") or b'"chat.completion"' in self.body)

    @property
    def last(self) -> bool:
        """It is the last on its connection."""
        return self.headers.get("connection") == "close"


class Lean:
    """One connection to a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._heard_s = 0.0

    @classmethod
    async def open(cls, url: str, *, kept_bytes: int | None = None) -> Self:
        """Connect; the kernel keeps about `kept_bytes` of what is not read.

        Raises:
            OSError: nobody is there.
        """
        sock = socket.socket()
        if kept_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kept_bytes)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(url.rpartition(":")[2])))
        except OSError:
            sock.close()
            raise
        return cls(*await asyncio.open_connection(sock=sock, limit=kept_bytes or 2**16))

    async def ask(self, text: str = "Hi", **said: Any) -> Answer:
        """Make a call of `mock`, and return its whole answer. `said` is what `send` takes.

        Raises:
            ConnectionError: there was none.
        """
        self.send(text, **said)
        return await self.answer()

    def send(
        self, text: str = "Hi", *, key: str = "", headers: Mapping[str, str] | None = None, **fields: object
    ) -> None:
        """Send a call of `mock`."""
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        said = {"model": "mock", "messages": [{"role": "user", "content": text}], **fields}
        body = json.dumps(said).encode()
        self.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nauthorization: Bearer {key or 'none'}\r\n{more}\r\n".encode()
            + body
        )

    async def get(self, path: str) -> Answer:
        """Ask for a page."""
        self.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        return await self.answer()

    def write(self, data: bytes) -> None:
        """Send any bytes."""
        self._writer.write(data)

    async def answer(self) -> Answer:
        """Return the answer to what was sent, to its end, whichever that is.

        Raises:
            ConnectionError: there was none.
        """
        async with asyncio.timeout(MOST_S):
            try:
                status, headers = await self.head()
            except asyncio.IncompleteReadError as error:
                raise ConnectionResetError(f"closed, with {len(error.partial)} bytes of a head") from None
            body = bytearray()
            try:
                await self._body(headers, body)
            except (OSError, asyncio.IncompleteReadError) as error:
                body += getattr(error, "partial", b"")
                return Answer(status, headers, bytes(body), whole=False, heard_s=self._heard_s)
            return Answer(status, headers, bytes(body), whole=True, heard_s=self._heard_s)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return status and headers, once they are here."""
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        return int(first.split(" ")[1]), headers

    async def _body(self, headers: dict[str, str], body: bytearray) -> None:
        if "content-length" in headers:
            body += await self._exactly(int(headers["content-length"]))
            return
        while size := int((await self._reader.readuntil(b"\r\n")), 16):
            body += await self._exactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)

    async def _exactly(self, size: int) -> bytes:
        data = await self._reader.readexactly(size)
        self._heard_s = asyncio.get_running_loop().time()
        return data

    async def read(self, most: int) -> bytes:
        """Return some bytes of whatever comes; none at the end."""
        return await self._reader.read(most)

    def close(self) -> None:
        """Leave, as one who is done."""
        self._writer.close()

    def reset(self) -> None:
        """Leave, as one whose machine has died."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
