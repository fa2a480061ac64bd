"""Time as an argument: the clock of a cache, and times to live.

Two readings, never mixed: the monotonic one decides about expiry, the wall one is shown to people.
"""

import math
import time
from datetime import timedelta
from typing import Final, Protocol

from shared_prompt_cache._naming import shown
from shared_prompt_cache.errors import ConfigError, ConfigTypeError


class Clock(Protocol):
    """Where a cache takes its time from.

    Both are called without arguments, in any thread, and return seconds. `monotonic` never goes back; `wall` is the
    time since the epoch and may be set by anybody at any time.
    """

    def monotonic(self) -> float:
        """Return seconds from any fixed moment; never less than before."""
        ...

    def wall(self) -> float:
        """Return seconds since the epoch."""
        ...


class SystemClock:
    """The clock of the machine."""

    __slots__ = ()

    # The C functions themselves: a Python frame around them would be felt in every hit.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


def check_clock(clock: Clock | None) -> Clock:
    """Return a clock if it can be read, that of the machine for None."""
    if clock is None:
        return SystemClock()
    if isinstance(clock, type) or not all(callable(getattr(clock, name, None)) for name in ("monotonic", "wall")):
        raise ConfigTypeError(f"clock is {shown(clock)}; give one such as testing.ManualClock()", field="clock")
    return clock


class TTL:
    """Times to live, in seconds, for the three kinds of content that agent programs cache."""

    PROMPT: Final = 3600.0
    """One hour: generated prompts."""
    STABLE: Final = 86400.0
    """24 hours: content that rarely changes."""
    DYNAMIC: Final = 300.0
    """Five minutes: content that changes often."""


def seconds(
    value: object, field: str, *, zero: bool = False, infinite: bool = True, remedy: str = "give seconds or a timedelta"
) -> float:
    """Return a span of time in seconds.

    Args:
        value: Seconds as int or float, or a `timedelta`.
        field: The name of the option, for the error.
        zero: Whether 0 is allowed.
        infinite: Whether `math.inf` is allowed.
        remedy: The end of the error message.

    Raises:
        ConfigTypeError: If the value is no span of time at all.
        ConfigError: If it is negative, NaN, or zero or infinite where that is not allowed.
    """
    if isinstance(value, timedelta):
        span = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            span = float(value)
        except OverflowError:  # an int beyond all floats
            span = math.inf if value > 0 else -math.inf
    else:
        raise ConfigTypeError(f"{field} is {shown(value)}, which is no span of time; {remedy}", field=field)
    if math.isnan(span) or span < 0 or (span == 0 and not zero) or (span == math.inf and not infinite):
        bound = "0 or more" if zero else "more than 0"
        raise ConfigError(f"{field} is {shown(value)}; it must be {bound} seconds; {remedy}", field=field)
    return span
