"""What all calls together may ask beyond themselves."""

from gateway.middleware.allowance import WINDOW_S, Allowance
from tests.standins import StillClock


def spent(allowance, most=1000):
    """Spend until there is nothing left; return how much there was."""
    return next(n for n in range(most) if not allowance.spend())


def test_extras_are_a_share_of_the_calls_and_a_floor():
    """Those who make few calls may still try again."""
    allowance = Allowance(StillClock(), 0.2, floor=3)
    assert spent(allowance) == 3
    for _ in range(50):
        allowance.earn()
    assert spent(allowance) == 10


def test_the_window_slides():
    """What was spent is free again when it is old, and so are the calls that allowed for it."""
    clock = StillClock()
    allowance = Allowance(clock, 0.5, floor=0)
    for second in range(WINDOW_S):
        clock.passed_s = second + 0.5
        allowance.earn()
        allowance.earn()
        assert spent(allowance) == 1
    clock.passed_s = WINDOW_S + 0.5
    assert spent(allowance) == 0, "two calls are gone, and one that was spent with them"
    allowance.earn()
    allowance.earn()
    assert spent(allowance) == 1


def test_a_clock_that_has_come_far_forgets_everything():
    """A machine may have slept for a day, or for a round number of windows."""
    for jump_s in (WINDOW_S, 3 * WINDOW_S, 86_400):
        clock = StillClock()
        allowance = Allowance(clock, 1.0, floor=1)
        for _ in range(5):
            allowance.earn()
        assert spent(allowance) == 6
        clock.passed_s += jump_s
        assert spent(allowance) == 1


def test_a_clock_that_begins_late_is_no_different():
    """A monotonic clock starts anywhere."""
    clock = StillClock()
    clock.passed_s = 1_234_567.8
    allowance = Allowance(clock, 1.0, floor=0)
    allowance.earn()
    clock.passed_s += WINDOW_S - 1
    assert spent(allowance) == 1
