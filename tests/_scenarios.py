"""Scenarios of things that happen at the same time, with an oracle of what P1, P2 and P3 allow.

The world is one number for each key, its version. A computation reads the version when it begins and returns it. An
invalidation raises the version first and then invalidates. So whoever asks after an invalidation has returned must not
get an older version than there was at that moment; nor may anything older be found in the cache.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from _ways import AGENT, PROJECT, TAG
from shared_prompt_cache import CacheClosedError, SharedPromptCache

LABELS: dict[str, Any] = {"agent": AGENT, "project": PROJECT, "tags": [TAG]}
Part = Callable[[], Awaitable[object]]


class World:
    """What is true, and what the cache is allowed to say of it.

    Attributes:
        broken: What went against a promise.
    """

    def __init__(self, seed: int, clock: Any) -> None:
        self.clock = clock
        self.cache = SharedPromptCache(max_size=50, clock=clock)
        self.draw = Random(seed)
        self.version = 0
        self.floor = 0  # nothing older may be returned to who asks now
        self.running: Counter[str] = Counter()
        self.broken: list[str] = []

    # What computations do.

    def compute(self, key: str, *, passes: int = 4, fails: float = 0.0) -> Part:
        """Return a computation of `key` that gives way a random number of times."""

        async def made() -> int:
            version = self.version
            self.running[key] += 1
            current = [f for f in self.cache._flights.running if f.key == key and f.task and f.detached is None]
            if len(current) > 1:
                self.broken.append(f"P1: {len(current)} computations of {key} may all be published")
            try:
                await self.pause(passes)
                if self.draw.random() < fails:
                    raise LookupError(key)
                return version
            finally:
                self.running[key] -= 1

        return made

    async def pause(self, passes: int = 4) -> None:
        """Give way to others up to `passes` times."""
        for _ in range(self.draw.randrange(passes)):
            await asyncio.sleep(0)

    # What callers do.

    async def ask(self, key: str, compute: Part | None = None, **options: Any) -> None:
        """Get or compute, and look whether the answer is allowed."""
        floor = self.floor
        try:
            value = await self.cache.get_or_compute(key, compute or self.compute(key), **{**LABELS, **options})
        except (LookupError, CacheClosedError):
            return
        self.check(key, value, floor)

    async def look(self, key: str) -> None:
        """Look what is cached."""
        floor = self.floor
        found = await self.cache.get_prompt(key)
        if found is not None:
            self.check(key, found.prompt, floor)

    def check(self, key: str, value: int, floor: int) -> None:
        """Note a value that is older than the caller may be given."""
        if value < floor:
            self.broken.append(f"P3: {key} is {value}, invalidated up to {floor}")

    async def invalidate(self, act: Callable[[SharedPromptCache], Awaitable[Any]]) -> None:
        """Change the world, then invalidate."""
        self.version += 1
        version = self.version
        await act(self.cache)
        self.floor = max(self.floor, version)

    async def cancelled(self, part: Awaitable[object], passes: int = 6) -> None:
        """Begin something and cancel it after a while; whatever comes of that is fine."""
        task = asyncio.ensure_future(part)
        await self.pause(passes)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and isinstance(error := task.exception(), AssertionError):
            raise error

    async def together(self, *parts: Awaitable[object]) -> None:
        """Let all of them happen at once; one that was cancelled by nobody is a broken promise."""
        for outcome in await asyncio.gather(*parts, return_exceptions=True):
            if isinstance(outcome, asyncio.CancelledError):
                self.broken.append("P2: a caller was cancelled that nobody had cancelled")
            elif isinstance(outcome, BaseException):
                raise outcome

    async def settle(self, keys: tuple[str, ...]) -> None:
        """At the end nothing is under way, and what is cached is not older than allowed."""
        for _ in range(200):
            if not self.cache._flights.running:
                break
            await asyncio.sleep(0)
        else:
            self.broken.append("a flight is left")
        if self.cache._flights.table or len(self.cache._locks):
            self.broken.append("a place or a lock is left")
        for key in keys:
            await self.look(key)
        await self.cache.aclose()
