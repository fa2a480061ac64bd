"""A store that fails and dawdles when it likes, or when a test tells it to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import Enum, auto
from typing import TypeVar

from shared_prompt_cache._naming import shown
from shared_prompt_cache.clock import Clock, seconds
from shared_prompt_cache.errors import ConfigError, ConfigTypeError, StoreError
from shared_prompt_cache.stores import (
    Journal,
    Lease,
    LeaseRequest,
    Notice,
    Store,
    StoredEntry,
    StoreStats,
    Swap,
    Write,
)
from shared_prompt_cache.stores._protocol import Denial

_T = TypeVar("_T")


class _Fault(Enum):
    NONE = auto()
    BEFORE = auto()
    AFTER = auto()


class ChaosStore:
    """A store around another one, whose calls fail and are late, at random but repeatable by the seed.

    A cache must give right answers on it all the time, and be in order again when the trouble is over:

    ```python
    store = ChaosStore(MemoryStore(), errors=0.3, seed=7)
    async with SharedPromptCache(store=store) as cache:
        ...                   # three calls in ten fail
        store.errors = 0.0    # from here on none
    ```

    A call that fails raises `StoreError`, half of the time before the inner store has heard of it and half of the time
    after it did what it was asked to do: who calls cannot tell. `open` fails only before, and `aclose` never.

    Args:
        store: The store that does the work.
        errors: What share of the calls fails, from 0 to 1.
        seed: Makes the same calls in the same order meet the same fate.
        delay: Up to how many seconds of the event loop each call is held up before it reaches the store; None: not.

    Attributes:
        errors: As given; may be set at any time.
        delay: As given; may be set at any time.
        calls: How many calls there were of each method.
        failed_before: How many calls failed without any effect.
        failed_after: How many failed although they had taken effect.
        delayed: How many were held up for a moment.
        held: How many came while it was paused.
    """

    def __init__(self, store: Store, *, errors: float = 0.3, seed: int, delay: float | None = None) -> None:
        if not isinstance(errors, int | float):
            raise ConfigTypeError(f"errors is {shown(errors)}; give a share from 0 to 1", field="errors")
        if not 0 <= errors <= 1:
            raise ConfigError(f"errors is {shown(errors)}; give a share from 0 to 1", field="errors")
        self.errors = errors
        self.delay = None if delay is None else seconds(delay, "delay", zero=True, infinite=False)
        self.calls: Counter[str] = Counter()
        self.failed_before = self.failed_after = self.delayed = self.held = 0
        self._store = store
        self._random = random.Random(seed)  # noqa: S311 - a test that can be repeated, no secret
        self._scripted: list[_Fault] = []
        self._gate: asyncio.Event | None = None  # there is one while it is paused
        self._in_full: set[asyncio.Task[list[int] | None]] = set()

    @property
    def path(self) -> str | None:
        """See `Store`."""
        return self._store.path

    @property
    def root(self) -> str | None:
        """See `Store`."""
        return self._store.root

    def pause(self) -> None:
        """Let every call wait that comes from now on, as one of a store that hangs; `aclose` does not."""
        if self._gate is None:
            self._gate = asyncio.Event()

    def resume(self) -> None:
        """Let those that wait go on."""
        if self._gate is not None:
            self._gate.set()
            self._gate = None

    def fail_next(self, count: int = 1, *, after: bool = False) -> None:
        """Let the next calls fail, whatever `errors` says.

        Args:
            count: How many.
            after: Whether they take effect before they fail.
        """
        self._scripted.extend([_Fault.AFTER if after else _Fault.BEFORE] * count)

    async def _call(self, operation: str, call: Callable[[], Awaitable[_T]], key: str | None = None) -> _T:
        self.calls[operation] += 1
        # Drawn before the first await: the order in which calls come decides, not that in which they go on.
        fault, delay = self._draw(operation), self._random.random()
        if self._gate is not None:
            self.held += 1
            await self._gate.wait()  # cancelled here, the store has not heard of the call
        if self.delay is not None:
            self.delayed += 1
            await asyncio.sleep(delay * self.delay)  # the same
        if fault is _Fault.BEFORE:
            self.failed_before += 1
            raise StoreError(f"{operation} fails on purpose, without effect", operation=operation, key=key)
        answer = await call()
        if fault is _Fault.AFTER:
            self.failed_after += 1
            raise StoreError(f"{operation} fails on purpose, though it took effect", operation=operation, key=key)
        return answer

    def _draw(self, operation: str) -> _Fault:
        drawn = self._random.random()
        if self._scripted:
            fault = self._scripted.pop(0)
        elif drawn >= self.errors:
            fault = _Fault.NONE
        else:
            fault = _Fault.BEFORE if drawn < self.errors / 2 else _Fault.AFTER
        # An open that failed must leave nothing open.
        return _Fault.BEFORE if fault is _Fault.AFTER and operation == "open" else fault

    async def _call_in_full(self, operation: str, call: Callable[[], Awaitable[list[int] | None]]) -> list[int] | None:
        """Call what a store carries out although its caller is cancelled."""
        task = asyncio.create_task(self._call(operation, call))
        self._in_full.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)  # cancelled here, the task goes on, and `aclose` waits for it

    def _ended(self, task: asyncio.Task[list[int] | None]) -> None:
        self._in_full.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left to whom it is raised

    async def open(self, clock: Clock, changed: Callable[[], None]) -> None:
        """See `Store`."""
        await self._call("open", lambda: self._store.open(clock, changed))

    async def aclose(self) -> None:
        """See `Store`; never fails or waits by chance, and lets those go on that wait."""
        self.calls["aclose"] += 1
        self.resume()
        if self._in_full:
            await asyncio.wait(self._in_full)  # cancelled here, it is still open, and may be closed again
        await self._store.aclose()

    async def get(self, key: str) -> StoredEntry | None:
        """See `Store`."""
        return await self._call("get", lambda: self._store.get(key), key)

    async def get_many(self, keys: Collection[str]) -> dict[str, StoredEntry]:
        """See `Store`."""
        return await self._call("get_many", lambda: self._store.get_many(keys))

    async def put_many(self, writes: Sequence[Write]) -> list[bool]:
        """See `Store`."""
        return await self._call("put_many", lambda: self._store.put_many(writes))

    async def delete(self, keys: Collection[str], *, checksums: Mapping[str, bytes] | None = None) -> int:
        """See `Store`."""
        return await self._call("delete", lambda: self._store.delete(keys, checksums=checksums))

    async def invalidate(self, notices: Sequence[Notice]) -> list[int]:
        """See `Store`."""
        return await self._call_in_full("invalidate", lambda: self._store.invalidate(notices)) or []

    async def journal(self, after: int) -> Journal:
        """See `Store`."""
        return await self._call("journal", lambda: self._store.journal(after))

    async def keys(self, *, most: int, after: str = "") -> list[str]:
        """See `Store`."""
        return await self._call("keys", lambda: self._store.keys(most=most, after=after))

    async def most_used(self, most: int) -> list[str]:
        """See `Store`."""
        return await self._call("most_used", lambda: self._store.most_used(most))

    async def acquire(self, requests: Sequence[LeaseRequest], holder: str, ttl: float) -> list[Lease | Denial]:
        """See `Store`."""
        return await self._call("acquire", lambda: self._store.acquire(requests, holder, ttl))

    async def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """See `Store`."""
        return await self._call("renew", lambda: self._store.renew(leases, ttl))

    async def release(self, leases: Sequence[Lease]) -> None:
        """See `Store`."""
        await self._call("release", lambda: self._store.release(leases))

    async def baseline(self, root: str) -> dict[str, bytes]:
        """See `Store`."""
        return await self._call("baseline", lambda: self._store.baseline(root))

    async def swap(self, swaps: Sequence[Swap], notices: Sequence[Notice]) -> list[int] | None:
        """See `Store`."""
        return await self._call_in_full("swap", lambda: self._store.swap(swaps, notices))

    async def sweep(self, most: int) -> int:
        """See `Store`."""
        return await self._call("sweep", lambda: self._store.sweep(most))

    async def stats(self) -> StoreStats:
        """See `Store`."""
        return await self._call("stats", self._store.stats)
