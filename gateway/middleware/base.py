"""What a middleware's options are: the fields of its entry in gateway.yaml, and how it is built from them."""

from collections.abc import Mapping
from typing import ClassVar

from msgspec import Struct

from gateway.core.call import Operation
from gateway.core.middleware import Middleware
from gateway.core.resources import Resources


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of one middleware. A subclass's fields are what may be written beside `use:`.

    A third party's middleware is a subclass of this too, named by an entry point of the group `gateway.middleware`
    or by `use: package.module:Class`.
    """

    inside: ClassVar[Mapping[str, str]] = {}
    """Middlewares that must stand further out, if they are in the chain at all, each with the reason why."""
    operations: ClassVar[frozenset[Operation]] = frozenset({"chat"})
    """The calls it has a say in; others pass it by."""

    def build(self, resources: Resources) -> Middleware:
        """Make the middleware.

        Raises:
            ValueError: the options, each right by itself, do not go together; the message is shown with their line.
        """
        raise NotImplementedError
