"""Ten thousand keys and a thousand models: no call pays for them, and all else grows no faster than they do."""

import asyncio
import difflib
import re
from functools import partial

import pytest

from gateway.core.principal import Principal
from gateway.core.route import Deployment, Route
from gateway.engine.routes import RouteTable
from gateway.settings.complaints import ConfigError
from gateway.settings.live import Live
from gateway.settings.process import Process
from tests.counts.counting import calls_of
from tests.counts.many import ROW, many, secret
from tests.counts.rig import rig
from tests.lean import Lean
from tests.script import ScriptedUpstream
from tests.serving import Text, started

KEYS, MODELS = 10_000, 1_000
PAGE_BYTES = 1_000_000
PAGE_LINES = 7_000
"""Prometheus's client writes about 150 lines a millisecond, so this is within 50 ms."""


def test_a_call_costs_the_same_with_ten_thousand_keys_and_a_thousand_models():
    """Keys, limits, routes and the cache are looked up, not searched."""

    def asked(keys, models, i):
        with rig(lambda url: many(keys, models, url=url)) as gateway:
            return gateway.least(partial(gateway.neighbours.whole, model=f"model-{ROW * i}", key=secret(i)))

    many_cost, few_cost = asked(KEYS, MODELS, 77), asked(10, ROW, 0)
    assert many_cost == pytest.approx(few_cost, abs=5), "a search would take hundreds of steps more"


def test_a_key_for_a_thousand_models_is_checked_as_fast_as_one_for_two():
    """Names are looked up; only patterns are tried, each."""
    few, lots = Principal("a", models=("x-1", "x-2*")), Principal("b", models=(*(f"x-{i}" for i in range(1000)), "y*"))
    for model in ("x-1", "z"):
        few.may_use(model), lots.may_use(model)  # the first time they are sorted
        assert calls_of(partial(lots.may_use, model)).total == calls_of(partial(few.may_use, model)).total
    assert lots.may_use("x-999") and lots.may_use("yes") and not lots.may_use("x-1000")


def test_of_a_thousand_patterns_one_is_found_as_fast_as_of_ten():
    """By how a name begins: those of the same length are one look."""

    def table(count):
        names = [f"vendor-{i:04}/*" for i in range(count)]
        return RouteTable([Route(name, (Deployment(name, "v", "*"),)) for name in names], {})

    few, lots = table(10), table(1000)
    assert lots.find("vendor-0777/x").name == "vendor-0777/*"
    for name in ("vendor-0001/x", "nothing"):
        assert calls_of(partial(lots.read, name)).total == calls_of(partial(few.read, name)).total


@pytest.mark.parametrize(
    ("meant", "said"),
    [("gpt-0500-turbo", "gpt-0500-turob"), ("gpt-0500-turbo", "gtp-0500-turbo"), ("claude-big", "claud-big")],
)
def test_a_misspelt_name_is_compared_with_few_of_a_thousand(meant, said, monkeypatch):
    """It is anybody's to ask for, and while names are compared nobody else is served."""
    names = [*(f"gpt-{i:04}-turbo" for i in range(MODELS)), *(f"model-{i}" for i in range(MODELS)), "claude-big"]
    table = RouteTable([Route(name, (Deployment(name, "v", name),)) for name in names], {})
    compared = []
    set_seq1 = difflib.SequenceMatcher.set_seq1
    monkeypatch.setattr(
        difflib.SequenceMatcher, "set_seq1", lambda self, one: (compared.append(one), set_seq1(self, one))[1]
    )
    assert meant in table.near(said)
    assert len(compared) <= 100


@pytest.mark.parametrize("mistaken", [False, True])
def test_twice_the_configuration_is_twice_the_work(mistaken):
    """To read, check and build; also where every key has a mistake, and all of them are told."""
    process = Process()

    def load(size):
        text = many(5 * size, size)
        if mistaken:
            text = re.sub(r"models: \[model-", "models: [nobody-", text)
        try:
            Live(Text(text), process)
        except ConfigError as error:
            assert mistaken and len(error.complaints) == 5 * size

    load(ROW)  # what is imported at first
    once, twice, thrice = (calls_of(partial(load, size)).total for size in (10 * ROW, 20 * ROW, 30 * ROW))
    assert 0.9 < (thrice - twice) / (twice - once) < 1.1


async def test_metrics_stay_one_page_when_every_model_is_used(tmp_path):
    """The first of the configuration have series of their own, in every worker the same; the rest are one."""
    async with ScriptedUpstream() as upstream:
        (tmp_path / "gateway.yaml").write_text(many(MODELS, MODELS, url=upstream.url))
        with started(tmp_path, "--workers", "2") as gateway:
            await asyncio.to_thread(gateway.until_ready, 2)
            await asyncio.gather(*(_ask(gateway.url, range(i, MODELS, 8)) for i in range(8)))
            page = await _page(gateway.url)
    assert len(page) < PAGE_BYTES and page.count("\n") < PAGE_LINES
    assert "key-" not in page and "_created" not in page
    assert set(_counted(page)) == {"other", *(f"model-{i}" for i in range(200))}
    timed = set(re.findall(r'^gen_ai_client_operation_duration_count{.*model="([^"]+)"', page, re.MULTILINE))
    assert timed == {"other", *(f"model-{i}" for i in range(25))}


async def _page(url):
    """Return `/metrics` once every call is counted; a client may have its answer a moment before."""
    async with asyncio.timeout(60):
        while True:
            client = await Lean.open(url)
            page = (await client.get("/metrics")).body.decode()
            client.close()
            if sum(_counted(page).values()) == MODELS:
                return page


def _counted(page):
    """Return how many calls each model answered."""
    found = re.findall(r'^chat_completions_total{model="([^"]+)".*} (\S+)$', page, re.MULTILINE)
    return {model: sum(float(count) for other, count in found if other == model) for model, _ in found}


async def _ask(url, models):
    """Ask each of `models`, streamed, with a key that may."""
    client = await Lean.open(url)
    for i in models:
        answer = await client.ask(key=secret(i // ROW), model=f"model-{i}", stream=True)
        assert answer.done, answer
    client.close()
