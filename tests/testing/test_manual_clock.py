"""The manual clock moves when it is told to, and monotonic time never goes back."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_prompt_cache.clock import Clock
from shared_prompt_cache.errors import ConfigError, ConfigTypeError
from shared_prompt_cache.testing import ManualClock


def test_it_stands_still():
    clock: Clock = ManualClock(wall=50.0, monotonic=7.0)
    assert [clock.monotonic(), clock.monotonic(), clock.wall(), clock.wall()] == [7.0, 7.0, 50.0, 50.0]


def test_time_passes_on_both_clocks():
    clock = ManualClock(wall=50.0, monotonic=7.0)
    clock.advance(2.5)
    clock.advance(timedelta(minutes=1))
    clock.advance(0)
    assert (clock.monotonic(), clock.wall()) == (69.5, 112.5)
    assert repr(clock) == "<ManualClock monotonic=69.5 wall=112.5>"


def test_the_wall_clock_moves_alone():
    clock = ManualClock(wall=1000.0, monotonic=7.0)
    clock.set_wall(datetime(1970, 1, 1, tzinfo=UTC))
    assert clock.wall() == 0.0
    clock.jump_wall(timedelta(days=365))
    clock.jump_wall(-1)
    assert clock.wall() == 31_535_999.0
    assert clock.monotonic() == 7.0
    assert ManualClock(wall=datetime(2026, 1, 1, tzinfo=UTC)).wall() == ManualClock().wall()


@given(st.lists(st.tuples(st.sampled_from(["advance", "set_wall", "jump_wall"]), st.floats(-1e9, 1e9))))
def test_monotonic_time_never_goes_back(moves):
    clock = ManualClock()
    for move, seconds in moves:
        before = clock.monotonic()
        try:
            getattr(clock, move)(seconds)
        except ConfigError:
            assert move == "advance"
            assert seconds < 0
        assert clock.monotonic() >= before


@pytest.mark.parametrize("span", [-1, math.inf, math.nan, timedelta(seconds=-1)])
def test_no_span_that_time_cannot_take(span):
    clock = ManualClock()
    with pytest.raises(ConfigError, match="jump_wall"):
        clock.advance(span)


@pytest.mark.parametrize("wrong", [None, "soon", True, b"1"])
def test_what_is_no_time_is_a_type_error(wrong):
    clock = ManualClock()
    for move in (clock.advance, clock.set_wall, clock.jump_wall):
        with pytest.raises(ConfigTypeError):
            move(wrong)


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan, 10**400])
def test_the_wall_clock_stays_finite(wrong):
    clock = ManualClock()
    for move in (clock.set_wall, clock.jump_wall):
        with pytest.raises(ConfigError, match="not finite"):
            move(wrong)


def test_a_moment_without_a_time_zone_is_refused():
    with pytest.raises(ConfigError, match="in no time zone"):
        ManualClock(wall=datetime(2026, 1, 1))  # noqa: DTZ001
