"""What is asked of every client, and when it has worked.

A feature is tried at an upstream of every dialect, unless the gateway answers it by itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.clients.upstream import CALLS, COLOUR, COUNTED, EMBEDDING, HELLO, RAINS, RED, RETRY_AFTER_S, THOUGHT, WEATHER

UPSTREAMS = {
    "chat": "chat/",
    "native": "native/",
    "messages": "messages/claude-sonnet-4-5.",
    "gemini": "gemini/gemini-2.5-flash.",
    "bedrock": "bedrock/anthropic.claude-sonnet-4-5.",
}
"""The upstreams behind the gateway, one of each dialect (`native`: Responses), and how models begin that are there:
what the gateway knows of a model, it knows by its name."""

Saw = Mapping[str, Any]


@dataclass(frozen=True)
class Feature:
    """One column of the table."""

    name: str
    title: str
    ask: str
    """The client program's function."""
    model: str
    """What the upstream is to do: see `upstream.py`."""
    worked: Callable[[Saw], object] | None = None
    """Whether what the client saw is right; `None`: it must raise, and `status` says which error."""
    status: int | None = None
    """Of the error that it must raise; `None`: of a stream that broke, which has none."""
    upstreams: tuple[str, ...] = tuple(UPSTREAMS)
    families: Mapping[str, str] = field(default_factory=dict)
    """How models begin that can do this, by upstream, where they are of another family."""
    key: str = ""
    """The key to ask with; empty: the right one."""

    def question(self, upstream: str, client: str, key: str) -> dict[str, str]:
        """Return what a client program is to be asked. An error is asked for by a stream where all answers are."""
        begins = (
            f"{upstream}/{self.families[upstream]}" if upstream in self.families else UPSTREAMS.get(upstream, "none/")
        )
        model = f"{begins}{self.model}.{client}"
        otherwise = "stream" if self.status else ""
        named = {"feature": self.name, "upstream": upstream}
        return {**named, "ask": self.ask, "otherwise": otherwise, "model": model, "key": self.key or key}


def _counted(saw: Saw) -> bool:
    return saw["usage"] == [COUNTED["prompt_tokens"], COUNTED["completion_tokens"], COUNTED["cached_tokens"]]


def _called(saw: Saw) -> bool:
    return (saw["arguments"], saw["text"]) == (CALLS[saw["tool"]], RAINS)


def _streamed(saw: Saw) -> bool:
    return saw["text"] == HELLO and saw.get("pieces", 2) > 1  # Codex does not show pieces


FEATURES = (
    Feature("whole", "whole answer", "whole", "hello", lambda saw: saw["text"] == HELLO),
    Feature("stream", "stream", "stream", "hello", _streamed),
    Feature("tools", "tool round trip", "tools", "tools", _called),
    Feature("streamed_tools", "the same, streamed", "streamed_tools", "tools", _called),
    Feature("structured", "structured output", "structured", "structured", lambda saw: saw["object"] == WEATHER),
    Feature(
        "thinking",
        "reasoning",
        "thinking",
        "thinking",
        lambda saw: (saw["thought"].strip(), saw["text"]) == (THOUGHT, HELLO),
    ),
    Feature("image", "image input", "image", "image", lambda saw: saw["text"] == RED),
    Feature("usage", "usage", "whole", "hello", _counted),
    Feature("streamed_usage", "usage of a stream", "stream", "hello", _counted),
    Feature("refused", "401", "whole", "hello", status=401, upstreams=("chat",), key="sk-wrong"),
    Feature("unknown", "404", "whole", "none", status=404, upstreams=("nowhere",)),
    Feature("busy", "429", "whole", "busy", status=429),
    Feature("broken", "a stream that breaks", "stream", "cut"),
    Feature("follow", "`previous_response_id`", "follow", "follow", lambda saw: saw["text"] == COLOUR),
    Feature(
        "embeddings",
        "embeddings",
        "embeddings",
        "embed",
        lambda saw: saw["vector"] == EMBEDDING,
        upstreams=("chat", "gemini", "bedrock"),
        families={"gemini": "gemini-embedding-001.", "bedrock": "amazon.titan-embed-text-v2."},
    ),
    Feature(
        "models", "list of models", "models", "hello", lambda saw: "chat/echo" in saw["models"], upstreams=("chat",)
    ),
)


def wrong(feature: Feature, told: Mapping[str, Any], error: str, *, shows_wait: bool = True) -> str:
    """Return what is wrong with what a client told of a feature; empty: it has worked.

    Args:
        feature: what was asked.
        told: `saw` or `raised`.
        error: the class of the exception that the client is to raise.
        shows_wait: the client shows when to come again.
    """
    if feature.worked is not None:
        return "" if "saw" in told and feature.worked(told["saw"]) else f"{told.get('saw') or told.get('raised')}"
    if "raised" not in told:
        return f"it raised nothing, and saw {told['saw']}"
    raised = told["raised"]
    if raised["type"] != error:
        return f"it raised {raised}, not {error}"
    if feature.status is not None and raised["status"] != feature.status:
        return f"the status is wrong: {raised}"
    if feature.status == 429 and raised["retry_after"] != (f"{RETRY_AFTER_S}" if shows_wait else None):
        return f"when to come again is not told as it should be: {raised}"
    return ""
