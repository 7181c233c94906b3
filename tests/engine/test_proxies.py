"""Upstreams behind a proxy: as the environment says or gateway.yaml, and the same for every way to speak HTTP."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import TimedOut, Unreachable
from gateway.engine.http1 import NativeTransport
from gateway.engine.httpx_transport import HttpxTransport
from gateway.engine.outgoing import target_of
from gateway.engine.proxies import EnvironmentProxies, Proxy, ProxyFor
from gateway.engine.transport import Transport
from gateway.providers.base import Request
from tests.engine.certs import server_context
from tests.engine.forward_proxy import ForwardProxy
from tests.engine.test_transport_contract import ask, within
from tests.script import Fails, ScriptedUpstream, Silent

HOST = "upstream.example"
HTTPS = Request(f"https://{HOST}/v1/chat/completions", b'{"model": "m"}', {"authorization": "Bearer upstream-key"})
HTTP = Request("http://upstream.invalid/v1/chat/completions", b'{"model": "m"}', {})
USER = "ann:s%40cret%20word"
SECRET = b64encode(b"ann:s@cret word").decode()

Make = Callable[..., Transport]


@pytest.fixture(params=[NativeTransport, HttpxTransport])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Make, None]:
    """Make a transport that goes through proxies and trusts the certificate in `tmp_path`."""
    made: list[Transport] = []

    def made_of(proxy_for: ProxyFor, **more: Any) -> Transport:
        tls = ssl.create_default_context(cafile=tmp_path / "ca.pem") if (tmp_path / "ca.pem").exists() else None
        made.append(request.param(tls, proxy_for=proxy_for, **more))
        return made[-1]

    yield made_of
    for transport in made:
        await transport.close()


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncGenerator[ScriptedUpstream, None]:
    """An upstream that has a certificate for `HOST`."""
    async with ScriptedUpstream(tls=server_context(tmp_path, name=HOST)) as upstream:
        yield upstream


async def test_the_environments_proxy_leads_to_an_upstream(make: Make, upstream: ScriptedUpstream):
    """One tunnel for several calls, its credentials for nobody but the proxy, TLS with the upstream itself."""
    async with ForwardProxy({(HOST, 443): upstream.port}, credentials=SECRET) as proxy:
        transport = make(EnvironmentProxies({"HTTPS_PROXY": proxy.url.replace("//", f"//{USER}@")}))
        for _ in range(3):
            assert b"Hello" in await ask(transport, HTTPS)
        assert proxy.asked == [f"CONNECT {HOST}:443 HTTP/1.1"]
    asked = upstream.requests[0]
    assert (asked.path, asked.headers["host"]) == ("/v1/chat/completions", HOST)
    assert asked.headers["authorization"] == "Bearer upstream-key"
    assert not [name for name in asked.headers if name.startswith("proxy")]


async def test_what_is_not_encrypted_is_given_to_the_proxy(make: Make):
    """With the whole URL, as RFC 9112 §3.2.2 has it: many proxies tunnel to port 443 alone."""
    async with ScriptedUpstream() as proxy:
        transport = make(EnvironmentProxies({"http_proxy": proxy.origin.replace("//", f"//{USER}@")}))
        for _ in range(2):
            assert b"Hello" in await ask(transport, HTTP)
        asked = proxy.requests[1]
        assert (asked.path, asked.headers["host"]) == (HTTP.url, "upstream.invalid")
        assert asked.headers["proxy-authorization"] == f"Basic {SECRET}"
        assert proxy.accepted == 1


async def test_no_proxy_is_asked_for_what_NO_PROXY_names(make: Make):
    """Nobody has the name that is asked for, so going there directly fails, and the proxy hears nothing of it."""
    async with ScriptedUpstream() as proxy:
        transport = make(EnvironmentProxies({"HTTP_PROXY": proxy.origin, "NO_PROXY": "localhost, .invalid"}))
        with pytest.raises(Unreachable, match="upstream's name cannot be resolved"):
            await ask(transport, HTTP)
        assert not proxy.asked


async def test_this_machine_is_never_asked_through_the_environments_proxy(make: Make):
    """`localhost` means another machine there."""
    async with ScriptedUpstream() as upstream, ScriptedUpstream() as proxy:
        transport = make(EnvironmentProxies({"HTTP_PROXY": proxy.origin}))
        assert b"Hello" in await ask(transport, Request(f"{upstream.url}/chat/completions", b"{}", {}))
        assert not proxy.asked


@pytest.mark.parametrize("request_", [HTTPS, HTTP])
async def test_credentials_that_a_proxy_does_not_take_are_told_of_and_not_told(make: Make, request_: Request):
    """The operator's mistake, in words, and the password in none of them."""
    async with ForwardProxy({}, credentials="other") as tunnel, ScriptedUpstream() as plain:
        plain.will(Fails(407))
        environ = {"HTTPS_PROXY": tunnel.url, "HTTP_PROXY": plain.origin}
        transport = make(EnvironmentProxies({name: url.replace("//", f"//{USER}@") for name, url in environ.items()}))
        with pytest.raises(Unreachable, match="the proxy does not take our credentials") as caught:
            await ask(transport, request_)
        assert "cret" not in caught.value.message
        assert SECRET not in caught.value.message


async def test_a_proxy_that_does_not_lead_there_says_so(make: Make, upstream: ScriptedUpstream):
    """By its status: a 403 is a rule of somebody's, and not the upstream's doing."""
    async with ForwardProxy({}) as proxy:
        transport = make(lambda _: proxy.proxy())
        with pytest.raises(Unreachable, match=r"proxy does not let us through to the upstream \(status 403\)"):
            await ask(transport, HTTPS)
        await proxy.until_all_left()


async def test_what_a_proxy_answers_may_be_rubbish(upstream: ScriptedUpstream, make: Make):
    """And is then no tunnel."""
    for answer in (b"SSH-2.0-OpenSSH\r\n\r\n", b"\0" * 70_000):
        async with ForwardProxy({}, answer=answer) as proxy:
            with pytest.raises(Unreachable):
                await ask(make(lambda _, proxy=proxy: proxy.proxy()), HTTPS)


async def test_bytes_behind_a_proxys_answer_are_not_taken_for_the_upstreams():
    """Whoever stands in between could put them there, before TLS has begun."""
    async with ForwardProxy({}, answer=b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n") as proxy:
        transport = NativeTransport(proxy_for=lambda _: proxy.proxy())
        with pytest.raises(Unreachable, match="said something before"):
            await ask(transport, HTTPS)
        await transport.close()


async def test_a_proxy_that_is_not_there_is_told_of(make: Make):
    """It is not the upstream that refuses."""
    async with ForwardProxy({}) as proxy:
        gone = proxy.proxy()
    for request in (HTTPS, HTTP):
        with pytest.raises(Unreachable, match="refuses connections"):
            await ask(make(lambda _: gone), request)
    transport = NativeTransport(proxy_for=lambda _: gone)
    with pytest.raises(Unreachable, match="the proxy refuses connections"):
        await ask(transport, HTTPS)
    await transport.close()


async def test_a_proxy_that_is_silent_takes_no_longer_than_a_connection_may():
    """The tunnel is part of connecting; and the one who gave up leaves nothing behind."""
    async with ForwardProxy({}, answer=b"") as proxy:
        transport = NativeTransport(proxy_for=lambda _: proxy.proxy(), most_connections=1)
        for _ in range(2):
            with pytest.raises(TimedOut, match=r"timeouts\.connect "):
                await transport.send(HTTPS, connect_s=0.1, deadline=within(30.0))
        await proxy.until_all_left()
        await transport.close()


async def test_who_leaves_while_a_tunnel_is_made_closes_it():
    """And the place in the pool comes back."""
    async with ForwardProxy({}, answer=b"") as proxy:
        transport = NativeTransport(proxy_for=lambda _: proxy.proxy(), most_connections=1)
        for _ in range(2):
            asking = asyncio.ensure_future(ask(transport, HTTPS))
            async with asyncio.timeout(30):
                while not proxy.open:
                    await asyncio.sleep(0.001)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await proxy.until_all_left()
        await transport.close()


async def test_a_proxy_may_be_spoken_to_over_tls(make: Make, upstream: ScriptedUpstream, tmp_path: Path):
    """Its certificate is checked like any other, and TLS with the upstream runs within it."""
    (tmp_path / "proxy").mkdir()
    roots = lambda: ssl.create_default_context(cafile=tmp_path / "proxy" / "ca.pem")  # noqa: E731
    async with ForwardProxy({(HOST, 443): upstream.port}, tls=server_context(tmp_path / "proxy")) as proxy:
        transport = make(EnvironmentProxies({"https_proxy": proxy.url}, roots))
        assert b"Hello" in await ask(transport, HTTPS)
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            await ask(make(EnvironmentProxies({"https_proxy": proxy.url})), HTTPS)


async def test_a_tunnel_vouches_for_nobody(make: Make, upstream: ScriptedUpstream):
    """The upstream's certificate is checked at its other end."""
    async with ForwardProxy({("elsewhere.example", 443): upstream.port}) as proxy:
        transport = make(lambda _: proxy.proxy())
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            await ask(transport, Request("https://elsewhere.example/v1", b"{}", {}))
        assert not upstream.asked


async def test_at_the_other_end_of_a_tunnel_it_is_seen_who_leaves(make: Make, upstream: ScriptedUpstream):
    """At once, as without a proxy: a client that left is not worth another token."""
    upstream.will(Silent())
    async with ForwardProxy({(HOST, 443): upstream.port}) as proxy:
        asking = asyncio.ensure_future(ask(make(lambda _: proxy.proxy()), HTTPS))
        await upstream.until(lambda: upstream.asked, timeout=30)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await upstream.until(lambda: upstream.gone, timeout=30)


# ── The environment's words ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("environ", "url", "port"),
    [
        ({}, "https://a.example", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.example", 1),
        ({"HTTPS_PROXY": "http://p:1"}, "http://a.example", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://a.example", 1),
        ({"HTTPS_PROXY": "http://p:1", "https_proxy": "http://p:2"}, "https://a.example", 2),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "http://p:3"}, "https://a.example", 3),
        ({"ALL_PROXY": "http://p:3", "http_proxy": "p:4"}, "http://a.example", 4),
        ({"all_proxy": "http://p"}, "http://a.example", 80),
        ({"all_proxy": "http://[fd00::1]:8080/"}, "http://a.example", 8080),
    ],
)
def test_variables_are_read_as_curl_reads_them(environ: dict[str, str], url: str, port: int | None):
    """Small letters first, then capitals; the scheme's own, then the one for all; empty is not set."""
    proxy = EnvironmentProxies(environ)(target_of(url))
    assert (None if proxy is None else proxy.port) == port


@pytest.mark.parametrize(
    ("rule", "direct", "through"),
    [
        ("*", ["https://a.example"], []),
        ("a.example", ["https://a.example", "https://b.a.example", "https://a.example:8443"], ["https://ba.example"]),
        (".a.example", ["https://a.example", "https://b.a.example"], ["https://ba.example"]),
        ("*.a.example", ["https://b.a.example"], ["https://ba.example"]),
        ("A.Example", ["https://a.example"], []),
        ("a.example:8443", ["https://a.example:8443"], ["https://a.example"]),
        ("10.0.0.0/8 fd00::/8", ["https://10.1.2.3", "https://[fd00::1]"], ["https://11.1.1.1", "https://a.example"]),
        (
            "10.0.0.1,[fd00::1]:443",
            ["https://10.0.0.1", "https://[fd00::1]"],
            ["https://10.0.0.2", "https://[fd00::2]"],
        ),
        ("fd00::1", ["https://[fd00:0::1]"], ["https://[fd00::2]"]),
        ("", ["https://localhost", "https://a.localhost", "https://127.8.0.1", "https://[::1]"], ["https://10.0.0.1"]),
        ("", ["http://169.254.169.254", "http://metadata.google.internal"], ["http://metadata.example"]),
        (", 1/2/3", [], ["https://a.example", "https://10.0.0.1"]),
    ],
)
def test_some_upstreams_are_asked_directly(rule: str, direct: list[str], through: list[str]):
    """Names with all below them, addresses, networks, ports; and this machine and its link, whatever is said."""
    proxies = EnvironmentProxies({"ALL_PROXY": "http://p:1", "NO_PROXY": rule})
    assert [url for url in direct if proxies(target_of(url)) is not None] == []
    assert [url for url in through if proxies(target_of(url)) is None] == []


def test_a_proxy_that_is_none_is_told_to_who_needs_it():
    """Who has `ALL_PROXY=socks5://…` for other programs, and asks his own machine alone, is not troubled by it."""
    proxies = EnvironmentProxies({"ALL_PROXY": "socks5h://ann:secret@p:1080"})
    assert proxies(target_of("http://localhost:11434")) is None
    with pytest.raises(Unreachable, match="ALL_PROXY: a SOCKS proxy is not supported") as caught:
        proxies(target_of("https://a.example"))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "url", ["ftp://p", "http://", "http://p:port", "http://p/path", "http://a b", "", "http://p:99999"]
)
def test_what_is_no_proxy_is_none(url: str):
    """Told without repeating it."""
    with pytest.raises(ValueError, match="expected a proxy like"):
        Proxy.parse(url)


def test_a_port_that_is_too_large_is_told_so():
    """All else is as expected, and whoever reads only what is expected looks for it there."""
    for url in ("http://ann:secret@p:99999", "p:65536/"):
        with pytest.raises(ValueError, match=r"^its port is above 65535; expected"):
            Proxy.parse(url)
    with pytest.raises(ValueError, match=r"^expected"):
        Proxy.parse("http://[::12345")


def test_a_proxy_prints_without_its_password():
    """It stands in settings, and settings stand in tracebacks."""
    proxy = Proxy.parse("http://ann:secret@p:1")
    assert "secret" not in repr(proxy)
    assert b64encode(b"ann:secret").decode() not in repr(proxy)


def test_an_address_in_brackets_stays_in_brackets():
    """An upstream at an IPv6 address, through a tunnel."""
    target = target_of("https://[fd00::1]/v1")
    assert b"CONNECT [fd00::1]:443 HTTP/1.1\r\nhost: [fd00::1]:443\r\n" in Proxy("p", 1).connect(target)
