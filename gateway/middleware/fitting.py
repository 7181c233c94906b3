"""Makes a request fit a model that does not take all that it says, or refuses it, as its route wants."""

from msgspec import Raw

from gateway.core.call import Body, Call
from gateway.core.errors import BadRequest, Rejected, UpstreamFailed
from gateway.core.fit import SYNONYMS, WISHES, Fit
from gateway.core.resources import Fits
from gateway.core.route import Deployment

DROPPED = "x-gateway-dropped"
"""Tells the client which parameters were left out."""


class Fitted:
    """A call as one deployment takes it."""

    __slots__ = ("_deployment", "_refused", "call", "dropped")

    def __init__(self, call: Call, deployment: Deployment, fit: Fit) -> None:
        fields = call.body.fields
        refuses = call.route is not None and call.route.unsupported == "refuse"
        self._deployment = deployment
        rejected = sorted(name for name in fit.rejects if name in fields)
        self.dropped = [name for name in rejected if bytes(fields[name]) != b"null"]  # which says nothing
        self._refused = next((name for name in self.dropped if refuses or name not in WISHES), "")
        changes: dict[str, Raw | None] = dict.fromkeys(rejected)
        for ours, theirs in fit.renames.items() if call.surface == call.operation == "chat" else ():
            if ours in fields:
                changes[ours] = None
                changes[theirs] = fields.get(theirs, fields[ours])
        self.call = call.but(body=_body(call.body, changes)) if changes else call

    def check(self) -> None:
        """Refuse the call if it says what may not be left out.

        Raises:
            BadRequest: it does; `param` names it.
        """
        if name := self._refused:
            problem = f"{self._deployment.name} takes no {name}; leave it out"
            raise BadRequest(problem, param=name, code="unsupported_parameter")


def learn(call: Call, deployment: Deployment, error: UpstreamFailed, fits: Fits) -> bool:
    """Learn from an error what the deployment does not take; return whether `call` can be mended by that."""
    route = call.route
    if not isinstance(error, Rejected) or route is None or route.unsupported == "pass":
        return False
    if error.unsupported not in call.body.fields:
        return False
    name, other = error.unsupported, SYNONYMS.get(error.unsupported)
    if call.surface == call.operation == "chat" and other is not None and error.instead in ("", other):
        known = fits.of(deployment)
        if other in call.body.fields or (known is not None and other in known.renames):
            return False  # it takes neither
        fits.learn(deployment, Fit(renames={name: other}))
        return True
    if name not in WISHES or route.unsupported != "drop":
        return False
    fits.learn(deployment, Fit(frozenset({name})))
    return True


def _body(body: Body, changes: dict[str, Raw | None]) -> Body:
    fields = {**body.fields, **changes}
    return Body(body.but(**changes), {name: raw for name, raw in fields.items() if raw is not None})
