"""Undoes a content-encoding that an upstream uses although we asked for none."""

import zlib
from collections.abc import Awaitable, Callable, Iterator

from gateway.core.errors import Unreachable

MOST_PIECE_BYTES = 256 * 1024
"""Bytes unpacked at a time: a kilobyte that unpacks to a gigabyte is handed on piece by piece, never held."""

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Inflater:
    """Unpacks one body, fed as it comes.

    Raises:
        Unreachable: it is packed in a way that we do not know.
    """

    def __init__(self, encoding: str) -> None:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise Unreachable(
                f'the upstream answered in the content-encoding "{encoding[:40]}", which was not asked for'
            )
        self._gzip = encoding != "deflate"
        self._zlib = zlib.decompressobj(_GZIP) if self._gzip else None
        self._head = b""
        self._pieces: Iterator[bytes] = iter(())

    async def more(self, packed: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the next piece of what `packed` returns, which is nothing at the body's end.

        Raises:
            Unreachable: it cannot be unpacked, or was cut.
        """
        while not (piece := next(self._pieces, b"")):
            data = await packed()
            if not data:
                self.end()
                break
            self._pieces = self.feed(data)
        return piece

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` unpacks to, in pieces of at most `MOST_PIECE_BYTES`.

        Raises:
            Unreachable: it cannot be unpacked.
        """
        if self._zlib is None:
            self._head = data = self._head + data
            if len(data) < 2:
                return
            self._zlib = zlib.decompressobj(_ZLIB if _is_zlib(data) else _RAW)
        try:
            while data:
                if self._zlib.eof:
                    if not self._gzip:
                        return
                    self._zlib = zlib.decompressobj(_GZIP)  # gzip allows several members, one behind the other
                piece = self._zlib.decompress(data, MOST_PIECE_BYTES)
                if piece:
                    yield piece
                data = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
        except zlib.error as error:
            raise Unreachable("the upstream's body cannot be unpacked") from error

    def end(self) -> None:
        """Check that the body was whole.

        Raises:
            Unreachable: it was cut.
        """
        if self._zlib is not None and not self._zlib.eof:
            raise Unreachable("the upstream's packed body ends too early")


def _is_zlib(data: bytes) -> bool:
    """Whether there is a zlib header: servers disagree on whether `deflate` has one."""
    return data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
