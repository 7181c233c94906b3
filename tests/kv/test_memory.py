"""What memory promises beside the limits: that it stays small, and what it keeps of answers."""

from gateway.core.resources import Denied, Held, Meter
from gateway.kv.memory import ENTRY_BYTES, MemoryAnswers, MemoryLimiter
from tests.calls import FakeClock


async def test_meters_that_hold_nothing_are_forgotten() -> None:
    """A hundred thousand users who came once must not be remembered for ever."""
    clock = FakeClock()
    limiter = MemoryLimiter(clock)
    for user in range(1_000):
        meter = Meter(f"user:{user}", "tokens", 10)
        place = Meter(f"user:{user}", "concurrent", 10)
        held = await limiter.hold(f"call-{user}", [(meter, 1), (place, 1)])
        assert isinstance(held, Held)
        limiter.settle(held, None)
    assert len(limiter) == 1_000
    clock.passed_s = 61
    for call in range(200):
        await limiter.hold(f"later-{call}", [(Meter("key:team-a", "requests", 1_000), 1)])
    assert len(limiter) == 1


async def test_a_meter_in_use_keeps_no_idle_one_in_memory() -> None:
    """Whoever came first and still comes would else have all who came after it remembered."""
    clock = FakeClock()
    limiter = MemoryLimiter(clock)
    busy = Meter("key:busy", "requests", 1_000)
    for call, second in enumerate((0, 30, 60, 61, 62)):
        clock.passed_s = second
        await limiter.hold(f"busy-{call}", [(busy, 1)])
        if not second:
            await limiter.hold("once", [(Meter("key:once", "requests", 1), 1)])
    assert len(limiter) == 1


async def test_what_still_counts_is_not_forgotten() -> None:
    """A call made at the end of its second counts for as long as the whole second does, whoever else comes."""
    clock = FakeClock()
    limiter = MemoryLimiter(clock)
    once = [(Meter("key:once", "requests", 1), 1)]
    await limiter.hold("first", once)
    clock.passed_s = 60.9
    await limiter.hold("other", [(Meter("key:other", "requests", 1), 1)])
    assert isinstance(await limiter.hold("second", once), Denied)


async def test_a_denied_call_is_not_remembered() -> None:
    """Names that were only ever refused take no room."""
    limiter = MemoryLimiter(FakeClock())
    for user in range(100):
        await limiter.hold(f"call-{user}", [(Meter(f"user:{user}", "tokens", 10), 11)])
    assert len(limiter) == 0


async def test_answers_are_kept_for_their_time() -> None:
    clock = FakeClock()
    answers = MemoryAnswers(10_000, clock)
    answers.put("a", b"four", 60)
    clock.passed_s = 59.9
    assert await answers.get("a") == b"four"
    clock.passed_s = 60
    assert await answers.get("a") is None
    assert (len(answers), answers.bytes) == (0, 0)


async def test_the_answers_asked_for_longest_ago_make_room() -> None:
    """The bound is in bytes: a thousand long answers are not a thousand short ones."""
    answers = MemoryAnswers(3 * (ENTRY_BYTES + 101), FakeClock())
    for key in "abc":
        answers.put(key, bytes(100), 60)
    assert await answers.get("a")
    answers.put("d", bytes(100), 60)
    assert [key for key in "abcd" if await answers.get(key)] == ["a", "c", "d"]
    answers.resize(ENTRY_BYTES + 101)
    assert [key for key in "abcd" if await answers.get(key)] == ["d"]


async def test_an_answer_that_is_too_large_drives_no_other_out() -> None:
    answers = MemoryAnswers(1_000, FakeClock())
    answers.put("a", b"four", 60)
    answers.put("b", bytes(1_001), 60)
    assert await answers.get("a") == b"four"
    assert await answers.get("b") is None


async def test_an_answer_put_again_takes_its_room_once() -> None:
    answers = MemoryAnswers(10_000, FakeClock())
    for _ in range(100):
        answers.put("a", bytes(100), 60)
    assert answers.bytes == ENTRY_BYTES + 101
