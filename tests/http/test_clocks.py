"""Every clock against every way in which an upstream keeps its client waiting: it fires when it says, or not at all.

All cells of the matrix are asked at once, each by a route of its own, so that they take as long as the longest.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.engine.patience import LAST_WORDS_S
from tests import steady
from tests.lean import Answer, Lean
from tests.script import Dribbles, Events, Mumbles, Pings, ScriptedUpstream, Silent, Slow, Stalls, taking_nobody
from tests.serving import serving
from tests.steps import Step

CLOCK_S = 4.0
"""So long that a busy machine is not late by a tenth of it."""
WITHIN = 0.1
"""How far off a clock may be, as a share of what it says."""
APART_S = 0.03
"""Between the beginnings of two calls: a clock is not late because all calls begin in the same moment."""

BETWEEN_S = 0.1
EARNED = len("word ") / 4
"""Tokens a word."""
PACE = 4 * EARNED / BETWEEN_S
"""Four times as fast as they are who dribble: each second they fall behind by three quarters of one."""
BEHIND_S = CLOCK_S / (1 - 1 / 4)
"""Until they have fallen behind by as much as `idle` allows."""
SOME = 12
"""Pieces that come slowly before none does; each word behind the first has earned a little more patience."""
BEHIND_IN_SILENCE_S = CLOCK_S + (SOME - 2) * EARNED / PACE

TIMEOUTS: dict[str, dict[str, object]] = {
    "connect": {"connect": f"{CLOCK_S}s"},
    "headers": {"headers": f"{CLOCK_S}s"},
    "first_token": {"first_token": f"{CLOCK_S}s"},
    "idle": {"idle": f"{CLOCK_S}s"},
    "throughput": {"idle": f"{CLOCK_S}s", "tokens_per_second": PACE},
    "total": {"total": f"{CLOCK_S}s"},
}
TIGHT: dict[str, object] = {"headers": "1s", "first_token": "1s", "idle": "1s", "tokens_per_second": PACE / 8}
"""Clocks of which none may fire, though an answer that is steady takes longer."""


def event(**delta: str) -> bytes:
    """Return an event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


ROLE, WORD = event(role="assistant", content=""), event(content="word ")
NOTHINGS = [event(content="")] * 100
LONG, SHORT = "word " * 100, "word " * 4

INTERIM = Mumbles(b"", b"HTTP/1.1 102 Processing\r\n\r\n")
GROWING_HEAD = Mumbles(b"HTTP/1.1 200 OK\r\n", b"x-more: to come\r\n")
HALF_A_HEAD = Mumbles(b"HTTP/1.1 200 OK\r\n", b"")
NO_HEAD = (Silent(), INTERIM, GROWING_HEAD, HALF_A_HEAD)
ROLE_AND_NOTHINGS = Events(ROLE, *NOTHINGS, between_s=BETWEEN_S)
WORD_AND_NOTHINGS = Events(ROLE + WORD, *NOTHINGS, between_s=BETWEEN_S)
ALL_BUT_THE_END = Stalls(SHORT, after_events=5)
"""The role and all words, but no finish; of a whole answer, all but its last piece."""
ALL_BUT_THE_LAST_CHUNK = Stalls(SHORT, after_events=6)
SLOWLY_AND_SILENT = Stalls(LONG, SOME, BETWEEN_S)
SLOWLY_AND_HEARTBEATS = Pings(LONG, SOME, between_s=BETWEEN_S)
SLOWLY_BUT_THE_END = Stalls("word " * (SOME - 1), SOME, BETWEEN_S)
DRIBBLING = Dribbles(LONG, BETWEEN_S)

COLUMNS = ("silent", "heartbeats", "dribbling", "no end")
# `first_token` is no clock of whole answers, and a whole answer that dribbles is not idle: they are told of below.
# fmt: off
MATRIX: dict[tuple[str, str], tuple[Step | None, ...]] = {
    ("headers",     "stream"): NO_HEAD,
    ("headers",     "whole"):  NO_HEAD,
    ("first_token", "stream"): (Stalls(after_events=0), Pings(), ROLE_AND_NOTHINGS, Stalls(after_events=1)),
    ("idle",        "stream"): (Stalls(LONG, 3), Pings(LONG, 3), WORD_AND_NOTHINGS, ALL_BUT_THE_END),
    ("idle",        "whole"):  (Stalls(LONG, 50), Pings(LONG, 50), None, ALL_BUT_THE_LAST_CHUNK),
    ("throughput",  "stream"): (SLOWLY_AND_SILENT, SLOWLY_AND_HEARTBEATS, DRIBBLING, SLOWLY_BUT_THE_END),
    ("throughput",  "whole"):  (SLOWLY_AND_SILENT, SLOWLY_AND_HEARTBEATS, DRIBBLING, SLOWLY_BUT_THE_END),
    ("total",       "stream"): (Silent(), Pings(), DRIBBLING, ALL_BUT_THE_END),
    ("total",       "whole"):  (Silent(), Pings(), DRIBBLING, ALL_BUT_THE_LAST_CHUNK),
}
# fmt: on
ON_HTTPX = (
    ("headers", "whole"),
    ("first_token", "stream"),
    ("idle", "stream"),
    ("throughput", "stream"),
    ("total", "whole"),
)
"""Rows that are asked through the other transport, too."""
SHOWING = (*MATRIX["idle", "stream"], *MATRIX["throughput", "stream"])
"""Steps of which the client of a stream sees something."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One way to keep a client waiting."""

    clock: str
    """The one that is to fire; empty: none."""
    asked: str
    """For a `stream` or a `whole` answer."""
    upstream: str
    """What it does."""
    step: Step
    timeouts: dict[str, object]
    http: str = "native"

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.clock, self.asked, self.upstream.replace(" ", "-"), self.http)))

    @property
    def after_s(self) -> float:
        """When the clock is to fire."""
        if self.clock != "throughput":
            return CLOCK_S
        first_word_s = BETWEEN_S if self.asked == "stream" else 0.0  # a stream's first event is the role
        return first_word_s + (BEHIND_S if self.upstream == "dribbling" else BEHIND_IN_SILENCE_S)


def cells(clock: str, asked: str, http: str) -> list[Cell]:
    """Return a row of the matrix."""
    row = zip(COLUMNS, MATRIX[clock, asked], strict=True)
    return [Cell(clock, asked, upstream, step, TIMEOUTS[clock], http) for upstream, step in row if step is not None]


FIRING = [
    *(cell for row in MATRIX for cell in cells(*row, "native")),
    *(cell for row in ON_HTTPX for cell in cells(*row, "httpx")),
    Cell("first_token", "stream", "no head", Silent(), TIMEOUTS["first_token"]),
    Cell("total", "whole", "head only", Stalls(after_events=0), TIMEOUTS["total"]),
    # Nobody takes the connection, and there is no other way to be late with one.
    Cell("connect", "stream", "silent", Silent(), TIMEOUTS["connect"]),
    Cell("connect", "whole", "silent", Silent(), TIMEOUTS["connect"]),
    Cell("connect", "whole", "silent", Silent(), TIMEOUTS["connect"], "httpx"),
]

STEADY: list[Cell] = [
    Cell("", asked, "steady", Dribbles("word " * 20, BETWEEN_S), TIGHT, http)
    for asked in ("stream", "whole")
    for http in ("native", "httpx")
]
LATE = Cell("", "whole", "late", Slow("word", first_s=1.5), {"first_token": "1s", "idle": "1s"})
COUNTED = Cell("", "stream", "usage, but no end", Stalls(SHORT, after_events=7), {})
UNCOUNTED = [
    Cell("", "stream", "neither usage nor end", Stalls(SHORT, after_events=6), {}),
    Cell("", "stream", "heartbeats behind the finish", Pings(SHORT, after_events=6), {}),
    Cell("", "stream", "heartbeats behind the finish", Pings(SHORT, after_events=6), {}, "httpx"),
]
CELLS = [*FIRING, *STEADY, LATE, COUNTED, *UNCOUNTED]

LONGEST_S = 2 * CLOCK_S
"""A clock that has not fired by then will not."""
NONE = Answer(0, {}, b"", whole=False, heard_s=0.0)
Outcome = tuple[Answer, float]
"""What a client got, and after how many seconds the last of it."""


@pytest.fixture(scope="module")
def outcomes() -> dict[Cell, Outcome]:
    """What came of every cell."""
    return steady.run(all_outcomes())


async def all_outcomes() -> dict[Cell, Outcome]:
    with taking_nobody() as full_url:
        async with ScriptedUpstream() as upstream, serving(config(upstream.url, full_url)) as gateway:
            asking: dict[Cell, asyncio.Task[Outcome]] = {}
            for cell in CELLS:
                upstream.always(cell.name, cell.step)
                asking[cell] = asyncio.ensure_future(ask(gateway.url, cell))
                await asyncio.sleep(APART_S)
            return {cell: await task for cell, task in asking.items()}


def config(upstream_url: str, full_url: str) -> str:
    """Return a configuration in which every cell's name is a model. JSON is YAML."""
    providers = {
        f"{name}-{http}": {"kind": "openai", "base_url": url, "api_key": "k", "http": http}
        for name, url in (("mock", upstream_url), ("full", full_url))
        for http in ("native", "httpx")
    }
    models = {
        cell.name: {
            "deployments": [f"{'full' if cell.clock == 'connect' else 'mock'}-{cell.http}/{cell.name}"],
            "timeouts": cell.timeouts,
        }
        for cell in CELLS
    }
    return json.dumps({"providers": providers, "models": models, "chain": [{"use": "retry", "attempts": 1}]})


async def ask(url: str, cell: Cell) -> Outcome:
    stream = {"stream": True, "stream_options": {"include_usage": True}} if cell.asked == "stream" else {}
    client = await Lean.open(url)
    began_s = asyncio.get_running_loop().time()
    client.send(model=cell.name, **stream)
    try:
        async with asyncio.timeout(LONGEST_S):
            answer = await client.answer()
    except TimeoutError:
        answer = NONE
    client.close()
    return answer, answer.heard_s - began_s


def name(cell: Cell) -> str:
    return cell.name


@pytest.mark.parametrize("cell", FIRING, ids=name)
def test_a_clock_fires_when_it_says(outcomes: dict[Cell, Outcome], cell: Cell):
    """And the error names it: a 504 while nothing was shown; later an event, no finish reason and no `[DONE]`."""
    answer, took_s = outcomes[cell]
    assert answer is not NONE
    error = error_of(answer)
    assert error["code"] == "upstream_timeout"
    assert f"timeouts.{cell.clock} has passed" in error["message"]
    shown = b'"content": "word ' in answer.body
    assert answer.status == (200 if shown else 504)
    assert shown == (cell.asked == "stream" and cell.step in SHOWING)
    assert not answer.done and b'"finish_reason": "stop"' not in answer.body
    assert took_s == pytest.approx(cell.after_s, rel=WITHIN)


def error_of(answer: Answer) -> dict[str, Any]:
    """Return the error that an answer is, or ends with."""
    body = answer.body if answer.status != 200 else answer.body.rstrip().rpartition(b"data: ")[2]
    return json.loads(body)["error"]


@pytest.mark.parametrize("cell", [*STEADY, LATE], ids=name)
def test_no_clock_fires_at_an_answer_that_is_slow_but_steady(outcomes: dict[Cell, Outcome], cell: Cell):
    """Though it takes longer than they say. A whole answer has no first token, and before its head it is not idle."""
    answer, took_s = outcomes[cell]
    assert answer.status == 200 and answer.done
    assert took_s > 1.0


@pytest.mark.parametrize("cell", UNCOUNTED, ids=name)
def test_an_answer_that_gave_its_finish_reason_is_soon_complete(outcomes: dict[Cell, Outcome], cell: Cell):
    """Some servers never say `[DONE]`, nor what was used: then it is estimated."""
    answer, took_s = outcomes[cell]
    assert answer.done and b'"finish_reason": "stop"' in answer.body and b'"error"' not in answer.body
    assert b'"prompt_tokens":' in answer.body
    assert 0.9 * LAST_WORDS_S < took_s < 2 * LAST_WORDS_S


def test_an_answer_that_gave_its_usage_is_complete_at_once(outcomes: dict[Cell, Outcome]):
    """Nothing that says anything can follow it, `[DONE]` or not."""
    answer, took_s = outcomes[COUNTED]
    assert answer.done and b'"prompt_tokens": 10' in answer.body
    assert took_s < LAST_WORDS_S / 2
