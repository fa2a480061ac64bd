"""Upkeep: what has expired, and what is beyond the size limit, leaves the store in small steps.

Behind so many writes, since they are what makes it grow; and while there is nothing to be written, since rows expire
in a store that nobody writes to as well. It is the writer that does it: a step never delays more than what comes
while it goes on, and only what comes after it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from shared_prompt_cache._tier.breaker import Ask
from shared_prompt_cache.stores import Store

_AFTER: Final = 64  # writes
_AT_ONCE: Final = 256  # rows
_SOON: Final = 1.0  # seconds without a write, as long as there is more to be removed, and behind opening
_LATER: Final = 60.0  # the same once there is not


class Upkeep:
    """The upkeep of one store."""

    def __init__(self, store: Store, ask: Ask) -> None:
        self._store = store
        self._ask = ask
        self._unswept = 0
        self._pause = _SOON

    def clear(self) -> None:
        """Begin another life of the cache."""
        self._unswept, self._pause = 0, _SOON

    async def wrote(self, rows: int) -> None:
        """Note that so many were written, and sweep if it is time to."""
        self._unswept += rows
        if self._unswept >= _AFTER:
            await self._sweep()

    async def rest(self, wake: asyncio.Event) -> None:
        """Return when there is something to be written, or the store has been swept."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause):
                await wake.wait()
                return
        await self._sweep()

    async def _sweep(self) -> None:
        self._unswept = 0
        removed = await self._ask("sweep", lambda: self._store.sweep(_AT_ONCE))
        self._pause = _SOON if removed >= _AT_ONCE else _LATER
