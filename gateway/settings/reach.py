"""How an upstream is reached: over which HTTP, through which proxy, with how many connections."""

import importlib
import os
import ssl
from collections.abc import Mapping
from typing import Protocol, Self

import certifi
from msgspec import Struct

from gateway.core.errors import Unreachable
from gateway.core.secret import Secret
from gateway.engine.http1 import MOST_CONNECTIONS, NativeTransport
from gateway.engine.outgoing import target_of
from gateway.engine.proxies import NONE, EnvironmentProxies, Proxy, ProxyFor, directly
from gateway.engine.transport import Transport
from gateway.providers.base import HTTP
from gateway.settings.complaints import OptionError


class Reached(Protocol):
    """Options of whoever is reached over HTTP."""

    @property
    def http(self) -> HTTP:
        """How HTTP is spoken."""
        ...

    @property
    def proxy(self) -> Secret:
        """The proxy's URL; `none`; or empty: as the environment says."""
        ...

    @property
    def ca(self) -> str:
        """A file of more authorities."""
        ...

    @property
    def max_connections(self) -> int:
        """To one host and port."""
        ...


class Reach(Struct, frozen=True):
    """What of an upstream's options says how it is reached. Who says the same shares connections."""

    http: HTTP = "native"
    proxy: Secret = Secret()
    ca: str = ""
    max_connections: int = MOST_CONNECTIONS

    @classmethod
    def of(cls, options: Reached) -> Self:
        """Return what `options` say.

        Raises:
            OptionError: the proxy is none.
        """
        said = options.proxy.reveal()
        if said and said != NONE:
            try:
                Proxy.parse(said, roots)
            except ValueError as error:
                raise OptionError("proxy", f"{error}; `{NONE}` is for none at all") from None
        return cls(options.http, options.proxy, options.ca, options.max_connections)

    def transport(self, environment: EnvironmentProxies) -> Transport:
        """Make what carries requests that way.

        Raises:
            ValueError: a file of authorities is none.
        """
        proxy_for, tls = self._proxy_for(environment), roots(self.ca)
        if self.http == "native":
            return NativeTransport(tls, most_connections=self.max_connections, proxy_for=proxy_for)
        # Imported here: they take a while, and whoever starts without them need not wait for them.
        name, module = ("Http2Transport", "http2") if self.http == "http2" else ("HttpxTransport", "httpx_transport")
        make = getattr(importlib.import_module(f"gateway.engine.{module}"), name)
        transport: Transport = make(tls, most_connections=self.max_connections, proxy_for=proxy_for)
        return transport

    def _proxy_for(self, environment: EnvironmentProxies) -> ProxyFor:
        said = self.proxy.reveal()
        if not said:
            return environment
        if said == NONE:
            return directly
        proxy = Proxy.parse(said, roots)
        return lambda _: proxy


def roots(ca: str = "") -> ssl.SSLContext:
    """Return what certificates are checked against: a context of its own for each caller, who may set it up further.

    Args:
        ca: a file of authorities that are trusted too.

    Raises:
        ValueError: a file of authorities is none.
    """
    named = os.environ.get("SSL_CERT_FILE", "")
    try:
        context = ssl.create_default_context(cafile=named or certifi.where())
    except OSError as error:
        raise ValueError(f"SSL_CERT_FILE: {_unreadable(named, error)}") from None
    if ca:
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            raise OptionError("ca", _unreadable(ca, error)) from None
    return context


def led_astray(urls: Mapping[str, str], environment: EnvironmentProxies) -> dict[str, str]:
    """Return whom the environment's proxy cannot lead to, each with the reason.

    Args:
        urls: of those who are reached as the environment says, by their names.
        environment: what it says.
    """
    astray: dict[str, str] = {}
    for name, url in urls.items():
        try:
            environment(target_of(url))
        except Unreachable as error:
            astray[name] = error.message
    return astray


def _unreadable(file: str, error: OSError) -> str:
    why = error.strerror or "it is no PEM"
    return f"{file} has no certificates that can be read ({why})"
