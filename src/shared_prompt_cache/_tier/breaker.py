"""Whether the store is in use: a failure, or a call that takes too long, puts it out of use until it recovers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from shared_prompt_cache._logging import log
from shared_prompt_cache.errors import ConfigError, StoreError

T = TypeVar("T")
READING: Final = 1.0  # behind that it is better to compute
WRITING: Final = 5.0
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 30.0


class Away(Exception):  # noqa: N818 - a state of the store, which does not leave the tier
    """The store is out of use."""


class Ask(Protocol):
    """Asks the store; raises `Away`."""

    async def __call__(self, operation: str, call: Callable[[], Awaitable[T]]) -> T: ...


class Breaker:
    """Keeps trouble with the store away from the cache.

    Attributes:
        reason: Why the store is out of use, None while it is in use.
        since: Since when, by the wall clock.
        delay: After how many seconds it is tried again.
        reading: For how many seconds a read is waited for.
        writing: The same of all else.

    Args:
        name: The cache, for the log.
        wall: The wall clock.
        broken: Called when the store goes out of use.
    """

    def __init__(self, name: str, wall: Callable[[], float], broken: Callable[[], None]) -> None:
        self.reason: str | None = "it is not open"
        self.since: float | None = None
        self.delay = _FIRST_DELAY
        self.reading, self.writing = READING, WRITING
        self._name = name
        self._wall = wall
        self._broken = broken

    async def run(self, operation: str, call: Callable[[], Awaitable[T]], patience: float) -> T:
        """Return what the store answers.

        Raises:
            Away: If it failed, or took longer than `patience` seconds; it is out of use then.
            ConfigError: If it cannot be used as it is set up.
            StoreError: If it was to be opened, and that cannot be done until somebody changes something.
        """
        try:
            async with asyncio.timeout(patience):
                # Cancelled here, what was asked for is done in full or not at all: so stores promise.
                return await call()
        except TimeoutError as error:
            self.trip(f"{operation} took longer than {patience:g} s", error)
            raise Away from error
        except ConfigError:
            raise  # nothing gets better by going on
        except Exception as error:  # StoreError, or the bug of a store: no caller may feel either
            if operation == "open" and isinstance(error, StoreError) and error.final:
                raise
            self.trip(str(error) or type(error).__name__, error)
            raise Away from error

    def trip(self, reason: str, error: BaseException) -> None:
        """Put the store out of use; the first time in a row this is logged."""
        if self.since is None:
            self.since, self.delay = self._wall(), _FIRST_DELAY
            log(logging.WARNING, "store.failed", exc_info=error, cache=self._name, reason=reason)
        else:
            self.delay = min(2 * self.delay, _LONGEST_DELAY)
        self.reason = reason
        self._broken()

    def restore(self) -> None:
        """Put it in use again."""
        if self.since is not None:
            log(logging.WARNING, "store.recovered", cache=self._name, after=self._wall() - self.since)
        self.reason = self.since = None
