"""Where requests lead that name no model: the rest of `/v1`, and services behind `/proxy`."""

from collections.abc import Mapping, Sequence

from gateway.core.errors import NotFound
from gateway.core.route import ALL, Route


class Passages:
    """The paths that somebody is named for.

    Args:
        v1: by the first parts of a path below `/v1`, such as `files` or `vector_stores`.
        services: by name.
        off: the paths below `/v1` whose provider is off, each with the reason.
    """

    def __init__(self, v1: Mapping[str, Route], services: Mapping[str, Route], off: Mapping[str, str]) -> None:
        self._v1 = v1
        self._services = services
        self._off = off

    def under_v1(self, path: str) -> tuple[Route, str]:
        """Return who answers for `path` below `/v1`, and the path to ask for there: the same.

        Raises:
            NotFound: nobody, or one that is off: what is meant for it is for nobody else.
        """
        parts = path.strip("/").split("/")
        for start in (*("/".join(parts[:count]) for count in range(len(parts), 0, -1)), ALL):
            if (route := self._v1.get(start)) is not None:
                return route, path
            if (reason := self._off.get(start)) is not None:
                raise NotFound(f"who answers for /v1{path} is off, because {reason}")
        raise NotFound(f"there is nothing at /v1{path}; {_meant(parts)}")

    def to_service(self, path: str) -> tuple[Route, str]:
        """Return the service that the first part of `path` names, and the path to ask for there: the rest.

        Raises:
            NotFound: there is none of this name.
        """
        name, slash, rest = path.removeprefix("/").partition("/")
        route = self._services.get(name)
        if route is None:
            known = f"there are {', '.join(self._services)}" if self._services else "none is configured under `proxy:`"
            raise NotFound(f'no service is called "{name[:100]}"; {known}')
        return route, slash + rest


def _meant(parts: Sequence[str]) -> str:
    """Return what someone may have meant who found nothing: a base URL has too much, or it is not configured."""
    if parts[0] == "v1":
        return "leave /v1 out of the base URL"
    half, odd = divmod(len(parts), 2)
    if not odd and parts[:half] == parts[half:]:
        return f"did you mean /v1/{'/'.join(parts[:half])}?"
    return "who answers for it can be named under `forward:`; see docs/forwarding.md"
