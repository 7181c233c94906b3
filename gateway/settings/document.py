"""YAML as a tree of plain values that know their place, with `${VAR}` filled in from the environment.

Ten thousand keys are 200,000 values, so a microsecond for each is a fifth of a second of every start and reload:
libyaml reads, tags are found without PyYAML's bookkeeping of paths, and plain text and plain integers take a short way.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from msgspec import Struct

from gateway.settings.complaints import Complaint, Path, shown

MOST_NODES = 2_000_000
"""Values in a file, each alias counted as often as it is used: a few lines can stand for billions."""

DEEPEST = 50
"""Levels of mappings and lists."""

BROKEN: Any = object()
"""The value of what cannot be read. It has its complaint; no type takes it."""

_REFERENCE = re.compile(r"\$\{[^}\n]*\}")
_PARTS = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^}\n]*))?\}", re.ASCII)
_PLANE = 0xF0000
"""Private use: YAML finds no meaning in these characters, wherever they stand."""
_DOLLAR = chr(_PLANE + ord("$"))
_MASKED = re.compile(f"{chr(_PLANE + ord('$'))}{chr(_PLANE + ord('{'))}[^\n]*?{chr(_PLANE + ord('}'))}")

_YAML: Any = yaml  # its stubs leave most types out
_TAG = "tag:yaml.org,2002:"
_TEXT_TAG, _INT_TAG = f"{_TAG}str", f"{_TAG}int"
_DECIMAL = re.compile("[1-9][0-9]{0,17}", re.ASCII)
"""An integer that is nothing else: not octal, not in sixties, not in groups."""
_SIMPLE = {"bool", "int", "float", "null"}
_TEXT = {"str", "timestamp", "value"}
"""`timestamp`: `2027-01-31` stays as written; `value`: so does a lonely `=`."""

_PLAINLY = {
    "found undefined alias": "a value that starts with `*` stands for an anchor (`&name`), and there is none of this "
    "name; put it in quotes if it is text",
    "found character": "a value cannot start with this character; put it in quotes, and indent with spaces, not with "
    "tabs",
    "mapping values are not allowed": "a `key: value` cannot stand here: is the line above indented like this one, and "
    "is text that contains `: ` in quotes?",
    "found unexpected ':'": "a colon cannot stand here: write a space after it, or put the text in quotes",
    "second occurrence": "the anchor of line {line} has this name already",
    "but found another document": "a second document begins here; a configuration is one",
    "found unexpected end of stream": "the quote that opened here is never closed",
    "did not find expected ',' or ']'": "the `[` of line {line} is not closed, or a comma is missing",
    "did not find expected ',' or '}'": "the `{{` of line {line} is not closed, or a comma is missing",
    "expected ',' or ']'": "the `[` of line {line} is not closed, or a comma is missing",
    "expected ',' or '}'": "the `{{` of line {line} is not closed, or a comma is missing",
    "did not find expected key": "this does not belong to the mapping of line {line}: is it indented like it?",
    "did not find expected '-' indicator": "this does not belong to the list of line {line}: is it indented like it?",
    "expected <block end>": "this does not belong to what began at line {line}: is it indented like it?",
}
"""How both of YAML's readers begin to say it, and what they mean."""


def quick(parser: Any) -> Any:
    """Return a loader that finds a value's tag by its first character: we have no rules for the path to a value."""
    plain = {yaml.ScalarNode: _TEXT_TAG, yaml.SequenceNode: f"{_TAG}seq", yaml.MappingNode: f"{_TAG}map"}

    class Loader(parser):
        def descend_resolver(self, current_node: Any, current_index: Any) -> None: ...

        def ascend_resolver(self) -> None: ...

        def resolve(self, kind: Any, value: Any, implicit: tuple[bool, bool]) -> str:
            if kind is yaml.ScalarNode and implicit[0]:
                for tag, pattern in parser.yaml_implicit_resolvers.get(value[:1], ()):
                    if pattern.match(value):
                        return tag
            return plain[kind]

    return Loader


_LOADER: Any = quick(getattr(yaml, "CSafeLoader", yaml.SafeLoader))
"""On libyaml where it is there: ten times faster."""


class Node(Struct):
    """A value and its place."""

    line: int
    column: int
    value: Any
    """Plain: mappings, lists, text, numbers; `BROKEN` where there is none."""
    items: "dict[str, Node] | None" = None
    """Of a mapping."""
    keys: dict[str, tuple[int, int]] = {}
    """Of a mapping: where each key stands."""
    entries: "list[Node] | None" = None
    """Of a list."""
    reference: str = ""
    """The first variable, `${PORT}`, where there is one: the value must not be shown."""
    lax: bool = False
    """All of it comes from a variable and is not in quotes: text that may be meant as a number."""
    lost: bool = False
    """Of a mapping: it has a key that could not be read, so there is more in it than is known."""
    short: bool = False
    """Stands for a short form; what is within it was not written."""

    def find(self, path: Path) -> "tuple[Node, Path]":
        """Return the node at `path`, or the last one on the way that was written, and the path to it."""
        node = self
        for i, step in enumerate(path):
            child: Node | None = None
            if isinstance(step, str):
                child = (node.items or {}).get(step)
            elif node.entries and step < len(node.entries):
                child = node.entries[step]
            if child is None or node.short:
                return node, path[:i]
            node = child
        return node, path


class Complaints:
    """Collects complaints about one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: dict[tuple[tuple[int, int], str], Complaint] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._found)

    def __iter__(self) -> Iterator[Complaint]:
        """Each of them."""
        return iter(self._found.values())

    def add(self, place: tuple[int, int], path: Path, problem: str, cure: str = "") -> None:
        """Note a mistake; one that an alias repeats is noted once."""
        if (place, problem) not in self._found:
            line, column = place
            complaint = Complaint(
                file=self.file, line=line, column=column, path=shown(path), problem=problem, cure=cure
            )
            self._found[place, problem] = complaint


def parse(text: str, environment: Mapping[str, str], complaints: Complaints) -> Node | None:
    """Read `text`; `None` when it is not YAML or is empty, with a complaint that says so.

    YAML has no `${…}`: in `{key: ${KEY}}` its braces would be a mapping. So each of its characters is first replaced by
    one that means nothing to YAML, one for one, so that every line and column stays true, and later put back.
    """
    masked = _REFERENCE.sub(lambda match: _mask(match[0]), text)
    try:
        root: Any = _YAML.compose(masked, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        complaints.add(_place_of(error), (), f"this is not YAML: {_plainly(error)}")
        return None
    except yaml.reader.ReaderError as error:
        before = text.partition(chr(error.character))[0]
        place = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
        complaints.add(place, (), f"this is not YAML: the character U+{error.character:04X} is not allowed")
        return None
    if root is None:
        complaints.add((1, 1), (), "the file is empty", "start with `server:`, `providers:`, `models:` and `chain:`")
        return None
    return _Reader(environment, complaints).node(root, ())


def _mask(text: str) -> str:
    return "".join(chr(_PLANE + ord(c)) if ord(c) < 0xFFFE else c for c in text)


def _unmask(text: str) -> str:
    return "".join(chr(ord(c) - _PLANE) if _PLANE <= ord(c) < _PLANE + 0xFFFE else c for c in text)


def _place_of(error: yaml.MarkedYAMLError) -> tuple[int, int]:
    unclosed = error.problem == "found unexpected end of stream"
    mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _plainly(error: yaml.MarkedYAMLError) -> str:
    """Say it without YAML's own words, and without what stands there: it may be a secret."""
    problem = error.problem or error.context or "it cannot be read"
    line = error.context_mark.line + 1 if error.context_mark else 1
    for theirs, plain in _PLAINLY.items():
        if problem.startswith(theirs):
            return plain.format(line=line)
    return re.sub(r" '[^']*'", "", problem)


class _Reader:
    """Turns YAML's nodes into ours."""

    def __init__(self, environment: Mapping[str, str], complaints: Complaints) -> None:
        self._environment = environment
        self._complaints = complaints
        self._scalars: Any = yaml.constructor.SafeConstructor()
        self._open: set[int] = set()
        self._count = 0

    def node(self, yaml_node: Any, path: Path) -> Node:
        """Return `yaml_node` as ours; what is wrong in it has its complaint."""
        place = _start(yaml_node)
        self._count += 1
        if yaml_node.tag == _TEXT_TAG and self._count < MOST_NODES and len(path) <= DEEPEST:
            return self._scalar(yaml_node, place, path)
        if problem := self._endless(yaml_node, path):
            self._complaints.add(place, path, problem, "write out what is meant")
            return Node(*place, BROKEN)
        if self._count > MOST_NODES:
            return Node(*place, BROKEN)
        if isinstance(yaml_node, yaml.ScalarNode):
            return self._scalar(yaml_node, place, path)
        self._open.add(id(yaml_node))
        read = self._mapping if isinstance(yaml_node, yaml.MappingNode) else self._list
        node = read(yaml_node, place, path)
        self._open.discard(id(yaml_node))
        return node

    def _endless(self, yaml_node: Any, path: Path) -> str:
        if id(yaml_node) in self._open:
            return "this alias contains itself"
        if len(path) > DEEPEST:
            return f"this is nested more than {DEEPEST} levels deep"
        return "with its aliases, the file has too many values" if self._count == MOST_NODES else ""

    def _list(self, yaml_node: Any, place: tuple[int, int], path: Path) -> Node:
        entries = [self.node(entry, (*path, i)) for i, entry in enumerate(yaml_node.value)]
        return Node(*place, [entry.value for entry in entries], entries=entries)

    def _mapping(self, yaml_node: Any, place: tuple[int, int], path: Path) -> Node:
        items: dict[str, Node] = {}
        keys: dict[str, tuple[int, int]] = {}
        merged: list[Node] = []
        lost = False
        for key_node, value_node in yaml_node.value:
            if key_node.tag == f"{_TAG}merge":
                merged += self._merged(value_node, path)
                continue
            key = self._key(key_node, path)
            if key is None:
                self.node(value_node, path)
                lost = True
                continue
            value = self.node(value_node, (*path, key))
            if key in items:
                problem = f'"{key}" is here a second time; the first is at line {keys[key][0]}'
                self._complaints.add(_start(key_node), (*path, key), problem, "keep one of them")
                continue
            items[key], keys[key] = value, _start(key_node)
        for other in merged:
            for key, value in (other.items or {}).items():
                if key not in items:
                    items[key], keys[key] = value, other.keys[key]
        return Node(*place, {key: value.value for key, value in items.items()}, items=items, keys=keys, lost=lost)

    def _merged(self, yaml_node: Any, path: Path) -> list[Node]:
        """What `<<:` brings in: mappings, the first of which wins."""
        node = self.node(yaml_node, path)
        nodes = node.entries if node.entries is not None else [node]
        if any(one.items is None and one.value is not BROKEN for one in nodes):
            self._complaints.add(_start(yaml_node), path, "`<<` brings in mappings, and this is none")
        return [one for one in nodes if one.items is not None]

    def _key(self, key_node: Any, path: Path) -> str | None:
        """Return a key as written (`on` and `8000` are text here); `None` when it is none."""
        if not isinstance(key_node, yaml.ScalarNode):
            self._complaints.add(_start(key_node), path, "a key must be text; put it in quotes, or is a `$` missing?")
            return None
        key: str = key_node.value
        if _DOLLAR in key and _MASKED.search(key):
            self._complaints.add(_start(key_node), path, "a key cannot be a variable", "write its name out")
            return None
        return key

    def _scalar(self, yaml_node: Any, place: tuple[int, int], path: Path) -> Node:
        tag: str = yaml_node.tag
        text: str = yaml_node.value
        if tag == _INT_TAG and _DECIMAL.fullmatch(text):
            return Node(*place, int(text))
        tag = tag.removeprefix(_TAG)
        if tag == "str" and _DOLLAR in text and _MASKED.search(text):
            return self._filled(yaml_node, text, place, path)
        if tag in _TEXT:
            if "${" in text:
                self._complaints.add(place, path, "`${` is never closed", "write ${NAME} or ${NAME:-default}")
                return Node(*place, BROKEN)
            return Node(*place, text)
        if tag not in _SIMPLE:
            self._complaints.add(place, path, "tags that start with `!` mean nothing here", "put the text in quotes")
            return Node(*place, BROKEN)
        try:
            return Node(*place, self._scalars.construct_object(yaml_node))
        except ValueError:
            self._complaints.add(place, path, f"this is no {tag}", "put it in quotes if it is text")
            return Node(*place, BROKEN)

    def _filled(self, yaml_node: Any, text: str, place: tuple[int, int], path: Path) -> Node:
        missing: list[tuple[str, str]] = []
        references: list[str] = []

        def fill(match: re.Match[str]) -> str:
            written = _unmask(match[0])
            parts = _PARTS.fullmatch(written)
            if parts is None:
                missing.append(("this is no variable", "write ${NAME} or ${NAME:-default}"))
                return ""
            name, default = parts[1], parts[2]
            references.append("${" + name + "}")
            if default is not None:
                return self._environment.get(name) or default
            if name not in self._environment:
                cure = f"set it, or write ${{{name}:-}} to leave it empty"
                missing.append((f"the environment variable {name} is not set", cure))
            return self._environment.get(name, "")

        value = _MASKED.sub(fill, text)
        for problem, cure in missing:
            self._complaints.add(place, path, problem, cure)
        if missing:
            return Node(*place, BROKEN)
        whole = not yaml_node.style and _MASKED.fullmatch(text) is not None
        return Node(*place, value, reference=references[0], lax=whole)


def _start(yaml_node: Any) -> tuple[int, int]:
    mark = yaml_node.start_mark
    return mark.line + 1, mark.column + 1
