"""Where the files are that come with the gateway: `gateway.yaml` and `config/`."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped(name: str) -> Path:
    """Return the path of a shipped file, such as `config/vendors.yaml`.

    A wheel carries it inside of the package; in a checkout it lies at the root of the repository.
    """
    packed = _PACKAGE / "shipped" / name
    return packed if packed.exists() else _PACKAGE.parent / name
