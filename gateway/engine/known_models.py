"""What ships with the gateway about models: the rows of `config/models.yaml`."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache

import msgspec
from msgspec import Struct

from gateway.core.fit import Fit
from gateway.core.model import Capabilities, ModelFacts
from gateway.core.shipped import shipped


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row. What is left out, it does not say."""

    models: tuple[str, ...]
    """Patterns of the upstream's names, in small letters."""
    at: tuple[str, ...]
    """The kinds of providers, or vendors, that call these models so."""
    docs: str
    """The page that the row was written from."""
    context_tokens: int | None = None
    """The longest prompt and answer together, where genai-prices does not know."""
    output_tokens: int | None = None
    """The longest answer."""
    inputs: tuple[str, ...] | None = None
    """What the model takes."""
    outputs: tuple[str, ...] | None = None
    """What it gives."""
    can: Capabilities | None = None
    """What it can do."""
    rejects: tuple[str, ...] | None = None
    """Parameters that it rejects."""
    renames: dict[str, str] | None = None
    """Parameters of chat completions that it knows by another name."""

    def fits(self, known_as: str, model: str) -> bool:
        """Tell whether the row speaks of `model` at whoever is `known_as` this."""
        return known_as in self.at and any(fnmatchcase(model, pattern) for pattern in self.models)


def facts_of(known_as: str, model: str) -> ModelFacts:
    """Return what is known of `model`, as it is called at the vendor, or kind of provider, `known_as`."""
    facts = ModelFacts()
    for row in reversed(_fitting(known_as, model)):
        said = ModelFacts(
            context_tokens=row.context_tokens,
            output_tokens=row.output_tokens,
            inputs=row.inputs,
            outputs=row.outputs,
            capabilities=row.can or Capabilities(),
        )
        facts = facts.or_else(said)
    return facts


def fit_of(known_as: str, model: str) -> Fit:
    """Return what has to be done to a request so that `model` takes it."""
    rejects: tuple[str, ...] = ()
    renames: dict[str, str] = {}
    for row in _fitting(known_as, model):
        rejects = rejects if row.rejects is None else row.rejects
        renames = renames if row.renames is None else row.renames
    return Fit(frozenset(rejects), renames)


def _fitting(known_as: str, model: str) -> Sequence[Row]:
    name = model.lower().removeprefix("models/")
    return [row for row in _rows() if row.fits(known_as, name)]


@cache
def _rows() -> list[Row]:
    return msgspec.yaml.decode(shipped("config/models.yaml").read_bytes(), type=list[Row])
