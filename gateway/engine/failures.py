"""What goes wrong on the way to an upstream, in words. No address is named: it may be nobody's business outside."""

import errno
import socket
import ssl

from gateway.core.errors import TimedOut, Unreachable

CLOSED = "the gateway has closed its connections to upstreams"


def timed_out(clock: str) -> TimedOut:
    """Return the error that says which clock fired. `total` may be as short as a client likes: nobody rests for it."""
    failure = TimedOut(f"the upstream took too long: timeouts.{clock} has passed")
    failure.clock, failure.unhealthy = clock, clock != "total"
    return failure


def broke_off(received: int) -> Unreachable:
    """Return the error of a body that ended too early."""
    return Unreachable(f"the upstream closed the connection after {received} bytes")


def no_connection(error: OSError, whom: str = "the upstream", where: str = "its base_url") -> Unreachable:
    """Say why there is no connection with `whom`, whose address stands in `where`."""
    match error:
        case socket.gaierror():
            return Unreachable(f"{whom}'s name cannot be resolved; check {where}")
        case ssl.SSLCertVerificationError():
            why, file = error.verify_message, "SSL_CERT_FILE" if "proxy" in whom else "`ca` or SSL_CERT_FILE"
            return Unreachable(f"{whom}'s certificate is not trusted ({why}); is its authority in {file}?")
        case ssl.SSLError(reason=str(reason)) if "NO_APPLICATION_PROTOCOL" in reason:
            return Unreachable(f"{whom} does not speak the HTTP that `http` asks for").lasting()
        case ssl.SSLError():
            return Unreachable(f"no TLS with {whom} ({error.reason or 'handshake failed'})")
        case ConnectionRefusedError():
            return Unreachable(f"{whom} refuses connections; is it running?")
        case OSError(errno=errno.EMFILE | errno.ENFILE | errno.EADDRNOTAVAIL):
            ours = Unreachable(f"this machine has no place for another connection ({error.strerror})")
            ours.unhealthy = False
            return ours
        case _:
            return Unreachable(f"no connection to {whom} ({error.strerror or 'none of its addresses answers'})")


def no_place(most: int, clock: str) -> TimedOut:
    """Return the error of a call that waited for one of our own connections. The upstream need not be at fault."""
    failure = TimedOut(
        f"all {most} connections to the upstream (max_connections) are in use: timeouts.{clock} has passed"
    )
    failure.clock, failure.unhealthy = clock, False
    return failure
