"""What goes wrong on the way to an upstream, in words. No address is named: it may be nobody's business outside."""

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


def no_connection(error: OSError) -> Unreachable:
    """Say why there is no connection."""
    match error:
        case socket.gaierror():
            return Unreachable("the upstream's name cannot be resolved; check its base_url")
        case ssl.SSLCertVerificationError():
            why = error.verify_message
            return Unreachable(f"the upstream's certificate is not trusted ({why}); is its authority in SSL_CERT_FILE?")
        case ssl.SSLError():
            return Unreachable(f"no TLS with the upstream ({error.reason or 'handshake failed'})")
        case ConnectionRefusedError():
            return Unreachable("the upstream refuses connections; is it running?")
        case _:
            return Unreachable(f"no connection to the upstream ({error.strerror or 'none of its addresses answers'})")
