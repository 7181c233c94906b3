"""When a stream may lose an event that cannot be read: no UTF-8, no JSON, or of a shape that its dialect never has.

People read a text though a word is missing, if they are told: the event is skipped, and a comment, which official
clients pass over, stands in its place. Programs do not. Of a tool call, and of JSON that was asked for, nothing may be
missing: such an answer is broken. So is one that lost its end, for why it ended is not to be guessed.
"""

from msgspec import Struct

from gateway.core.call import Attempt
from gateway.core.errors import Unreachable
from gateway.core.reply import Chunk
from gateway.providers.failures import UNREADABLE

NOTE = b": x-gateway-skipped: an event of the upstream could not be read\n\n"
SKIPPED = Chunk(NOTE, silent=True, skipped=1)
MOST_SKIPPED = 100
"""An upstream that sends more of them in one stream speaks no dialect of ours."""


class _Format(Struct):
    type: str = ""


def must_be_exact(attempt: Attempt, *, calls_come_whole: bool) -> bool:
    """Tell whether an answer is for programs, and must not lose an event even before it calls a tool.

    Args:
        attempt: what was asked.
        calls_come_whole: the upstream says each tool call in one event, so that a lost one leaves no trace.
    """
    if calls_come_whole and "tools" in attempt.body.fields:
        return True
    if "response_format" not in attempt.body.fields:
        return False
    try:
        asked = attempt.body.get("response_format", _Format | None)
    except UNREADABLE:
        return True  # whatever it asks for, it is not plain text
    return asked is not None and asked.type != "text"


def lost() -> Unreachable:
    """Return what an event is that cannot be read where none may be missing."""
    return Unreachable("the upstream sent an event that cannot be read")
