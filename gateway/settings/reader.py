"""Reads a tree as a type: the whole of it in one conversion, and part by part only where that fails."""

from functools import cache
from typing import Any, Literal

from msgspec import ValidationError, convert
from msgspec.structs import FieldInfo
from msgspec.structs import fields as fields_of

from gateway.core.secret import Secret
from gateway.settings.complaints import Path, near
from gateway.settings.document import BROKEN, Complaints, Node
from gateway.settings.kinds import Kind, got, hook, kinds, words

LONGEST_SHOWN = 60
"""Characters of a value that a complaint repeats."""


class Reader:
    """Reads values, notes what is wrong with them, and remembers where."""

    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
        self.broken: set[Path] = set()
        """Where something is wrong; what stands there now is a stand-in."""

    def read(self, node: Node, type_: Any, path: Path) -> Any:
        """Return what `node` says as `type_`.

        Where it is wrong there is a complaint for each mistake; a field that is wrong has its default, and what has no
        stand-in is `None`. Callers ask `broken` before they believe what they got.
        """
        try:
            return convert(node.value, type_, strict=not node.lax, dec_hook=hook)
        except ValidationError:
            return self._parts(node, type_, path)

    def unknown(self, node: Node, name: str, known: list[str], path: Path) -> None:
        """Complain of a field that nobody reads."""
        self._complaints.add(node.keys[name], (*path, name), f'unknown option "{name}"', near(name, known))
        self.broken.add((*path, name))

    def mistake(self, node: Node, path: Path, problem: str, cure: str = "") -> None:
        """Complain of a value."""
        self._complaints.add((node.line, node.column), path, problem, cure)
        self.broken.add(path)

    def _parts(self, node: Node, type_: Any, path: Path) -> Any:
        if node.value is BROKEN:
            self.broken.add(path)
            return None
        before = len(self.broken)
        alternatives = kinds(type_)
        structs = [kind for kind in alternatives if kind.is_struct]
        lists = [kind for kind in alternatives if kind.is_list]
        dicts = [kind for kind in alternatives if kind.is_dict]
        if len(structs) == 1 and (node.items is not None or node.value is None):
            return self._struct(node, structs[0].type, path)
        if lists and (node.entries is not None or node.value is None):
            parts = [self.read(child, lists[0].inner, (*path, i)) for i, child in enumerate(node.entries or [])]
            return self._joined(node, parts, type_, path, before)
        if dicts and (node.items is not None or node.value is None):
            items = (node.items or {}).items()
            named = {name: self.read(child, dicts[0].inner, (*path, name)) for name, child in items}
            return self._joined(node, named, type_, path, before)
        self._leaf(node, alternatives, words(type_), path)
        return None

    def _struct(self, node: Node, type_: Any, path: Path) -> Any:
        before = len(self.broken)
        items = node.items or {}
        fields = {field.encode_name: field for field in _fields(type_)}
        values: dict[str, Any] = {}
        for name, child in items.items():
            if name in fields:
                value = self.read(child, fields[name].type, (*path, name))
                if (*path, name) not in self.broken:
                    values[fields[name].name] = value
            elif name != type_.__struct_config__.tag_field:
                self.unknown(node, name, [known for known in fields if known not in items], path)
        missing = {name: field for name, field in fields.items() if field.required and name not in items}
        for name in self._not_misspelt(missing, items, fields):
            self._complaints.add((node.line, node.column), path, f'"{name}" is missing')
        for field in fields.values():
            if field.required and field.name not in values:
                self.broken.add((*path, field.encode_name))
                values[field.name] = None
        try:
            return type_(**values)
        except (TypeError, ValueError) as error:
            if len(self.broken) == before:
                self.mistake(node, path, str(error))
            self.broken.add(path)  # with a part missing, what it says of the whole would mislead
            return None

    def _not_misspelt(self, missing: dict[str, Any], items: dict[str, Node], fields: dict[str, Any]) -> list[str]:
        """Leave out those that an unknown field was meant to be: one mistake, one complaint."""
        meant = {near(name, missing) for name in items if name not in fields}
        return [name for name in missing if f'did you mean "{name}"?' not in meant]

    def _joined(self, node: Node, parts: object, type_: Any, path: Path, before: int) -> Any:
        """Return the parts as one, where each is right; there may be bounds to the whole."""
        if len(self.broken) > before:
            return parts
        try:
            return convert(parts, type_, dec_hook=hook)
        except ValidationError as error:
            self.mistake(node, path, _own_words(error))
            return parts

    def _leaf(self, node: Node, alternatives: list[Kind], expected: str, path: Path) -> None:
        problem = _parsers_words(node, alternatives) or f"expected {expected}"
        text_wanted = any(kind.type in (str, Secret) for kind in alternatives)
        composed = any(kind.is_struct or kind.is_dict or kind.is_list for kind in alternatives)
        cure = ""
        if node.reference:
            problem += f", which {node.reference} is not"
        elif not (text_wanted or composed or node.items is not None or node.entries is not None):
            problem += f", got {_shown(node.value)}"
            cure = _nearest(node.value, alternatives)
        else:
            problem += f", got {got(node.value)}"
            if text_wanted and isinstance(node.value, bool | int | float):
                cure = "put it in quotes"
        self.mistake(node, path, problem, cure)


@cache
def _fields(type_: Any) -> tuple[FieldInfo, ...]:
    return fields_of(type_)


def _parsers_words(node: Node, alternatives: list[Kind]) -> str:
    """What a type of ours expects, in its own words, without the value."""
    if len(alternatives) != 1 or alternatives[0].parser is None:
        return ""
    try:
        alternatives[0].parser(node.value)
    except ValueError as error:
        return str(error).partition(", got ")[0]
    return ""


def _shown(value: object) -> str:
    match value:
        case str():
            return f'"{value[:LONGEST_SHOWN]}{"…" if len(value) > LONGEST_SHOWN else ""}"'
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def _nearest(value: object, alternatives: list[Kind]) -> str:
    names = [str(name) for kind in alternatives if kind.type is Literal for name in kind.inner]
    cure = near(str(value), names)
    return cure if cure.startswith("did") else ""


def _own_words(error: ValidationError) -> str:
    text = str(error).partition(" - at `")[0].replace("`", "").replace("array", "a list").replace("object", "a mapping")
    return text[:1].lower() + text[1:]
