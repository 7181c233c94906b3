"""What an upstream's error means."""

import pytest

from gateway.core.errors import Busy, Rejected, TimedOut, Unreachable, UpstreamFailed
from gateway.providers.failures import MAX_MESSAGE, error_object, failure, retry_after


@pytest.mark.parametrize(
    ("status", "meaning", "retryable"),
    [
        (400, Rejected, False),
        (401, UpstreamFailed, False),
        (402, Rejected, False),
        (403, UpstreamFailed, False),
        (404, Rejected, False),
        (408, TimedOut, True),
        (422, Rejected, False),
        (429, Busy, True),
        (500, Unreachable, True),
        (502, Unreachable, True),
        (503, Busy, True),
        (504, Unreachable, True),
        (529, Busy, True),
    ],
)
def test_a_status_says_whether_another_attempt_may_do_better(status, meaning, retryable):
    """Retrying what cannot succeed wastes money; not retrying what can wastes the call."""
    error = failure(status, {}, "no")
    assert (type(error), error.retryable) == (meaning, retryable)


@pytest.mark.parametrize("status", [401, 403])
def test_our_own_refused_credential_is_not_the_clients(status):
    """A 401 would send the client looking for a fault in its own key; some upstreams repeat the key."""
    error = failure(status, {}, "invalid key sk-secret")
    assert (error.status, error.code) == (502, "upstream_auth_failed")
    assert "sk-secret" not in error.message


@pytest.mark.parametrize("spent", [{"code": "credit_balance_exhausted"}, {"kind": "insufficient_quota"}])
def test_no_waiting_mends_a_spent_budget(spent):
    """Such a 429 comes again for ever; SDKs would retry it by its status alone."""
    error = failure(429, {"retry-after": "1"}, "spent", **spent)
    assert isinstance(error, Rejected)
    assert (error.status, error.kind, error.retryable, error.retry_helps) == (429, "insufficient_quota", False, False)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 09:00:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT"}, None),
    ],
)
def test_when_to_ask_again_is_read_in_every_form_in_use(headers, seconds):
    """An unread, or misread, header makes us hammer an upstream or wait for ever."""
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "a\\n b", "code": 5}}', "a b"),
        (b'{"error": "plain"}', "plain"),
        (b'[{"error": {"message": "in a list"}}]', "in a list"),
        (b'{"message": "bare"}', "bare"),
        (b'{"detail": [{"loc": ["body", "n"]}]}', '[{"loc":["body","n"]}]'),
        (b'{"error": null}', ""),
        (b"[]", ""),
        (b"7", ""),
        (b"", ""),
        (b"no healthy upstream", "no healthy upstream"),
        (b"<!DOCTYPE html><title>502\nBad</title><p>long", "an HTML page: 502 Bad"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_any_body_gives_one_short_message(body, message):
    """Proxies answer with pages, frameworks with lists; the client reads one line."""
    assert error_object(body)["message"] == message


def test_a_message_has_an_end():
    """A stack trace of a megabyte is no message."""
    assert len(failure(500, {}, "x" * 10_000).message) == MAX_MESSAGE


def test_a_silent_error_still_says_something():
    """An empty message is the one thing that nobody can search for."""
    assert "500" in failure(500, {}, "").message
