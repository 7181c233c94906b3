"""What names no model: the rest of `/v1` goes to whom the configuration names, and services stand behind `/proxy`."""

import asyncio
import gzip
import json

import httpx
import pytest
from prometheus_client import REGISTRY

from gateway.settings.complaints import ConfigError
from gateway.settings.load import load
from tests.script import MOST_S, Events, Fails, Raw, Resets, ScriptedUpstream, Silent
from tests.serving import mock_config, serving

KEY = "test-key-0123456789abcdef"
OTHER = "test-key-fedcba9876543210"
FORWARD = "forward: {files: mock, vector_stores/search: mock}\n"


def services(upstream, more=""):
    headers = f"{{X-Service: s3cret-s3cret{more}}}"
    return f"proxy:\n  edge: {{base_url: '{upstream.origin}/functions/v1/', headers: {headers}}}\n"


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def gateway(upstream):
    async with serving(mock_config(upstream.url, more=FORWARD + services(upstream))) as gateway:
        yield gateway


# ── /v1 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_sdk_works_with_files(gateway, upstream):
    """List, look, read, delete: each as the SDK sends it, with the provider's own key."""
    upstream.will(
        Fails(200, {"object": "list", "data": [{"id": "file-1"}], "has_more": False}),
        Fails(200, {"id": "file-1", "filename": "a b.jsonl"}),
        Fails(200, b'{"line": 1}\n', {"content-type": "application/octet-stream"}),
        Fails(200, {"id": "file-1", "deleted": True}),
    )
    files = gateway.openai(key="mine").files
    assert [file.id async for file in await files.list(purpose="batch")] == ["file-1"]
    assert (await files.retrieve("file-1")).filename == "a b.jsonl"
    assert (await files.content("file-1")).content == b'{"line": 1}\n'
    assert (await files.delete("file-1")).deleted
    asked = [(one.method, one.path, one.query) for one in upstream.requests]
    assert asked == [
        ("GET", "/v1/files", "purpose=batch"),
        ("GET", "/v1/files/file-1", ""),
        ("GET", "/v1/files/file-1/content", ""),
        ("DELETE", "/v1/files/file-1", ""),
    ]
    assert {one.headers["authorization"] for one in upstream.requests} == {"Bearer upstream-secret"}


@pytest.mark.parametrize(
    "path", ["/v1/batches", "/v1/vector_stores", "/v1/vector_stores/x/files", "/v1/", "/v1/filesx"]
)
async def test_what_nobody_is_named_for_goes_nowhere(gateway, upstream, path):
    """An account has more behind it than anybody meant to share."""
    answer = await gateway.http.post(path, json={})
    assert answer.status_code == 404 and not upstream.asked
    assert "forward" in answer.json()["error"]["message"]


async def test_the_longest_name_answers(gateway, upstream):
    """A part of a path may be named too, and whatever is below it."""
    assert (await gateway.http.get("/v1/vector_stores/search/a%2Fb?q=%20")).status_code == 200
    assert (upstream.requests[0].path, upstream.requests[0].query) == ("/v1/vector_stores/search/a%2Fb", "q=%20")


async def test_a_longer_name_beats_a_shorter(upstream):
    """So that a part of a path may be another's."""
    async with ScriptedUpstream() as other:
        providers = f"  other: {{kind: openai, base_url: {other.url}, api_key: s}}\n  echo: {{}}\n"
        config = mock_config(upstream.url, more="forward: {files: mock, files/own: other}\n")
        async with serving(config.replace("  echo: {}\n", providers)) as gateway:
            for path in ("files", "files/own", "files/own/x", "files/owner"):
                assert (await gateway.http.get(f"/v1/{path}")).status_code == 200
            assert [one.path for one in upstream.requests] == ["/v1/files", "/v1/files/owner"]
            assert [one.path for one in other.requests] == ["/v1/files/own", "/v1/files/own/x"]


async def test_all_the_rest_may_be_named(upstream):
    """By a star; what the gateway answers itself stays its own."""
    async with serving(mock_config(upstream.url, more='forward: {"*": mock}\n')) as gateway:
        upstream.will(Fails(200, {"id": "vs_1"}))
        store = await gateway.openai().vector_stores.create(name="a")
        assert store.id == "vs_1" and upstream.requests[0].json == {"name": "a"}
        assert (await gateway.http.get("/v1/models")).json()["object"] == "list"
        assert upstream.asked == 1


async def test_an_error_comes_back_as_it_is(gateway, upstream):
    """Its status and its body, whatever they are; and nobody asks twice, for it may have been done."""
    for status in (400, 404, 429, 500, 503):
        upstream.will(Fails(status, {"error": {"message": "theirs"}}, {"retry-after": "7"}))
        answer = await gateway.http.post("/v1/files", content=b"x")
        assert (answer.status_code, answer.json()) == (status, {"error": {"message": "theirs"}})
        assert answer.headers["retry-after"] == "7"
    assert upstream.asked == 5


@pytest.mark.parametrize("step", [Resets(0), Raw(b"")])
async def test_no_answer_is_a_502(gateway, upstream, step):
    """In our own words, as for every call; and not asked again."""
    upstream.will(step)
    answer = await gateway.http.post("/v1/files", content=b"x")
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "upstream_unavailable"
    assert upstream.asked == 1


async def test_only_headers_of_concern_go_to_a_provider(gateway, upstream):
    """Betas and ranges; no credential, no cookie, nothing about the client."""
    sent = {"openai-beta": "assistants=v2", "range": "bytes=0-9", "idempotency-key": "k"}
    hidden = {"authorization": "Bearer mine", "cookie": "a=b", "x-api-key": "mine", "x-forwarded-for": "1.2.3.4"}
    await gateway.http.get("/v1/files", headers={**sent, **hidden})
    asked = upstream.requests[0].headers
    assert sent.items() <= asked.items()
    assert "mine" not in json.dumps(asked) and "cookie" not in asked and "x-forwarded-for" not in asked


async def test_anthropics_api_can_be_named_too(upstream):
    """With its own credential, in the version that the client speaks."""
    claude = f"providers:\n  claude: {{kind: anthropic, base_url: {upstream.origin}, api_key: s3cret}}\n"
    config = f"{claude}forward: {{messages/batches: claude}}\nchain: [{{use: retry}}]\n"
    async with serving(config) as gateway:
        headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "b1", "x-api-key": "mine"}
        upstream.will(Fails(200, {"id": "msgbatch_1"}))
        answer = await gateway.http.post("/v1/messages/batches", json={"requests": []}, headers=headers)
        assert answer.json() == {"id": "msgbatch_1"}
        asked = upstream.requests[0]
        assert (asked.method, asked.path, asked.json) == ("POST", "/v1/messages/batches", {"requests": []})
        assert (asked.headers["x-api-key"], asked.headers["anthropic-version"]) == ("s3cret", "2026-10-21")
        assert asked.headers["anthropic-beta"] == "b1"


# ── /proxy ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_a_service_sees_the_request_as_it_was(gateway, upstream, method):
    """Method, path, query and body; the path below the service's own."""
    content = b"\x00\xff body" if method in ("POST", "PUT", "PATCH") else None
    answer = await gateway.http.request(method, "/proxy/edge/a%20b/c%2Fd/?x=1&x=2&y=%26", content=content)
    assert answer.status_code == 200
    asked = upstream.requests[0]
    assert (asked.method, asked.path, asked.query) == (method, "/functions/v1/a%20b/c%2Fd/", "x=1&x=2&y=%26")
    assert asked.body == (content or b"")
    assert asked.headers["x-service"] == "s3cret-s3cret"


async def test_headers_go_on_but_for_those_that_must_not(gateway, upstream):
    """Repeated ones too; nothing about the connection, no credential, and none that another header names."""
    sent = [("x-one", "1"), ("accept-language", "de"), ("accept-language", "en"), ("user-agent", "mine")]
    hidden = [
        *(("authorization", "Bearer k3y"), ("cookie", "k3y"), ("x-api-key", "k3y"), ("proxy-authorization", "k3y")),
        *(("connection", "keep-alive, x-hop"), ("x-hop", "1"), ("te", "trailers"), ("x-gateway-cost", "0")),
    ]
    await gateway.http.get("/proxy/edge/x", headers=[*sent, *hidden])
    asked = upstream.requests[0].headers
    assert (asked["x-one"], asked["accept-language"], asked["user-agent"]) == ("1", "de, en", "mine")
    assert "k3y" not in json.dumps(asked)
    assert not asked.keys() & {"x-hop", "te", "cookie", "x-gateway-cost", "proxy-authorization", "x-api-key"}


async def test_headers_come_back_but_for_those_that_must_not(gateway, upstream):
    """A service sets no cookies here, asks for no password, and says nothing in the gateway's name."""
    head = (
        b"HTTP/1.1 418 Teapot\r\nx-own: 1\r\netag: e\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n"
        b"set-cookie: a=b\r\nwww-authenticate: Basic\r\nx-gateway-cost: 9\r\nx-ratelimit-limit-requests: 1\r\n"
        b"connection: x-hop\r\nx-hop: 1\r\nx-request-id: theirs\r\n\r\nhi"
    )
    upstream.will(Raw(head, closes=False))
    answer = await gateway.http.get("/proxy/edge/x")
    assert (answer.status_code, answer.text) == (418, "hi")
    assert (answer.headers["x-own"], answer.headers["etag"], answer.headers["location"]) == ("1", "e", "/elsewhere")
    assert not answer.headers.keys() & {"set-cookie", "www-authenticate", "x-hop", "x-ratelimit-limit-requests"}
    assert answer.headers["x-gateway-cost"] != "9" and answer.headers["x-request-id"].startswith("req_")


async def test_a_redirect_is_the_clients_to_follow(gateway, upstream):
    """Followed here, it would lead wherever the service says."""
    upstream.will(Fails(302, b"", {"location": "http://169.254.169.254/"}))
    answer = await gateway.http.get("/proxy/edge/x")
    assert (answer.status_code, answer.headers["location"]) == (302, "http://169.254.169.254/")


async def test_a_stream_comes_as_it_is_said(gateway, upstream):
    """Byte for byte: nothing of ours is written into it."""
    upstream.will(Events(b"data: one\n\n", b"data: two\n\n", between_s=0.05))
    async with gateway.http.stream("GET", "/proxy/edge/x") as answer:
        pieces = [piece async for piece in answer.aiter_raw()]
    assert b"".join(pieces) == b"data: one\n\ndata: two\n\n" and len(pieces) > 1


async def test_a_packed_answer_comes_unpacked(gateway, upstream):
    """Some pack what was asked for plain; its length is then another's."""
    packed = gzip.compress(b"hello " * 100)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    upstream.will(Raw(head + packed, closes=False))
    answer = await gateway.http.get("/proxy/edge/x")
    assert answer.text == "hello " * 100 and "content-encoding" not in answer.headers


async def test_a_stream_that_breaks_never_looks_complete(gateway, upstream):
    """Its end is missing here too."""
    upstream.will(Raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"))
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.http.get("/proxy/edge/x")


async def test_a_head_has_no_body(gateway, upstream):
    """But says what one would be."""
    upstream.will(Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nx-own: 1\r\n\r\n", closes=False))
    answer = await gateway.http.head("/proxy/edge/x")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "1234", b"")


async def test_no_content_is_no_content(gateway, upstream):
    """A 204 has no body, and the connection goes on."""
    upstream.will(Raw(b"HTTP/1.1 204 No Content\r\n\r\n", closes=False), "Hello")
    answer = await gateway.http.delete("/proxy/edge/x")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await gateway.ask()).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/proxy/edge/../admin", "/proxy/edge/%2e%2e/admin", "/proxy/edge/a/..%2f..%2fadmin", "/proxy/edge/.%2E/x"),
        *("/proxy/edge/..\\admin", "/proxy/edge/%2e./x", "/v1/files/../x", "/proxy/../v1/files"),
    ],
)
async def test_a_path_stays_where_it_belongs(gateway, upstream, path):
    """However the way up is written."""
    reader_answer = await raw_get(gateway, path)
    assert b" 400 " in reader_answer or b" 404 " in reader_answer
    assert not upstream.asked


@pytest.mark.parametrize("path", ["//evil.example/x", "/@evil.example/x", "/http://evil.example/", "/:80/x"])
async def test_the_host_is_the_configurations_alone(gateway, upstream, path):
    """Nothing in a path leads elsewhere."""
    assert b" 200 " in await raw_get(gateway, f"/proxy/edge{path}")
    assert upstream.requests[0].path == f"/functions/v1{path}"
    assert upstream.requests[0].headers["host"] == f"127.0.0.1:{upstream.port}"


async def raw_get(gateway, path):
    """Send a path as it is: clients tidy theirs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), MOST_S)
    writer.close()
    return answer


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(gateway, upstream, status, caplog):
    """Whatever length its head says that one would have."""
    head = f"HTTP/1.1 {status} X\r\ncontent-length: 10\r\netag: e\r\n\r\n"
    upstream.will(Raw(head.encode(), closes=False))
    answer = await gateway.http.get("/proxy/edge/x", headers={"if-none-match": "e"})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (status, b"", "e")
    assert "Exception" not in caplog.text


@pytest.mark.parametrize(("path", "key"), [("/v1/files", "upstream-secret"), ("/proxy/edge/x", "s3cret-s3cret")])
async def test_an_error_repeats_no_credential(gateway, upstream, path, key):
    """Some upstreams say which key was wrong."""
    upstream.will(Fails(401, {"error": {"message": f"no such key: {key}"}}))
    answer = await gateway.http.get(path)
    assert answer.status_code == 401 and "no such key" in answer.text and key not in answer.text


@pytest.mark.parametrize("path", ["/v1%2Ffiles", "/v1%2Fx", "/proxy%2Fedge/x"])
async def test_a_path_begins_with_a_slash(gateway, upstream, path):
    """One that is written otherwise is none."""
    assert b" 40" in (await raw_get(gateway, path))[:20] and not upstream.asked


async def test_pages_of_other_sites_may_not_ask(gateway, upstream):
    """Where no key is asked for, a browser would spend ours on a picture's address."""
    answer = await gateway.http.get("/v1/files", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403 and not upstream.asked


async def test_an_unknown_service_is_told(gateway):
    """With those that there are."""
    answer = await gateway.http.get("/proxy/egde/x")
    assert answer.status_code == 404 and "there are edge" in answer.json()["error"]["message"]


async def test_a_silent_service_meets_its_clock(upstream):
    """As every upstream does."""
    more = f"proxy:\n  edge: {{base_url: '{upstream.origin}', timeouts: {{headers: 200ms}}}}\n"
    async with serving(mock_config(upstream.url, more=more)) as gateway:
        upstream.will(Silent())
        answer = await gateway.http.get("/proxy/edge/x")
        assert answer.status_code == 504 and "headers" in answer.json()["error"]["message"]


# ── The chain ────────────────────────────────────────────────────────────────────────────────────────────────────

CHAIN = "chain: [{use: log, format: json}, {use: metrics}, {use: auth}, {use: limits}, {use: cost}, {use: retry}]"
KEYS = (
    f"keys:\n  - {{name: team-a, key: {KEY}, models: [proxy/edge], limits: {{requests_per_minute: 2}}}}\n"
    f"  - {{name: team-b, key: {OTHER}, models: [mock, v1/files]}}\n"
)


async def test_services_stand_behind_the_same_chain(upstream, capfdbinary):
    """Keys, what each may use, limits, metrics and the log line."""
    who = {"operation": "forward", "model": "proxy/edge", "provider": "proxy/edge", "outcome": "finished"}

    def counted():
        return REGISTRY.get_sample_value("gateway_operations_total", who) or 0

    before = counted()
    config = mock_config(upstream.url, CHAIN, FORWARD + services(upstream) + KEYS)
    async with serving(config) as gateway:

        async def get(path, key=""):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return (await gateway.http.get(path, headers=headers)).status_code

        upstream.will(Fails(200, {"object": "list", "data": []}))
        assert await get("/proxy/edge/x") == 401
        assert await get("/proxy/edge/x", OTHER) == 403
        assert await get("/v1/files", KEY) == 403
        assert await get("/v1/files", OTHER) == 200
        assert [await get("/proxy/edge/x", KEY) for _ in range(3)] == [200, 200, 429]
        await gateway.settle()
        assert counted() == before + 2
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines() if b'"event":"call"' in line]
    assert [(line["operation"], line["status"]) for line in lines if line.get("model") == "proxy/edge"] == [
        *(("forward", status) for status in (403, 200, 200, 429))
    ]
    assert KEY not in json.dumps(lines)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("forward: {files: mok}\n", 'unknown provider "mok"'),
        ("forward: {/files: mock}\n", "no path below /v1"),
        ("forward: {embeddings: mock}\n", "answered by the gateway itself"),
        ("forward: {models: mock}\n", "answered by the gateway itself"),
        ("forward: {responses/resp_1: mock}\n", "answered by the gateway itself"),
        ("proxy: {a/b: {base_url: 'http://x'}}\n", "cannot be a part of a path"),
        ("proxy: {edge: {base_url: 'http://x', timeouts: {idle: 0s}}}\n", "no time at all"),
        ("proxy: {edge: {base_url: 'http://x', timeouts: {first_token: 1s}}}\n", 'unknown option "first_token"'),
        ("proxy: {edge: {url: 'http://x'}}\n", 'unknown option "url"'),
    ],
)
def test_mistakes_are_told(more, said):
    """With the place, before anything starts."""
    with pytest.raises(ConfigError, match=said):
        load(mock_config("http://localhost/v1", more=more), name="gateway.yaml", environment={})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("forward: {files: echo}\n", "passes nothing on"),
        ("proxy: {edge: {base_url: 'ftp://x'}}\n", "begins with http"),
        ("proxy: {edge: {base_url: 'http://x', headers: {Host: y}}}\n", "host"),
        ("proxy: {edge: {base_url: 'http://x?y=1'}}\n", "without"),
        ("proxy: {edge: {base_url: 'http://x/a#b'}}\n", "without"),
    ],
)
async def test_what_cannot_work_is_told_at_the_start(more, said):
    """With the place too."""
    with pytest.raises(ConfigError, match=said):
        async with serving(mock_config("http://localhost/v1", more=more)):
            pass


# ── What leads nowhere ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("otherwise", ["", ", '*': mock"])
async def test_a_path_whose_provider_is_off_says_so_and_goes_to_nobody_else(upstream, otherwise):
    """It is named; what is missing is the key. A file meant for one provider is not for another."""
    config = mock_config(upstream.url, more=f"forward: {{files: openai{otherwise}}}\n")
    async with serving(config.replace("  echo: {}\n", "  echo: {}\n  openai: {api_key: ''}\n")) as gateway:
        answer = await gateway.http.get("/v1/files/f-1")
        assert answer.status_code == 404 and not upstream.requests
        assert "is off, because provider openai is off: " in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        ("/v1/v1/chat/completions", "leave /v1 out of the base URL"),
        ("/v1/v1/models", "leave /v1 out of the base URL"),
        ("/v1/chat/completions/chat/completions", "did you mean /v1/chat/completions?"),
        ("/v1/batches", "who answers for it can be named under `forward:`; see docs/forwarding.md"),
    ],
)
async def test_a_path_that_leads_nowhere_says_what_was_meant(gateway, path, cure):
    """Clients add a path to their base URL, and some base URLs have it already."""
    answer = await gateway.http.post(path, json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"there is nothing at {path}; {cure}"
