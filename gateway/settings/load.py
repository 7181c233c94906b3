"""gateway.yaml becomes `Settings`, or all of its mistakes at once."""

import gc
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.middleware.base import Options
from gateway.providers.base import ProviderOptions
from gateway.settings import plugins
from gateway.settings.check import Found, check
from gateway.settings.complaints import Complaint, ConfigError, OptionError, Path, near, shown
from gateway.settings.document import BROKEN, Complaints, Node, parse
from gateway.settings.kinds import got
from gateway.settings.reader import Reader
from gateway.settings.schema import Settings


class Loaded(Struct, frozen=True):
    """Settings, and where each of them is written."""

    settings: Settings
    uses: tuple[str, ...]
    """The names of the middlewares in `settings.chain`, in its order."""
    file: str
    text: str
    root: Node

    def where(self, path: Path) -> str:
        """Return the place of what is written at `path`, or of what is nearest around it: `gateway.yaml:12:5 chain[3]`.

        A short form counts as one thing: what it stands for is nowhere written.
        """
        node, written = self.root.find(path)
        return f"{self.file}:{node.line}:{node.column} {shown(written)}".rstrip()

    def complaint(self, path: Path, problem: str, cure: str = "") -> ConfigError:
        """Make the error to raise when what stands at `path` turns out to be wrong later."""
        node, written = self.root.find(path)
        complaint = Complaint(
            file=self.file, line=node.line, column=node.column, path=shown(written), problem=problem, cure=cure
        )
        return ConfigError([complaint])

    def about(self, path: Path, error: ValueError) -> ConfigError:
        """Make the error to raise when what stands at `path`, or one option of it, cannot be used."""
        return self.complaint((*path, error.option) if isinstance(error, OptionError) else path, str(error))


def load(text: str, *, name: str, environment: Mapping[str, str]) -> Loaded:
    """Read a configuration.

    Args:
        text: YAML, with `${VAR}` and `${VAR:-default}`.
        name: of the file, for complaints.
        environment: what `${VAR}` stands for.

    Raises:
        ConfigError: it has mistakes; the error holds all of them.
    """
    complaints = Complaints(name)
    with without_collections():
        root = parse(text, environment, complaints)
        if root is not None and root.items is None and root.value is not BROKEN:
            sections = ", ".join(Settings.__struct_fields__)
            complaints.add((root.line, root.column), (), f"expected a mapping of {sections}, got {got(root.value)}")
        if root is None or root.items is None:
            raise ConfigError(complaints)
        _spell_out(root)
        found = _Sections(Reader(complaints)).read(root)
        check(found, root, complaints)
    if len(complaints):
        raise ConfigError(complaints)
    return Loaded(found.settings, tuple(use for use, _ in found.rooms), name, text, root)


@contextmanager
def without_collections() -> Generator[None]:
    """Keep the garbage collector away: of 300,000 nodes none is garbage, and looking at them takes longer than reading.

    Reference counting frees them as ever.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _spell_out(root: Node) -> None:
    """Replace the short forms `fast: openai/gpt-4o` and `deployments: [openai/gpt-4o]` by what they stand for."""
    models = (root.items or {}).get("models")
    if models is None or models.items is None:
        return
    for name, route in models.items.items():
        if isinstance(route.value, str):
            models.items[name] = _mapping(route, {"deployments": _list(route, [_mapping(route, {"target": route})])})
            models.value[name] = models.items[name].value
        elif route.items is not None and (deployments := route.items.get("deployments")) is not None:
            entries = deployments.entries or []
            for i, target in enumerate(entries):
                if isinstance(target.value, str):
                    entries[i] = _mapping(target, {"target": target})
                    deployments.value[i] = entries[i].value


def _mapping(place: Node, items: dict[str, Node]) -> Node:
    values = {name: item.value for name, item in items.items()}
    keys = dict.fromkeys(items, (place.line, place.column))
    return Node(place.line, place.column, values, items=items, keys=keys, short=True)


def _list(place: Node, entries: list[Node]) -> Node:
    return Node(place.line, place.column, [entry.value for entry in entries], entries=entries, short=True)


def _but(node: Node, *, without: tuple[str, ...] = (), more: Mapping[str, str] = MappingProxyType({})) -> Node:
    """Return a mapping without some of its items, and with more of them."""
    items = {name: item for name, item in (node.items or {}).items() if name not in without}
    for name, value in more.items():  # with the place of the mapping that implies them
        items[name] = Node(node.line, node.column, value)
    return replace(node, value={name: item.value for name, item in items.items()}, items=items)


def _copied(value: object) -> object:
    """Return a copy of what was read, where all of it could be.

    What stays would else lie scattered among all that reading made and let go of, and hold on to its pages: with 10,000
    keys a process is 80 MB smaller, and the copy takes 20 ms.
    """
    try:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    except (TypeError, ValueError, OverflowError):  # something that is broken, or that no type of ours takes
        return value


class _Sections:
    """Reads each section as its type; those of `providers` and `chain` depend on what stands in them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def read(self, root: Node) -> Found:
        """Return what could be read."""
        items = root.items or {}
        plain = _but(root, without=("providers", "chain"))
        settings: Settings = self._reader.read(replace(plain, value=_copied(plain.value)), Settings, ())
        providers = self._providers(items.get("providers"))
        rooms = self._chain(items.get("chain"))
        chain = [options for _, _, options in rooms]
        settings = replace(settings, providers=providers, chain=chain)
        named = [(use, type_.inside) for use, type_, _ in rooms]
        broken = frozenset(self._reader.broken)
        return Found(settings, named, broken, frozenset(path[:n] for path in broken for n in range(len(path))))

    def _providers(self, node: Node | None) -> dict[str, ProviderOptions]:
        if node is None or node.value is None:
            return {}
        if node.items is None:
            self._wrong(node, ("providers",), "expected a mapping of names to options")
            return {}
        return {name: self._provider(name, child, node.keys[name]) for name, child in node.items.items()}

    def _provider(self, name: str, node: Node, key: tuple[int, int]) -> ProviderOptions:
        path = ("providers", name)
        if node.items is None and node.value is not None:
            self._wrong(node, path, "expected a mapping like {api_key: ${OPENAI_API_KEY}}")
            return ProviderOptions()
        said = (node.items or {}).get("kind")
        if said is not None and not isinstance(said.value, str):
            self._wrong(said, (*path, "kind"), "expected text")
            return self._lost(path)
        kind = said.value if said else name
        try:
            options, vendor = plugins.provider(kind)
        except plugins.Unusable as error:
            place = said or Node(*key, None)
            kinds = "" if said else "give it a kind: {kind: openai, base_url: …}"
            cure = ", or ".join(filter(None, (error.cure, kinds)))
            self._reader.mistake(place, (*path, "kind") if said else path, error.problem, cure)
            return self._lost(path)
        implied = {"kind": kind, "vendor": vendor} if vendor and "vendor" not in (node.items or {}) else {"kind": kind}
        return self._reader.read(_but(node, more=implied), options, path) or ProviderOptions()

    def _lost(self, path: Path) -> ProviderOptions:
        self._reader.broken.add(path)
        return ProviderOptions()

    def _chain(self, node: Node | None) -> list[tuple[str, type[Options], Options]]:
        if node is None or node.value is None:
            return []
        if node.entries is None:
            self._wrong(node, ("chain",), "expected a list of middlewares")
            return []
        return [self._room(entry, ("chain", i)) for i, entry in enumerate(node.entries)]

    def _room(self, node: Node, path: Path) -> tuple[str, type[Options], Options]:
        """Return a middleware's name, class and options; no name where it has none."""
        nobody = "", Options, Options()
        if node.items is None:
            named = isinstance(node.value, str) and node.value in plugins.MIDDLEWARES
            cure = f'write "use: {node.value}"' if named else ""
            self._wrong(node, path, "expected a mapping like {use: log}", cure)
            return nobody
        said = node.items.get("use")
        if said is None:
            meant = next((name for name in node.items if near("use", [name]).startswith("did")), "")
            cure = f'did you mean it by "{meant}"?' if meant else "say which middleware this is: {use: log}"
            self._reader.mistake(node, path, '"use" is missing', cure)
            return nobody
        if not isinstance(said.value, str):
            self._wrong(said, (*path, "use"), "expected text")
            return nobody
        try:
            use, options = plugins.middleware(said.value)
        except plugins.Unusable as error:
            self._reader.mistake(said, (*path, "use"), error.problem, error.cure)
            return nobody
        read: Options | None = self._reader.read(_but(node, without=("use",)), options, path)
        return use, options, read or Options()

    def _wrong(self, node: Node, path: Path, problem: str, cure: str = "") -> None:
        if node.value is BROKEN:
            self._reader.broken.add(path)
        else:
            self._reader.mistake(node, path, f"{problem}, got {got(node.value)}", cure)
