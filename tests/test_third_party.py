"""A middleware and a provider from somebody else's package, by entry point and by `module:Class`."""

import json
import os

import httpx
import pytest

from tests.script import Raw, ScriptedUpstream
from tests.serving import CHAIN, serving, started

MODULE = '''
"""A third party's package: a middleware and a provider."""

from collections.abc import Mapping
from typing import ClassVar

from gateway.core.errors import Broke, Unreachable
from gateway.core.reply import Chunk
from gateway.middleware.base import Options
from gateway.providers.base import ProviderOptions, Request


class StampOptions(Options, frozen=True, kw_only=True):
    """Puts a word on every answer."""

    inside: ClassVar[Mapping[str, str]] = {"metrics": "stamps are counted"}

    word: str
    """The word."""

    def build(self, resources):
        async def stamp(call, next):
            call.receipt.headers["x-acme"] = self.word
            return await next(call)

        return stamp


class ParrotOptions(ProviderOptions, frozen=True, kw_only=True):
    """Says the same to everybody."""

    says: str

    def build(self, name):
        return Parrot(self.says)


class Parrot:
    def __init__(self, says):
        self._says = says

    def answer(self, attempt):
        message = '{"choices": [{"index": 0, "message": {"role": "assistant", "content": "%s"}}]}' % self._says
        return [Chunk(message.encode(), self._says)]


class LinesOptions(ProviderOptions, frozen=True, kw_only=True):
    """A dialect of lines: each is a word of the answer, and a full stop its end."""

    base_url: str

    def build(self, name):
        return Lines(self.base_url)


class Lines:
    def __init__(self, base_url):
        self._url = base_url

    def request(self, attempt):
        return Request(self._url, attempt.body.raw, {})

    def reader(self, attempt):
        return LinesReader()

    def whole(self, attempt, body):
        raise Unreachable("this server only streams")

    def error(self, status, headers, body):
        return Unreachable(body.decode())


class LinesReader:
    def __init__(self):
        self._rest = b""
        self.complete = self.finished = False

    def feed(self, data):
        *lines, self._rest = (self._rest + data).split(b"\\n")
        return [self._chunk(line.decode()) for line in lines]

    def end(self):
        if not self.complete:
            raise Broke("the lines broke off")
        return []

    def _chunk(self, word):
        finish = "stop" if word == "." else ""
        self.complete = self.finished = self.complete or bool(finish)
        delta = "{}" if finish else '{"content": "%s "}' % word
        choice = '{"index": 0, "delta": %s, "finish_reason": %s}' % (delta, '"stop"' if finish else "null")
        data = 'data: {"choices": [%s]}\\n\\n' % choice
        return Chunk(data.encode(), "" if finish else word + " ", finish_reason=finish)
'''

CONFIG = """
providers: {{parrot: {{kind: {kind}, says: Lora}}}}
models: {{parrot: parrot/green}}
chain: [{{use: metrics}}, {{use: {use}, word: hello}}, {{use: retry}}]
"""


@pytest.fixture
def package(tmp_path):
    """An installed distribution: a module, and metadata with its entry points."""
    (tmp_path / "acme_gateway.py").write_text(MODULE)
    metadata = tmp_path / "acme_gateway-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-gateway\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[gateway.middleware]\nstamp = acme_gateway:StampOptions\n\n"
        "[gateway.providers]\nparrot = acme_gateway:ParrotOptions\n"
    )
    return tmp_path


def beside_ours(package):
    """The environment in which Python finds `package`, and us where it found us."""
    return {"PYTHONPATH": os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.mark.parametrize(
    ("use", "kind"),
    [("stamp", "parrot"), ("acme_gateway:StampOptions", "acme_gateway:ParrotOptions")],
    ids=["entry point", "module:Class"],
)
def test_they_come_in_by_the_same_door_as_ours(package, use, kind):
    """Named in gateway.yaml, with options of their own."""
    (package / "gateway.yaml").write_text(CONFIG.format(use=use, kind=kind))
    with started(package, environment=beside_ours(package)) as gateway:
        gateway.until_ready()
        body = {"model": "parrot", "messages": [{"role": "user", "content": "Hi"}]}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, trust_env=False, timeout=60)
    assert answer.headers["x-acme"] == "hello"
    assert json.loads(answer.text)["choices"][0]["message"]["content"] == "Lora"


@pytest.mark.parametrize(("lines", "done"), [(b"one\ntwo\n.\n", True), (b"one\ntwo\n", False)], ids=["whole", "cut"])
async def test_their_reader_says_when_an_answer_is_complete(package, monkeypatch, lines, done):
    """A dialect that nobody here knows of, from an upstream of its own."""
    monkeypatch.syspath_prepend(package)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(lines)
    async with ScriptedUpstream() as upstream:
        upstream.will(Raw(head + lines))
        provider = f"{{kind: 'acme_gateway:LinesOptions', base_url: '{upstream.url}'}}"
        async with serving(f"providers: {{lines: {provider}}}\nmodels: {{mock: lines/m}}\n{CHAIN}\n") as gateway:
            text = await gateway.stream()
    assert '"one "' in text and '"two "' in text
    assert ("[DONE]" in text, '"error"' in text) == (done, not done)


def test_their_options_are_checked_like_ours(package):
    """A missing option and a wrong order have their line and their reason."""
    (package / "gateway.yaml").write_text(
        CONFIG.format(use="stamp", kind="parrot").replace("word: hello", "wrod: hello").replace("{use: metrics}, ", "")
        .replace("{use: retry}]", "{use: retry}, {use: metrics}]")
    )  # fmt: skip
    with started(package, environment=beside_ours(package)) as gateway:
        gateway.process.wait(60)
        assert 'did you mean "word"?' in gateway.said and "stamps are counted" in gateway.said
