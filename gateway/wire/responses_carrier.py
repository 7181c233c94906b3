"""What a Responses client keeps between turns for an upstream: reasoning, in the form in which it has to come back.

Anthropic verifies its thinking blocks and Gemini its thought signatures; the Responses API has one opaque field for
such things, `encrypted_content` of a reasoning item. Ours holds no secret: it is base64 of JSON, marked as ours.
"""

import base64
from typing import Any

import msgspec
from msgspec import Struct

from gateway.wire.openai import encode


class Carrier(Struct, frozen=True, omit_defaults=True):
    """What goes back to the upstream with the next turn."""

    text: str = ""
    """Reasoning that no block holds."""
    blocks: list[dict[str, Any]] = []
    """`thinking` and `redacted_thinking` blocks, as Anthropic writes them."""
    signatures: dict[str, str] = {}
    """Gemini's thought signatures, by the id of the tool call that they belong to."""

    @property
    def reasoning(self) -> str:
        """All that was thought, as text."""
        return "".join(str(block.get("thinking", "")) for block in self.blocks) + self.text


class _Ours(Struct, frozen=True):
    gateway: Carrier


_ours = msgspec.json.Decoder(_Ours)


def seal(carrier: Carrier) -> str:
    """Return `carrier` as `encrypted_content`."""
    return base64.b64encode(encode(_Ours(carrier))).decode()


def unseal(content: str) -> Carrier | None:
    """Return the carrier in `content`; `None`: it is another's, and nobody but them can read it."""
    try:
        return _ours.decode(base64.b64decode(content)).gateway
    except (ValueError, RecursionError):  # no base64, or no JSON, or not ours
        return None
