"""How long the loop is held by one turn of it: by each verb, with many entries.

Counted is the processor time of the loop's thread, less that of the garbage collector: what the machine gives to
others in between is not the cache's doing. Wall time and collector are in the notes. A table of the interpreter grows
in one piece, and in a large one this takes longer than anything else: those inserts are counted apart.
"""

import asyncio
import gc
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import perf_counter, thread_time
from types import TracebackType
from typing import Any, Self

from _entries import FAMILIES, PATTERN_FAMILIES, family, key_of, prompts, spare_agent
from _measure import Findings, Row, Size, row

from shared_prompt_cache import SharedPromptCache

_BUSY = 0.0002
_QUIET = 0.1
_LONGEST_WAIT = 60.0
_BARE = "insert into a bare OrderedDict"
_SMALL = 100_000
"""Up to here, growth must fit into the target."""
_GROWTHS = frozenset((2 << bits) // 3 + late for bits in range(3, 40) for late in (0, 1))
"""How many keys a dict holds when the next one makes it grow, or the one after that."""


class Monitor:
    """Measures every turn of the loop while it is entered, by a callback that schedules itself again and again.

    Attributes:
        growing: Set by the operation while it makes an insert at which a table grows.
        growth: The longest turn of those, in seconds of the thread, without the collector.
        longest: The longest of all other turns, likewise.
        wall: The longest turn by the clock.
        collector: The longest pause by the garbage collector.
    """

    def __init__(self) -> None:
        self.growing = False
        self.growth = self.longest = self.wall = self.collector = 0.0
        self._collected = self._collecting = 0.0
        self._thread = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        self._busy_at = perf_counter()
        self._quiet = asyncio.Event()

    def __enter__(self) -> Self:
        gc.callbacks.append(self._on_collector)
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.cancel()
        gc.callbacks.remove(self._on_collector)

    def _begin(self) -> None:
        self._handle = self._loop.call_soon(self._turn)
        self._collected = 0.0
        self._wall = perf_counter()
        self._thread_time = thread_time()

    def _turn(self) -> None:
        held = thread_time() - self._thread_time - self._collected
        now = perf_counter()
        if held > _BUSY:
            self._busy_at = now
        elif now - self._busy_at > _QUIET:
            self._quiet.set()
        if self.growing:
            self.growth = max(self.growth, held)
        else:
            self.longest = max(self.longest, held)
        self.wall = max(self.wall, now - self._wall)
        self._begin()

    def _on_collector(self, phase: str, _facts: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._collecting = thread_time()
        else:
            pause = thread_time() - self._collecting
            self._collected += pause
            self.collector = max(self.collector, pause)

    async def quiet(self) -> None:
        """Wait until nothing that lasts has happened for a while: what goes on behind a call is done."""
        self._busy_at = perf_counter()
        self._quiet.clear()
        async with asyncio.timeout(_LONGEST_WAIT):
            await self._quiet.wait()


async def quiet() -> None:
    """Wait until the loop is idle."""
    with Monitor() as monitor:
        await monitor.quiet()


def holds(size: Size) -> Findings:
    """Measure the longest hold of each verb."""
    rows: list[Row] = []
    for entries, passes in size.holds:
        seen = [asyncio.run(_pass(entries, size)) for _ in range(passes)]
        rows.extend(_rows(entries, seen))
    return Findings(rows=tuple(rows))


def _rows(entries: int, passes: list[dict[str, Monitor]]) -> list[Row]:
    """Return a row for each operation, and those of the growth."""
    rows: list[Row] = []
    for verb in passes[0]:
        seen = [monitors[verb] for monitors in passes]
        what = f"hold at {entries:,}: {verb}"
        wall, collector = max(monitor.wall for monitor in seen), max(monitor.collector for monitor in seen)
        note = f"wall {wall * 1000:.3g}, collector {collector * 1000:.3g}"
        longest = [monitor.longest for monitor in seen]
        growth = [monitor.growth for monitor in seen]
        if verb == _BARE or entries > _SMALL:
            if any(growth):
                rows.append(row(f"{what}, as a table grows", _milliseconds(growth), unit="ms"))
        else:
            longest = [max(monitor.longest, monitor.growth) for monitor in seen]
        if verb != _BARE:
            rows.append(row(what, _milliseconds(longest), unit="ms", target=5, note=note))
    return rows


def _milliseconds(seconds: list[float]) -> list[float]:
    return [1000 * each for each in seconds]


async def _pass(entries: int, size: Size) -> dict[str, Monitor]:
    """Let a table grow, be read, be invalidated in parts and be cleared, all of it watched."""
    seen: dict[str, Monitor] = {}
    async with SharedPromptCache(max_size=2 * entries, max_memory_mb=100_000) as cache:
        for verb, operation in _OPERATIONS.items():
            gc.collect()
            with Monitor() as monitor:
                await asyncio.sleep(0)
                await operation(cache, entries, size, monitor)
                monitor.growing = False
                await monitor.quiet()
            seen[verb] = monitor
    return seen


async def _insert_bare(_cache: SharedPromptCache, entries: int, size: Size, monitor: Monitor) -> None:
    bare: OrderedDict[str, object] = OrderedDict()
    for number, (key, agent) in enumerate(prompts(entries, size.agents)):
        monitor.growing = number in _GROWTHS
        bare[key] = agent
        await asyncio.sleep(0)


async def _set(cache: SharedPromptCache, entries: int, size: Size, monitor: Monitor) -> None:
    for number, (key, agent) in enumerate(prompts(entries, size.agents)):
        monitor.growing = number in _GROWTHS
        await cache.set_prompt(key, "a prompt", agent=agent)
        await asyncio.sleep(0)


async def _get(cache: SharedPromptCache, entries: int, _size: Size, _monitor: Monitor) -> None:
    for number in range(0, entries, max(1, entries // 10_000)):
        assert await cache.get_prompt(key_of(number)) is not None
        await asyncio.sleep(0)


async def _invalidate_agents(cache: SharedPromptCache, entries: int, size: Size, _monitor: Monitor) -> None:
    for number in range(size.invalidations):
        assert await cache.invalidate_agent(spare_agent(number, size.agents)) == entries // size.agents
        await asyncio.sleep(0)


async def _invalidate_patterns(cache: SharedPromptCache, entries: int, size: Size, _monitor: Monitor) -> None:
    for number in range(min(size.invalidations, PATTERN_FAMILIES)):
        assert await cache.invalidate_pattern(f"{family(number)}_*") == entries // FAMILIES
        await asyncio.sleep(0)


async def _clear(cache: SharedPromptCache, entries: int, _size: Size, _monitor: Monitor) -> None:
    assert entries // 4 < await cache.clear() < entries


_OPERATIONS: dict[str, Callable[[SharedPromptCache, int, Size, Monitor], Awaitable[None]]] = {
    _BARE: _insert_bare,
    "set_prompt": _set,
    "get_prompt": _get,
    "invalidate_agent": _invalidate_agents,
    "invalidate_pattern": _invalidate_patterns,
    "clear": _clear,
}
