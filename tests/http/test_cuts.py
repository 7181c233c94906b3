"""A stream that was cut never looks complete: every golden stream, through the whole gateway, read as raw bytes."""

import json
import re
from pathlib import Path

import pytest

from tests.providers.test_golden import GOLDEN, STREAMED, Case
from tests.script import Events, Raw, ScriptedUpstream
from tests.serving import mock_config, serving

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ENDS = {"in good order": b"0\r\n\r\n", "by a lost connection": b""}
KINDS = sorted({Case(folder).call["kind"] for folder in STREAMED})


def config(folders: list[Path], url: str) -> str:
    """Return a configuration in which every folder's name is a model. JSON is YAML."""
    providers, models = {}, {}
    for number, folder in enumerate(folders):
        call = Case(folder).call
        options = {"api_key": "k", **call.get("options", {}), "base_url": url}
        providers[f"p{number}"] = {"kind": call["kind"], **options}
        models[name(folder)] = f"p{number}/{call['model']}"
    patient = {"failures": 100_000, "of_at_least": 100_000}
    chain = [{"use": "retry", "attempts": 1}]
    return json.dumps({"providers": providers, "models": models, "health": patient, "chain": chain})


def name(folder: Path) -> str:
    return f"{folder.parent.name}:{folder.name}"


def pieces(stream: bytes) -> list[bytes]:
    """Return a stream in its events, their blank lines included."""
    return [piece for piece in re.split(rb"(?<=\r\n\r\n)|(?<=\n\n)", stream) if piece]


def sent(events: list[bytes], end: bytes) -> Raw:
    """Return an answer that says so many events."""
    return Raw(HEAD + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + end)


def read(received: str) -> tuple[str, str, bool]:
    """Return the text and the finish reason of a stream, and whether it ended with an error."""
    text = finish = ""
    failed = False
    for line in received.split("\n"):
        if line.startswith("data: {"):
            said = json.loads(line[6:])
            failed = "error" in said
            for choice in said.get("choices", []):
                text += choice["delta"].get("content") or ""
                finish += choice["finish_reason"] or ""
    return text, finish, failed


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_stream_never_looks_complete(kind: str, end: str):
    """Cut behind each event: an error, and neither `[DONE]` nor a finish reason, unless all of it was said."""
    folders = [folder for folder in STREAMED if Case(folder).call["kind"] == kind]
    async with ScriptedUpstream() as upstream, serving(config(folders, upstream.origin)) as gateway:
        for folder in folders:
            case = Case(folder)
            whole = case.replay([case.answer])
            events = pieces(case.answer)
            for most in range(len(events)):
                upstream.will(sent(events[:most], ENDS[end]))
                received = await gateway.stream(**{**case.call["request"], "model": name(folder)})
                where = f"{name(folder)}, cut behind event {most}: {received}"
                if received.startswith("{"):
                    assert "error" in json.loads(received), where
                    continue
                text, finish, failed = read(received)
                assert failed != ("[DONE]" in received), where
                if finish or not failed:
                    assert "error" not in whole, where
                    assert (text, finish) == (whole["text"], whole["finish_reason"]), where


@pytest.mark.parametrize("at", [0, 2])
async def test_an_event_that_cannot_be_read_is_told_and_the_answer_not_kept(at: int):
    """Also when it comes before the first word, while nothing has left for the client."""
    events = pieces((GOLDEN / "openai" / "text-stream" / "answer.sse").read_bytes())
    odd = Events(*events[:at], b'data: {"half\n\n', *events[at:])
    chain = "chain: [{use: cache}, {use: retry}]"
    async with ScriptedUpstream() as upstream, serving(mock_config(upstream.url, chain)) as gateway:
        for asked in (1, 2):
            upstream.will(odd)
            received = await gateway.stream()
            assert ": x-gateway-skipped: " in received and "[DONE]" in received
            await gateway.settle()
            assert upstream.asked == asked
