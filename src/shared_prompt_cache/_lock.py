"""The per-key lock, for get-compute-set by hand.

A held lock is a flight without a task: it occupies the place of its key, so nobody else computes it, and the rules
about cycles hold for it too. The block inside is a computation: what is set in it counts as begun when it was entered.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Self

from shared_prompt_cache._files.recorder import ACTIVE, CURRENT, Recorder, current
from shared_prompt_cache._flights import Flight, awaiting
from shared_prompt_cache.errors import CacheClosedError

if TYPE_CHECKING:
    from shared_prompt_cache.cache import SharedPromptCache


class Locks:
    """The queues of those who want a lock, one for each key that somebody wants; first come, first served."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    async def acquire(self, key: str, caller: Flight | None) -> None:
        """Wait for the turn of the caller; `caller` is the computation that waits, None if none does.

        Raises:
            RecursiveComputeError: If who holds the lock waits for `caller`.
        """
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue(key)
        queue.count += 1
        try:
            if caller is None:
                await queue.lock.acquire()
            else:
                with awaiting(caller, queue.turn):
                    await queue.lock.acquire()
        except BaseException:
            self._leave(queue)
            raise

    def held(self, holder: Flight) -> None:
        """Note that the turn is that of `holder`: who waits in the queue waits for it."""
        self._queues[holder.key].turn.awaits = {holder: 1}

    def release(self, key: str) -> None:
        """Let the next one in."""
        queue = self._queues[key]
        queue.turn.awaits = {}
        queue.lock.release()
        self._leave(queue)

    def _leave(self, queue: _Queue) -> None:
        queue.count -= 1
        if not queue.count:
            del self._queues[queue.turn.key]

    def __len__(self) -> int:
        return len(self._queues)


class _Queue:
    """Those who want one lock, the holder among them.

    Attributes:
        count: How many they are.
        turn: Stands for the holder of the moment, in the graph of what waits for what.
    """

    __slots__ = ("count", "lock", "turn")

    def __init__(self, key: str) -> None:
        self.lock = asyncio.Lock()
        self.count = 0
        self.turn = Flight(key, None, (), 0, None)


class Block:
    """What `lock()` and `batch()` share: from its beginning on, what is read is recorded, and invalidations count.

    Attributes:
        flight: Stands for the block: its revision, its recorder.
    """

    def __init__(self, cache: SharedPromptCache, key: str) -> None:
        self._cache = cache
        self._token: Token[Recorder | None] | None = None
        around = current()
        self._around = None if around is None else around.owner
        self.recorder = Recorder(cache._scopes, around)
        self.flight = Flight(key, None, (), cache._scopes.revision, self.recorder)
        self.recorder.owner = self.flight

    def begin(self) -> None:
        """Begin to record; from now on an invalidation wins over what the block sets."""
        self.flight.revision = self._cache._scopes.begin(self.flight)
        ACTIVE.add(self.recorder)
        if self._around is not None:
            self._around.awaits[self.flight] = 1  # it goes on when the block ends, so it waits for what that waits for
        self._token = CURRENT.set(self.recorder)

    def end(self) -> None:
        """End; may be called from another task than `begin`."""
        ACTIVE.discard(self.recorder)
        if self._around is not None:
            self._around.awaits.pop(self.flight, None)
        if self._token is not None:
            with suppress(ValueError):  # left by another task: the recorder is over anyway, and `ACTIVE` says so
                CURRENT.reset(self._token)
            self._token = None
        self._cache._scopes.end(self.flight)


class KeyLock:
    """The lock of one key, held inside `async with`."""

    def __init__(self, cache: SharedPromptCache, key: str) -> None:
        self._cache = cache
        self._key = key
        self._block: Block | None = None

    async def __aenter__(self) -> Self:
        cache, key = self._cache, self._key
        cache._enter()
        around = current()
        caller = None if around is None else around.owner
        locks = cache._locks
        await locks.acquire(key, caller)
        try:
            while (flight := cache._flights.table.get(key)) is not None:
                await cache._flights.wait(flight, caller=caller)
            # No await from here on: the place is free, and is taken.
            cache._enter()
            self._block = Block(cache, key)
            cache._flights.start(self._block.flight)
            self._block.begin()
            locks.held(self._block.flight)
        except BaseException:
            locks.release(key)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        block, self._block = self._block, None
        if block is None:
            raise CacheClosedError(
                f"the lock of {self._key!r} is not held; enter it with `async with cache.lock(key):`"
            )
        block.end()
        self._cache._flights.finish(block.flight, None, None)
        self._cache._flights.landed(block.flight)
        self._cache._locks.release(self._key)
