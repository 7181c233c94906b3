"""Whatever an upstream sends, however it is cut: an answer, or a failure of the upstream's. Never a bug of ours.

Bytes that are made up never get far behind the framing. So most of what is sent here begins as an answer that is right
(a golden file) and is then damaged: bytes are lost, doubled, put in, and values replaced by such as no dialect has.
"""

import json
import random
import re
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import Unreachable, UpstreamFailed
from gateway.core.reply import Chunk
from gateway.wire import sse
from tests.providers.test_golden import CASES, KINDS, Case, objects

ROUNDS = 3000
"""Of each dialect, for streams and for whole answers; a few seconds in all."""
MOST_DAMAGES = 4
STATUSES = [400, 401, 403, 404, 408, 413, 422, 429, 498, 500, 503, 529]
MOST_GROWTH = 200
"""How many times more may leave than came: each small event gets a head of its own."""

VALUE = re.compile(rb'(?<=[:\[,])\s*(?:"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|\{\}|\[\])')
ODD = [
    *(b"null", b"true", b"0", b"-1", b"7.5", b"1e400", b"9" * 30, b"NaN"),
    *(b'""', b'"x"', b'"\\ud800"', b'"\xff"', b'"[DONE]"'),
    *(b"[]", b"{}", b"[[]]", b"[null]", b'[""]', b'{"type":null}', b"[" * 2000, b'{"a":' * 2000),
]
LINES = [
    b"data: [DONE]\n\n",
    b"event: error\n",
    b"data: {}\n\n",
    b"data: []\n\n",
    b"{}\n",
    b"\n",
    b"\r",
    b'{"error":1}\n',
]

each_dialect = pytest.mark.parametrize("dialect", sorted(KINDS.keys() - {"echo"}))


@each_dialect
def test_a_damaged_stream_is_an_answer_or_a_failure_of_the_upstream(dialect: str):
    """A traceback in mid-stream is a 500 for the client, and speaks against nobody."""
    dice = random.Random(dialect)
    for _ in range(ROUNDS):
        case, data = damaged(dialect, dice)
        check_stream(case, data, [dice.randrange(len(data) + 1) for _ in range(dice.randrange(6))])


@each_dialect
def test_a_damaged_answer_is_an_answer_or_a_failure_of_the_upstream(dialect: str):
    """The same for whole answers, and for the bodies of errors."""
    dice = random.Random(dialect)
    for _ in range(ROUNDS):
        case, data = damaged(dialect, dice)
        check_whole(case, data, dice.choice(STATUSES))


@each_dialect
@settings(max_examples=50)
@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=6), status=st.sampled_from(STATUSES))
def test_what_is_made_up_is_a_failure_of_the_upstream(dialect: str, data: bytes, cuts: list[int], status: int):
    """A proxy may answer with anything at all."""
    case, _ = answers(dialect)[0]
    check_stream(case, data, cuts)
    check_whole(case, data, status)


@each_dialect
def test_what_never_ends_does_not_fill_our_memory(dialect: str, monkeypatch: pytest.MonkeyPatch):
    """An upstream may send for hours without ever ending a line."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10_000)
    case, _ = answers(dialect)[0]
    reader = case.provider.reader(case.attempt())
    with pytest.raises(Unreachable, match=r"10000 bytes|no event stream"):
        for _ in range(20):
            reader.feed(b"data: " + b"x" * 1000)


def check_stream(case: Case, data: bytes, cuts: list[int]) -> None:
    """Read `data` as a stream; what the client gets is framed JSON, and not without measure."""
    reader, chunks = case.provider.reader(case.attempt()), list[Chunk]()
    places = [0, *sorted(cuts), len(data)]
    try:
        for begin, end in pairwise(places):
            chunks += reader.feed(data[begin:end])
            if reader.finished:
                break
        chunks += reader.end()
    except UpstreamFailed as error:
        assert error.message
        assert not reader.complete, "what has failed is not complete"
    for chunk in chunks:
        assert all(isinstance(json.loads(said), dict) for said in objects(chunk.data))
    assert sum(len(chunk.data) for chunk in chunks) <= MOST_GROWTH * (len(data) + 100)


def check_whole(case: Case, data: bytes, status: int) -> None:
    """Read `data` as a whole answer, and as the body of an error."""
    try:
        whole: Any = json.loads(case.provider.whole(case.attempt(), data).data)
    except UpstreamFailed as error:
        assert error.message
    else:
        assert whole["choices"][0]["finish_reason"]
    error = case.provider.error(status, {}, data)
    assert error.message
    assert 400 <= error.status < 600


@cache
def answers(dialect: str) -> list[tuple[Case, bytes]]:
    """Return the cases of a dialect, each with its answer."""
    cases = [Case(folder) for folder in CASES]
    return [(case, case.answer) for case in cases if case.call["kind"] == dialect and case.answer]


def damaged(dialect: str, dice: random.Random) -> tuple[Case, bytes]:
    """Return a case, and an answer of its dialect that something happened to."""
    case, data = dice.choice(answers(dialect))
    for _ in range(dice.randint(0, MOST_DAMAGES)):
        begin, end = sorted(dice.randint(0, len(data)) for _ in range(2))
        match dice.choice(["value", "value", "value", "lost", "doubled", "line", "bytes"]):
            case "value" if values := [match.span() for match in VALUE.finditer(data)]:
                begin, end = dice.choice(values)
                data = data[:begin] + dice.choice(ODD) + data[end:]
            case "lost":
                data = data[:begin] + data[min(end, begin + 200) :]
            case "doubled":
                data = data[:end] + data[begin:]
            case "line":
                data = data[:begin] + dice.choice(LINES) + data[begin:]
            case _:
                data = data[:begin] + dice.randbytes(dice.randrange(20)) + data[begin:]
    return case, data
