"""A hundred new configurations in a row while calls run: not one of them is lost, cut, or answered by a mixture."""

import asyncio
import gc
import hashlib
import signal

import pytest

from gateway.settings.build import Gateway
from tests.lean import Lean
from tests.script import ScriptedUpstream, Slow
from tests.serving import CHAIN, mock_config, serving, started

RELOADS = 100
BY_ROUTE = 10
"""Every so many is asked for by `POST /admin/reload`, the others by SIGHUP."""
CALLERS = 8
LONG = Slow("a stream that is answered while several configurations come and go", between_s=0.04)
SERVES = "serves, in place of"


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def configs(upstream):
    """Two that are right, and differ."""
    return [mock_config(upstream.url), mock_config(upstream.url, CHAIN.replace("{use: cost}, ", ""))]


async def call_until(enough, url):
    """Make calls on one connection, streams and whole ones, until there are `enough`; return all answers."""
    client, answers = await Lean.open(url), []
    while not enough.is_set():
        answers.append(await client.ask(stream=len(answers) % 3 != 0))
    client.close()
    return answers


@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_hundred_reloads_lose_no_call(upstream, configs, tmp_path, workers):
    """Each answer is whole, comes on a connection that stays open, and names one of the two configurations."""
    file = tmp_path / "gateway.yaml"
    file.write_text(configs[1])
    upstream.will(*[LONG] * 20_000)
    with started(tmp_path, "--workers", f"{workers}") as gateway:
        await asyncio.to_thread(gateway.until_ready, 3 * workers)
        enough = asyncio.Event()
        load = [asyncio.ensure_future(call_until(enough, gateway.url)) for _ in range(CALLERS)]
        operator = await Lean.open(gateway.url)
        for count in range(RELOADS):
            replace(file, configs[count % 2])
            if count % BY_ROUTE:
                gateway.process.send_signal(signal.SIGHUP)
            else:
                operator.write(b"POST /admin/reload HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
                assert (await operator.answer()).status == 200
            await until_served(gateway, (count + 1) * workers)
        operator.close()
        enough.set()
        answers = [answer for answers in await asyncio.gather(*load) for answer in answers]
        assert len(answers) > CALLERS
        assert all(answer.status == 200 and answer.done and b"go" in answer.body for answer in answers)
        ids = {hashlib.sha256(text.encode()).hexdigest()[:12] for text in configs}
        assert {answer.headers["x-gateway-config"] for answer in answers} <= ids
        assert "Traceback" not in gateway.said


def replace(file, text):
    """Write a file as editors and Kubernetes do: nobody reads half of it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


async def until_served(gateway, times):
    """Wait until the workers have said so often that a new configuration serves."""
    async with asyncio.timeout(60):
        while gateway.said.count(SERVES) < times:
            await asyncio.sleep(0.005)


async def test_a_port_that_is_put_back_needs_no_start(configs, caplog):
    """What the process listens on is what it began with, whatever was written in between."""
    async with serving(configs[0]) as gateway:
        for said, warns in (("server: {port: 8001}\n", True), ("", False)):
            caplog.clear()
            gateway.config.text = configs[0] + said
            await gateway.live.reload()
            assert ("server.port: takes effect at the next start" in caplog.text) == warns


async def test_old_configurations_are_let_go(upstream, configs):
    """A graph is kept for as long as a call is on it, and not until the process ends."""
    before = len(graphs())
    async with serving(configs[0]) as gateway:
        enough = asyncio.Event()
        upstream.will(*[LONG] * 2_000)
        load = [asyncio.ensure_future(call_until(enough, gateway.url)) for _ in range(CALLERS)]
        for count in range(RELOADS):
            gateway.config.text = configs[(count + 1) % 2]
            await gateway.live.reload()
            # Each caller is on one graph; one more serves, and the one before it may still be listed.
            assert len(gateway.live._retired) <= CALLERS + 1
        enough.set()
        await asyncio.gather(*load)
        gateway.config.text = configs[1]
        await gateway.live.reload()
        assert gateway.live.gateway in graphs()
        assert len(graphs()) <= before + 2


def graphs():
    """Every configuration that is in memory."""
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, Gateway)]
