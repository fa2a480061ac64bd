"""The life of one cache: new, started, closed; and the event loop that it belongs to.

The first call that awaits binds the cache to its loop. Starting and closing run in tasks of their own, one for all who
ask; who is cancelled while it waits for one leaves it running.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from shared_prompt_cache._bus import Bus
from shared_prompt_cache._computation import Computations
from shared_prompt_cache._core.memory import Memory
from shared_prompt_cache._core.scopes import ALL, Scopes
from shared_prompt_cache._files.proof import Proofs
from shared_prompt_cache._flights import outlast
from shared_prompt_cache._invalidation import Invalidations
from shared_prompt_cache.errors import CacheClosedError, WrongLoopError

if TYPE_CHECKING:
    from shared_prompt_cache._files.watch import FileWatch
    from shared_prompt_cache._files.watchers import Watcher
    from shared_prompt_cache._tier.tier import Tier
    from shared_prompt_cache.rules import WatchRule


class Life:
    """Starts and closes the parts of a cache.

    Attributes:
        state: Where it is.
        loop: The loop that the cache belongs to, None before the first call and after the end.
        pid: The process in which that loop runs.
        needs_start: What makes it useless before `start`, in words; None: nothing does.
        watch: The watch over files, while it is started.

    Args:
        watching: Makes the watch.
    """

    def __init__(
        self,
        name: str,
        memory: Memory,
        computations: Computations,
        invalidations: Invalidations,
        proofs: Proofs,
        events: Bus,
        *,
        watching: Callable[[], FileWatch],
        needs_start: str | None,
        tier: Tier | None,
    ) -> None:
        self.state: Literal["new", "started", "closed"] = "new"
        self.loop: asyncio.AbstractEventLoop | None = None
        self.pid: int | None = None
        self.needs_start = needs_start
        self.watch: FileWatch | None = None
        self._name = name
        self._memory = memory
        self._computations = computations
        self._invalidations = invalidations
        self._proofs = proofs
        self._events = events
        self._watching = watching
        self._tier = tier
        self._starting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def enter(self, *, starting: bool = False) -> asyncio.AbstractEventLoop:
        """Check that the cache may be used here and now; the first call binds it to its loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # of a coroutine that goes on in a forked child: asyncio gives it no loop there
            if self.loop is None:
                raise
            raise WrongLoopError(
                f"the cache {self._name!r} was in use when this process was forked; make one in each process"
            ) from None
        if self.state == "closed" and not starting:
            raise CacheClosedError(f"the cache {self._name!r} is closed; use it in `async with cache:`, or start() it")
        if self.state == "new" and self.needs_start is not None and not starting:
            raise CacheClosedError(
                f"the cache {self._name!r} {self.needs_start} and is not started; use `async with cache:`"
            )
        if self.loop is None:
            self.loop, self.pid = loop, os.getpid()
        elif self.loop is not loop:
            raise WrongLoopError(
                f"the cache {self._name!r} belongs to another event loop; "
                "use one cache for each loop, or cache.blocking from other threads"
            )
        return loop

    async def start(self, close: Callable[[], Awaitable[None]]) -> None:
        """Start what has to be started; if that fails, or the caller is cancelled, call `close`."""
        if self._closing is not None:
            await outlast(self._closing)
        self.enter(starting=True)
        if self._starting is None:
            self.state = "started"
            self.watch = self._watching()
            self._starting = asyncio.ensure_future(self._start(self.watch))
        starting = self._starting
        try:
            await asyncio.wait((starting,))  # one start, for all who ask for it
            self.enter()  # it may have been closed meanwhile
            starting.result()
        except BaseException:
            await close()
            raise

    async def _start(self, watch: FileWatch) -> None:
        if self._tier is not None:
            await self._tier.open()
        await watch.start()
        if self._tier is not None:
            await self._tier.follow(watch)

    async def aclose(self) -> None:
        """End everything, and return when it has ended."""
        if self.state != "closed":
            self.enter(starting=True)
            self.state = "closed"
            self._closing = asyncio.ensure_future(self._close(asyncio.current_task()))
        if self._closing is not None:
            await outlast(self._closing)

    async def _close(self, caller: asyncio.Task[Any] | None) -> None:
        self._memory.invalidate((ALL,))  # who is woken by the end of a flight finds nothing stale
        await self._computations.flights.aclose(caller)
        self._computations.clear_failures()
        await self._invalidations.drain()
        watch, starting, self.watch, self._starting = self.watch, self._starting, None, None
        if watch is not None and starting is not None:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await watch.aclose()
        if self._tier is not None:
            await self._tier.aclose()  # behind all that may still invalidate
        await self._proofs.aclose()
        await self._events.aclose(caller)
        self.loop = self._closing = None


def watching(
    scopes: Scopes,
    proofs: Proofs,
    rules: Iterable[WatchRule],
    invalidations: Invalidations,
    watcher: Literal["auto", "watchfiles", "polling"] | Watcher,
    *,
    strict: bool,
    wall: Callable[[], float],
    ignored: Iterable[str],
) -> Callable[[], FileWatch]:
    """Return what makes the watch of a cache; it does not keep the cache alive, which may be forgotten unclosed."""

    def made() -> FileWatch:
        from shared_prompt_cache._files.watch import FileWatch  # noqa: PLC0415 - loaded when used

        return FileWatch(
            scopes,
            proofs,
            rules,
            watcher=watcher,
            select=invalidations.select_target,
            raised=invalidations.raise_targets,
            follow_dependencies=not strict,
            wall=wall,
            ignored=ignored,
        )

    return made
