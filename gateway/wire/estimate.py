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
CHARS_A_TOKEN = 4
TOKENS_A_MESSAGE = 4
TOKENS_AN_ATTACHMENT = 1_000
"""An image, a sound or a file that comes as base64: its length says nothing of what a model makes of it."""

MOST_EXAMINED = 1_000_000
"""Bytes of text that are looked at closely; what is longer is taken to go on like its beginning."""
MOST_ATTACHMENTS = 1_000
"""More of them are counted as the text that they are written as."""

_MESSAGE_SYNTAX = len('{"role":"user","content":""},')
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\"
_NOT_LEADING = bytes(range(0xC0))
"""ASCII, and the bytes of a UTF-8 character behind its first."""
_NOT_ASCII = bytes(range(0x80, 0x100))
_ATTACHMENT = re.compile(rb'(?:"data:[^",]{0,200};base64,|"data"\s{0,9}:\s{0,9}")')
_LINKED_IMAGE = re.compile(rb'"url"\s{0,9}:\s{0,9}"https?:')


def request_tokens(fields: Mapping[str, Raw]) -> int:
    """Return about how many tokens a request is for a model, by its top-level fields, whatever its surface."""
    return sum(prompt_tokens(bytes(fields[name])) for name in READ if name in fields)


def prompt_tokens(messages: bytes) -> int:
    """Return about how many tokens the JSON array `messages` is for a model."""
    text, attachments = _without_attachments(messages)
    count = text.count(b'"role"')
    syntax_tokens = count * (_MESSAGE_SYNTAX // CHARS_A_TOKEN)
    said = max(0, _tokens(text) - syntax_tokens)
    return said + count * TOKENS_A_MESSAGE + attachments * TOKENS_AN_ATTACHMENT


def text_tokens(chars: int) -> int:
    """Return about how many tokens a text of so many characters is."""
    return -(-chars // CHARS_A_TOKEN)


def _without_attachments(messages: bytes) -> tuple[bytes, int]:
    """Return `messages` without what is base64 in them, and how many images, sounds and files there were."""
    found = 0
    pieces: list[bytes] = []
    kept_from = 0
    while len(pieces) < MOST_ATTACHMENTS and (match := _ATTACHMENT.search(messages, kept_from)) is not None:
        begin = match.end()
        end = messages.find(b'"', begin)
        end = len(messages) if end < 0 else end
        if messages[begin : min(end, begin + 4096)].translate(None, _BASE64):
            pieces.append(messages[kept_from:end])  # a text that only looks like one: it is counted as what it is
        else:
            pieces.append(messages[kept_from:begin])
            found += 1
        kept_from = end
    text = b"".join([*pieces, messages[kept_from:]]) if pieces else messages
    return text, found + len(_LINKED_IMAGE.findall(text, 0, MOST_EXAMINED))


def _tokens(text: bytes) -> int:
    """Four ASCII characters a token; two of other alphabets; one of Chinese, Japanese or Korean; two for an emoji."""
    seen = text[:MOST_EXAMINED]
    escapes = seen.count(b"\\u")
    if seen.isascii():
        tokens = (len(seen) - 6 * escapes) / CHARS_A_TOKEN + escapes
    else:
        leading = seen.translate(None, _NOT_LEADING)
        two = len(leading.translate(None, bytes(range(0xE0, 0x100))))
        four = len(leading.translate(None, bytes(range(0xC0, 0xF0))))
        three = len(leading) - two - four
        ascii = len(seen.translate(None, _NOT_ASCII))
        tokens = (ascii - 6 * escapes) / CHARS_A_TOKEN + escapes + two / 2 + three + 2 * four
    if len(text) > len(seen):
        tokens *= len(text) / len(seen)
    return max(0, round(tokens))
