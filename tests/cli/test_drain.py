"""A gateway that is told to stop: whoever was let in is served, whoever comes too late learns it at the door."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import time

import pytest

from tests.lean import Lean
from tests.script import MOST_S, Held, ScriptedUpstream, Silent, Slow
from tests.serving import mock_config, started

CHAIN = "chain: [{use: log, format: json}, {use: metrics}, {use: cost}, {use: retry}]"
LONG = Slow(" ".join(f"word{i}" for i in range(6000)), between_s=0.1)
"""A stream of ten minutes."""
QUIET_S = 0.4
"""Whoever has been quiet for longer, because the machine had others to serve, need not be waited for."""
WORDS = "a stream whose end comes when a test lets it"


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


@contextlib.asynccontextmanager
async def gateway_of(upstream, folder, workers=1, server="drain: 60s", **more):
    """A gateway process that keeps a record of its calls."""
    config = mock_config(upstream.url, CHAIN, f"server: {{{server}}}\ndatabase: sqlite:///{folder}/calls.db\n")
    (folder / "gateway.yaml").write_text(config)
    with started(folder, "--workers", str(workers), **more) as gateway:
        await asyncio.to_thread(gateway.until_ready, workers)
        yield gateway


async def ended(gateway, within_s=60):
    """Return the exit status. No process may be left."""
    status = await asyncio.to_thread(gateway.process.wait, within_s)
    for pid in workers_of(gateway):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    return status


def workers_of(gateway):
    return [int(pid) for pid in re.findall(r"worker (\d+) starts", gateway.said)]


def rows(folder, columns):
    with contextlib.closing(sqlite3.connect(folder / "calls.db")) as database:
        return sorted(database.execute(f"SELECT {columns} FROM calls WHERE model = 'mock'").fetchall())


def logged(gateway):
    """The log's lines of calls to `mock`, oldest first."""
    lines = [json.loads(line) for line in gateway.said.splitlines() if '"event":"call"' in line]
    return [line for line in lines if line["model"] == "mock"]


async def streaming(upstream, gateway, step):
    """Begin a stream, and return its connection once the first words are here."""
    asked = upstream.asked
    upstream.will(step)
    client = await Lean.open(gateway.url)
    client.send(stream=True)
    await upstream.until(lambda: upstream.asked > asked and any(c.events > 2 for c in upstream.connections))
    return client


async def asking_on(client):
    """Call again and again on one connection until an answer says that it was the last; return all answers."""
    answers = [await client.ask("an echo", model="echo")]
    while not answers[-1].last:
        answered_s = time.monotonic()
        await asyncio.sleep(0.15)
        try:
            answers.append(await client.ask("an echo", model="echo"))
        except ConnectionError:
            assert time.monotonic() - answered_s > QUIET_S, "a busy connection was closed"
            break
    client.close()
    return answers


async def refused(gateway):
    """Wait until nobody new is let in."""
    async with asyncio.timeout(MOST_S):
        with pytest.raises(ConnectionRefusedError):
            while True:
                (await Lean.open(gateway.url)).close()
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2])
async def test_who_was_let_in_is_served_and_who_comes_late_is_refused(upstream, tmp_path, workers):
    """The stream ends with `[DONE]`, busy connections get answers and are told to leave, the call is recorded."""
    go = asyncio.Event()
    async with gateway_of(upstream, tmp_path, workers) as gateway:
        busy = [asyncio.ensure_future(asking_on(await Lean.open(gateway.url))) for _ in range(6)]
        stream = await streaming(upstream, gateway, Held(go, WORDS, after_events=3))
        gateway.process.send_signal(signal.SIGTERM)
        await refused(gateway)
        for answers in await asyncio.gather(*busy):
            assert all(answer.status == 200 and answer.done for answer in answers)
        go.set()
        answer = await stream.answer()
        assert answer.status == 200 and answer.done and b"lets" in answer.body
        stream.close()
        assert await ended(gateway) == 0
        assert [line["outcome"] for line in logged(gateway)] == ["finished"]
    assert rows(tmp_path, "outcome, finish_reason, stream") == [("finished", "stop", 1)]


async def test_open_connections_see_that_it_drains(upstream, tmp_path):
    """A probe gets its 503, a call its answer, a first request too; each is the last on its connection."""
    go = asyncio.Event()
    async with gateway_of(upstream, tmp_path) as gateway:
        probe, caller, new = [await Lean.open(gateway.url) for _ in range(3)]
        assert (await probe.get("/ready")).status == 200
        assert not (await caller.ask()).last
        stream = await streaming(upstream, gateway, Held(go, WORDS, after_events=3))
        gateway.process.send_signal(signal.SIGTERM)
        await refused(gateway)
        ready = await probe.get("/ready")
        assert (ready.status, ready.last) == (503, True)
        assert json.loads(ready.body) == {"status": "draining"}
        for client in (caller, new):
            answer = await client.ask()
            assert answer.done and answer.last and await client.read(1) == b""
        go.set()
        assert (await stream.answer()).done
        assert await ended(gateway) == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_load_balancer_is_given_time_to_notice(upstream, tmp_path, workers):
    """`shutdown_delay`: new connections are taken, `/ready` says 503 to them, nobody keeps one; then it drains."""
    async with gateway_of(upstream, tmp_path, workers, "shutdown_delay: 8s, drain: 60s") as gateway:
        gateway.process.send_signal(signal.SIGTERM)
        begun_s, statuses = time.monotonic(), []
        while statuses[-3 * workers :] != [503] * 3 * workers:
            probe = await Lean.open(gateway.url)
            statuses.append((await probe.get("/ready")).status)
            probe.close()
        caller = await Lean.open(gateway.url)
        answer = await caller.ask()
        assert answer.done and answer.last
        caller.close()
        await refused(gateway)
        assert time.monotonic() - begun_s > 7.5
        assert await ended(gateway) == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stream_that_takes_too_long_is_cut_and_told(upstream, tmp_path, workers):
    """`drain` is over: an error event, no `[DONE]`; what it used is kept, and the stop was in order."""
    async with gateway_of(upstream, tmp_path, workers, "drain: 1s") as gateway:
        stream = await streaming(upstream, gateway, LONG)
        gateway.process.send_signal(signal.SIGTERM)
        answer = await stream.answer()
        stream.close()
        assert b"word0" in answer.body and b"[DONE]" not in answer.body and b'"stop"' not in answer.body
        assert b'"error"' in answer.body
        assert await ended(gateway) == 0
    (row,) = rows(tmp_path, "outcome, usage_estimated, prompt_tokens > 0, completion_tokens > 0, cost_nusd > 0")
    assert row[0] != "finished" and row[1:] == (1, 1, 1, 1)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_told_twice_it_stops_at_once(upstream, tmp_path, workers, second):
    """Whoever asks again does not want to wait for `drain`; what was used is kept all the same."""
    async with gateway_of(upstream, tmp_path, workers, "drain: 300s") as gateway:
        stream = await streaming(upstream, gateway, LONG)
        gateway.process.send_signal(signal.SIGTERM)
        await refused(gateway)
        gateway.process.send_signal(second)
        assert not (await stream.answer()).done
        stream.close()
        assert await ended(gateway) == 0
    assert rows(tmp_path, "completion_tokens > 0") == [(1,)]


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_every_process_at_once_is_one_stop(upstream, tmp_path, told):
    """So a terminal sends Ctrl-C, and systemd SIGTERM: the workers hear it twice, and are not to hurry."""
    go = asyncio.Event()
    async with gateway_of(upstream, tmp_path, 2, start_new_session=True) as gateway:
        stream = await streaming(upstream, gateway, Held(go, WORDS, after_events=3))
        os.killpg(gateway.process.pid, told)
        await refused(gateway)
        go.set()
        assert (await stream.answer()).done
        stream.close()
        assert await ended(gateway) == 0
        assert "Traceback" not in gateway.said


async def test_a_call_without_an_answer_is_told_too(upstream, tmp_path):
    """Its upstream has not said a word when the time is over: an error, of ours, that says to ask again."""
    async with gateway_of(upstream, tmp_path, server="drain: 500ms") as gateway:
        upstream.will(Silent())
        client = await Lean.open(gateway.url)
        client.send()
        await upstream.until(lambda: upstream.asked)
        gateway.process.send_signal(signal.SIGTERM)
        answer = await client.answer()
        client.close()
        assert answer.whole and answer.status == 503 and b'"error"' in answer.body
        assert "stopping: 1 calls under way, at most 0.5 s; a second signal cuts them" in gateway.said
        assert await ended(gateway) == 0


STUBBORN = """
import asyncio
from gateway.middleware.base import Options

class Stubborn(Options, frozen=True, kw_only=True):
    def build(self, resources):
        async def room(call, next):
            room.task = asyncio.ensure_future(never_end())
            return await next(call)
        return room

async def never_end():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
"""


async def test_a_task_that_does_not_end_does_not_keep_it(upstream, tmp_path):
    """A plugin's task that will not be cancelled is left behind, and the log says that something was."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    chain = "chain: [{use: 'stubborn:Stubborn'}, {use: retry}]"
    (tmp_path / "gateway.yaml").write_text(mock_config(upstream.url, chain))
    with started(tmp_path) as gateway:
        await asyncio.to_thread(gateway.until_ready, 1)
        client = await Lean.open(gateway.url)
        assert (await client.ask()).done
        client.close()
        gateway.process.send_signal(signal.SIGTERM)
        assert await ended(gateway) == 1
        gateway.until_said("something did not end")


async def test_a_database_that_is_gone_does_not_keep_it(upstream, tmp_path):
    """What cannot be recorded within a few seconds is counted as lost, and the process ends."""
    async with gateway_of(upstream, tmp_path) as gateway:
        with contextlib.closing(sqlite3.connect(tmp_path / "calls.db")) as database:
            database.execute("BEGIN EXCLUSIVE")
            client = await Lean.open(gateway.url)
            assert (await client.ask()).done
            client.close()
            gateway.process.send_signal(signal.SIGTERM)
            assert await ended(gateway) == 0
        gateway.until_said("1 calls could not be recorded")
