"""Which proxy stands between us and an upstream, if any: as gateway.yaml says, or else as the environment does.

The environment is read as curl, Go and httpx read it: `HTTPS_PROXY` for https://, `HTTP_PROXY` for http://,
`ALL_PROXY` for what neither names, in small letters first; and `NO_PROXY` for what is asked directly. Loopback and
link-local addresses never go through a proxy of the environment: they mean another machine there, and the metadata
service of a cloud answers nobody else.
"""

import ipaddress
import re
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Self
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from gateway.core.errors import Unreachable
from gateway.core.secret import Secret
from gateway.engine.outgoing import Target, default_tls

NONE = "none"
"""What `proxy:` says for no proxy at all."""
LINK_LOCAL = frozenset({"metadata.google.internal", "metadata"})
"""Names of link-local addresses."""

NO_PROXY_URL = "expected a proxy like http://host:3128, http://user:password@host:3128 or https://…"
PORTS = {"http": 80, "https": 443}


class Proxy(Struct, frozen=True):
    """An HTTP proxy."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    """What its own certificate is checked against, where it is spoken to over TLS."""
    authorization: Secret = Secret()
    """The value of `proxy-authorization`."""

    @classmethod
    def parse(cls, url: str, tls: Callable[[], ssl.SSLContext] = default_tls) -> Self:
        """Read a proxy's URL.

        Raises:
            ValueError: it is none, or no HTTP proxy's; no part of it is repeated, as it may hold a password.
        """
        scheme, _, rest = url.rpartition("://")
        scheme = scheme.lower() or "http"
        if re.fullmatch("socks[45][ah]?", scheme):
            raise ValueError("a SOCKS proxy is not supported, only http:// and https:// proxies are")
        try:
            parts = urlsplit(f"//{rest}")
            host, port = parts.hostname, parts.port
        except ValueError:
            too_large = re.search("[^:]:[0-9]{5,}/?$", rest)
            raise ValueError(f"its port is above 65535; {NO_PROXY_URL}" if too_large else NO_PROXY_URL) from None
        if scheme not in PORTS or not host or not re.fullmatch("[!-~]+", rest) or parts.path.strip("/"):
            raise ValueError(NO_PROXY_URL)
        user = "" if parts.username is None else f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = Secret(f"Basic {b64encode(user.encode()).decode()}" if user else "")
        return cls(host, port or PORTS[scheme], tls() if scheme == "https" else None, authorization)

    def forwarded(self, target: Target, head: bytes) -> bytes:
        """Return the head of a request for http:// as a proxy takes it: with the whole URL, and our credentials."""
        method, _, rest = head.partition(b" ")
        line, _, lines = rest.partition(b"\r\n")
        return b"%b http://%b%b\r\n%b%b" % (method, target.authority.encode(), line, self._credentials(), lines)

    def connect(self, target: Target) -> bytes:
        """Return what asks for a tunnel to `target`. Source: RFC 9110, "CONNECT"."""
        host = f"[{target.host}]" if ":" in target.host else target.host
        place = f"{host}:{target.port}".encode()
        return b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (place, place, self._credentials())

    def _credentials(self) -> bytes:
        value = self.authorization.reveal().encode()
        return b"proxy-authorization: %b\r\n" % value if value else b""


ProxyFor = Callable[[Target], Proxy | None]
"""Says which proxy leads to a target. Raises `Unreachable`: one should, and it cannot be used."""


def directly(target: Target) -> None:
    """Return no proxy, wherever it goes."""
    return


class EnvironmentProxies:
    """What the environment's variables say. Satisfies `ProxyFor`."""

    def __init__(self, environ: Mapping[str, str], tls: Callable[[], ssl.SSLContext] = default_tls) -> None:
        self._proxies = {scheme: _named(environ, f"{scheme}_proxy", "all_proxy", tls) for scheme in PORTS}
        self._direct = [rule for rule in re.split(r"[,\s]+", _value(environ, "no_proxy")[1].lower()) if rule]

    def __call__(self, target: Target) -> Proxy | None:
        """Return the proxy that leads to `target`.

        Raises:
            Unreachable: the environment names one that is none.
        """
        proxy = self._proxies["https" if target.tls else "http"]
        if proxy is None or _is_near(target.host) or any(_is_for(rule, target) for rule in self._direct):
            return None
        if isinstance(proxy, str):
            raise Unreachable(proxy).lasting()
        return proxy


def _named(environ: Mapping[str, str], own: str, all: str, tls: Callable[[], ssl.SSLContext]) -> Proxy | str | None:
    """Return the proxy that a variable names, or what is wrong with it."""
    for variable in (own, all):
        name, value = _value(environ, variable)
        if value:
            try:
                return Proxy.parse(value, tls)
            except ValueError as error:
                return f"{name}: {error}; NO_PROXY, or the provider's `proxy: none`, leads past it"
    return None


def _value(environ: Mapping[str, str], variable: str) -> tuple[str, str]:
    """Return a variable's name as it is written, and its value; empty where it is not set."""
    return next(
        ((name, value) for name in (variable, variable.upper()) if (value := environ.get(name, "").strip())),
        (variable, ""),
    )


def _is_near(host: str) -> bool:
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost") or host in LINK_LOCAL
    return address.is_loopback or address.is_link_local


def _is_for(rule: str, target: Target) -> bool:
    """Tell whether a rule of `NO_PROXY` means `target`: `*`, a name and all names below it, an address, or a network;
    with a port, that port only."""
    if rule == "*":
        return True
    address = _address(target.host)
    if address is not None and "/" in rule:
        try:
            return address in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    found = re.fullmatch(r"\[(.*)\](?::(\d+))?|([^:]*):(\d+)|(.*)", rule)
    assert found is not None, "the last alternative takes everything"
    port = found[2] or found[4]
    if port and int(port) != target.port:
        return False
    name = found[1] or found[3] or found[5] or ""
    if address is not None:
        return _address(name) == address
    name = name.removeprefix("*").removeprefix(".")
    return bool(name) and (target.host == name or target.host.endswith(f".{name}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
