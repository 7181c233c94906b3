"""Forms (`multipart/form-data`, RFC 7578) that pass by: read as they come, and written anew, a part at a time.

What goes on is what was read here, not the bytes that came, so that no upstream can read a form otherwise than we did,
and find another model in it. Only the short parts that decide where the form goes are ever held as a whole.
"""

import re
from collections.abc import Iterator
from email.message import Message

from msgspec import Struct
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from gateway.core.errors import BadRequest

MOST_PARTS = 1_000
DECIDING = ("model", "stream")
"""Fields that our decisions go by: there may be one of each, and it is short."""
MOST_DECIDING_BYTES = 1024


class FormReader:
    """Reads one form: gathers what it says of the model, and yields it written anew.

    Args:
        content_type: the request's, with the boundary.

    Raises:
        BadRequest: there is no boundary in it.
    """

    def __init__(self, content_type: str) -> None:
        said = Message()
        said["content-type"] = content_type
        self.boundary = said.get_boundary("")
        is_form = said.get_content_type() == "multipart/form-data"
        if not is_form or not re.fullmatch(r"[0-9A-Za-z'()+_,./:=? -]{1,70}", self.boundary):
            raise BadRequest("expected multipart/form-data with a boundary", code="invalid_content_type")
        self.said: dict[str, str] = {}
        """The `DECIDING` fields that came to their end."""
        self._parser = PushMultipartParser(self.boundary, max_segment_count=MOST_PARTS)
        self._deciding = ""
        self._value = b""

    @property
    def content_type(self) -> str:
        """What the form is sent on as."""
        return f'multipart/form-data; boundary="{self.boundary}"'

    def feed(self, data: bytes) -> "Iterator[bytes | Field]":
        """Yield what `data` completes: bytes that go on as they are, and the fields that decide, which may be changed.

        Raises:
            BadRequest: it is no form, or says twice who is to answer.
        """
        try:
            for event in self._parser.parse(data) if data else ():
                if isinstance(event, MultipartSegment):
                    yield from self._begin(event)
                elif self._deciding:
                    yield from self._decide(event)
                elif event is not None:
                    yield bytes(event)
                else:
                    yield b"\r\n"
        except MultipartError as error:
            raise _unreadable(error) from None

    def end(self) -> bytes:
        """Return the form's last line.

        Raises:
            BadRequest: it broke off before.
        """
        try:
            self._parser.close()
        except MultipartError as error:
            raise _unreadable(error) from None
        return f"--{self.boundary}--\r\n".encode()

    def _begin(self, part: MultipartSegment) -> "Iterator[bytes]":
        name = part.name or ""
        if name in DECIDING:
            if name in self.said:
                raise BadRequest(f"{name}: the form says it twice", param=name, code="duplicate_field")
            self._deciding, self._value = name, b""
            return
        if name.casefold() in DECIDING:
            raise BadRequest(f'"{name}" is not a field; did you mean "{name.casefold()}"?', param=name)
        kind = next((value for header, value in part.headerlist if header == "Content-Type"), None)
        yield head_of(self.boundary, name, part.filename, kind)

    def _decide(self, event: bytes | bytearray | None) -> "Iterator[Field]":
        name = self._deciding
        if event is not None:
            self._value += event
            if len(self._value) > MOST_DECIDING_BYTES:
                raise BadRequest(f"{name}: too long", param=name, code="string_above_max_length")
            return
        self._deciding = ""
        try:
            self.said[name] = self._value.decode()
        except UnicodeDecodeError:
            raise BadRequest(f"{name}: not a text", param=name, code="invalid_type") from None
        yield Field(self.boundary, name, self.said[name])


class Field(Struct, frozen=True):
    """A short field of a form."""

    boundary: str
    name: str
    value: str

    def written(self, value: str | None = None) -> bytes:
        """Return the field as it goes on, with another value if one is given."""
        return head_of(self.boundary, self.name) + (self.value if value is None else value).encode() + b"\r\n"


def head_of(boundary: str, name: str, filename: str | None = None, content_type: str | None = None) -> bytes:
    """Return what stands before a part's content, written as browsers do (HTML §4.10.21.8)."""
    lines = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
    if filename is not None:
        lines += f'; filename="{_quoted(filename)}"'
    if content_type is not None:
        lines += f"\r\nContent-Type: {content_type}"
    return f"{lines}\r\n\r\n".encode()


def _quoted(text: str) -> str:
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _unreadable(error: MultipartError) -> BadRequest:
    return BadRequest(f"the form cannot be read: {error}", code="invalid_form")
