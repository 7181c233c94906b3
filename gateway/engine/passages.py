"""Where requests lead that name no model: the rest of `/v1`, and services behind `/proxy`."""

from collections.abc import Mapping

from gateway.core.errors import NotFound
from gateway.core.route import ALL, Route


class Passages:
    """The paths that somebody is named for.

    Args:
        v1: by the first parts of a path below `/v1`, such as `files` or `vector_stores`.
        services: by name.
    """

    def __init__(self, v1: Mapping[str, Route], services: Mapping[str, Route]) -> None:
        self._v1 = v1
        self._services = services

    def under_v1(self, path: str) -> tuple[Route, str]:
        """Return who answers for `path` below `/v1`, and the path to ask for there: the same.

        Raises:
            NotFound: nobody.
        """
        parts = path.strip("/").split("/")
        for count in range(len(parts), 0, -1):
            if (route := self._v1.get("/".join(parts[:count]))) is not None:
                return route, path
        if (route := self._v1.get(ALL)) is not None:
            return route, path
        raise NotFound(f"there is nothing at /v1{path}; who answers for it can be named under `forward:`; see /docs")

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
