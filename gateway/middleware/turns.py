"""Responses that build on one another: OpenAI's `store` and `previous_response_id`, over every provider.

It is no entry of the chain: that an answer can be followed up is a promise of the surface, and holds unless the client
or the configuration says no. It stands behind `auth`, which knows whose a response is, and before whoever counts,
remembers or spends: for them, and for every translator, a follow-up is a request with all that was said before in its
`input`. Only the upstream that has the response before it itself gets the request as it came. Items that are only named
(`item_reference`) are looked up in the same way, also for an upstream that knows them: it would know others' too.

What is kept is written before the answer's last event leaves, and a whole answer before its head: a follow-up may come
at once, and reach another process. When it cannot be written the answer is given all the same and says so; a follow-up
is then told that there is no such response. An answer that did not come to its end is not kept, whoever broke it off.
"""

from collections.abc import Awaitable, Collection

from msgspec import Raw
from msgspec.structs import replace

from gateway.core.call import Body, Call, Turn
from gateway.core.errors import BadRequest, Rejected
from gateway.core.middleware import Handler
from gateway.core.reply import Reply
from gateway.core.resources import Objects
from gateway.core.route import Route
from gateway.middleware.history import NOT_FOUND, History
from gateway.middleware.keeping import Keeping
from gateway.wire.responses_kept import Asked, follow_up, read_asked, references


class Turns:
    """Puts before a request what it builds on, and keeps the answer.

    Args:
        objects: where answers are kept.
        keep_s: for how long. 0: nothing is kept.
        keepers: the providers whose upstreams keep what they answer, too.
    """

    def __init__(self, objects: Objects, keep_s: float, keepers: Collection[str]) -> None:
        self._objects = objects
        self._keep_s = keep_s
        self._keepers = keepers

    def __call__(self, call: Call, next: Handler) -> Awaitable[Reply]:
        """Return the answer to the whole conversation.

        Raises:
            BadRequest: what it builds on is not there, not over, or too long; or it cannot be kept as it must be.
            Unavailable: what it builds on cannot be reached.
        """
        return self._turn(call, next) if call.surface == "responses" else next(call)

    async def _turn(self, call: Call, next: Handler) -> Reply:
        asked = read_asked(call.body)
        keeps = asked.store is not False and self._keep_s > 0
        _refuse(asked, keeps)
        if not keeps and asked.store is not False:
            call = call.but(body=_unstored(call.body))
        turned = call.but(turn=Turn(call.body, keeps))
        if asked.previous_response_id or references(asked):
            turned, asked = await self._after(call, asked, keeps)
        try:
            reply = await next(turned)
        except Rejected as error:
            turn = turned.turn
            if turn is None or not turn.provider or error.code != NOT_FOUND:
                raise
            # Its upstream has forgotten, or is another behind the same name: we have not.
            reply = await next(turned.but(turn=replace(turn, provider=""), route=call.route))
        if not keeps:
            return reply
        return await Keeping(turned, asked, self._objects, keep_s=self._keep_s, keepers=self._keepers).of(reply)

    async def _after(self, call: Call, asked: Asked, keeps: bool) -> tuple[Call, Asked]:
        """Return the call with what it builds on, and what it asks itself.

        Raises:
            BadRequest: a part of that cannot be had.
        """
        found = History(self._objects, call.principal.id)
        earlier = await found.before(asked.previous_response_id) if asked.previous_response_id else []
        asked = await found.resolved(asked)
        route = call.route and _first_at(call.route, found.provider)
        provider = found.provider if route is not call.route else ""
        turn = Turn(call.body, keeps, builds=True, chain=found.chain, size=found.size, provider=provider)
        return call.but(body=follow_up(call.body, asked, earlier), turn=turn, route=route), asked


def _refuse(asked: Asked, keeps: bool) -> None:
    """Refuse what cannot be honoured here, whoever answers.

    Raises:
        BadRequest: it asks for such a thing.
    """
    if asked.conversation:
        cure = "there are no conversations here; follow up by `previous_response_id`, or send the items in `input`"
        raise BadRequest(f"conversation: {cure}", param="conversation", code="unsupported_parameter")
    if asked.background and not keeps:
        problem = "an answer that is not kept cannot be come back for; ask without it, or leave `store` out"
        if asked.store is not False:
            problem = "this gateway keeps no responses (`responses.keep`), so none can be come back for"
        raise BadRequest(f"background: {problem}", param="background", code="unsupported_parameter")


def _unstored(body: Body) -> Body:
    """Return a request that says for its client that nothing is to be kept: an upstream would, unless told not to."""
    raw = body.but(store=False)
    return Body(raw, {**body.fields, "store": Raw(b"false")})


def _first_at(route: Route, provider: str) -> Route:
    """Return the route with the deployments of `provider` first, and the others as they are written.

    It is the same route where it has none: then nobody has what came before.
    """
    at = [deployment for deployment in route.deployments if deployment.provider == provider]
    if not provider or not at:
        return route
    others = [deployment for deployment in route.deployments if deployment.provider != provider]
    return replace(route, deployments=(*at, *others), order="as_written")
