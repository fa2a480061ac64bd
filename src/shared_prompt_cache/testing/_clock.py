"""A clock that stands still until a test moves it."""

from datetime import datetime, timedelta

from shared_prompt_cache.clock import seconds
from shared_prompt_cache.errors import ConfigError, ConfigTypeError


class ManualClock:
    """A clock for tests: it stands still until it is told to move.

    Entries expire when the test says so, without a sleep:

    ```python
    clock = ManualClock()
    async with SharedPromptCache(clock=clock) as cache:
        await cache.set_prompt("greeting", "hello", ttl=60)
        clock.advance(61)
        assert await cache.get_prompt("greeting") is None
    ```

    `advance` moves both readings, as time does. `set_wall` and `jump_wall` move only the wall clock, as an
    administrator, a time server or a laptop that wakes up does; nothing in memory may expire by that.

    Args:
        wall: The first reading of the wall clock, in seconds since the epoch, or an aware `datetime`.
        monotonic: The first monotonic reading, in seconds.
    """

    __slots__ = ("_monotonic", "_wall")

    def __init__(self, *, wall: float | datetime = 1_767_225_600.0, monotonic: float = 1_000.0) -> None:
        self._monotonic = seconds(monotonic, "monotonic", zero=True, infinite=False)
        self._wall = _moment(wall, "wall")

    def monotonic(self) -> float:
        """Return the reading that decides about expiry."""
        return self._monotonic

    def wall(self) -> float:
        """Return the seconds since the epoch that people are shown."""
        return self._wall

    def advance(self, span: float | timedelta) -> None:
        """Let time pass on both clocks.

        Args:
            span: Seconds or a `timedelta`, 0 or more: the monotonic reading never goes back.

        Raises:
            ConfigError: If it is negative or not finite.
        """
        passed = seconds(span, "span", zero=True, infinite=False, remedy="to turn the wall clock back use jump_wall()")
        self._monotonic += passed
        self._wall += passed

    def set_wall(self, at: float | datetime) -> None:
        """Set the wall clock, forward or back; the monotonic reading stays.

        Args:
            at: Seconds since the epoch, or an aware `datetime`.

        Raises:
            ConfigError: If it is no finite number, or a `datetime` without a time zone.
        """
        self._wall = _moment(at, "at")

    def jump_wall(self, by: float | timedelta) -> None:
        """Move the wall clock, forward or, by a negative span, back; the monotonic reading stays.

        Raises:
            ConfigError: If `by` is not finite.
        """
        self._wall += _finite(by.total_seconds() if isinstance(by, timedelta) else by, "by")

    def __repr__(self) -> str:
        return f"<ManualClock monotonic={self._monotonic} wall={self._wall}>"


def _moment(value: object, field: str) -> float:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigError(f"{field} is {value!r}, which is in no time zone; give tzinfo=timezone.utc", field=field)
        return value.timestamp()
    return _finite(value, field)


def _finite(value: object, field: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigTypeError(f"{field} is {value!r:.200}, which is no time; give seconds", field=field)
    if not abs(value) < 1e300:  # noqa: PLR2004 - NaN, infinity, and ints too large for a float
        raise ConfigError(f"{field} is not finite; give seconds", field=field)
    return float(value)
