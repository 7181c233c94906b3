"""What the types of settings are made of, and the words for them."""

import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import Meta, Struct

from gateway.core.secret import Secret
from gateway.core.units import Duration, Size


class Kind(Struct, frozen=True):
    """One alternative of a type, taken apart."""

    type: Any
    """The class, or `Literal`."""
    inner: Any = None
    """The type of what a list or a mapping holds; the values of a `Literal`."""
    meta: tuple[Meta, ...] = ()
    """Its bounds."""

    @property
    def is_struct(self) -> bool:
        """It is a mapping with named fields."""
        return isinstance(self.type, type) and issubclass(self.type, Struct)

    @property
    def is_list(self) -> bool:
        """It is a list of one type of thing."""
        return self.type in (list, tuple, set, frozenset)

    @property
    def is_dict(self) -> bool:
        """It is a mapping with names of the user's choice."""
        return self.type in (dict, Mapping)

    @property
    def parser(self) -> Callable[[object], Any] | None:
        """What reads it, where it is a type of ours (`Duration`)."""
        return secret if self.type is Secret else getattr(self.type, "parse", None)


def kinds(type_: Any, meta: tuple[Meta, ...] = ()) -> list[Kind]:
    """Take a type apart into its alternatives; `None` is left out."""
    origin, inner = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return kinds(inner[0], meta + tuple(one for one in inner[1:] if isinstance(one, Meta)))
    if origin in (Union, types.UnionType):
        return [kind for alternative in inner for kind in kinds(alternative, meta)]
    if type_ is types.NoneType:
        return []
    if origin is Literal:
        return [Kind(Literal, inner, meta)]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [Kind(dict, inner[1], meta)]
    if origin in (tuple, list, set, frozenset) and (origin is not tuple or inner[1:] == (...,)):
        return [Kind(origin, inner[0], meta)]
    return [Kind(type_, None, meta)]


def hook(type_: Any, value: Any) -> Any:
    """Read a value of a type that msgspec does not know.

    Raises:
        ValueError: it is no such value.
    """
    if isinstance(value, type_):
        return value
    parser = Kind(type_).parser
    if parser is None:
        raise ValueError(f"expected {getattr(type_, '__name__', type_)}")
    return parser(value)


def secret(said: object) -> Secret:
    """Read a secret; what it says instead is never repeated.

    Raises:
        ValueError: it is no text.
    """
    if not isinstance(said, str):
        raise ValueError("expected text")
    return Secret(said)


def words(type_: Any) -> str:
    """Say what is expected: `a whole number from 1 to 10`."""
    said = [_words(kind) for kind in kinds(type_)]
    return " or ".join(dict.fromkeys(said)) or "nothing"


def _words(kind: Kind) -> str:
    if kind.type is Literal:
        return f"one of {', '.join(map(str, kind.inner))}"
    if kind.is_struct or kind.is_dict:
        return "a mapping"
    if kind.is_list:
        return "a list"
    known = {
        str: "text",
        Secret: "text",
        bool: "true or false",
        Duration: "a duration like 30s",
        Size: "a size like 32MB",
        int: "a whole number",
        float: "a number",
    }
    return known.get(kind.type, f"a {getattr(kind.type, '__name__', kind.type)}".lower()) + _bounds(kind.meta)


def _bounds(meta: tuple[Meta, ...]) -> str:
    said: list[str] = []
    for one in meta:
        if one.ge is not None and one.le is not None:
            said.append(f" from {one.ge} to {one.le}")
            continue
        bounds = {"of at least": one.ge, "above": one.gt, "of at most": one.le, "below": one.lt}
        said += [f" {word} {bound}" for word, bound in bounds.items() if bound is not None]
        if one.min_length:
            said.append(f" with at least {one.min_length} {'character' if one.min_length == 1 else 'characters'}")
        if one.pattern:
            said.append(f" that matches {one.pattern}")
    return ",".join(said)


def got(value: object) -> str:
    """Say of which kind a value is, without repeating it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case str():
            return "text"
        case dict():
            return "a mapping"
        case _:
            return "a list"
