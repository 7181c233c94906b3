"""Values with units, as people write them in gateway.yaml: `30s`, `10m`, `32MB`."""

import re
from typing import Self

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class Duration(float):
    """Seconds. Written as `250ms`, `30s`, `10m`, `1h`, `7d`, or as several together: `1m30s`."""

    @classmethod
    def parse(cls, said: object) -> Self:
        """Read a duration.

        Raises:
            ValueError: it has no unit, or is no duration at all.
        """
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", said) if isinstance(said, str) else []
        if not parts or "".join(number + unit for number, unit in parts) != said:
            raise ValueError(f"expected a duration like 30s, got {_shown(said)}")
        return cls(sum(float(number) * _SECONDS[unit] for number, unit in parts))


class Size(int):
    """Bytes. Written as `512KB`, `32MB`, `1GiB`, or as a plain number of bytes."""

    @classmethod
    def parse(cls, said: object) -> Self:
        """Read a size.

        Raises:
            ValueError: it is no size.
        """
        if isinstance(said, int) and not isinstance(said, bool) and said >= 0:
            return cls(said)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|B)", said, re.IGNORECASE) if isinstance(said, str) else None
        if match is None:
            raise ValueError(f"expected a size like 32MB, got {_shown(said)}")
        return cls(int(float(match[1]) * _BYTES[match[2].lower()]))


def _shown(said: object) -> str:
    return f'"{said}"' if isinstance(said, str) else repr(said)
