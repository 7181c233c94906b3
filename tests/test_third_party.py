"""A middleware and a provider from somebody else's package, by entry point and by `module:Class`."""

import json

import httpx
import pytest

from tests.serving import started

MODULE = '''
"""A third party's package: a middleware and a provider."""

from collections.abc import Mapping
from typing import ClassVar

from gateway.core.reply import Chunk
from gateway.middleware.base import Options
from gateway.providers.base import ProviderOptions


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


@pytest.mark.parametrize(
    ("use", "kind"),
    [("stamp", "parrot"), ("acme_gateway:StampOptions", "acme_gateway:ParrotOptions")],
    ids=["entry point", "module:Class"],
)
def test_they_come_in_by_the_same_door_as_ours(package, use, kind):
    """Named in gateway.yaml, with options of their own."""
    (package / "gateway.yaml").write_text(CONFIG.format(use=use, kind=kind))
    with started(package, environment={"PYTHONPATH": str(package)}) as gateway:
        gateway.until_ready()
        body = {"model": "parrot", "messages": [{"role": "user", "content": "Hi"}]}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, trust_env=False)
    assert answer.headers["x-acme"] == "hello"
    assert json.loads(answer.text)["choices"][0]["message"]["content"] == "Lora"


def test_their_options_are_checked_like_ours(package):
    """A missing option and a wrong order have their line and their reason."""
    (package / "gateway.yaml").write_text(
        CONFIG.format(use="stamp", kind="parrot").replace("word: hello", "wrod: hello").replace("{use: metrics}, ", "")
        .replace("{use: retry}]", "{use: retry}, {use: metrics}]")
    )  # fmt: skip
    with started(package, environment={"PYTHONPATH": str(package)}) as gateway:
        gateway.process.wait(20)
        assert 'did you mean "word"?' in gateway.said and "stamps are counted" in gateway.said
