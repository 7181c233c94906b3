"""What a request looks like on its way out: where it goes, and the bytes of its head."""

import re
import ssl
from functools import lru_cache
from urllib.parse import urlsplit

import certifi
from msgspec import Struct

from gateway import __version__
from gateway.providers.base import Request

USER_AGENT = f"llm-gateway/{__version__}"

_FRAMING = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that say where a message goes and where it ends. Only the transport may."""


def default_tls() -> ssl.SSLContext:
    """Return what checks upstreams' certificates when nothing else was said: certifi's roots."""
    return ssl.create_default_context(cafile=certifi.where())


WITH_BODY = ("POST", "PUT", "PATCH")
"""Methods that mean to send a body: without one, servers want to be told so (RFC 9110 §8.6)."""


Fields = list[tuple[bytes, bytes]]
"""A head, as HTTP/2 has it."""


class Target(Struct, frozen=True):
    """Where a URL leads."""

    tls: bool
    host: str
    """Without the brackets of an IPv6 address."""
    port: int
    head: str
    """The request line behind the method, and the `host` header."""
    authority: str
    """The host and the port, as the URL has them."""


@lru_cache(1024)
def target_of(url: str) -> Target:
    """Take a URL apart.

    Raises:
        ValueError: it is none that can be asked; no part of it is repeated, as it may hold a key.
    """
    if not re.fullmatch(r"https?://[!-~]+", url):
        raise ValueError("an upstream's URL begins with http:// or https:// and has only visible ASCII characters")
    parts = urlsplit(url)
    if not parts.hostname or "@" in parts.netloc:
        raise ValueError("an upstream's URL has a host, and no credentials in front of it: use api_key or headers")
    parts.hostname.encode("idna")
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    head = f" {path} HTTP/1.1\r\nhost: {parts.netloc.lower()}\r\n"
    return Target(tls, parts.hostname, parts.port or (443 if tls else 80), head, parts.netloc.lower())


def head_of(target: Target, request: Request) -> bytes:
    """Return the head of `request`, blank line included.

    Raises:
        ValueError: a header would break out of its line, or says what only the transport may say.
    """
    head = _before_length(request.method, target.head, tuple(request.headers.items()))
    length = len(request.body) if request.upload is None else request.upload.length
    if length is None:
        return head + b"transfer-encoding: chunked\r\n\r\n"
    if length or request.method in WITH_BODY:
        return b"%bcontent-length: %d\r\n\r\n" % (head, length)
    return head + b"\r\n"


def fields_of(target: Target, request: Request) -> Fields:
    """Return the head of `request`, as HTTP/2 has it.

    Raises:
        ValueError: as `head_of` does.
    """
    header_lines(request.method, request.headers)
    length = len(request.body) if request.upload is None else request.upload.length
    lines = {"user-agent": USER_AGENT, "accept-encoding": "identity", **request.headers}
    if length or (length is not None and request.method in WITH_BODY):
        lines["content-length"] = f"{length}"
    said = {
        ":method": request.method,
        ":scheme": "https" if target.tls else "http",
        ":authority": target.authority,
        ":path": target.head.split(" ", 2)[1],
        **lines,
    }
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said.items()]


@lru_cache(1024)
def _before_length(method: str, start: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return a head without the line that says where the body ends: that is all in which most of them differ."""
    own = "".join([line for name, line in _OWN if all(name != said for said, _ in headers)])
    return f"{method}{start}{own}{header_lines(method, dict(headers))}".encode("latin-1")


_OWN = (
    ("user-agent", f"user-agent: {USER_AGENT}\r\n"),
    ("accept-encoding", "accept-encoding: identity\r\n"),
)


def header_lines(method: str, headers: dict[str, str]) -> str:
    """Return a request's own headers as lines, each checked.

    Raises:
        ValueError: a name is no token or is reserved, or a value holds a line break, a NUL or more than latin-1.
    """
    for name in headers:
        _check_name(name)
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\r") == lines.count("\n") == len(headers) and "\0" not in lines and _is_latin(lines):
        if not _is_method(method):
            raise ValueError("a method is written in capital letters")
        return lines
    bad = [name for name, value in headers.items() if not _is_latin(value) or re.search(r"[\r\n\0]", value)]
    raise ValueError(f"the value of the header {bad[0]} has a line break or a character that headers cannot carry")


@lru_cache(1024)
def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]+", name):
        raise ValueError(f"{name[:40]!r} is no name of a header (lower-case letters, digits and dashes)")
    if name in _FRAMING:
        raise ValueError(f"the header {name} is the transport's own; leave it out")


@lru_cache(16)
def _is_method(method: str) -> bool:
    return re.fullmatch(r"[A-Z]+", method) is not None


def _is_latin(text: str) -> bool:
    return text.isascii() or max(text) < "\u0100"
