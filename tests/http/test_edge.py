"""What operators meet: probes, metrics, the log line, reloads while calls run; and that secrets stay secret."""

import asyncio
import json
import re
import socket
import subprocess
import sys

import pytest
from msgspec import Raw
from prometheus_client import REGISTRY

from gateway.core.call import Body
from gateway.core.middleware import chain
from gateway.core.reply import Chunk, Reply
from gateway.core.usage import Extras, Usage
from gateway.engine.engine import Engine
from gateway.middleware.cost import Cost
from gateway.middleware.log import Log, LogOptions
from gateway.store.lines import Lines
from tests.script import Busy, Cut, Fails, Says, ScriptedUpstream, Slow
from tests.serving import CHAIN, mock_config, serving
from tests.standins import StillClock, call_of

ADMIN, USER = "admin-canary-0123456789", "user-canary-0123456789"
KEYS = f"keys: [{{name: ops, key: {ADMIN}, admin: true}}, {{name: team-a, key: {USER}, models: [mock]}}]\n"


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


async def test_probes_say_what_they_are_for(upstream):
    """`/live` depends on nothing, `/ready` fails before a stop, `/health` asks no upstream."""
    async with serving(mock_config(upstream.url)) as gateway:
        assert (await gateway.http.get("/live")).json() == {"status": "alive"}
        assert (await gateway.http.get("/ready")).status_code == 200
        health = (await gateway.http.get("/health")).json()
        assert (health["status"], health["redis"]) == ("ok", "none") and "mock" in health["providers"]["on"]
        gateway.live.draining = True
        assert (await gateway.http.get("/ready")).status_code == 503
    assert upstream.asked == 0


async def test_metrics_have_the_names_that_dashboards_know(upstream):
    """The seeds' families and OpenTelemetry's, with bounded labels: no key, no user, no name that a client made up."""
    async with serving(mock_config(upstream.url).replace("echo: echo/echo", '"any/*": mock/*')) as gateway:
        upstream.will(Says("Hi", prompt_tokens=10, completion_tokens=5), Busy(), Busy(), Busy())
        await gateway.ask(model="any/made-up-canary")
        await gateway.ask(stream=True)
        await gateway.ask("answered", stream=True)
        await gateway.settle()
        text = (await gateway.http.get("/metrics")).text
    for family in (
        'chat_completions_total{model="any/*",outcome="finished",provider="mock"}',
        'chat_tokens_total{kind="prompt",model="any/*",provider="mock"} 10.0',
        "revenue_total_usd",
        "active_streams_current 0.0",
        "errors_total",
        'http_requests_total{method="POST",path="/v1/chat/completions",status="200"}',
        "http_request_duration_seconds_bucket",
        "gen_ai_client_token_usage_bucket",
        "gen_ai_client_operation_duration_bucket",
        "gen_ai_server_time_to_first_token_bucket",
        'gateway_attempts_total{error="Busy",provider="mock"}',
    ):
        assert family in text, family
    assert "canary" not in text


async def test_the_time_to_a_first_token_is_that_of_streams(upstream):
    """Whole answers among them would make it look as long as they take."""
    who = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "mock", "gen_ai_request_model": "told/*"}

    def seen(name):
        return REGISTRY.get_sample_value(f"gen_ai_{name}_count", who)

    async with serving(mock_config(upstream.url).replace("echo: echo/echo", '"told/*": mock/*')) as gateway:
        await gateway.ask(model="told/whole")
        await gateway.settle()
        assert (seen("client_operation_duration"), seen("server_time_to_first_token")) == (1, None)
        await gateway.ask(model="told/piece by piece", stream=True)
        await gateway.settle()
        assert (seen("client_operation_duration"), seen("server_time_to_first_token")) == (2, 1)


async def test_a_reload_loses_no_call_that_runs(upstream):
    """A call ends on the configuration it began with; the next one gets the new."""
    async with serving(mock_config(upstream.url)) as gateway:
        upstream.will(Slow("one two three four", first_s=0.2, between_s=0.1), "new")
        running = asyncio.ensure_future(gateway.ask(stream=True))
        await upstream.until(lambda: upstream.asked)
        gateway.config.text += "# changed\n"
        assert (await gateway.http.post("/admin/reload")).status_code == 200
        after = await gateway.ask()
        before = await running
    assert before.headers["x-gateway-config"] != after.headers["x-gateway-config"]
    assert "[DONE]" in before.text and '"new"' in after.text


async def test_a_bad_reload_says_why_and_changes_nothing(upstream):
    """All mistakes, to whoever asked for it."""
    async with serving(mock_config(upstream.url)) as gateway:
        gateway.config.text = "modles: {}\n"
        answer = await gateway.http.post("/admin/reload")
        assert answer.status_code == 400 and 'did you mean "models"' in answer.json()["error"]["message"]
        assert (await gateway.ask()).status_code == 200
        assert "modles" in (await gateway.http.get("/health")).json()["last_reload_error"]


async def test_reloading_is_for_admins(upstream):
    """With keys, a key with `admin: true`; without, this machine alone (which a test is)."""
    chain = CHAIN.replace("{use: metrics}", "{use: auth}")
    async with serving(mock_config(upstream.url, chain, KEYS)) as gateway:
        for key, status in (("", 401), ("wrong", 401), (USER, 403), (ADMIN, 200)):
            answer = await gateway.http.post("/admin/reload", headers={"authorization": f"Bearer {key}"} if key else {})
            assert answer.status_code == status, key


async def test_health_tells_an_admin_all_and_nobody_else(upstream):
    """How deployments are is for operators: by the key they have. Probes have none, and are answered nevertheless."""
    chain = CHAIN.replace("{use: metrics}", "{use: auth}")
    inside = {"/health": {"providers", "deployments", "last_reload_error"}, "/info": {"providers", "models", "chain"}}
    async with serving(mock_config(upstream.url, chain, KEYS)) as gateway:
        await gateway.ask(key=USER)
        for path, names in inside.items():
            for sent in ({"authorization": f"Bearer {ADMIN}"}, {"x-api-key": ADMIN}):
                assert names <= (await gateway.http.get(path, headers=sent)).json().keys()
            for key in ("", "wrong", "not.a.token", USER):
                answer = await gateway.http.get(path, headers={"authorization": f"Bearer {key}"} if key else {})
                assert answer.status_code == 200 and not names & answer.json().keys(), key
        told = await gateway.http.get("/health", headers={"authorization": f"Bearer {ADMIN}"})
        assert told.json()["deployments"][0]["name"] == "mock/mock-1" and ADMIN not in told.text


async def test_a_key_sees_and_uses_its_own_models_only(upstream):
    """By OpenAI's header or Anthropic's; strangers are told nothing about models."""
    chain = CHAIN.replace("{use: metrics}", "{use: auth}")
    async with serving(mock_config(upstream.url, chain, KEYS)) as gateway:
        listed = (await gateway.http.get("/v1/models", headers={"x-api-key": USER})).json()["data"]
        assert [model["id"] for model in listed] == ["mock"]
        assert (await gateway.ask(key=USER)).status_code == 200
        assert (await gateway.ask(key=USER, model="echo")).status_code == 403
        stranger = await gateway.ask(key="nobody", model="no-such-model")
        assert stranger.status_code == 401 and "mock" not in stranger.text
        assert stranger.headers["www-authenticate"] == "Bearer"


async def test_a_bug_of_ours_is_a_500_without_a_trace(upstream, caplog):
    """The body says under which id the log knows why; the process goes on."""
    async with serving(mock_config(upstream.url)) as gateway:
        finding = gateway.live.gateway.routes.find
        gateway.live.gateway.routes.find = lambda model: 1 / 0
        answer = await gateway.ask()
        gateway.live.gateway.routes.find = finding
        assert (await gateway.ask()).status_code == 200
    assert answer.status_code == 500 and "ZeroDivisionError" not in answer.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_middleware_that_returns_nothing_leaks_nothing(upstream, caplog, monkeypatch):
    """The commonest mistake of those who write one: its slot comes back all the same, and the log says what to do."""

    async def forgetful(self, call, next):
        await next(call)

    chain = "chain: [{use: auth}, {use: limits}, {use: cost}, {use: retry}]"
    keys = f"keys: [{{name: team-a, key: {USER}, limits: {{concurrent: 1}}}}]\n"
    async with serving(mock_config(upstream.url, chain, keys)) as gateway:
        monkeypatch.setattr(Cost, "__call__", forgetful)
        answers = [(await gateway.ask(key=USER)).status_code for _ in range(3)]
    assert answers == [500, 500, 500] and "return await next(call)" in caplog.text


async def test_secrets_are_in_no_output(upstream, caplog, capfd):
    """One unlike any other word in every place where a secret goes in; then every place where something comes out."""
    chain = "chain: [{use: log}, {use: metrics}, {use: auth}, {use: cost}, {use: retry, attempts: 1}]"
    config = mock_config(upstream.url, chain, KEYS).replace("upstream-secret", "upstream-canary-9876543210")
    steps = ["Hi", Busy(), Fails(500), Fails(401, {"error": {"message": "bad key upstream-canary-9876543210"}})]
    async with serving(config) as gateway:
        upstream.will(*steps, Cut("one two three", after_events=2))
        answers = [
            await gateway.ask("prompt-canary", key=key) for key in (USER, USER, USER, USER, "wrong-canary-0123456789")
        ]
        answers += [await gateway.ask("prompt-canary", key=USER, stream=True)]
        pages = ("/", "/health", "/info", "/metrics", "/openapi.json", "/v1/models")
        answers += [await gateway.http.get(page) for page in pages]
        await gateway.settle()
        gateway.config.text = config.replace("models:", "modles:")
        answers += [await gateway.http.post("/admin/reload", headers={"authorization": f"Bearer {ADMIN}"})]
    said = "".join(f"{answer.headers}{answer.text}" for answer in answers) + caplog.text + "".join(capfd.readouterr())
    assert "canary" not in said


def test_the_log_line_is_one_json_object_without_content(tmp_path):
    """Who, what, how it went, what it cost; the prompt only if asked for."""
    lines = []
    for content in (False, True):
        with (tmp_path / "log").open("w") as file:
            asyncio.run(_logged(LogOptions(format="json", content=content), file))
        lines.append((tmp_path / "log").read_text())
    plain, full = (json.loads(line) for line in lines)
    assert plain["event"] == "call" and plain["outcome"] == "finished" and plain["key"] == "anyone"
    assert "prompt-canary" not in lines[0] and "answer-canary" not in lines[0]
    assert full["messages"][0]["content"] == "prompt-canary" and full["answer"] == "answer-canary"


def test_the_log_line_says_what_there_is_to_say(tmp_path):
    """Whatever else an answer used is in it, zeros that mean something too; what does not apply takes no room."""
    used = Usage(10, 0, extras=Extras(searches=2))
    with (tmp_path / "log").open("w") as file:
        for usage in (used, None):
            asyncio.run(_logged(LogOptions(format="json"), file, usage))
        asyncio.run(_logged(LogOptions(format="console"), file, used))
    full, bare, console = (tmp_path / "log").read_text().splitlines()
    line = json.loads(full)
    assert (line["searches"], line["prompt_tokens"], line["completion_tokens"], line["stream"]) == (2, 10, 0, False)
    always = {"id", "operation", "outcome", "status", "key", "stream", "attempts", "total_ms", "first_chunk_ms"}
    always |= {"model", "prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"}
    always |= {"usage_estimated", "cost_usd", "event", "level", "timestamp"}
    assert set(json.loads(bare)) == always and set(line) == always | {"searches"}
    assert "searches=2" in console and "joined" not in console and "client_request_id" not in console


def test_the_log_line_can_be_for_people(tmp_path):
    """One line, too, and nothing that a terminal would have to interpret where there is none."""
    with (tmp_path / "log").open("w") as file:
        asyncio.run(_logged(LogOptions(format="console"), file))
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert "outcome=finished" in line and "\x1b" not in line and "canary" not in line


async def test_the_log_line_of_a_request_that_is_none_says_what_is_wrong_with_it(upstream, capfdbinary):
    """There is no model to tell it by, and `BadRequest` is many things."""
    async with serving(mock_config(upstream.url, "chain: [{use: log, format: json}, {use: retry}]")) as gateway:
        await gateway.post("/v1/chat/completions", {"messages": []})
        await gateway.http.post("/v1/chat/completions", content=b"{")
        await gateway.settle()
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines() if b'"event":"call"' in line]
    assert [(line["operation"], line["code"]) for line in lines] == [
        ("invalid", "missing_required_parameter"),
        ("invalid", "invalid_json"),
    ]


async def test_the_log_line_says_why_there_was_no_answer(capfd):
    """Whoever has to mend the address, the proxy or the certificate reads the log, and not the client's answer."""
    chain = "chain: [{use: log, format: json}, {use: retry, attempts: 1}]"
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        async with serving(mock_config(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1", chain)) as gateway:
            assert (await gateway.ask()).status_code == 502
            await gateway.settle()
    (line,) = [json.loads(line) for line in capfd.readouterr().out.splitlines() if '"event":"call"' in line]
    (failed,) = line["failed"]
    assert failed == "mock/mock-1 Unreachable: the upstream refuses connections; is it running?"


async def test_a_log_line_holds_nothing_that_a_terminal_obeys(upstream, capfd):
    """A model's name is the client's to choose; what a log is looked at with is not."""
    chain = "chain: [{use: log, format: console}, {use: retry}]"
    async with serving(mock_config(upstream.url, chain)) as gateway:
        await gateway.ask(model="a\x1b[31mred\r\nline")
        await gateway.settle()
    said = capfd.readouterr().out
    assert "a?[31mred??line" in said and "\x1b" not in said


async def test_a_reload_says_what_only_a_start_can_change(upstream, caplog):
    """A port is opened once."""
    async with serving(mock_config(upstream.url)) as gateway:
        gateway.config.text += "server: {port: 9999}\n"
        assert (await gateway.http.post("/admin/reload")).status_code == 200
    assert "server.port: takes effect at the next start" in caplog.text


async def _logged(options, file, usage=None):
    lines = Lines(file)
    log = Log(options, StillClock(), lines)

    async def last(call):
        return Reply(Chunk(b"{}", "answer-canary", usage))

    messages = b'[{"role": "user", "content": "prompt-canary"}]'
    call = call_of(StillClock(), body=Body(b"", {"messages": Raw(messages)}))
    async with Engine({"chat": chain([log], last)}).open(call):
        pass
    lines.flush()


async def test_pages_work_offline(upstream):
    """Whatever a page loads, it loads from here."""
    async with serving(mock_config(upstream.url)) as gateway:
        for page in ("/docs", "/redoc", "/"):
            html = (await gateway.http.get(page, headers={"accept": "text/html"})).text
            assert "<html" in html and "://" not in html.replace(gateway.url, "")
            for part in html.split('"'):
                if part.startswith("/ui/"):
                    assert (await gateway.http.get(part)).status_code == 200
        schema = (await gateway.http.get("/openapi.json")).json()
    assert {"/v1/chat/completions", "/v1/models", "/health", "/metrics", "/admin/reload"} <= set(schema["paths"])
    assert schema["components"]["schemas"]["ChatRequest"]["required"] == ["model", "messages"]


async def test_the_httpx_transport_can_be_chosen(upstream):
    """For proxies and whatever else httpx can do; the same promises."""
    config = mock_config(upstream.url).replace("kind: openai,", "kind: openai, http: httpx,")
    async with serving(config) as gateway:
        upstream.will("whole", "a stream of words")
        assert "whole" in (await gateway.ask()).text
        assert (await gateway.ask(stream=True)).text.endswith("data: [DONE]\n\n")
    assert upstream.asked == 2


def test_no_two_workers_give_the_same_id():
    """What one process had ready when another was made of it is not used by both."""
    program = (
        "import os; from gateway.http.edge import new_id\n"
        "new_id(); child = os.fork(); child and os.waitpid(child, 0)\n"
        "print(*(new_id() for _ in range(150)), flush=True)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert len(said) == len(set(said)) == 300 and all(re.fullmatch("req_[0-9a-f]{24}", id) for id in said)
