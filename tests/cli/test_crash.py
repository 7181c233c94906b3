"""One of four workers is killed under load: its own calls are lost, visibly, and nobody else's."""

import asyncio
import contextlib
import os
import re
import signal

import pytest
import redis

from gateway.core.resources import Meter
from gateway.kv.redis import LEASE_S, LIMITS
from tests.lean import Answer, Lean
from tests.script import ScriptedUpstream, Slow
from tests.serving import mock_config, started
from tests.store.rows import eventually

WORKERS = 4
CALLERS = 24
MOST_CALLS = 100_000
TEXT = "ten words that one can count until the very end"
STEP = Slow(TEXT, first_s=0.02, between_s=0.01)
CHAIN = "chain: [{use: auth}, {use: limits}, {use: cost}, {use: retry}]"
KEY = "test-key-0123456789abcdef"
ANSWERS_SEEN = 5
"""Who has had no answer while another has had so many waits for a worker that stands still."""


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


class Caller:
    """Makes calls, one after the other, on one connection for as long as it holds; every other one is a stream."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: list[Answer] = []
        self.lost = 0
        """Calls that got no answer."""

    @property
    def cut(self) -> list[Answer]:
        """Answers that broke off."""
        return [answer for answer in self.answers if not answer.whole]

    async def call_until(self, enough: asyncio.Event) -> None:
        """Make calls until there are `enough`."""
        client = await Lean.open(self._url)
        while not enough.is_set() and len(self.answers) < MOST_CALLS / CALLERS:
            try:
                answer = await client.ask(stream=len(self.answers) % 2 == 0, key=KEY)
                self.answers.append(answer)
                broke = not answer.whole
            except OSError:
                self.lost += 1
                broke = True
            if broke:
                client.close()
                client = await Lean.open(self._url)
        client.close()


async def held_up(callers):
    """Return the callers that get no answer any more while the others get theirs; none if nobody gets any."""
    await asyncio.sleep(1.0)  # what had left the worker arrives
    before = [len(caller.answers) for caller in callers]
    for _ in range(600):
        await asyncio.sleep(0.05)
        got = [len(caller.answers) - had for caller, had in zip(callers, before, strict=True)]
        if max(got) >= ANSWERS_SEEN:
            return [caller for caller, count in zip(callers, got, strict=True) if not count]
    return []


async def stand_still(pids, callers):
    """Stop a worker that has calls in hand, and return it with those who wait for it."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        if waiting := await held_up(callers):
            return pid, waiting
        os.kill(pid, signal.SIGCONT)
    raise AssertionError("no worker has anything in hand")


async def test_a_worker_that_is_killed_loses_its_own_calls_alone(upstream, valkey_url, tmp_path):
    """One call for each connection it had, and no cut answer looks complete; another takes its place."""
    keys = f"keys: [{{name: {tmp_path.name}, key: {KEY}, limits: {{concurrent: 100}}}}]\nredis: {valkey_url}\n"
    (tmp_path / "gateway.yaml").write_text(mock_config(upstream.url, CHAIN, keys))
    upstream.will(*[STEP] * 2 * MOST_CALLS)
    with started(tmp_path, "--workers", f"{WORKERS}") as gateway:
        await asyncio.to_thread(gateway.until_ready, 3 * WORKERS)
        pids = workers_of(gateway)
        callers, enough = [Caller(gateway.url) for _ in range(CALLERS)], asyncio.Event()
        load: list[asyncio.Task[None]] = []
        for caller in callers:
            load.append(asyncio.ensure_future(caller.call_until(enough)))
            await asyncio.sleep(0.02)  # or one worker would take them all
        victim, waiting = await stand_still(pids, callers)
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(gateway.until_said, f"worker {victim} ended.*another takes its place")
        await asyncio.sleep(0.5)
        enough.set()
        await asyncio.gather(*load)

        for caller in callers:
            whole = [answer for answer in caller.answers if answer.whole]
            assert len(whole) > 1 and all(answer.status == 200 and answer.done for answer in whole)
            assert all(b"end" in answer.body for answer in whole)
            assert not any(answer.done for answer in caller.cut)
            assert caller.lost + len(caller.cut) <= (caller in waiting)
        assert any(caller.lost or caller.cut for caller in callers)
        # A worker that takes Redis for gone, on a machine so busy, leaves its places there until their leases are over.
        alone = "Redis is gone" in gateway.said
        most = CALLERS * WORKERS if alone else len(waiting)
        meter_id = LIMITS + Meter(f"key:{tmp_path.name}", "concurrent", 100).id
        await eventually(lambda: len(leases_left_s(valkey_url, meter_id)) <= most)  # the others' are back soon
        left_s = leases_left_s(valkey_url, meter_id)
        assert left_s and max(left_s) <= LEASE_S
        await new_worker_serves(gateway, [pid for pid in pids if pid != victim])


def leases_left_s(url, meter_id):
    """Return for how many seconds more each place is taken: no longer than the dead worker could have renewed it."""
    with contextlib.closing(redis.Redis.from_url(url)) as store:
        places = store.zrange(meter_id, 0, -1, withscores=True)
        second, micros = store.time()
    return [ends_ms / 1000 - second - micros / 10**6 for _, ends_ms in places]


async def new_worker_serves(gateway, old):
    """Where all others stand still, the new worker is the one that answers."""
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert len(workers_of(gateway)) == WORKERS + 1
        client = await Lean.open(gateway.url)
        assert (await client.ask(key=KEY)).done
        client.close()
    finally:
        for pid in old:
            os.kill(pid, signal.SIGCONT)


def workers_of(gateway):
    return [int(pid) for pid in re.findall(r"worker (\d+) starts", gateway.said)]
