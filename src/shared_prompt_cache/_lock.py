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
from shared_prompt_cache._flights import Flight, check_cycle
from shared_prompt_cache.errors import CacheClosedError

if TYPE_CHECKING:
    from shared_prompt_cache.cache import SharedPromptCache


class Locks:
    """The queues of those who want a lock, one for each key that somebody wants; first come, first served."""

    def __init__(self) -> None:
        self._queues: dict[str, tuple[asyncio.Lock, int]] = {}

    async def acquire(self, key: str) -> None:
        """Wait for the turn of the caller."""
        lock, count = self._queues.get(key) or (asyncio.Lock(), 0)
        self._queues[key] = (lock, count + 1)
        try:
            await lock.acquire()
        except BaseException:
            self._leave(key)
            raise

    def release(self, key: str) -> None:
        """Let the next one in."""
        if key in self._queues:
            self._queues[key][0].release()
            self._leave(key)

    def _leave(self, key: str) -> None:
        if key in self._queues:
            lock, count = self._queues[key]
            if count == 1:
                del self._queues[key]
            else:
                self._queues[key] = (lock, count - 1)

    def __len__(self) -> int:
        return len(self._queues)


class Block:
    """What `lock()` and `batch()` share: from its beginning on, what is read is recorded, and invalidations count.

    Attributes:
        flight: Stands for the block: its revision, its recorder.
    """

    def __init__(self, cache: SharedPromptCache, key: str) -> None:
        self._cache = cache
        self._token: Token[Recorder | None] | None = None
        around = current()
        self.recorder = Recorder(cache._scopes, around)
        self.flight = Flight(key, None, (), cache._scopes.revision, self.recorder)
        self.recorder.owner = self.flight

    def begin(self) -> None:
        """Begin to record; from now on an invalidation wins over what the block sets."""
        self.flight.revision = self._cache._scopes.begin(self.flight)
        ACTIVE.add(self.recorder)
        self._token = CURRENT.set(self.recorder)

    def end(self) -> None:
        """End; may be called from another task than `begin`."""
        ACTIVE.discard(self.recorder)
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
        holder = cache._flights.table.get(key)
        if holder is not None and caller is not None:
            check_cycle(caller, holder)
        locks = cache._locks
        await locks.acquire(key)
        try:
            while (flight := cache._flights.table.get(key)) is not None:
                await cache._flights.wait(flight, caller=caller)
            # No await from here on: the place is free, and is taken.
            cache._enter()
            self._block = Block(cache, key)
            cache._flights.start(self._block.flight)
            self._block.begin()
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
