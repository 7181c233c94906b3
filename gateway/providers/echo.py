"""Answers with what it was asked, by itself: to try the gateway, and a client, without a key and for nothing."""

import re
from collections.abc import Mapping

from gateway.core.call import Attempt, Operation
from gateway.core.model import Capabilities, ModelFacts
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.providers.base import ListedModel, LocalProvider, ProviderOptions
from gateway.providers.chat import parts, refuse
from gateway.providers.echo_embeddings import EchoEmbeddings
from gateway.wire.chat_request import ChatRequest, Message, chat_request
from gateway.wire.events import Began, Counted, Ended, Event, Finish, Said
from gateway.wire.openai import ChatWriter


class EchoOptions(ProviderOptions, frozen=True, kw_only=True):
    """A model that answers with the last thing that the user said. It needs nothing."""

    def build(self, name: str) -> "Echo":
        """Make the provider."""
        return Echo()


MOST_CHUNKS = 500
"""A longer text is said several words at a time: all chunks are made before the first one leaves."""


class Echo:
    """Says the last user message back, a word at a time; a word counts as a token."""

    beside_chat: Mapping[Operation, LocalProvider] = {"embeddings": EchoEmbeddings()}
    models = (
        ListedModel(
            "echo",
            ModelFacts(
                inputs=("text",),
                outputs=("text",),
                capabilities=Capabilities(
                    tools=False, vision=False, reasoning=False, json_schema=False, streaming=True
                ),
            ),
        ),
    )
    """It answers to every name; this is the one that a list shows."""

    def answer(self, attempt: Attempt) -> list[Chunk]:
        """Return the answer: its chunks, or the one chunk of a whole answer.

        Raises:
            BadRequest: a field is of the wrong type, or several answers are asked for.
        """
        request = chat_request(attempt.body.raw)
        if request.n is not None and request.n != 1:
            refuse("the echo gives one answer a call; leave n out", "n")
        said, finish = _echo(request)
        prompt = sum(len(_words(_text(message))) for message in request.messages)
        writer = ChatWriter(attempt.id, attempt.deployment.model, int(attempt.clock.wall()))
        end: list[Event] = [Ended(finish), Counted(Usage(prompt, len(said)))]
        step = 1 + len(said) // MOST_CHUNKS
        words: list[Event] = [Said("".join(said[i : i + step])) for i in range(0, len(said), step)]
        if not attempt.stream:
            return [writer.whole([*words, *end])]
        began: list[Event] = [Began("", "")]
        batches = [[*began, *words[:1]], *([word] for word in words[1:]), end]
        return [chunk for batch in batches for chunk in writer.stream(batch)]


def _echo(request: ChatRequest) -> tuple[list[str], Finish]:
    """Return the words of the answer and why it ends: at a stop sequence, or at the most tokens that were allowed."""
    text = next((_text(message) for message in reversed(request.messages) if message.role == "user"), "")
    ends = [at for stop in request.stops if stop and (at := text.find(stop)) >= 0]
    words = _words(text[: min(ends)] if ends else text)
    most = request.most_tokens
    if most is not None and most < len(words):
        return words[:most], "length"
    return words, "stop"


def _words(text: str) -> list[str]:
    """Cut a text into words, each with the space before it, so that together they are the text."""
    return re.findall(r"\s*\S+(?:\s+$)?|\s+", text)


def _text(message: Message) -> str:
    return "".join(part.text or "" for part in parts(message))
