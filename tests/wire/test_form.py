"""Forms are read as they come, in whatever pieces, and written anew."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multipart import MultipartSegment, PushMultipartParser

from gateway.core.errors import BadRequest
from gateway.wire.form import Field, FormReader, head_of

BOUNDARY = "b0undary"
KIND = f"multipart/form-data; boundary={BOUNDARY}"

names = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cc", "Cs"]), max_size=10)
contents = st.binary(max_size=200) | st.sampled_from([b"\r\n", b"--b0undary", b"\r\n--b0undar", b"\r\n--", b"--\r\n"])


def written(parts):
    body = b"".join(head_of(BOUNDARY, name, file, kind) + content + b"\r\n" for name, file, kind, content in parts)
    return body + f"--{BOUNDARY}--\r\n".encode()


def cut(data, at):
    """Return `data` in pieces that end at the places `at`."""
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if a < b]


def passed(pieces, model=None):
    """Return what goes on of a form that comes in `pieces`."""
    reader = FormReader(KIND)
    said = b""
    for piece in pieces:
        for one in reader.feed(piece):
            said += one.written(model if one.name == "model" else None) if isinstance(one, Field) else one
    return said + reader.end(), reader.said


def read(body):
    """Return the parts of a form, by a reader of its own."""
    parts = []
    with PushMultipartParser(BOUNDARY) as parser:
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                parts.append([event.name, event.filename, event.content_type, b""])
            elif event is not None:
                parts[-1][3] += event
    return parts


@given(
    st.lists(st.tuples(names.filter(lambda n: n.casefold() not in ("model", "stream")), st.none() | names, contents)),
    st.lists(st.integers(0, 10_000), max_size=6),
)
def test_nothing_is_lost_however_it_comes(parts, at):
    """Names, file names, and contents that look like what stands between them; one field is changed."""
    parts = [(n, f, "a/b" if f else None, c) for n, f, c in parts if b"\r\n--b0undary" not in b"\r\n" + c]
    body = written([("model", None, None, b"asked"), *parts])
    said, deciding = passed(cut(body, at), model="theirs")
    assert deciding == {"model": "asked"}
    expected = read(body)
    expected[0][3] = b"theirs"
    assert read(said) == expected


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_rubbish_is_refused_or_read(body, at):
    """It never fails in another way."""
    try:
        passed(cut(body, at))
    except BadRequest:
        pass


@pytest.mark.parametrize(
    "head",
    [
        b'content-disposition: form-data; name="file"; name="model"',
        b'content-disposition: form-data; name="file"; filename="x"; name=model',
        b"content-disposition: form-data; name=file; filename*=utf-8''a%22; name=\"model",
        b'content-disposition: form-data; name="fi\\"le"',
    ],
)
def test_what_can_be_read_in_two_ways_goes_on_in_one(head):
    """The part that another reader could take for the model's is written as the one that we took it for, or refused."""
    body = b"--b0undary\r\n" + head + b"\r\n\r\nexpensive\r\n--b0undary--\r\n"
    try:
        said, deciding = passed([body])
    except BadRequest:
        return
    names = [part[0] for part in read(said)]
    assert ("model" in names) == ("model" in deciding) and len(names) == 1
    assert said.count(b"name=") == said.count(b'; name="') + said.count(b'filename="')


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/mixed; boundary=a", "multipart/form-data; boundary="]
)
def test_a_form_says_where_its_parts_end(kind):
    """Or it is none."""
    with pytest.raises(BadRequest, match="boundary"):
        FormReader(kind)


def test_a_form_of_endless_parts_is_none():
    """Its fields are counted, and a field that decides is short."""
    with pytest.raises(BadRequest, match="count"):
        passed([written([(f"f{i}", None, None, b"") for i in range(1_001)])])
    with pytest.raises(BadRequest, match="too long"):
        passed([written([("model", None, None, b"m" * 5_000)])])
