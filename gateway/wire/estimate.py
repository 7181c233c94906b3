"""How many tokens a text has, by rule of thumb and without a tokenizer.

A tokenizer would hold up every other call of the process: the vocabulary alone takes a quarter of a second to load, and
a long prompt a second to count. What an upstream says it used always beats these figures; they only decide what is
held of a limit until then, and stand in where an upstream says nothing.
"""

import re
from collections.abc import Mapping

from msgspec import Raw

READ = ("messages", "input", "prompt", "system", "instructions", "tools", "query", "documents")
"""Fields of a request that a model reads."""
_READ = frozenset(READ)
CHARS_A_TOKEN = 4
TOKENS_A_MESSAGE = 4
TOKENS_AN_ATTACHMENT = 1_000
"""An image, a sound or a file that comes as base64: its length says nothing of what a model makes of it."""

MOST_EXAMINED = 256 * 1024
"""Bytes of text that are looked at closely; what is longer is taken to go on like its beginning."""
MOST_ATTACHMENTS = 1_000
"""And so many attachments between them."""
SAMPLE = 4_096
"""Bytes that tell base64 from text."""
SAMPLES = 256

_MESSAGE_SYNTAX = len('{"role":"user","content":""},')
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\"
_NOT_LEADING = bytes(range(0xC0))
"""ASCII, and the bytes of a UTF-8 character behind its first."""
_NOT_ASCII = bytes(range(0x80, 0x100))
_ATTACHMENT = re.compile(rb'(?:"data:[^",]{0,200};base64,|"data"\s{0,9}:\s{0,9}")')
_MARK = re.compile(rb'"(?:role|url)"')
"""What a text is searched for, in one go: by its quotation marks, of which it has few."""
_LINKED_IMAGE = re.compile(rb'"url"\s{0,9}:\s{0,9}"https?:')


def request_tokens(fields: Mapping[str, Raw]) -> int:
    """Return about how many tokens a request is for a model, by its top-level fields, whatever its surface."""
    tokens = 0
    for name, said in fields.items():
        if name in _READ:
            tokens += prompt_tokens(bytes(said))
    return tokens


def prompt_tokens(messages: bytes) -> int:
    """Return about how many tokens the JSON array `messages` is for a model.

    It takes a few milliseconds at most, however long they are: a thread would not help, for the work holds the
    interpreter's lock.
    """
    if len(messages) <= MOST_EXAMINED and b'"data' not in messages:
        text, length, attachments = messages, len(messages), 0
    else:
        text, length, attachments = _without_attachments(messages)
    marks = _MARK.findall(text)
    count = marks.count(b'"role"')
    said = max(0.0, _tokens(text) - count * (_MESSAGE_SYNTAX // CHARS_A_TOKEN)) + count * TOKENS_A_MESSAGE
    if b'"url"' in marks:
        attachments += len(_LINKED_IMAGE.findall(text))
    return round(said * (length / len(text) if text else 0)) + attachments * TOKENS_AN_ATTACHMENT


def text_tokens(chars: int) -> int:
    """Return about how many tokens a text of so many characters is."""
    return -(-chars // CHARS_A_TOKEN)


def _without_attachments(messages: bytes) -> tuple[bytes, int, int]:
    """Return the text that `messages` begin with, how long all of their text is, and how many attachments they have.

    What is base64 is no text. It is stepped over, and the text around it read, until enough was read; of what is
    behind that, samples are taken.
    """
    found, at, left = 0, 0, MOST_EXAMINED
    pieces: list[bytes] = []
    while at < len(messages) and left > 0 and len(pieces) < MOST_ATTACHMENTS:
        until = min(at + left, len(messages))
        match = _ATTACHMENT.search(messages, at, until)
        goes_on = until
        if match is not None:
            begin = match.end()
            end = messages.find(b'"', begin)
            end = len(messages) if end < 0 else end
            if messages[begin : min(end, begin + SAMPLE)].translate(None, _BASE64):
                until = goes_on = min(until, end)  # a text that only looks like one: it is counted as what it is
            else:
                until, goes_on = begin, end
                found += 1
        pieces.append(messages[at:until])
        left -= until - at
        at = goes_on
    text = b"".join(pieces)
    rest, more = _sampled(messages, at)
    return text, len(text) + rest, found + more


def _sampled(messages: bytes, at: int) -> tuple[int, int]:
    """Return about how much of what is behind `at` is text, and at least how many attachments there are in it."""
    if at >= len(messages):
        return 0, 0
    step = max(SAMPLE, (len(messages) - at) // SAMPLES)
    samples = [messages[begin : begin + SAMPLE] for begin in range(at, len(messages), step)]
    texts = [bool(sample.translate(None, _BASE64)) for sample in samples]
    attachments = sum(now is False and before for before, now in zip([True, *texts], texts, strict=False))
    return round((len(messages) - at) * sum(texts) / len(texts)), attachments


def _tokens(text: bytes) -> float:
    """Four ASCII characters a token; two of other alphabets; one of Chinese, Japanese or Korean; two for an emoji."""
    escapes = text.count(b"\\u") if b"\\" in text else 0
    if text.isascii():
        return max(0, (len(text) - 6 * escapes) / CHARS_A_TOKEN + escapes)
    leading = text.translate(None, _NOT_LEADING)
    two = len(leading.translate(None, bytes(range(0xE0, 0x100))))
    four = len(leading.translate(None, bytes(range(0xC0, 0xF0))))
    three = len(leading) - two - four
    ascii = len(text.translate(None, _NOT_ASCII))
    return max(0, (ascii - 6 * escapes) / CHARS_A_TOKEN + escapes + two / 2 + three + 2 * four)
