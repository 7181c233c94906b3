"""`database:` in gateway.yaml, through a whole gateway."""

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime

import httpx
import pytest

from gateway.settings.complaints import ConfigError
from gateway.store import database, recorder
from tests.postgres import Postgres
from tests.script import Cut, Fails, Says, ScriptedUpstream, Stalls
from tests.serving import mock_config, serving, started
from tests.store.rows import eventually, recorded, rows_of

CHAIN = "chain: [{use: metrics}, {use: auth}, {use: cache}, {use: cost}, {use: retry, attempts: 2, first_wait: 1ms}]"
KEYS = "keys: [{name: key-a, key: secret-a, user: ann, team: blue, models: ['*']}]"
ECHO = "providers: {echo: {}}\nmodels: {echo: echo/echo}\nchain: [{use: cost}, {use: retry}]\n"


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


def config(upstream, url, more=""):
    models = "  mock: {deployments", "  dear: mock/nobody-knows-the-price\n  mock: {deployments"
    return mock_config(upstream.url, CHAIN, f"{KEYS}\ndatabase: {url}\n{more}").replace(*models)


def said(caplog):
    return [record.getMessage() for record in caplog.records if "database" in record.getMessage()]


async def test_a_call_has_its_row_with_what_it_used_and_cost(upstream, url):
    """Who, what, of whom, how much; the row's id is what the client was told."""
    upstream.will(Says("Hello", prompt_tokens=1_000, completion_tokens=200, cached_tokens=400))
    async with serving(config(upstream, url)) as gateway:
        answer = await gateway.ask(key="secret-a")
        assert (await gateway.http.get("/health")).json()["database"] == "ok"
        await eventually(lambda: recorded(url))
    (row,) = await rows_of(url)
    known = {"id": answer.headers["x-request-id"], "config": answer.headers["x-gateway-config"], "operation": "chat"}
    known |= {"principal": "key-a", "user": "ann", "team": "blue", "model": "mock", "route": "mock"}
    known |= {"provider": "mock", "deployment": "mock/mock-1", "attempts": 1, "stream": False, "cache": "miss"}
    known |= {"outcome": "finished", "status": 200, "error": "", "finish_reason": "stop", "usage_estimated": False}
    known |= {"prompt_tokens": 1_000, "completion_tokens": 200, "cached_tokens": 400, "reasoning_tokens": 0}
    known |= {"cache_write_tokens": 0, "cost_nusd": 1_400_000}
    assert {name: row[name] for name in known} == known
    assert 0 < row["first_chunk_ms"] <= row["total_ms"] < 10_000
    at = datetime.fromisoformat(f"{row['at']}")
    assert abs((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time()) < 600
    assert "secret" not in f"{row}" and "Hello" not in f"{row}"


async def test_every_call_has_one_row_however_it_ended(upstream, url):
    """Other gateways forget the calls of clients that left, and those that failed. And the stop loses none."""
    async with serving(config(upstream, url)) as gateway:
        ids = {}

        async def ask(name, *steps, key="secret-a", **fields):
            upstream.will(*steps)
            answer = await gateway.ask(name, key=key, **fields)
            ids[answer.headers["x-request-id"]] = name
            await answer.aread()

        await ask("whole", "Hello")
        await ask("whole", key="secret-a")
        await ask("streamed", "Hello", stream=True)
        await ask("no price", "Hello", model="dear")
        await ask("failed", Fails(500), Fails(500))
        await ask("broken", Cut("one two", after_events=2), stream=True)
        await ask("no such model", model="nothing")
        await ask("no key", key="")
        upstream.will(Stalls("one two", after_events=2))
        fields = {"model": "mock", "messages": [{"role": "user", "content": "left"}], "stream": True}
        headers = {"authorization": "Bearer secret-a"}
        async with gateway.http.stream("POST", "/v1/chat/completions", json=fields, headers=headers) as answer:
            ids[answer.headers["x-request-id"]] = "left"
            async for _ in answer.aiter_bytes():
                break
        await eventually(lambda: upstream.asked == 7)
        await ask("models are no calls", "Hello")
        await gateway.http.get("/v1/models", headers=headers)
    rows = {ids[row["id"]] + ("!" if row["cache"] == "hit" else ""): row for row in await rows_of(url)}
    told = {name: (row["outcome"], row["status"], row["error"], row["attempts"]) for name, row in rows.items()}
    assert len(await rows_of(url)) == len(ids) == len(rows)
    assert told == {
        "whole": ("finished", 200, "", 1),
        "whole!": ("finished", 200, "", 0),
        "streamed": ("finished", 200, "", 1),
        "no price": ("finished", 200, "", 1),
        "failed": ("failed", 502, "Unreachable", 2),
        "broken": ("broken", 200, "Broke", 1),
        "no such model": ("refused", 404, "UnknownModel", 0),
        "no key": ("refused", 401, "Unauthorized", 0),
        "left": ("abandoned", 200, "CancelledError", 1),
        "models are no calls": ("finished", 200, "", 1),
    }
    assert rows["no price"]["cost_nusd"] is None and rows["no price"]["prompt_tokens"] == 10
    assert rows["whole!"]["cost_nusd"] == rows["no key"]["cost_nusd"] == rows["failed"]["cost_nusd"] == 0
    assert rows["left"]["usage_estimated"] and rows["left"]["cost_nusd"] > 0
    assert rows["failed"]["prompt_tokens"] is None and rows["no key"]["principal"] == "anyone"


async def test_rows_wait_for_a_database_that_is_gone(upstream, own_postgres: Postgres, caplog, monkeypatch):
    """No call waits for it, /health says so, and then every row is there, once."""
    monkeypatch.setattr(recorder, "EVERY_S", 0.05)
    monkeypatch.setattr(recorder, "LONGEST_PAUSE_S", 0.1)
    url = own_postgres.url("postgres")
    async with serving(config(upstream, url)) as gateway:

        async def health():
            return (await gateway.http.get("/health")).json()

        async def is_(state):
            return (await health())["database"] == state

        await gateway.ask("before", key="secret-a")
        await eventually(lambda: recorded(url))
        own_postgres.stop()
        began_s = asyncio.get_running_loop().time()
        for n in range(20):
            assert (await gateway.ask(f"during {n}", key="secret-a")).status_code == 200
        assert asyncio.get_running_loop().time() - began_s < 3.0
        await eventually(lambda: is_("gone"))
        assert (await health())["status"] == "degraded"
        own_postgres.start()
        await eventually(lambda: is_("ok"))
        await gateway.ask("after", key="secret-a")
    assert len(await rows_of(url)) == 22
    assert [message.partition(":")[0] for message in said(caplog)] == ["the database is gone", "the database is back"]
    assert "canary" not in caplog.text


async def test_rows_wait_for_a_database_that_is_silent(upstream, own_postgres: Postgres, monkeypatch):
    """A server that accepts everything and answers nothing is the worst kind of gone."""
    monkeypatch.setattr(recorder, "EVERY_S", 0.05)
    url = own_postgres.url("postgres")
    async with serving(config(upstream, url)) as gateway:
        await gateway.ask("before", key="secret-a")
        await eventually(lambda: recorded(url))
        monkeypatch.setattr(database, "ANSWER_S", 0.3)
        own_postgres.freeze()
        await gateway.ask("during", key="secret-a")
        await eventually(lambda: gateway.live.database == "gone")
        monkeypatch.setattr(database, "ANSWER_S", 10.0)
        own_postgres.thaw()
        await eventually(lambda: gateway.live.database == "ok")
    assert len(await rows_of(url)) == 2


async def test_rows_wait_for_a_file_that_is_locked(upstream, tmp_path, monkeypatch):
    """Somebody repairs it, or copies it, with the gateway running."""
    monkeypatch.setattr(recorder, "EVERY_S", 0.05)
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    url = f"sqlite:///{tmp_path}/calls.db"
    async with serving(config(upstream, url)) as gateway:
        await gateway.ask("before", key="secret-a")
        await eventually(lambda: recorded(url))
        with closing(sqlite3.connect(tmp_path / "calls.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            await gateway.ask("during", key="secret-a")
            await eventually(lambda: gateway.live.database == "gone")
        await eventually(lambda: gateway.live.database == "ok")
    assert len(await rows_of(url)) == 2


async def test_a_reload_moves_to_another_database(upstream, tmp_path):
    """Rows of the old configuration go to the old one, and what waits for it is not lost."""
    old, new = (f"sqlite:///{tmp_path}/{name}.db" for name in ("old", "new"))
    async with serving(config(upstream, old)) as gateway:
        first = await gateway.ask("first", key="secret-a")
        gateway.config.text = config(upstream, new)
        await gateway.live.reload()
        second = await gateway.ask("second", key="secret-a")
    assert [row["id"] for row in await rows_of(old)] == [first.headers["x-request-id"]]
    assert [row["id"] for row in await rows_of(new)] == [second.headers["x-request-id"]]


async def test_a_bad_database_at_a_reload_leaves_the_old_one(upstream, tmp_path):
    """The route that reloads says why, and so does /health."""
    old = f"sqlite:///{tmp_path}/old.db"
    async with serving(config(upstream, old)) as gateway:
        serves = gateway.live.gateway.config_id
        for bad in ("sqlite:////no/such/folder/x.db", "postgresql://u:canary@127.0.0.1:1/x", "postgresql://u:a/b@h/x"):
            gateway.config.text = config(upstream, bad)
            with pytest.raises(ConfigError, match="database: "):
                await gateway.live.reload()
        assert "canary" not in gateway.live.last_error and "database: " in gateway.live.last_error
        assert gateway.live.gateway.config_id == serves and gateway.live.database == "ok"
        await gateway.ask("still", key="secret-a")
    assert len(await rows_of(old)) == 1


async def test_a_reload_while_the_database_is_gone_is_no_mistake(upstream, own_postgres: Postgres):
    """Its trouble is no reason to refuse a new price."""
    text = config(upstream, own_postgres.url("postgres"))
    async with serving(text) as gateway:
        await gateway.ask(key="secret-a")
        await eventually(lambda: recorded(own_postgres.url("postgres")))
        own_postgres.stop()
        gateway.config.text = text.replace("prompt: 1,", "prompt: 2,")
        assert await gateway.live.reload() == gateway.live.gateway.config_id
        own_postgres.start()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://u:canary@127.0.0.1:1/x", "Connection refused"),
        ("sqlite:////no/such/folder/x.db", "its folder must exist"),
        ("postgresql://u:can/ary@127.0.0.1/x", "characters such as"),
    ],
)
def test_a_database_that_cannot_be_used_stops_the_start(tmp_path, url, why, workers):
    """In a sentence, before anything listens; calls that nobody records are what nobody asked for."""
    (tmp_path / "gateway.yaml").write_text(f"{ECHO}database: {url}\n")
    command = [sys.executable, "-m", "gateway", "serve", "--port", "0", "--workers", workers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(rf"^Error: gateway.yaml\S* database: .*{why}", done.stderr), done.stderr
    assert not re.search("Traceback|canary|ary@|http://", done.stderr)


def test_workers_share_a_file_and_a_stop_loses_no_row(tmp_path):
    """The default for one machine: SQLite, several workers, and a deployment that stops them."""
    (tmp_path / "gateway.yaml").write_text(f"{ECHO}database: sqlite:///gateway.db\n")
    with started(tmp_path, "--workers", "3") as gateway:
        gateway.until_ready(3)
        body = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}
        for _ in range(60):
            httpx.post(f"{gateway.url}/v1/chat/completions", json=body, trust_env=False, timeout=60).raise_for_status()
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
    assert len(asyncio.run(rows_of(f"sqlite:///{tmp_path}/gateway.db"))) == 60


def test_a_bad_database_never_reaches_the_workers(tmp_path):
    """They would refuse it one by one, and one that is started anew could not."""
    file = tmp_path / "gateway.yaml"
    file.write_text(f"{ECHO}database: sqlite:///gateway.db\n")
    with started(tmp_path, "--workers", "2") as gateway:
        gateway.until_ready(2)
        file.write_text(f"{ECHO}database: postgresql://u:canary@127.0.0.1:1/x\n")
        gateway.process.send_signal(signal.SIGHUP)
        gateway.until_said("the old configuration goes on serving.*Connection refused")
        answer = httpx.post(f"{gateway.url}/admin/reload", trust_env=False, timeout=60)
        assert answer.status_code == 400 and "Connection refused" in answer.json()["error"]["message"]
        assert "canary" not in gateway.said + answer.text
        os.kill(int(re.search(r"worker (\d+) starts", gateway.said)[1]), signal.SIGKILL)
        gateway.until_said(r"(worker \d+ starts[\s\S]*){3}")
        for _ in range(40):
            with contextlib.suppress(httpx.TransportError):
                assert httpx.get(f"{gateway.url}/health", trust_env=False, timeout=60).json()["database"] == "ok"
            time.sleep(0.1)
