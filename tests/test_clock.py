"""Times: what is a span of it, and the clock of the machine."""

import math
import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.clock import TTL, Clock, SystemClock, seconds
from shared_prompt_cache.errors import ConfigError, ConfigTypeError


@pytest.mark.parametrize("clock", [SystemClock, object(), "now"])
def test_what_is_no_clock_is_refused(clock):
    with pytest.raises(ConfigTypeError, match=r"clock is .*; give one such as testing.ManualClock\(\)"):
        SharedPromptCache(clock=clock)


def test_the_system_clock_reads_the_machine():
    clock: Clock = SystemClock()
    for read, reference in ((clock.monotonic, time.monotonic), (clock.wall, time.time)):
        before = reference()
        assert before <= read() <= reference()


def test_the_three_times_to_live():
    assert (TTL.PROMPT, TTL.STABLE, TTL.DYNAMIC) == (3600.0, 86400.0, 300.0)


@given(st.integers(1, 10**15) | st.floats(0, exclude_min=True))
def test_seconds_are_seconds(span):
    assert seconds(span, "ttl") == span
    assert type(seconds(span, "ttl")) is float


@given(st.timedeltas(min_value=timedelta(microseconds=1)))
def test_timedeltas_are_seconds(span):
    assert seconds(span, "ttl") == span.total_seconds()


@pytest.mark.parametrize("span", [0, 0.0, timedelta(0)])
def test_nothing_is_a_span_only_where_it_may_be(span):
    assert seconds(span, "stale_for", zero=True) == 0.0
    with pytest.raises(ConfigError, match="must be more than 0 seconds"):
        seconds(span, "ttl")


@pytest.mark.parametrize("span", [math.inf, 10**400])
def test_for_ever_is_a_span_only_where_it_may_be(span):
    assert seconds(span, "ttl") == math.inf
    with pytest.raises(ConfigError):
        seconds(span, "timeout", infinite=False)


@pytest.mark.parametrize("span", [-1, -0.001, math.nan, -math.inf, timedelta(days=-1)])
def test_no_time_runs_backwards(span):
    with pytest.raises(ConfigError, match=r"timeout is .* must be 0 or more seconds; do this") as caught:
        seconds(span, "timeout", zero=True, remedy="do this")
    assert caught.value.field == "timeout"


@pytest.mark.parametrize("span", [None, "60", True, b"1", [1], 1j])
def test_what_is_no_span_of_time_is_a_type_error(span):
    with pytest.raises(ConfigTypeError, match=r"ttl is .* no span of time; give seconds or a timedelta") as caught:
        seconds(span, "ttl")
    assert caught.value.field == "ttl"
    assert isinstance(caught.value, TypeError | ValueError)
