"""What an answer beside chat used: tokens where it says them, and else what is counted in another way.

Sources: the official SDK's types of answers; https://docs.cohere.com/reference/rerank for search units.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Attempt
from gateway.core.usage import NOTHING_ELSE, Extras, Usage
from gateway.providers.counting import MOST_TOKENS, count
from gateway.providers.failures import UNREADABLE

SPEECH = "/audio/speech"


class _Details(Struct):
    cached_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _Used(Struct):
    """OpenAI's two ways to say it; Jina says the sum alone, Mistral the seconds of a sound."""

    prompt_tokens: int | None = None
    input_tokens: int | None = None
    completion_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    input_token_details: _Details | None = None
    output_tokens_details: _Details | None = None
    seconds: float | None = None
    prompt_audio_seconds: Any = None


class _Billed(Struct):
    search_units: float | None = None


class _Meta(Struct):
    billed_units: _Billed | None = None


_NOTHING = Raw(b"null")
_used = msgspec.json.Decoder(_Used | None).decode
_meta = msgspec.json.Decoder(_Meta | None).decode
_list = msgspec.json.Decoder(list[Raw]).decode


def usage_beside(said: Mapping[str, Raw], attempt: Attempt | None = None, *, images: int = 0) -> Usage | None:
    """Return what an answer says it used; `None`: it does not say.

    Args:
        said: the fields of the answer, or of an event of its stream.
        attempt: a whole answer's; what it is not asked for is not looked for.
        images: how many pictures it is known to hold.
    """
    operation = attempt.operation if attempt is not None else ""
    try:
        used, meta = _used(said.get("usage", _NOTHING)) or _Used(), _meta(said.get("meta", _NOTHING))
        if operation == "images" and "data" in said:
            images = len(_list(said["data"]))
        lasted = msgspec.json.decode(said["duration"]) if operation == "audio" and "duration" in said else None
    except UNREADABLE:
        return None
    extras = _extras(used, meta, images=images, lasted=lasted)
    if attempt is not None and extras is NOTHING_ELSE:
        extras = _spoken(attempt)
    prompt = _told(used.prompt_tokens, used.input_tokens)
    completion, total = _told(used.completion_tokens, used.output_tokens), _told(used.total_tokens)
    if prompt is None and completion is None and total is None:
        return None if extras is NOTHING_ELSE else Usage(extras=extras)
    if prompt is None:
        prompt = max(0, (total or 0) - (completion or 0))
    cached = min(prompt, count(_sent(used).cached_tokens))
    return Usage(prompt, completion or 0, cached_tokens=cached, extras=extras)


def usage_unsaid(attempt: Attempt) -> Usage | None:
    """Return what an answer used that says nothing, for it is a sound; `None`: that is not known."""
    extras = _spoken(attempt)
    return None if extras is NOTHING_ELSE else Usage(extras=extras)


def _told(*said: int | None) -> int | None:
    """Return the first of some counts that is told and can be; `None`: there is none."""
    return next((one for one in said if one is not None and 0 <= one <= MOST_TOKENS), None)


def _sent(used: _Used) -> _Details:
    return used.prompt_tokens_details or used.input_tokens_details or used.input_token_details or _Details()


def _extras(used: _Used, meta: _Meta | None, *, images: int, lasted: Any) -> Extras:
    sent, answered = _sent(used), used.output_tokens_details
    drawn = count(answered and answered.image_tokens)
    if images and answered is None:
        drawn = count(used.output_tokens)  # models that answer in pictures alone
    seconds = (one for one in (used.seconds, used.prompt_audio_seconds, lasted) if one is not None)
    found = {
        "audio_prompt_tokens": count(sent.audio_tokens),
        "image_prompt_tokens": count(sent.image_tokens),
        "image_completion_tokens": drawn,
        "searches": count(meta and meta.billed_units and meta.billed_units.search_units),
        "images": images,
        "audio_seconds": _seconds(next(seconds, None)),
    }
    found = {name: number for name, number in found.items() if number}
    return Extras(**found) if found else NOTHING_ELSE


def _seconds(lasted: Any) -> int:
    """Return whole seconds, as they are charged: the nearest, and one at least. Some write them as text."""
    try:
        seconds = float(lasted)
    except (TypeError, ValueError):
        return 0
    return max(1, count(seconds + 0.5)) if seconds > 0 else 0


def _spoken(attempt: Attempt) -> Extras:
    """Return how many characters were to be read out."""
    if attempt.passage is None or attempt.passage.path != SPEECH:
        return NOTHING_ELSE
    try:
        text = attempt.body.get("input", str | None)
    except msgspec.ValidationError:
        return NOTHING_ELSE
    return Extras(characters=len(text)) if text else NOTHING_ELSE
