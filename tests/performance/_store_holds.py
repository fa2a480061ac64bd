"""How long the loop is held by what is done to a store of many rows, and what it takes to invalidate an agent there."""

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import perf_counter, time

from _entries import agent_of, key_of
from _holds import Monitor, quiet
from _measure import Row, Size, row

from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.testing import ManualClock

_LARGE = 450_000
_YEAR = 365 * 24 * 3600.0


async def store_holds(path: Path, size: Size) -> Sequence[Row]:
    """Measure the longest hold of each operation on the store at `path`, which is emptied by that."""
    seen: dict[str, Monitor] = {}

    async def watched(what: str, operation: Callable[[], Awaitable[object]]) -> None:
        gc.collect()
        with Monitor() as monitor:
            await asyncio.sleep(0)
            await operation()
            await monitor.quiet()
        seen[what] = monitor

    cache = SharedPromptCache(store=SQLiteStore(path), max_size=4 * size.writes)
    await watched("opening", cache.start)
    large = "".join(random.Random(2).choices("abcdefgh \n", k=_LARGE))
    await cache.set_prompt("large", large)
    await cache.set_prompt("large too", {"prompt": large, "sections": large.split()[:2000]})
    await cache.aclose()
    cache = SharedPromptCache(store=SQLiteStore(path), max_size=4 * size.writes)
    await cache.start()

    async def set_many() -> None:
        for number in range(size.writes):
            await cache.set_prompt(f"bulk_{number}", "p" * 2048, agent="engineer")
            await asyncio.sleep(0)
        await cache.flush()

    async def flush() -> None:
        for number in range(size.writes):
            await cache.set_prompt(f"flushed_{number}", "p" * 2048, agent="engineer")
            if number % 50 == 0:  # what is watched is the flush
                await asyncio.sleep(0)
        await cache.flush()

    await watched(f"set_prompt {size.writes:,} times, and the writer", set_many)
    await watched("flush", flush)
    many = [key_of(number) for number in range(0, size.rows, max(1, size.rows // size.writes))]
    await watched(f"get_many of {len(many):,}", lambda: cache.get_many(many))
    await watched("promotion of 450 kB of text", lambda: cache.get_prompt("large"))
    await watched("promotion of 450 kB of msgpack", lambda: cache.get_prompt("large too"))
    await watched(f"invalidation of {size.rows // 10:,} rows by tag", lambda: cache.invalidate_tag("tenth"))
    await watched(
        f"invalidation of {size.rows // 100:,} rows by pattern", lambda: cache.invalidate_pattern("engineer07_*")
    )
    rows = [await _of_agents(cache, size)]
    for number in range(size.writes // 2):
        await cache.set_prompt(f"closing_{number}", "p" * 2048)
    await watched("closing", cache.aclose)
    await _sweep(path, size, watched)
    return (
        *[
            row(
                f"hold at {size.rows:,} rows: {what}",
                [1000 * monitor.longest],
                unit="ms",
                target=5,
                note=f"wall {monitor.wall * 1000:.3g}, collector {monitor.collector * 1000:.3g}",
            )
            for what, monitor in seen.items()
        ],
        *rows,
    )


async def _of_agents(cache: SharedPromptCache, size: Size) -> Row:
    """Return what it costs to invalidate an agent; a tenth of its rows is gone already, or a little more."""
    taken = []
    for number in range(size.invalidations):
        agent = agent_of(number + 1, size.agents)
        started = perf_counter()
        await cache.invalidate_agent(agent)
        taken.append(1000 * (perf_counter() - started))
        await quiet()
    return row(f"invalidate_agent at {size.rows:,} rows, until it is durable", taken, unit="ms")


async def _sweep(
    path: Path, size: Size, watched: Callable[[str, Callable[[], Awaitable[object]]], Awaitable[None]]
) -> None:
    store, clock = SQLiteStore(path), ManualClock(wall=time() + _YEAR)
    await store.open(clock, lambda: None)

    async def sweep() -> None:
        for _ in range(size.invalidations):
            assert await store.sweep(256) > 0

    await watched("sweeps of 256 rows", sweep)
    await store.aclose()
