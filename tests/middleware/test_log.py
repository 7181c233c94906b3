"""The log line: what others made up is fit to be read in it."""

import json

import pytest

from gateway.core.call import Call, Headers, Passage
from gateway.core.receipt import Tried
from gateway.core.reply import Chunk, Reply
from gateway.core.usage import Usage
from gateway.middleware.log import Log, LogOptions
from tests.standins import StillClock, call_of

MADE_UP = ("client_request_id", "path", "model", "deployment", "upstream_id", "service_tier")


class Paper:
    """Takes lines."""

    is_terminal = False

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line)


async def line_of(**made_up: str) -> dict[str, str]:
    """Return the line of a call whose client and upstream made up so much."""
    paper = Paper()
    call = call_of(
        StillClock(),
        headers=Headers({b"x-client-request-id": made_up["client_request_id"].encode("latin-1")}),
        passage=Passage("GET", made_up["path"]),
    )

    async def last(call: Call) -> Reply:
        tried = Tried(made_up["deployment"], "openai", "m", 0.0, upstream_id=made_up["upstream_id"])
        call.receipt.tried.append(tried)
        call.receipt.model, call.receipt.usage = made_up["model"], Usage(service_tier=made_up["service_tier"])
        return Reply(Chunk(b"{}"))

    await Log(LogOptions(format="json"), StillClock(), paper)(call, last)
    call.end()
    return json.loads(paper.lines[0])


@pytest.mark.parametrize("name", MADE_UP)
@pytest.mark.parametrize(("said", "shown"), [("a\x1b[31m\x85b", "a?[31m?b"), ("é" * 200, "é" * 128)])
async def test_what_others_made_up_is_plain_and_short(name: str, said: str, shown: str):
    """Whichever of it it is; all the rest stays as it is."""
    made_up = dict.fromkeys(MADE_UP, "as it is")
    line = await line_of(**{**made_up, name: said})
    expected = {**made_up, name: shown}
    expected["path"] = f"GET {expected['path']}"[:128]
    assert {name: line[name] for name in MADE_UP} == expected
