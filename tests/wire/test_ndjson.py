"""Lines of JSON come in pieces of any size."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import sse
from gateway.wire.ndjson import Splitter

LINES = b'{"a":1}\n\n \r\n{"b":"\xf0\x9f\x8c\x8a"}\r\n{"c":"\\n"}\n{"cut'
SAID = [b'{"a":1}', b'{"b":"\xf0\x9f\x8c\x8a"}', b'{"c":"\\n"}', b'{"cut']


def split(pieces: list[bytes]) -> list[bytes]:
    splitter = Splitter()
    return [event.data for piece in pieces for event in splitter.feed(piece)] + [event.data for event in splitter.end()]


@given(st.lists(st.integers(0, len(LINES))))
def test_it_does_not_matter_where_the_bytes_are_cut(cuts: list[int]):
    """Also within a character, and between CR and LF."""
    places = [0, *sorted(cuts), len(LINES)]
    assert split([LINES[begin:end] for begin, end in pairwise(places)]) == SAID


def test_a_line_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch):
    """It must not fill our memory; lines that end may be as many as they like."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    splitter = Splitter()
    for _ in range(50):
        splitter.feed(b'{"a":1}\n')
    with pytest.raises(sse.EventTooLong, match="100 bytes"):
        for _ in range(50):
            splitter.feed(b'{"a":1} ')
