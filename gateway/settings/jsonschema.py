"""The JSON schema of gateway.yaml, for editors: made of the very types that read it, described by their docstrings.

Draft 7, which every editor's YAML support understands. It knows our own middlewares and providers; another's is allowed
as `package.module:Class`, with options that only `gateway check` can judge.
"""

import ast
import inspect
import textwrap
from typing import Any, Literal

from msgspec import NODEFAULT, Meta
from msgspec.structs import FieldInfo, fields

from gateway.core.secret import Secret
from gateway.core.units import Duration, Size
from gateway.engine.price_options import Dollars, DollarsEach, Factor
from gateway.settings import plugins
from gateway.settings.kinds import Kind, kinds
from gateway.settings.schema import DeploymentSettings, Moment, RouteSettings, Settings

Schema = dict[str, Any]

PLACE = r"^[\w.]+:[\w.]+$"
"""`package.module:Class`."""
TARGET: Schema = {"type": "string", "pattern": "^[^/]+/.+$|\\$\\{", "description": "Short form: `provider/model`."}
VARIABLE: Schema = {
    "type": "string",
    "pattern": r"^\$\{[A-Za-z_]\w*(:-[^}]*)?\}$",
    "description": "An environment variable, perhaps with a default: `${NAME:-default}`. Not in quotes.",
}
TEXTS: dict[type, Schema] = {
    str: {"type": "string"},
    Secret: {"type": "string"},
    Moment: {"type": "string"},
    Duration: {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$|\$\{", "examples": ["30s", "10m", "1h"]},
}
"""What is text, and may have variables in it anyway."""
MONEY: list[Schema] = [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\d*\.?\d+$"}]
OTHERS: dict[type, list[Schema]] = {
    int: [{"type": "integer"}],
    float: [{"type": "number"}],
    bool: [{"type": "boolean"}],
    Size: [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d+)?\s*([KMGkmg]i?)?[Bb]$"}],
    **dict.fromkeys((Dollars, DollarsEach, Factor), MONEY),
}
"""What a variable may stand for, too."""
SHORT_FORMS: dict[type, Schema] = {RouteSettings: TARGET, DeploymentSettings: TARGET}


def schema() -> Schema:
    """Return the schema. Imports every middleware and provider of ours."""
    maker = _Maker()
    root = maker.struct(Settings)
    root["properties"]["providers"] |= maker.providers()
    root["properties"]["chain"] |= {"items": maker.room()}
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "gateway.yaml"}
    return {**head, **root, "definitions": {"Variable": VARIABLE, **dict(sorted(maker.definitions.items()))}}


class _Maker:
    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._types: dict[str, type] = {}

    def struct(self, type_: Any, **more: Schema) -> Schema:
        """Return a struct's schema; `more`: properties that are none of its fields."""
        told = _docstrings(type_)
        properties = {field.encode_name: self._field(field, told.get(field.name, "")) for field in fields(type_)}
        made: Schema = {
            "type": "object",
            "description": inspect.cleandoc(type_.__doc__ or ""),
            "properties": {**more, **properties},
            "additionalProperties": not type_.__struct_config__.forbid_unknown_fields,
        }
        if required := [*more, *(field.encode_name for field in fields(type_) if field.required)]:
            made["required"] = required
        return made

    def room(self) -> Schema:
        """Return the schema of an entry of the chain: what may stand beside `use` depends on it."""
        rules: list[Schema] = []
        for name in plugins.MIDDLEWARES:
            _, options = plugins.middleware(name)
            reference = self._named(options, use={"const": name})
            rules.append({"if": _says("use", {"const": name}), "then": reference})
        use: Schema = {"description": "Which middleware.", "anyOf": _names(plugins.MIDDLEWARES)}
        return {"type": "object", "properties": {"use": use}, "required": ["use"], "allOf": rules}

    def providers(self) -> Schema:
        """Return the schema of `providers`: what may stand in an entry depends on its kind, or on its name."""
        vendors = sorted(plugins.vendor_names() - plugins.PROVIDERS.keys())
        options = {kind: self._named(plugins.provider(kind)[0]) for kind in plugins.PROVIDERS}
        alike = {kind: {"const": kind} for kind in options} | {"openai": {"enum": ["openai", *vendors]}}
        kind: Schema = {"description": "Which translator.", "anyOf": _names([*options, *vendors])}
        self.definitions["Provider"] = {
            "type": ["object", "null"],
            "properties": {"kind": kind},
            "allOf": [{"if": _says("kind", alike[name]), "then": there} for name, there in options.items()],
        }
        named = {**options, **dict.fromkeys(vendors, options["openai"])}
        entry = {"$ref": "#/definitions/Provider"}
        unsaid: Schema = {"type": "object", "not": {"required": ["kind"]}}
        return {
            "properties": {name: {"allOf": [entry, {"if": unsaid, "then": there}]} for name, there in named.items()},
            "additionalProperties": {"allOf": [entry, {"type": "object", "required": ["kind"]}]},
        }

    def _field(self, field: FieldInfo, description: str) -> Schema:
        made = self._type(field.type)
        if "$ref" in made:
            made = {"allOf": [made]}  # in draft 7, nothing beside `$ref` counts
        if description:
            made = {"description": description, **made}
        default = _default(field)
        return made if default is None else {**made, "default": default}

    def _type(self, type_: Any) -> Schema:
        found: list[Schema] = []
        for kind in kinds(type_):
            found += self._kind(kind)
        return found[0] if len(found) == 1 else {"anyOf": found}

    def _kind(self, kind: Kind) -> list[Schema]:
        variable = {"$ref": "#/definitions/Variable"}
        if kind.type is Literal:
            return [{"enum": list(kind.inner)}, variable]
        if kind.is_struct:
            short = SHORT_FORMS.get(kind.type)
            return [*([short] if short else []), self._named(kind.type)]
        if kind.is_list:
            return [{"type": ["array", "null"], "items": self._type(kind.inner), **_bounds(kind.meta, "Items")}]
        if kind.is_dict:
            return [{"type": ["object", "null"], "additionalProperties": self._type(kind.inner)}]
        if kind.type in TEXTS:
            return [{**TEXTS[kind.type], **_bounds(kind.meta, "Length")}]
        if kind.type in OTHERS:
            return [*({**one, **_bounds(kind.meta, "")} for one in OTHERS[kind.type]), variable]
        return [{}]  # a type we have no words for: what fits it, `gateway check` knows

    def _named(self, type_: type, **more: Schema) -> Schema:
        name = type_.__name__
        if self._types.setdefault(name, type_) is not type_:
            raise ValueError(f"two types of settings are called {name}: {type_.__module__} has to rename its own")
        if name not in self.definitions:
            self.definitions[name] = {}  # so that a type may hold itself
            self.definitions[name] = self.struct(type_, **more)
        return {"$ref": f"#/definitions/{name}"}


def _says(name: str, what: Schema) -> Schema:
    return {"type": "object", "properties": {name: what}, "required": [name]}


def _names(names: Any) -> list[Schema]:
    return [{"enum": list(names)}, {"type": "string", "pattern": PLACE}]


def _bounds(meta: tuple[Meta, ...], of: str) -> Schema:
    found: Schema = {}
    for one in meta:
        least, most = ("min", "max") if of else ("minimum", "maximum")
        found |= (
            {f"{least}{of}": one.min_length, f"{most}{of}": one.max_length} if of else {least: one.ge, most: one.le}
        )
        found |= {"exclusiveMinimum": one.gt, "exclusiveMaximum": one.lt, "pattern": one.pattern}
    return {name: value for name, value in found.items() if value is not None}


def _default(field: FieldInfo) -> Any:
    """Return the default as one would write it; `None` where there is none worth showing."""
    value: Any = field.default if field.default is not NODEFAULT else None
    if field.default_factory is not NODEFAULT:
        value = field.default_factory()
    match value:
        case Duration():
            return _duration(value)
        case Size():
            return int(value)
        case Moment() | "":
            return None
        case bool() | int() | float() | str():
            return value
        case list() | tuple() if value and all(isinstance(one, str) for one in value):  # pyright: ignore[reportUnknownVariableType]
            return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case _:
            return None


def _duration(value: float) -> str:
    """Write seconds in the largest unit that leaves no fraction."""
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    whole = next((unit for unit, seconds in units.items() if value >= seconds and value % seconds == 0), None)
    return f"{value / units[whole]:g}{whole}" if whole else f"{value * 1000:g}ms"


def _docstrings(type_: type) -> dict[str, str]:
    """Return the docstring under each field, of the class or of one it is made from."""
    told: dict[str, str] = {}
    for one in reversed(type_.__mro__[:-1]):
        if not one.__module__.startswith("msgspec"):
            told |= _told(one)
    return told


def _told(type_: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(type_))).body[0]
    assert isinstance(tree, ast.ClassDef), "it is the source of a class"
    told: dict[str, str] = {}
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                told[name] = inspect.cleandoc(text)
            case _:
                pass
    return told
