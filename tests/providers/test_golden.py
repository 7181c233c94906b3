"""Providers, tested by files in and files out.

A case is a folder `golden/<provider>/<case>/`:

    call.json       kind, options, model (the upstream's name), request (what the client sent), status and headers
                    (of the upstream's answer; 200 and none when left out)
    upstream.json   what the upstream must be sent: url, headers (at least these), body. None: nothing is sent, or
                    the case is about an error's status, and what was sent does not matter
    answer.sse|ndjson|frames|json|txt   what the upstream answers (frames: AWS's event stream, in the lines of
                    tests/frames.py)
    expected.json   what the client gets: chunks (each JSON object it reads), text, usage, finish_reason; or error

`GATEWAY_WRITE_GOLDEN=1` writes upstream.json and expected.json anew, to be read before they are kept.
"""

import json
import os
import random
import re
from collections import Counter
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.call import Attempt, Body, Headers
from gateway.core.errors import GatewayError, UpstreamFailed
from gateway.core.receipt import Receipt, Tried
from gateway.core.reply import Chunk
from gateway.core.route import Deployment
from gateway.core.secret import Secret
from tests import frames

GOLDEN = Path(__file__).parent / "golden"
KINDS = {
    "anthropic": "gateway.providers.anthropic:AnthropicOptions",
    "azure": "gateway.providers.azure:AzureOptions",
    "bedrock": "gateway.providers.bedrock:BedrockOptions",
    "cohere": "gateway.providers.cohere:CohereOptions",
    "echo": "gateway.providers.echo:EchoOptions",
    "gemini": "gateway.providers.gemini:GeminiOptions",
    "ollama": "gateway.providers.ollama:OllamaOptions",
    "openai": "gateway.providers.openai:OpenAIOptions",
    "vertex": "gateway.providers.vertex:VertexOptions",
}
STREAMS = (".sse", ".ndjson")
RANDOM_CUTS = 50
LAST_BYTES = 200
"""Of a stream: each is cut at, for there finish reasons, usage and last frames are."""
CASES = sorted(path.parent for path in GOLDEN.glob("*/*/call.json"))
STREAMED = [case for case in CASES if any((case / f"answer{kind}").exists() for kind in STREAMS)]
FRAMED = [case for case in CASES if (case / "answer.frames").exists()]
each_case = pytest.mark.parametrize("folder", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
each_stream = pytest.mark.parametrize("folder", STREAMED + FRAMED, ids=lambda path: f"{path.parent.name}/{path.name}")


@each_case
def test_what_goes_in_and_what_comes_out_is_as_written(folder: Path):
    """The whole translation of a provider, both ways, as files that a reviewer can read."""
    case = Case(folder)
    sent, outcome = case.sent(), case.outcome()
    if os.environ.get("GATEWAY_WRITE_GOLDEN") == "1":
        write(folder / "upstream.json", sent)
        write(folder / "expected.json", outcome)
    expected_sent = read(folder / "upstream.json")
    if sent is not None and expected_sent is not None:
        sent["headers"] = {name: sent["headers"].get(name) for name in expected_sent["headers"]}
    assert sent == expected_sent
    assert outcome == read(folder / "expected.json")


@each_stream
def test_chunks_are_such_as_official_clients_can_read(folder: Path):
    """Official SDKs crash on, or silently double, what breaks these rules."""
    outcome = Case(folder).outcome()
    check_chunks(outcome["chunks"], complete="error" not in outcome)


@each_stream
def test_it_does_not_matter_how_the_network_cuts_a_stream(folder: Path):
    """TCP knows no events: every cut in two, and every byte by itself, must say the same."""
    case = Case(folder)
    data = case.answer
    whole = case.replay([data])
    assert case.replay([data[at : at + 1] for at in range(len(data))]) == whole
    for at in range(1, len(data)):
        assert case.replay([data[:at], data[at:]]) == whole, f"cut at byte {at}: …{data[max(at - 30, 0) : at]!r}"


@each_stream
def test_a_stream_that_is_cut_off_never_looks_complete(folder: Path):
    """Half an answer that ends in good order is believed, stored and cached."""
    case = Case(folder)
    whole = case.replay([case.answer])
    cuts = case.ends[:-1]
    dice = random.Random(folder.name)
    anywhere = [dice.randrange(len(case.answer)) for _ in range(RANDOM_CUTS)]
    for at in [0, *cuts, *anywhere, *range(max(len(case.answer) - LAST_BYTES, 0), len(case.answer))]:
        outcome = case.replay([case.answer[:at]])
        if "error" in outcome:
            continue
        assert "error" not in whole, at
        assert (outcome["text"], outcome["finish_reason"]) == (whole["text"], whole["finish_reason"]), at
        assert said(outcome) == said(whole), at
    assert "error" in case.replay([case.answer[: max(cuts, default=0) // 2]])


def test_the_streams_are_many_and_of_every_dialect():
    """A promise that is shown by few files is a guess."""
    kinds = Counter(read(folder / "call.json")["kind"] for folder in STREAMED + FRAMED)
    assert len(STREAMED + FRAMED) >= 40
    assert {kind for kind, count in kinds.items() if count >= 5} == set(KINDS) - {"echo"}


def said(outcome: dict[str, Any]) -> list[Any]:
    """Return the chunks but those that tell the usage."""
    return [chunk for chunk in outcome["chunks"] if chunk.get("choices")]


class Case:
    """One folder."""

    def __init__(self, folder: Path) -> None:
        self.call = read(folder / "call.json")
        module, _, name = KINDS[self.call["kind"]].partition(":")
        options = getattr(import_module(module), name)
        given = {"api_key": "sk-golden", **self.call.get("options", {})}
        known = {key: value for key, value in given.items() if key in options.__struct_fields__}
        self.provider = msgspec.convert(known, options, dec_hook=lambda type, value: Secret(value)).build("golden")
        self.stream = bool(self.call["request"].get("stream"))
        answers = [path for path in folder.iterdir() if path.stem == "answer"]
        self.answer = answers[0].read_bytes() if answers else b""
        self.framed = bool(answers) and answers[0].suffix == ".frames"
        self.streamed = self.framed or (bool(answers) and answers[0].suffix in STREAMS)
        if self.framed:
            self.lines = self.answer.decode().splitlines()
            self.answer = b"".join(frames.messages(self.answer.decode()))

    @property
    def events(self) -> list[bytes]:
        """A stream's events, one by one."""
        if self.framed:
            return [frames.message(*frames.split_line(line)) for line in self.lines]
        return [event for event in re.split(rb"(?<=\r\n\r\n)|(?<=\n\n)", self.answer) if event]

    @property
    def ends(self) -> list[int]:
        """Where events end, but for one that lacks its end."""
        if self.framed:
            return list(accumulate(map(len, self.events)))
        return [match.end() for match in re.finditer(rb"\r\n\r\n|\n\n|}\n(?={|\Z)", self.answer)]

    def attempt(self) -> Attempt:
        return attempt(self.call["request"], self.call["model"])

    def sent(self) -> dict[str, Any] | None:
        """Return what the upstream is sent; `None`: the request is refused, answered by ourselves, or of no matter."""
        if not hasattr(self.provider, "request") or self.call.get("status", 200) >= 300:
            return None
        try:
            request = self.provider.request(self.attempt())
        except GatewayError:
            return None
        assert "sk-golden" not in request.url, "a key in a URL ends in logs"
        return {"url": request.url, "headers": dict(request.headers), "body": json.loads(request.body)}

    def outcome(self) -> dict[str, Any]:
        """Return what the client gets."""
        attempt = self.attempt()
        if not hasattr(self.provider, "request"):
            return gathered(self.provider.answer(attempt))
        try:
            self.provider.request(attempt)
            if self.call.get("status", 200) >= 300:
                raise self.provider.error(self.call["status"], self.call.get("headers", {}), self.answer)
            if self.streamed:
                return self.replay([self.answer])
            return gathered([self.provider.whole(attempt, self.answer)])
        except GatewayError as error:
            return {"error": told(error)}

    def replay(self, pieces: list[bytes]) -> dict[str, Any]:
        """Return what the client gets of a stream that comes in `pieces`."""
        reader, chunks = self.provider.reader(self.attempt()), list[Chunk]()
        try:
            for piece in pieces:
                chunks += reader.feed(piece)
                if reader.finished:
                    break
            chunks += reader.end()
        except UpstreamFailed as error:
            return gathered(chunks) | {"error": told(error)}
        return gathered(chunks)


class StoppedClock:
    """It is always the same moment."""

    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1_750_000_000.0

    async def sleep(self, seconds: float) -> None:
        pass


def attempt(request: dict[str, Any], model: str) -> Attempt:
    """Return an attempt of a client's request at an upstream's model."""
    raw = json.dumps({"model": "house-model", **request}).encode()
    return Attempt(
        id="golden",
        operation="chat",
        surface="chat",
        model="house-model",
        stream=bool(request.get("stream")),
        body=Body(raw, msgspec.json.decode(raw, type=dict[str, msgspec.Raw])),
        headers=Headers(),
        receipt=Receipt("golden"),
        deadline_s=600.0,
        clock=StoppedClock(),
        wants_usage=bool((request.get("stream_options") or {}).get("include_usage")),
        deployment=Deployment(f"golden/{model}", "golden", model),
        tried=Tried(f"golden/{model}", "golden", model, 0.0),
    )


def gathered(chunks: list[Chunk]) -> dict[str, Any]:
    """Return what `chunks` say together; runs of several events count as single ones."""
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    usage = json.loads(msgspec.json.encode(usages[-1])) if usages else None
    for rare in ("billed_tokens", "service_tier", "extras") if usage is not None else ():
        if not usage[rare]:
            del usage[rare]
    return {
        "chunks": [json.loads(data) for chunk in chunks for data in objects(chunk.data)],
        "text": "".join(chunk.text for chunk in chunks),
        "usage": usage,
        "finish_reason": "".join(chunk.finish_reason for chunk in chunks),
    } | ({"skipped": skipped} if (skipped := sum(chunk.skipped for chunk in chunks)) else {})


def objects(data: bytes) -> list[bytes]:
    """Return the JSON objects of a chunk: one that is a body, or the data of its events."""
    if data.startswith(b"{"):
        return [data]
    assert data.endswith(b"\n\n"), "an event without its blank line is lost on the client"
    lines = [line for line in data.split(b"\n") if line and not line.startswith(b":")]
    assert all(line.startswith(b"data: ") for line in lines), "official clients crash on other fields"
    return [line[6:] for line in lines if line != b"data: [DONE]"]


def told(error: GatewayError) -> dict[str, Any]:
    """Return what is to be known of an error."""
    fields = ("status", "kind", "code", "param", "retry_after_s", "retryable", "message")
    return {"class": type(error).__name__} | {name: getattr(error, name, None) for name in fields}


def check_chunks(chunks: list[dict[str, Any]], complete: bool) -> None:
    """Check the chunks of a stream against what official clients can read.

    Args:
        chunks: every JSON object of the stream, in order.
        complete: the answer was whole; otherwise it must not have a finish.
    """
    roles, finishes, tools = 0, 0, list[str]()
    listed = {"annotations": 0, "thinking_blocks": 0}
    for chunk in chunks:
        assert chunk["id"] and chunk["created"] and chunk["model"], "no empty id, created or model"
        assert chunk["object"] == "chat.completion.chunk"
        assert {chunk[name] for name in ("id",)} == {chunks[0]["id"]}, "one id for all"
        assert (chunk["created"], chunk["model"]) == (chunks[0]["created"], chunks[0]["model"])
        assert isinstance(chunk["choices"], list), "choices: null crashes the official helper"
        for choice in chunk["choices"]:
            assert choice["index"] == 0
            assert not finishes, "nothing follows the finish but the usage"
            delta = choice["delta"]
            assert delta or choice["finish_reason"], "an empty delta says nothing"
            roles += "role" in delta
            assert roles == 1, "the role comes first, and once"
            finishes += choice["finish_reason"] is not None
            assert choice["finish_reason"] in (None, "stop", "length", "tool_calls", "content_filter")
            for name in listed:
                for entry in delta.get(name) or []:
                    assert entry["index"] == listed[name], "the helper crashes on the second entry without an index"
                    listed[name] += 1
            for call in delta.get("tool_calls") or []:
                check_tool_call(call, tools)
    assert finishes == (1 if complete else 0), "exactly one finish, and none that is invented"


def check_tool_call(call: dict[str, Any], tools: list[str]) -> None:
    """Check one delta of a tool call; `tools` are the ids so far."""
    assert isinstance(call["index"], int)
    if call["index"] == len(tools):
        assert call["id"] and call["function"]["name"], "a call begins with its id and name"
        assert call["type"] == "function" and call["id"] not in tools
        tools.append(call["id"])
    else:
        assert call["index"] < len(tools), "indexes count from 0, without gaps"
        assert not call.get("id") and not call["function"].get("name"), "clients join repeated ids and names"
    assert isinstance(call["function"]["arguments"], str)


def read(path: Path) -> Any:
    """Return a JSON file; `None` when there is none."""
    return json.loads(path.read_text()) if path.exists() else None


def write(path: Path, value: Any) -> None:
    """Write a JSON file; `None` removes it."""
    if value is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
