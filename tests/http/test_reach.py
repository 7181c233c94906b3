"""How upstreams are reached, as gateway.yaml says: `proxy`, `max_connections`, `http`; and IPv6 on both sides."""

import asyncio
import json
import logging
import re
from pathlib import Path

import pytest

from gateway.settings.complaints import ConfigError
from gateway.settings.load import load
from gateway.settings.reach import Reach
from tests.dialects import Asked, Says, pieces, whole
from tests.engine.certs import server_context
from tests.engine.forward_proxy import ForwardProxy
from tests.engine.h2_server import H2Server, hello
from tests.script import Fails, ScriptedUpstream, Silent
from tests.serving import mock_config, serving

ELSEWHERE = "http://upstream.invalid/v1"
"""An address that only a proxy finds."""
NAMED = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Whatever this machine's environment says."""
    for name in NAMED:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


def config(url, options, more=""):
    return mock_config(url, more=more).replace("upstream-secret}", f"upstream-secret, {options}}}")


def test_the_page_s_example_is_right(tmp_path):
    """docs/upstreams.md is pasted from."""
    page = (Path(__file__).parents[2] / "docs" / "upstreams.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    settings = load(example, name="upstreams.md", environment={"OPENAI_API_KEY": "k", "PROXY_PASSWORD": "p"}).settings
    openai, inside = settings.providers["openai"], settings.providers["inside"]
    assert (Reach.of(openai).max_connections, Reach.of(inside).http) == (200, "http2")
    assert repr(settings).count("ann") == 0


@pytest.mark.parametrize("http", ["native", "httpx"])
async def test_the_environments_proxy_is_used_without_a_word_in_the_configuration(upstream, monkeypatch, http):
    """As by curl, and by the SDKs that the gateway stands in for."""
    monkeypatch.setenv("HTTP_PROXY", upstream.origin)
    async with serving(config(ELSEWHERE, f"http: {http}")) as gateway:
        assert (await gateway.ask()).json()["choices"][0]["message"]["content"] == "Hello"
    assert upstream.requests[0].path == f"{ELSEWHERE}/chat/completions"


@pytest.mark.parametrize("http", ["native", "httpx"])
async def test_a_provider_has_a_proxy_of_its_own_or_none(upstream, monkeypatch, http):
    """What gateway.yaml says of one provider is said of no other; its password is shown to nobody but the proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    own = config(ELSEWHERE, f"http: {http}, proxy: 'http://ann:secret@127.0.0.1:{upstream.port}'")
    async with serving(own) as gateway:
        assert (await gateway.ask()).status_code == 200
        assert "ann:secret" not in repr(load(own, name="gateway.yaml", environment={}).settings)
    assert upstream.requests[0].headers["proxy-authorization"] == "Basic YW5uOnNlY3JldA=="
    async with serving(config(ELSEWHERE, f"http: {http}, proxy: none")) as gateway:
        answer = await gateway.ask()
        assert (answer.status_code, upstream.asked) == (502, 1)
        assert "cannot be resolved" in answer.json()["error"]["message"]


async def test_a_service_has_a_proxy_too(upstream):
    """`proxy:` below `proxy:` is the proxy on the way to the service."""
    service = f"proxy: {{tool: {{base_url: 'http://tool.invalid/x', proxy: '{upstream.origin}'}}}}"
    async with serving(mock_config(upstream.url, more=service)) as gateway:
        assert (await gateway.http.post("/proxy/tool/a", json={})).status_code == 200
    assert upstream.requests[0].path == "http://tool.invalid/x/a"


async def test_a_proxy_that_fails_is_told_without_its_password(upstream, caplog):
    """To the client, and in the log line."""
    proxy = "http://ann:secret@127.0.0.1:9"
    with caplog.at_level(logging.DEBUG):
        async with serving(config(ELSEWHERE, f"proxy: '{proxy}'")) as gateway:
            answer = await gateway.ask()
    assert answer.status_code == 502
    assert "the proxy refuses connections" in answer.json()["error"]["message"]
    assert "secret" not in answer.text + caplog.text.replace("upstream-secret", "")


async def other_http(reader, writer):
    """What a server of HTTP/1.1 says to the preface of HTTP/2."""
    await reader.read(10)
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    writer.close()


@pytest.fixture(params=["no HTTP/2", "SOCKS", "no proxy", "407", "407 for a tunnel", "403 for a tunnel"])
async def unreachable(request, upstream, monkeypatch):
    """A provider that cannot be reached until somebody configures it otherwise: its options and what is said of it."""
    if request.param == "no HTTP/2":
        server = await asyncio.start_server(other_http, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "http: http2", "speaks no HTTP/2"
        server.close()
    elif request.param in ("SOCKS", "no proxy"):
        said = "socks5://127.0.0.1:9" if request.param == "SOCKS" else "http://127.0.0.1:port"
        monkeypatch.setenv("HTTP_PROXY", said)
        yield ELSEWHERE, "http: native", "HTTP_PROXY: "
    elif request.param == "407":
        upstream.will(*[Fails(407)] * 9)
        yield ELSEWHERE, f"proxy: '{upstream.origin}'", "does not take our credentials"
    else:
        async with ForwardProxy({}, credentials="x" if request.param.startswith("407") else "") as proxy:
            words = "does not take our credentials" if request.param.startswith("407") else r"status 403"
            yield ELSEWHERE.replace("http:", "https:"), f"proxy: '{proxy.url}'", words


async def test_what_only_its_configuration_can_mend_is_not_asked_again(unreachable):
    """Another model at the same provider neither; somebody else's is, and at once."""
    url, options, words = unreachable
    text = config(url, options).replace(
        "price: {prompt: 1, completion: 2}}", "price: {prompt: 1, completion: 2}}, mock/mock-2"
    )
    async with serving(text) as gateway:
        answer = await gateway.ask()
        assert (answer.status_code, answer.headers["x-gateway-attempts"]) == (502, "1")
        assert re.search(words, answer.json()["error"]["message"])
    async with serving(text.replace("mock/mock-2", "mock/mock-2, echo/echo")) as gateway:
        answer = await gateway.ask("Hello")
        assert (answer.status_code, answer.headers["x-gateway-attempts"]) == (200, "2")


@pytest.mark.parametrize("said", ["ftp://p", "socks5://ann:secret@p:1", "http://ann:secret@p:port"])
async def test_a_proxy_that_is_none_is_a_mistake_of_the_file(upstream, said):
    """With its place and its cure, and without the password."""
    with pytest.raises(ConfigError, match=r"gateway.yaml:3:12 providers.mock.proxy: .*`none`") as caught:
        async with serving(config(upstream.url, f"\n    proxy: '{said}'")):
            pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("http", ["native", "httpx", "http2"])
async def test_an_authority_of_ones_own_is_trusted_where_it_is_named(tmp_path, monkeypatch, http):
    """`ca` of a provider, or `SSL_CERT_FILE` for all; certificates are checked whatever `http` says."""
    context = server_context(tmp_path)
    context.set_alpn_protocols(["h2" if http == "http2" else "http/1.1"])
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with H2Server(hello, tls=context) if http == "http2" else ScriptedUpstream(tls=context) as upstream:
        url = f"https://127.0.0.1:{upstream.port}/v1"
        options = f"http: {http}"
        async with serving(config(url, options)) as gateway:
            answer = await gateway.ask()
            assert (answer.status_code, "certificate is not trusted" in answer.text) == (502, True)
        async with serving(config(url, f"{options}, ca: {tmp_path / 'ca.pem'}")) as gateway:
            await gateway.ask()
            heard = upstream.asked if http == "http2" else upstream.requests
            assert heard
            heard.clear()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        async with serving(config(url, options)) as gateway:
            await gateway.ask()
            assert heard


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), ("no certificate", "has no certificates")])
async def test_a_file_of_authorities_that_is_none_is_told_at_the_start(upstream, tmp_path, monkeypatch, content, why):
    """Not with the first call, and with its name."""
    file = tmp_path / "authorities"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=f"providers.mock.ca: .*authorities.*{why}"):
        async with serving(config(upstream.url, f"ca: {file}")):
            pass
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(ConfigError, match=f"SSL_CERT_FILE: .*{why}"):
        async with serving(config(upstream.url, "http: native")):
            pass


async def test_a_limit_of_connections_is_a_provider_s(upstream):
    """Who waits beyond it waits by the call's own clocks, and is told what the line is for."""
    upstream.will(Silent())
    hasty = "models:\n  hasty: {deployments: [mock/mock-2], timeouts: {headers: 100ms, then: {headers: error}}}\n"
    async with serving(config(upstream.url, "max_connections: 1").replace("models:\n", hasty)) as gateway:
        first = asyncio.ensure_future(gateway.ask())
        await upstream.until(lambda: upstream.asked)
        answer = await gateway.ask(model="hasty")
        assert answer.status_code == 504
        assert "all 1 connections to the upstream (max_connections) are in use" in answer.json()["error"]["message"]
        first.cancel()
        await asyncio.wait({first})
        assert (await gateway.ask()).status_code == 200


async def test_a_gateway_and_its_upstream_may_be_on_ipv6():
    """`[::1]` in a base_url; a machine without IPv6 says that nobody can be reached there."""
    async with ScriptedUpstream() as upstream:
        try:
            server = await asyncio.get_running_loop().create_server(upstream.connection, "::1", 0)
        except OSError:
            async with serving(mock_config("'http://[::1]:9/v1'")) as gateway:
                assert "no connection" in (await gateway.ask()).json()["error"]["message"]
            return
        url = f"'http://[::1]:{server.sockets[0].getsockname()[1]}/v1'"
        async with serving(mock_config(url)) as gateway:
            assert "Hello" in (await gateway.ask()).text
        server.close()
        assert json.loads(upstream.requests[0].body)["model"] == "mock-1"


async def test_an_upstream_may_be_spoken_to_in_http2():
    """Whole answers and streams, ten at once, on one connection; and who leaves resets his own alone."""

    async def handler(asked):
        await asked.whole.wait()
        body = json.loads(asked.body)
        if body["messages"][0]["content"] == "wait":
            await asked.forever()
        said = Asked("POST", asked.headers[":path"], "", asked.headers, asked.body)
        answer = b"".join(pieces(Says("Hello"), said)) if body.get("stream") else whole(Says("Hello"), said)
        kind = "text/event-stream" if body.get("stream") else "application/json"
        await asked.answer(answer, content_type=kind)

    async with H2Server(handler) as upstream:
        url = f"http://127.0.0.1:{upstream.port}/v1"
        async with serving(config(url, "http: http2")) as gateway:
            waiting = asyncio.ensure_future(gateway.ask("wait"))
            await upstream.until(lambda: upstream.asked)
            answers = await asyncio.gather(*(gateway.ask(stream=bool(number % 2)) for number in range(10)))
            assert all("Hello" in answer.text and answer.status_code == 200 for answer in answers)
            waiting.cancel()
            await upstream.until(lambda: upstream.asked[0].reset is not None)
        assert len(upstream.connections) == 1
        assert upstream.asked[0].headers["authorization"] == "Bearer upstream-secret"
