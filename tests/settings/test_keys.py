"""Virtual keys: found by digest, one secret for one principal, refused when their time is over."""

import hashlib
import time

import pytest

from gateway.core.errors import Unauthorized
from gateway.core.principal import Principal
from gateway.settings.keys import VirtualKey, VirtualKeys, digest_of
from tests.standins import MORNING_S, StillClock

ALICE, BOB = Principal("alice"), Principal("bob")


def keys(*entries: VirtualKey, clock: StillClock | None = None) -> VirtualKeys:
    return VirtualKeys(entries, clock or StillClock())


def test_a_key_is_found_by_its_secret_and_nothing_else():
    """Near misses are strangers."""
    found = keys(VirtualKey(digest_of("sk-alice"), ALICE), VirtualKey(digest_of("sk-bob"), BOB))
    assert (found.find("sk-alice"), found.find("sk-bob"), len(found)) == (ALICE, BOB, 2)
    assert [found.find(secret) for secret in ("", "sk-alic", "sk-alice ", "SK-ALICE", "sk-älice", "\udc80")] == [
        None
    ] * 6


def test_a_key_may_be_written_as_its_digest_which_opens_nothing():
    """A configuration that leaks, with digests in it, lets nobody in (pass-the-hash)."""
    written = "sha256:" + hashlib.sha256(b"sk-alice").hexdigest()
    found = keys(VirtualKey(digest_of(written), ALICE))
    assert found.find("sk-alice") is ALICE
    assert found.find(written) is None
    assert found.find(written.removeprefix("sha256:")) is None


@pytest.mark.parametrize("written", ["", "sha256:", "sha256:abc", "sha256:" + "g" * 64, "sha256:" + "a" * 65])
def test_a_key_that_cannot_be_one_is_refused_when_it_is_read(written):
    """Above all the empty one, which an unset variable makes: it would let everybody in who sends nothing."""
    with pytest.raises(ValueError, match=r"environment variable|64 hexadecimal"):
        digest_of(written)


def test_an_expired_key_is_told_so_from_its_second_on():
    """Its owner learns what to do; a key without an end has none."""
    clock = StillClock()
    found = keys(VirtualKey(digest_of("sk-alice"), ALICE, MORNING_S + 10), VirtualKey(digest_of("b"), BOB), clock=clock)
    clock.passed_s = 9.9
    assert found.find("sk-alice") is ALICE
    clock.passed_s = 10
    with pytest.raises(Unauthorized, match="expired on 2026-11-18 at 11:06 UTC; ask for a new one"):
        found.find("sk-alice")
    clock.passed_s = 10**9
    assert found.find("b") is BOB


def test_two_keys_with_one_secret_are_refused():
    """Nobody could say whom a call is charged to."""
    with pytest.raises(ValueError, match='"alice" and "bob" have the same secret'):
        keys(VirtualKey(digest_of("same"), ALICE), VirtualKey(digest_of("same"), BOB))


def test_of_ten_thousand_keys_one_is_found_as_fast_as_of_ten():
    """Looking a key up is on every call's path: no walk over all keys."""

    def seconds(count: int) -> float:
        found = keys(*(VirtualKey(digest_of(f"sk-{n}"), ALICE) for n in range(count)))
        best = float("inf")
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(200):
                found.find("sk-nobody")
            best = min(best, time.perf_counter() - began)
        return best

    assert seconds(10_000) < 50 * seconds(10), "to look at each takes a thousand times as long"
