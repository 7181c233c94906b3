"""Everything that can go wrong with a call.

    GatewayError
    ├─ Refused           we said no, nobody was asked
    │    BadRequest 400 · Unauthorized 401 · Forbidden 403 · UnknownModel 404 · WrongMethod 405
    │    TooLarge 413 · LimitReached 429 · Unavailable 503 (of which Overloaded, Resting, Stopped)
    └─ UpstreamFailed    an upstream was asked
         Unreachable 502 · TimedOut 504 · Busy 429 · Rejected (their 4xx, passed on) · Broke (after the first chunk)
         Outrun (another attempt spoke first)

Raised where it is known; caught in three places: `retry`, the engine (which writes the outcome and raises it again)
and the edge (which renders it). Anything else that is raised is a bug of ours: a 500, with its traceback in the log.
"""

from typing import ClassVar, Self

from gateway.core.route import Then

TOO_LONG = "context_length_exceeded"
"""The code of a prompt that is too long for a model, whatever its vendor calls it."""


class GatewayError(Exception):
    """A call that gets no answer, or no whole one.

    Args:
        message: for the client: what is wrong, and the cure. Never a secret.
        param: the request field it is about.
        code: a stable word for programs; the class's own when not given.
        retry_after_s: when asking again may help.
    """

    status: int = 500
    kind: str = "server_error"
    """OpenAI's `error.type`."""
    code: str | None = None
    """OpenAI's `error.code`."""
    retry_helps: ClassVar[bool] = False
    """Whether the client's own SDK should ask again; otherwise it is told `x-should-retry: false`."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.retry_after_s = retry_after_s


class Refused(GatewayError):
    """We said no; no upstream was asked."""

    status = 400
    kind = "invalid_request_error"


class BadRequest(Refused):
    """The request cannot be understood."""


class Unauthorized(Refused):
    """No credential, or not one of ours."""

    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"


class Forbidden(Refused):
    """We know who you are; you may not."""

    status = 403
    kind = "permission_error"
    code = "permission_denied"


class UnknownModel(Refused):
    """No route has this name."""

    status = 404
    kind = "not_found_error"
    code = "model_not_found"


class NotFound(Refused):
    """The URL leads nowhere."""

    status = 404
    kind = "not_found_error"
    code = "not_found"


class WrongMethod(Refused):
    """The URL is right, the method is not; `allowed` is."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"this URL takes {allowed}, not {method}")
        self.allowed = allowed


class TooLarge(Refused):
    """The body is over `server.max_body`."""

    status = 413
    code = "request_too_large"


class LimitReached(Refused):
    """Too many requests, tokens or concurrent calls."""

    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"
    retry_helps = True


class Unavailable(Refused):
    """Something that we need in order to say yes or no cannot be reached."""

    status = 503
    kind = "server_error"
    code = "unavailable"
    retry_helps = True


class Resting(Unavailable):
    """Whoever could answer has failed so often, or asked for patience, that it is not asked at the moment."""

    code = "upstream_resting"


class Overloaded(Unavailable):
    """As many calls are under way as may be, and this one cannot wait, or has waited long enough."""

    code = "overloaded"


class Stopped(Unavailable):
    """The gateway had to stop before it was done with the call."""

    code = "gateway_stopped"

    def __init__(self) -> None:
        super().__init__("the gateway had to stop before the answer was complete; ask again", retry_after_s=1.0)


class UpstreamFailed(GatewayError):
    """An upstream was asked and gave no answer, or no whole one."""

    status = 502
    kind = "upstream_error"
    code = "upstream_failed"
    retryable: bool = True
    """Whether another attempt, here or elsewhere, may do better."""
    elsewhere: bool = False
    """Not retryable here, but nothing is wrong with the request: another provider may answer it."""
    unhealthy: bool = True
    """It speaks against the deployment, which rests when that happens too often."""

    def lasting(self) -> Self:
        """Return it as one that asking this provider again cannot mend, for its cause is how it is configured."""
        self.retryable, self.elsewhere = False, True
        return self


class Unreachable(UpstreamFailed):
    """No connection, a reset, a 5xx, or an answer that is none (HTML with a 200)."""

    code = "upstream_unavailable"


class TimedOut(UpstreamFailed):
    """One of our clocks fired; the message names it."""

    status = 504
    kind = "timeout_error"
    code = "upstream_timeout"
    clock: str = ""
    """Which; empty: the upstream's own."""
    then: Then = "retry"
    """What is to follow."""


class Busy(UpstreamFailed):
    """The upstream asks for patience: 429, or 503 for all others (503, 529)."""

    status = 429
    kind = "rate_limit_error"
    code = "upstream_busy"


class Rejected(UpstreamFailed):
    """The upstream refused this very request (4xx). Asking the same again cannot help."""

    retryable = False
    unhealthy = False
    kind = "invalid_request_error"
    unsupported: str = ""
    """The parameter that the model does not take; without it, the request may be taken."""
    instead: str = ""
    """The one that it would take in its place, if the upstream names it."""

    def __init__(self, message: str, *, status: int, kind: str | None = None, **more: str | None) -> None:
        super().__init__(message, param=more.get("param"), code=more.get("code"))
        self.status = status
        self.kind = kind or self.kind


class Broke(UpstreamFailed):
    """The answer stopped before it was complete, after its first chunk had left."""

    retryable = False
    code = "stream_broken"


class Outrun(UpstreamFailed):
    """Another attempt at the same call spoke first."""

    retryable = False
    unhealthy = False
