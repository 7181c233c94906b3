"""What holds for every stream of events, whatever its dialect."""

import msgspec
import pytest

from gateway.core.errors import Broke, Busy, Unreachable
from gateway.providers.reader import EventReader
from gateway.wire import sse
from gateway.wire.events import Began, Ended, Event, Said
from gateway.wire.openai import ChatWriter


class Words:
    """A dialect of JSON strings: `"!busy"` is an error, `"."` the end."""

    finished = False
    complete = False
    losses = 0
    _begun = False

    def feed(self, data: bytes) -> list[Event]:
        word = msgspec.json.decode(data, type=str)
        if word == "!busy":
            raise Busy("busy")
        begun: list[Event] = [] if self._begun else [Began("id", "model")]
        self._begun = True
        if word == ".":
            self.finished = self.complete = True
            return [*begun, Ended("stop")]
        return [*begun, Said(word)] if word else begun

    def end(self) -> list[Event]:
        return []

    def lose(self) -> None:
        self.losses += 1


@pytest.fixture
def reader() -> EventReader:
    return EventReader(Words(), ChatWriter("id", "model", 1))


def text(chunks) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_what_was_said_before_an_error_is_delivered_first(reader):
    """Otherwise the client's text would depend on how the network cut the bytes."""
    assert text(reader.feed(b'data: "half"\n\ndata: "!busy"\n\n')) == "half"
    with pytest.raises(Busy):
        reader.end()


def test_an_error_before_anything_else_is_raised_at_once(reader):
    """Then another deployment can still be asked."""
    with pytest.raises(Busy):
        reader.feed(b'data: "!busy"\n\ndata: "."\n\n')


def test_after_an_error_the_answer_is_not_complete(reader):
    """What follows an error is not to be believed."""
    reader.feed(b'data: "half"\n\ndata: "!busy"\n\ndata: "."\n\n')
    assert reader.finished
    with pytest.raises(Busy):
        reader.feed(b'data: "."\n\n')
    with pytest.raises(Busy):
        reader.end()


def test_a_stream_that_says_nothing_may_be_tried_elsewhere(reader):
    """Nothing has left for the client yet."""
    reader.feed(b'data: ""\n\n')
    with pytest.raises(Unreachable) as raised:
        reader.end()
    assert raised.value.retryable


def test_a_stream_that_stops_in_the_middle_is_broken(reader):
    """What has left cannot be taken back, so nobody else is asked."""
    reader.feed(b'data: "half"\n\n')
    with pytest.raises(Broke) as raised:
        reader.end()
    assert not raised.value.retryable


def test_the_last_event_may_lack_its_blank_line(reader):
    """Some servers close right behind the last line."""
    reader.feed(b'data: "all"\n\ndata: "."')
    assert reader.end()[-1].finish_reason == "stop"


def test_what_is_no_dialect_is_an_upstream_that_cannot_be_used(reader):
    """A proxy's page in a stream must not become a 500 of ours, nor an answer."""
    assert all(chunk.silent for chunk in reader.feed(b"data: <html>\n\n"))
    with pytest.raises(Unreachable, match="nothing that can be read"):
        reader.end()


def test_an_event_without_end_does_not_fill_our_memory(reader, monkeypatch):
    """The limit is said in one place, and it is the upstream's fault."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10)
    with pytest.raises(Unreachable):
        reader.feed(b"data: " + b"x" * 20)


def test_an_error_outside_of_all_events_tells_why_the_stream_stopped(reader):
    """Google writes such, on several lines and behind the last event."""
    reader.feed(b'data: "half"\n\n[\n  "!busy",\n')
    with pytest.raises(Broke):
        reader.end()
