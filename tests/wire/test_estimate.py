"""Tokens by rule of thumb: near enough to hold, and never slow."""

import base64
import json
import os
import time

import pytest

from gateway.wire.estimate import TOKENS_AN_ATTACHMENT, prompt_tokens, text_tokens


def messages(*contents: object, ascii: bool = False) -> bytes:
    said = [{"role": "user", "content": content} for content in contents]
    return json.dumps(said, ensure_ascii=ascii, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("The quick brown fox jumps over the lazy dog. " * 20, 180, 240),  # 200 by cl100k
        ("敏捷的棕色狐狸跳过了懒狗。" * 20, 200, 320),
        ("Съешь же ещё этих мягких французских булок. " * 20, 300, 500),
        ("🦊🐶" * 50, 100, 260),
        ("", 0, 10),
    ],
)
@pytest.mark.parametrize("ascii", [False, True])
def test_texts_of_all_alphabets_are_about_right(text: str, least: int, most: int, ascii: bool) -> None:
    r"""Also where the client escapes all that is not ASCII as `\u…`, as Python does."""
    if ascii and "Съ" in text:
        most *= 2  # what is escaped cannot be told apart: an alphabet counts like Chinese
    assert least <= prompt_tokens(messages(text, ascii=ascii)) <= most


def test_each_message_adds_a_little() -> None:
    """Its role and its borders are tokens too, its JSON is not."""
    one, ten = prompt_tokens(messages("hi")), prompt_tokens(messages(*["hi"] * 10))
    assert 4 <= one <= 8
    assert 40 <= ten <= 80


@pytest.mark.parametrize("size", [1_000, 100_000, 2_000_000])
def test_an_image_counts_the_same_whatever_its_size(size: int) -> None:
    """A photo of a megabyte would else be 300,000 tokens, and never fit any limit."""
    url = "data:image/png;base64," + base64.b64encode(os.urandom(size)).decode()
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    assert TOKENS_AN_ATTACHMENT <= prompt_tokens(messages(parts)) < TOKENS_AN_ATTACHMENT + 60


def test_linked_images_sounds_and_files_count_as_attachments() -> None:
    data = base64.b64encode(os.urandom(50_000)).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64," + data}},
    ]
    assert 3 * TOKENS_AN_ATTACHMENT <= prompt_tokens(messages(parts)) < 3 * TOKENS_AN_ATTACHMENT + 150


def test_a_text_does_not_pass_for_an_image() -> None:
    """Otherwise a client could say ten thousand words for the price of a picture."""
    text = "data:image/png;base64," + "ten thousand words " * 2_500
    assert prompt_tokens(messages(text)) > 10_000


@pytest.mark.parametrize(
    "body",
    [
        b"x" * 1_000_000,
        "語".encode() * 350_000,
        b'"data:a;base64,' * 70_000,
        b'"data:a;base64,"' * 60_000,
        b'"data:' * 160_000,
        b'"url" ' * 160_000,
        b'"data"          ' * 60_000,
        b'"data":"' * 120_000,
    ],
)
def test_a_megabyte_of_anything_is_quick(body: bytes) -> None:
    """Whoever can hold up this function can hold up every call."""
    began_s = time.process_time()
    prompt_tokens(body)
    assert time.process_time() - began_s < 0.1


@pytest.mark.parametrize(
    "body",
    [
        b"word " * 4_000_000,
        b'"data:' * 3_000_000,
        (b'"data:' + b"x" * 190 + b'",') * 100_000,
        b'{"data": 1},' * 1_500_000,
        b'{"role":"user","content":"hi"},' * 600_000,
        b'"data:image/png;base64,' + b"A" * 20_000_000,
    ],
)
def test_twenty_megabytes_are_not_looked_at_but_here_and_there(body: bytes) -> None:
    """As many steps as for one: what is counted are the bytes that are read, not the seconds."""
    read = Counted(body)
    prompt_tokens(read)
    assert read.bytes_read < 3_000_000


class Counted(bytes):
    """Bytes that count how many of them were taken out; stepping over base64 takes none."""

    bytes_read = 0

    def __getitem__(self, key):  # type: ignore[no-untyped-def, override]
        taken = super().__getitem__(key)
        self.bytes_read += len(taken)
        return taken


def test_pictures_behind_a_long_text_are_not_taken_for_text() -> None:
    """An agent's history: two megabytes of words, then twenty of screenshots."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgo" * 500_000}}
    said = prompt_tokens(messages([{"type": "text", "text": "word " * 400_000}, *[picture] * 4]))
    assert said == pytest.approx(500_000 + 4_000, rel=0.2)


def test_what_is_longer_is_taken_to_go_on_like_its_beginning() -> None:
    assert prompt_tokens(messages("word " * 2_000_000)) == pytest.approx(2_500_000, rel=0.01)


def test_cut_or_broken_json_is_estimated_all_the_same() -> None:
    assert prompt_tokens(b'[{"role":"user","content":"data:image/png;base64,AAAA') >= 0
    assert prompt_tokens(b"") == 0
    assert prompt_tokens(b"\xff\xfe") >= 0


def test_an_answers_length_is_estimated_by_its_characters() -> None:
    assert [text_tokens(chars) for chars in (0, 1, 4, 5, 400)] == [0, 1, 1, 2, 100]
