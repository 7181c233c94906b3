"""Two streams that are to be one: what of the second's chunks a reader may see."""

import json

import pytest

from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.wire.splice import Splice, head_of, is_bound, seam

HEAD = {"id": "first", "created": 1, "model": "m-1"}
SECOND = {"id": "second", "created": 2, "model": "m-2"}
SHOWN = "a text of some length"


def event(finish=None, head=SECOND, **delta):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


def chunk(*events, text="", **more):
    return Chunk(b"".join(events), text, **more)


def said(piece):
    """Return the deltas of a chunk."""
    objects = [json.loads(line[6:]) for line in piece.data.split(b"\n") if line.startswith(b"data: ")]
    assert all({name: one[name] for name in HEAD} == HEAD for one in objects)
    return [choice["delta"] for one in objects for choice in one["choices"]]


def joined(splice, *pieces):
    """Return what a reader sees of a stream that says `pieces` and ends."""
    chunks = [splice(chunk(event(content=piece), text=piece)) for piece in pieces]
    chunks.append(splice(chunk(event("stop"), finish_reason="stop")))
    text = "".join(one.text for one in chunks)
    assert text == "".join(delta.get("content", "") for one in chunks for delta in said(one))
    return text


def test_the_head_is_the_first_streams_and_the_role_is_said_once():
    """A second role would be joined to the first, and an id is taken from anywhere."""
    assert head_of(chunk(event(head=HEAD, role="assistant"))) == HEAD
    assert head_of(Chunk(b": no event at all\n\n")) == {}
    piece = Splice(HEAD)(chunk(event(role="assistant", content=""), event(content="x"), text="x"))
    assert (said(piece), piece.text) == ([{"content": ""}, {"content": "x"}], "x")


@pytest.mark.parametrize(
    "pieces", [[f"{SHOWN}, and more"], [*SHOWN, ", and", " more"], [f"\n{SHOWN[:5]}", f"{SHOWN[5:]}, and more"]]
)
def test_what_was_shown_is_not_shown_again(pieces):
    """However the echo is cut."""
    assert joined(Splice(HEAD, shown=SHOWN), *pieces) == ", and more"


@pytest.mark.parametrize(
    ("shown", "pieces"),
    [
        (SHOWN, ["a text", " of another kind"]),
        (SHOWN, [SHOWN[:-1]]),
        (SHOWN, ["a"]),
        ("short", ["short", " and more"]),
        ("", ["anything"]),
    ],
)
def test_what_only_begins_alike_is_shown_to_its_last_letter(shown, pieces):
    """What was held back while it might have been an echo is told when it turns out to be none, or at the end."""
    assert joined(Splice(HEAD, shown=shown), *pieces) == "".join(pieces)


@pytest.mark.parametrize(
    ("shown", "pieces", "rest"),
    [
        ("short", ["short", " and"], " and"),
        (" short ", ["short", "\nand"], "and"),
        ("s", [" ", "s", "s"], "s"),
        (" ", ["x"], "x"),
    ],
)
def test_a_model_that_is_known_to_echo_does_so_however_short_the_text(shown, pieces, rest):
    """Of others a short text may be meant twice: `ha`, and `ha`."""
    assert joined(Splice(HEAD, shown=shown, echoes=True), *pieces) == rest


@pytest.mark.parametrize(
    ("shown", "pieces", "rest"),
    [
        ("one ", [" ", "\n", " two three"], "two three"),
        ("one", [" two"], " two"),
        ("one\n", ["two"], "two"),
        ("one ", ["  "], ""),
    ],
)
def test_white_space_at_the_joint_is_said_once(shown, pieces, rest):
    """A model that was given a text without its last blank says the blank anew."""
    assert joined(Splice(HEAD, shown=shown), *pieces) == rest


def test_a_chunk_of_which_nothing_is_left_says_nothing():
    """It commits nobody to anything."""
    splice = Splice(HEAD, shown="one ")
    assert splice(chunk(event(content=" "), text=" ")).silent
    assert not splice(chunk(event(content="two"), text="two")).silent
    assert not splice(chunk(event(reasoning_content="Hm"), unseen=2)).silent
    assert not splice(chunk(event("stop"), finish_reason="stop")).silent


def test_an_echo_within_a_chunk_of_many_events():
    """A whole answer that is told as a stream comes in one chunk, its finish included."""
    piece = Splice(HEAD, shown=SHOWN)(
        chunk(event(role="assistant"), event(content=f"{SHOWN} and"), event(content=" more"), event("stop"), text="…")
    )
    assert piece.text == " and more" and [delta.get("content") for delta in said(piece)] == [
        None,
        " and",
        " more",
        None,
    ]


def test_the_usage_is_the_sum():
    """In the chunk that tells it, and for the receipt; where the first is no part of the answer, the second's own."""
    used = Usage(5, 7, reasoning_tokens=2)
    data = b"data: " + json.dumps({**SECOND, "choices": [], "usage": {"prompt_tokens": 5}}).encode() + b"\n\n"
    told = Splice(HEAD, before=Usage(10, 20, estimated=True))(Chunk(data, usage=used, usage_only=True, silent=True))
    assert told.usage == Usage(15, 27, reasoning_tokens=2, estimated=True) and told.usage_only
    usage = json.loads(told.data[6:])["usage"]
    assert (usage["prompt_tokens"], usage["total_tokens"], usage["estimated"]) == (15, 42, True)
    assert Splice(HEAD)(Chunk(data, usage=used)).usage == used


def test_comments_are_kept():
    """One may say that an event is missing."""
    piece = Splice(HEAD)(chunk(b": x-gateway-skipped: one\n\n", event(content="x"), text="x", skipped=1))
    assert piece.data.startswith(b": x-gateway-skipped: one\n\ndata: ") and piece.skipped == 1


def test_a_tool_call_and_what_nobody_knows_are_left_as_they_are():
    """The second calls it from its beginning."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    piece = Splice(HEAD, shown=SHOWN)(chunk(event(tool_calls=[call], brand_new=1), unseen=3))
    assert said(piece) == [{"tool_calls": [call], "brand_new": 1}] and piece.unseen == 3


def test_thoughts_are_shown_unless_the_first_had_some():
    """A signature fits only what it was made for."""
    thoughts = {"reasoning_content": "Hm", "thinking_blocks": [{"index": 0}], "reasoning_details": [{"index": 0}]}
    assert said(Splice(HEAD)(chunk(event(**thoughts), unseen=2))) == [thoughts]
    assert said(Splice(HEAD, thoughtful=True)(chunk(event(**thoughts), unseen=2))) == [{}]


@pytest.mark.parametrize("name", ["tool_calls", "function_call", "refusal", "audio", "images", "annotations"])
def test_what_binds_an_answer_to_whoever_began_it(name):
    """Fields that are there and empty, as OpenAI's first chunk has them, bind nobody; nor does a text about them."""
    assert is_bound(chunk(event(content="x"), event(**{name: "y"}), text="x"))
    assert not is_bound(chunk(event(content=f'say "{name}"', **{name: None}), text="x"))
    assert is_bound(chunk(event("stop", content="x"), text="x", finish_reason="stop"))
    assert not is_bound(chunk(event(reasoning_content="x"), unseen=1))


def test_a_seam_is_one_line():
    """A deployment's name may have been made up by a client, where a pattern lets it."""
    assert seam("by a\n\ndata: {}").data == b": x-gateway-seam: by a??data: {}\n\n"
