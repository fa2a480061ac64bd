"""Flights: at most one current computation of each key, owned by the cache; callers only wait.

Theory of operation: a flight occupies the place of its key in `Flights.table` while its value may still be published.
A caller who finds it joins: it waits on a future of its own, so that cancelling a caller cancels nothing else. The
last waiter to be cancelled cancels the flight, unless somebody who was answered already left it in the background.
An invalidated flight is detached: it leaves the place and goes on for those who wait, and its value is not kept.
A held `lock()` is a flight without a task: it occupies the place, and whoever wants it waits in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, groupby
from types import TracebackType
from typing import Any, Final

from shared_prompt_cache._core.entry import Labels
from shared_prompt_cache._core.scopes import Pairs, Scope
from shared_prompt_cache.errors import CacheClosedError, ComputeCancelled, RecursiveComputeError

MOST_BACKGROUND: Final = 64
"""How many flights may go on while nobody waits for them."""


class Flight:
    """One computation under way, or one held lock.

    Attributes:
        key: What is computed.
        labels: What the value will be filed under; None for a lock.
        noted: The scopes of the labels with the numbers they had before the computation began.
        revision: The revision at that moment.
        recorder: Collects what the computation reads (`_files.Recorder`).
        task: Runs it; None for a lock.
        background: Whether it goes on when nobody waits.
        detached: Why its value will not be kept, None while it may be.
        done: Whether it is over.
        value: The result, if it is done and `error` is None.
        error: The failure.
        found: Whether it did not compute, since the store had the value.
        seen: The checksum of the entry of the store that it has found useless; None: there was none.
        claim: The lease that it has, or waits for, of the caches that share the store (`_tier.leases.Claim`).
        expired_at: The moment at which the value counts as expired, if a soft invalidation has come by.
        awaits: The flights it waits for, with how often.
    """

    __slots__ = (
        "awaits",
        "background",
        "claim",
        "detached",
        "done",
        "error",
        "expired_at",
        "found",
        "key",
        "labels",
        "noted",
        "recorder",
        "revision",
        "seen",
        "task",
        "traceback",
        "value",
        "waiters",
    )

    def __init__(self, key: str, labels: Labels | None, noted: Pairs, revision: int, recorder: Any) -> None:
        self.key = key
        self.labels = labels
        self.noted = noted
        self.revision = revision
        self.recorder = recorder
        self.task: asyncio.Task[None] | None = None
        self.background = False
        self.detached: str | None = None
        self.found = False
        self.seen: bytes | None = None
        self.claim: Any = None
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None
        self.expired_at: float | None = None
        self.awaits: dict[Flight, int] = {}
        self.waiters: dict[asyncio.Future[bool], None] = {}

    def sources(self) -> list[Flight]:
        """Return this flight and all that it waits for, directly or through others."""
        found = {self: None}
        waiting = [self]
        while waiting:
            for source in waiting.pop().awaits:
                if source not in found:
                    found[source] = None
                    waiting.append(source)
        return list(found)

    def is_untouched(self, revision: int) -> bool:
        """Return whether it can be joined without a closer look: nothing has happened, and it has read nothing yet."""
        return (
            self.task is not None
            and self.revision == revision
            and not (self.recorder.reads or self.recorder.looks or self.awaits)
        )

    # What `Scopes.judge` asks.

    @property
    def agent(self) -> str | None:
        """The agent of its labels."""
        return None if self.labels is None else self.labels.agent

    @property
    def checked(self) -> int:
        """The revision it began at."""
        return self.revision

    @property
    def pairs(self) -> Iterable[tuple[Scope, int]]:
        """Its own scopes and those of what it consumed."""
        return chain(self.noted, self.recorder.pairs.items()) if self.recorder.pairs else self.noted

    @property
    def consumed(self) -> Iterable[tuple[str, bool]]:
        """The keys it consumed so far."""
        consumed: dict[str, bool] = self.recorder.consumed
        return consumed.items()

    @property
    def paths(self) -> Iterable[str]:
        """The files it read so far."""
        return [dependency.path for dependency in self.recorder.dependencies]

    def soften(self, at: float) -> None:
        """Let the value be born expired."""
        if self.expired_at is None or at < self.expired_at:
            self.expired_at = at

    def result(self) -> Any:
        """Return the value or raise the failure, with the traceback it was raised with."""
        if self.error is not None:
            raise self.error.with_traceback(self.traceback)
        return self.value


class Flights:
    """The flights of one cache.

    Attributes:
        table: The current flight of each key.
        running: All whose task or block is not over, detached and answered ones too.

    Args:
        ended: Called with each flight that is over.
    """

    def __init__(self, ended: Callable[[Flight], None]) -> None:
        self.table: dict[str, Flight] = {}
        self.running: dict[Flight, None] = {}
        self._ended = ended
        self._background = 0

    def start(self, flight: Flight) -> None:
        """Let `flight` occupy the place of its key."""
        self.table[flight.key] = flight
        self.running[flight] = None

    def detach(self, flight: Flight, reason: str) -> None:
        """Take `flight` from its place: nobody joins it any more and its value is not kept."""
        if flight.detached is None:
            flight.detached = reason
            if flight.claim is not None:
                flight.claim.end()  # so that the next computation, wherever it is, does not wait for this one
            if self.table.get(flight.key) is flight:
                del self.table[flight.key]

    def finish(self, flight: Flight, value: Any, error: BaseException | None) -> None:
        """End `flight`, free its place, and wake those who wait. No waiter is woken before the value is published."""
        if flight.done:
            return
        flight.done = True
        flight.value = value
        if error is not None:
            flight.error, flight.traceback = error, error.__traceback__
        if self.table.get(flight.key) is flight:
            del self.table[flight.key]
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_result(True)
        flight.waiters = {}

    def landed(self, flight: Flight) -> None:
        """Forget a flight whose task, or block, has nothing left to do."""
        if flight in self.running:
            del self.running[flight]
            self._background -= flight.background
            self._ended(flight)

    def cancel(self, flight: Flight) -> None:
        """Cancel the task of a flight, one that has not taken its first step included."""
        task = flight.task
        if task is not None and not task.done():
            task.add_done_callback(lambda _: self._cancelled(flight))
            task.cancel()

    def _cancelled(self, flight: Flight) -> None:
        message = f"the computation of {flight.key!r} was cancelled before it began"
        self.finish(flight, None, ComputeCancelled(message, key=flight.key))
        self.landed(flight)

    async def wait(
        self,
        flight: Flight,
        *,
        caller: Flight | None,
        timeout: float | None = None,  # noqa: ASYNC109 - it ends the waiting, not the flight
        background: bool = False,
    ) -> bool:
        """Wait until `flight` is over; return False if `timeout` seconds passed before.

        Args:
            flight: What to wait for.
            caller: The computation that waits, None if none does.
            timeout: How long to wait; None: for ever.
            background: Whether the flight goes on after a timeout.

        Raises:
            RecursiveComputeError: If `flight` waits for `caller`, directly or through others.
        """
        if flight.done:
            return True
        loop = asyncio.get_running_loop()
        waiter = self.queue(loop, flight)
        timer = None if timeout is None else loop.call_later(timeout, _give_up, waiter)
        try:
            if caller is None:
                in_time = await waiter
            else:
                with awaiting(caller, flight):
                    in_time = await waiter
        except BaseException:
            # A cancelled waiter, or one that would wait in a circle, leaves; the others are not disturbed.
            self.leave(flight, waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not in_time:
            if background and self.may_leave_behind():
                self.leave_behind(flight)
            self.leave(flight, waiter)
        return in_time

    @staticmethod
    def queue(loop: asyncio.AbstractEventLoop, flight: Flight) -> asyncio.Future[bool]:
        """Return a future that is done when `flight`, which is not over, is; who gives it up has to `leave`."""
        waiter: asyncio.Future[bool] = loop.create_future()
        flight.waiters[waiter] = None
        return waiter

    def may_leave_behind(self) -> bool:
        """Return whether one more flight may go on with nobody waiting."""
        return self._background < MOST_BACKGROUND

    def leave_behind(self, flight: Flight) -> None:
        """Let `flight` go on although nobody waits."""
        if not flight.background and flight in self.running:
            flight.background = True
            self._background += 1

    def leave(self, flight: Flight, waiter: asyncio.Future[bool]) -> None:
        """Let a caller go who does not wait any more; the last one takes the flight along."""
        flight.waiters.pop(waiter, None)
        if not flight.waiters and not flight.background and not flight.done and flight.task is not None:
            # Nobody is left to take the value. It leaves the place first: a caller who comes now starts afresh.
            self.detach(flight, "nobody waited for it any more")
            self.cancel(flight)

    async def aclose(self, caller: asyncio.Task[Any] | None) -> None:
        """End all flights; those who wait get `CacheClosedError`.

        Args:
            caller: Who closes. If that is a computation it is not waited for.
        """
        flights = list(self.running)
        for flight in flights:
            self.detach(flight, "the cache was closed")
            self.finish(
                flight,
                None,
                CacheClosedError(f"the cache was closed while {flight.key!r} was computed; start it again"),
            )
        others = [flight for flight in flights if flight.task is not None and flight.task is not caller]
        for flight in others:
            self.cancel(flight)
        await asyncio.gather(*(flight.task for flight in others if flight.task is not None), return_exceptions=True)


async def outlast(task: asyncio.Task[None]) -> None:
    """Wait until `task` is over, even if the caller is cancelled meanwhile, once or again and again."""
    cancelled = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


def _give_up(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


@contextmanager
def awaiting(caller: Flight, flight: Flight) -> Iterator[None]:
    """Record that `caller` waits for `flight`, after a look whether `flight` waits for `caller`."""
    _check_cycle(caller, flight)
    caller.awaits[flight] = caller.awaits.get(flight, 0) + 1
    try:
        yield
    finally:
        caller.awaits[flight] -= 1
        if not caller.awaits[flight]:
            del caller.awaits[flight]


def _check_cycle(caller: Flight, flight: Flight) -> None:
    """Refuse that `caller` waits for `flight` if that waits for `caller`, directly or through others.

    Raises:
        RecursiveComputeError: It names the keys of the cycle.
    """
    cycle = _path(flight, caller)
    if cycle is not None:
        # A lock and the queue in front of it are one place.
        keys = tuple([key for key, _ in groupby((caller.key, *(link.key for link in cycle)))])
        keys = keys if len(keys) > 1 else keys * 2
        raise RecursiveComputeError(
            "these computations would wait for each other for ever: "
            + " -> ".join(map(repr, keys))
            + "; let one of them compute its part itself, or under another key",
            cycle=keys,
        )


def _path(start: Flight, goal: Flight) -> list[Flight] | None:
    """Return the flights from `start` to `goal` along what waits for what, None if there is no way."""
    came_from: dict[Flight, Flight | None] = {start: None}
    stack = [start]
    while stack:
        flight = stack.pop()
        if flight is goal:
            path: list[Flight] = []
            step: Flight | None = flight
            while step is not None:
                path.append(step)
                step = came_from[step]
            return path[::-1]
        for following in flight.awaits:
            if following not in came_from:
                came_from[following] = flight
                stack.append(following)
    return None
