"""What is known of a model: told by its upstream, by the price table, or by `config/models.yaml`."""

from collections.abc import Sequence
from typing import Any, Self, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

Facts = TypeVar("Facts", bound=Struct)


class Capabilities(Struct, frozen=True):
    """What a model can do. `None`: nobody has said, which is not a no."""

    tools: bool | None = None
    """It calls functions."""
    vision: bool | None = None
    """It reads images."""
    reasoning: bool | None = None
    """It thinks before it answers, or can be told to."""
    json_schema: bool | None = None
    """Its answer can be held to a JSON Schema."""
    streaming: bool | None = None
    """Its answer can come as it is made."""


class ModelFacts(Struct, frozen=True):
    """What somebody says of a model. What is left out, nobody has said."""

    display_name: str | None = None
    created_s: int | None = None
    """When it was made, in seconds since 1970."""
    context_tokens: int | None = None
    """The longest prompt and answer together."""
    output_tokens: int | None = None
    """The longest answer."""
    inputs: tuple[str, ...] | None = None
    """What it takes: `text`, `image`, `audio`, `video`, `file`."""
    outputs: tuple[str, ...] | None = None
    """What it gives: these, or `embedding`, …"""
    capabilities: Capabilities = Capabilities()

    def or_else(self, other: "ModelFacts") -> "ModelFacts":
        """Return these facts, and the other's where these say nothing."""
        return _filled(self, other, capabilities=_filled(self.capabilities, other.capabilities))

    def with_vision(self) -> "ModelFacts":
        """Return these facts, whether the model reads images told by what it takes, where nobody has said it."""
        if self.inputs is None or self.capabilities.vision is not None:
            return self
        seeing = msgspec.structs.replace(self.capabilities, vision="image" in self.inputs)
        return msgspec.structs.replace(self, capabilities=seeing)

    @classmethod
    def of_all(cls, each: Sequence["ModelFacts"]) -> Self:
        """Return what holds of every one of several models: what a client may rely on whichever of them answers.

        The smallest limits, the modalities that all have, what all can do; nothing where one of them is not known.
        """
        return cls(
            display_name=each[0].display_name if len(each) == 1 else None,
            created_s=each[0].created_s if len(each) == 1 else None,
            context_tokens=_least([facts.context_tokens for facts in each]),
            output_tokens=_least([facts.output_tokens for facts in each]),
            inputs=_shared([facts.inputs for facts in each]),
            outputs=_shared([facts.outputs for facts in each]),
            capabilities=Capabilities(*map(_all, zip(*[astuple(facts.capabilities) for facts in each], strict=True))),
        )


NOTHING_KNOWN = ModelFacts()


def _filled(own: Facts, other: Facts, **also: Any) -> Facts:
    lacking: dict[str, Any] = {
        name: getattr(other, name) for name in own.__struct_fields__ if getattr(own, name) is None
    }
    return msgspec.structs.replace(own, **lacking, **also)


def _least(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return min(known) if known and len(known) == len(counts) else None


def _shared(each: list[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    known = [words for words in each if words is not None]
    if not known or len(known) < len(each):
        return None
    return tuple(word for word in known[0] if all(word in words for words in known))


def _all(each: tuple[bool | None, ...]) -> bool | None:
    """Return whether all can; one that cannot settles it, whatever is not known of the others."""
    return False if False in each else None if None in each else True
