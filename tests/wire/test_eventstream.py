"""AWS's event stream comes in pieces of any size; whatever is damaged is known to be."""

import struct
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import eventstream
from gateway.wire.eventstream import Damaged, Message, Splitter
from tests.frames import framed, framed_raw, header, message, sized

STREAM = [
    message("event", "messageStart", b'{"role":"assistant"}'),
    message("event", "contentBlockDelta", '{"delta":{"text":"🌊"}}'.encode()),
    framed({}, b""),
    message("exception", "throttlingException", b'{"message":"slow down"}'),
]
NAMES = ["messageStart", "contentBlockDelta", None, None]


def split(pieces: list[bytes]) -> list[Message]:
    splitter = Splitter()
    return [message for piece in pieces for message in splitter.feed(piece)] + splitter.end()


def test_a_message_is_its_headers_and_its_payload():
    """Its headers say what it is, its payload what it says."""
    messages = split([b"".join(STREAM)])
    assert [message.headers.get(":event-type") for message in messages] == NAMES
    assert messages[1].payload == '{"delta":{"text":"🌊"}}'.encode()
    assert messages[3].headers[":exception-type"] == "throttlingException"


def test_a_message_is_framed_as_aws_frames_it():
    """Length, headers' length and CRC of `messageStart` as AWS's own SDK prints them in its snapshots."""
    said = framed(
        {":event-type": "messageStart", ":message-type": "event", ":content-type": "application/json"},
        b'{"role":"__role__"}',
    )
    assert struct.unpack_from(">III", said) == (117, 82, 3514138638)
    assert struct.unpack_from(">I", said, 113) == (4090186464,)


def test_it_does_not_matter_where_the_bytes_are_cut():
    """TCP knows no messages."""
    data = b"".join(STREAM)
    whole = split([data])
    for at in range(len(data) + 1):
        assert split([data[:at], data[at:]]) == whole, at
    assert split([data[at : at + 1] for at in range(len(data))]) == whole


def test_headers_of_other_types_are_passed_over():
    """AWS may add headers of any of ten types."""
    typed = [b"\0", b"\1", b"\2x", b"\3xx", b"\4xxxx", b"\5" + b"x" * 8, b"\6" + sized(b"abc"), b"\x08" + b"x" * 8]
    odd = b"".join(header(f"h{number}", value) for number, value in enumerate([*typed, b"\x09" + b"x" * 16]))
    assert split([framed_raw(odd + header("last", b"\7" + sized("né".encode())), b"{}")]) == [
        Message({"last": "né"}, b"{}")
    ]


@pytest.mark.parametrize("at", range(len(STREAM[0])))
def test_a_changed_byte_is_noticed(at):
    """Wherever it is: the lengths have a CRC of their own, for they say where everything else is."""
    changed = bytearray(STREAM[0])
    changed[at] ^= 0x20
    with pytest.raises(Damaged):
        split([bytes(changed)])


def test_what_stands_before_the_damage_is_told_first():
    """Otherwise what a client gets would depend on how the network cut the bytes."""
    splitter = Splitter()
    assert len(splitter.feed(STREAM[0] + STREAM[1] + b"<html><body>")) == 2
    for _ in range(2):
        with pytest.raises(Damaged, match="no event stream"):
            splitter.feed(STREAM[2])
    with pytest.raises(Damaged):
        splitter.end()


def test_half_a_message_is_none():
    """What it says cannot be checked."""
    assert split([STREAM[0] + STREAM[1][:-1]]) == split([STREAM[0]])


def test_a_message_of_absurd_length_is_not_waited_for():
    """It would fill our memory; a good CRC does not make it better."""
    prelude = struct.pack(">II", 2**32 - 1, 0)
    with pytest.raises(Damaged, match="more than"):
        split([prelude + struct.pack(">I", crc32(prelude))])


@pytest.mark.parametrize(
    "headers",
    [
        header("type", b"\x0a"),
        header("cut", b"\7" + struct.pack(">H", 50) + b"short"),
        header("name", b"\4xx"),
        b"\x05abc",
        b"\x01\xff\0",
        header("no utf-8", b"\7" + sized(b"\xff")),
    ],
    ids=["unknown type", "value too short", "integer too short", "name too short", "name no UTF-8", "value no UTF-8"],
)
def test_headers_that_cannot_be_read_are_damage(headers):
    """What the message is could only be guessed."""
    with pytest.raises(Damaged, match="headers"):
        split([framed_raw(headers, b"{}")])


@pytest.mark.parametrize("lengths", [(16, 1), (20, 5), (12, 0), (0, 0), (15, 0), (40, 2**31)])
def test_lengths_that_contradict_each_other_are_damage(lengths):
    """A message shorter than its own frame would be read for ever."""
    prelude = struct.pack(">II", *lengths)
    for before in (b"", STREAM[0]):
        with pytest.raises(Damaged):
            split([before + prelude + struct.pack(">I", crc32(prelude)) + b"x" * 40])


PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(STREAM),
    st.builds(framed_raw, st.binary(max_size=20), st.binary(max_size=20)),
)


@given(pieces=st.lists(PIECES, max_size=6), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_any_bytes_in_any_pieces_say_the_same(pieces, cuts):
    """Whatever an upstream sends: the same messages, or the same complaint, and never anything else."""
    data = b"".join(pieces)
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    cut = [data[begin:end] for begin, end in pairwise(at)]
    assert outcome(cut) == outcome([data]) == outcome([data[at : at + 1] for at in range(len(data))])


def outcome(pieces: list[bytes]) -> tuple[list[Message], str]:
    splitter, said = Splitter(), list[Message]()
    try:
        for piece in pieces:
            said += splitter.feed(piece)
        return said + splitter.end(), ""
    except Damaged as damage:
        return said, str(damage)


def test_no_more_is_kept_than_one_message(monkeypatch):
    """An upstream that never ends a message must not fill our memory."""
    monkeypatch.setattr(eventstream, "MAX_MESSAGE_BYTES", 100)
    splitter = Splitter()
    for _ in range(1000):
        splitter.feed(STREAM[2])
    assert len(splitter._rest) == 0
    with pytest.raises(Damaged, match="100 bytes"):
        splitter.feed(STREAM[0])
