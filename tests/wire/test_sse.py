"""Server-sent events come in pieces of any size, in three kinds of line ends, with much between that says nothing."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import sse
from gateway.wire.sse import Event, EventTooLong, Splitter

STREAM = (
    b": hello\n\nevent: first\nid: 7\nretry: 100\ndata: one\n\ndata:two\ndata: lines \n\n\n: ping\n\n"
    b'data: {"emoji":"\xf0\x9f\x8c\x8a"}\nunknown: field\nfieldonly\n\nevent: empty\n\ndata:  spaced\n\ndata:\n\n'
)
EVENTS = [
    Event(b"one", b"first"),
    Event(b"two\nlines "),
    Event(b'{"emoji":"\xf0\x9f\x8c\x8a"}'),
    Event(b" spaced"),
    Event(b""),
]


def split(pieces: list[bytes]) -> list[Event]:
    splitter = Splitter()
    return [event for piece in pieces for event in splitter.feed(piece)] + splitter.end()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_in_any_of_three_ways(end):
    """The standard allows CR, LF and CRLF; Google sends CRLF."""
    assert split([STREAM.replace(b"\n", end)]) == EVENTS


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_it_does_not_matter_where_the_bytes_are_cut(end):
    """Also between CR and LF, and within a character."""
    data = STREAM.replace(b"\n", end)
    for at in range(len(data) + 1):
        assert split([data[:at], data[at:]]) == EVENTS, at
    assert split([data[at : at + 1] for at in range(len(data))]) == EVENTS


@given(data=st.binary(max_size=200).map(lambda raw: b"data: " + raw), cuts=st.lists(st.integers(0, 206), max_size=6))
def test_any_bytes_in_any_pieces_say_the_same(data, cuts):
    """Whatever an upstream sends, the network has no part in it."""
    at = [0, *sorted(cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(at)]
    assert split(pieces) == split([data])


def test_cr_cut_from_its_lf_is_one_line_end_and_an_empty_piece_between_is_none():
    """Otherwise the LF would be an empty line, which ends an event in its middle."""
    assert split([b"data: a\r", b"", b"\ndata: b\r", b"\n\r\n"]) == [Event(b"a\nb")]


def test_comments_ids_and_retries_are_no_events():
    """They are for the transport, or to keep the connection alive; clients crash on a bare `id:`."""
    assert split([b": OPENROUTER PROCESSING\n\n", b"id: 1\nretry: 5\n\n", b"event: ping\n\n"]) == []


def test_the_name_of_an_event_is_not_the_next_ones():
    """An `event: error` must not make an error of what follows."""
    assert split([b"event: error\ndata: x\n\ndata: y\n\n", b"event: lost\n\ndata: z\n\n"]) == [
        Event(b"x", b"error"),
        Event(b"y"),
        Event(b"z"),
    ]


@pytest.mark.parametrize("tail", [b"data: last", b"data: last\n", b"data: last\r", b"data: last\r\n"])
def test_the_end_completes_an_event_without_its_blank_line(tail):
    """Some servers close right behind the last line."""
    assert split([b"data: first\n\n", tail]) == [Event(b"first"), Event(b"last")]


def test_nothing_is_told_before_the_event_is_whole():
    """Half a JSON object is none."""
    splitter = Splitter()
    assert [splitter.feed(piece) for piece in (b"da", b"ta: {", b"}\n")] == [[], [], []]
    assert splitter.feed(b"\n") == [Event(b"{}")]
    assert splitter.end() == []


@pytest.mark.parametrize("piece", [b"x" * 10, b"data: x\n", b"\ndata: yy"])
def test_an_event_that_never_ends_is_given_up(monkeypatch, piece):
    """An upstream must not fill our memory, be it by one line or by many."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    splitter = Splitter()
    with pytest.raises(EventTooLong, match="more than 100 bytes"):
        for _ in range(20):
            splitter.feed(piece)


def test_a_long_stream_of_short_events_is_not_too_long(monkeypatch):
    """The limit is an event's, not the stream's, also when the pieces end in the middle of lines."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    data = b"data: 0123456789\n\n" * 50
    assert len(split([data[at : at + 7] for at in range(0, len(data), 7)])) == 50
