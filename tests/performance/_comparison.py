"""The peers side by side: what a hit and a miss cost, and what comes out when calls meet.

Three questions: how many computations do many callers of one key cause, does an invalidation during a computation
leave the old value in the cache, and what becomes of the other callers when the first is cancelled?
"""

import asyncio
import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass

import _peers
from _measure import Findings, Size, chunk_of_calls, interleaved, new_keys, ratios, row, zipf
from _peers import ALL, BARE, OURS, Gated, Make

PROMPT = "p" * 1024
_PATIENCE = 5.0
_HEADING = (
    "cache",
    "hit",
    "miss",
    "computations",
    "old value after an invalidation",
    "first caller cancelled, the others",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Behaviour:
    """What came out.

    Attributes:
        computations: Of one key in a stampede.
        stale: Whether a caller after the invalidation got the value from before it; None: no answer in time.
        lost: How many of the other callers got no value.
        again: How many computations there were for them.
    """

    computations: int
    stale: bool | None
    lost: int
    again: int


def peers(size: Size) -> Findings:
    """Compare the caches that are installed."""
    return asyncio.run(_compare(size))


async def _compare(size: Size) -> Findings:
    callers = min(1000, size.waiters)
    installed = {name: make for name, make in ALL.items() if _peers.release(name) is not None}
    times = {name: await _times(make, size) for name, make in installed.items() if name != BARE}
    seen = {name: await _behaviour(make, callers) for name, make in installed.items()}
    rows = []
    for name, (hit, miss) in times.items():
        rows.append(row(f"hit: {name} / {BARE}", hit))
        rows.append(row(f"miss: {name} / {BARE}", miss))
    ours = seen[OURS]
    facts = (
        ("ours: computations of one key for many callers", ours.computations, 1),
        ("ours: old values after an invalidation", int(ours.stale is not False), 0),
        ("ours: callers lost with the first", ours.lost, 0),
    )
    rows.extend([row(what, [value], unit="count", target=target) for what, value, target in facts])
    heading = (*_HEADING[:3], f"{_HEADING[3]} for {callers:,} callers", *_HEADING[4:])
    lines = [_line(name, times.get(name, ([1.0], [1.0])), seen.get(name)) for name in ALL]
    return Findings(rows=tuple(rows), facts=(heading, *lines))


def _line(name: str, times: tuple[list[float], list[float]], found: _Behaviour | None) -> tuple[str, ...]:
    """Return the line of a cache in the table."""
    if found is None:
        return (name, *["not installed"] * (len(_HEADING) - 1))
    return (
        f"{name} {_peers.release(name)}".strip(),
        *[f"{statistics.median(each):.3g}" for each in times],
        f"{found.computations:,}",
        {True: "yes", False: "no", None: "no answer"}[found.stale],
        "fail with it" if found.lost else f"are served, {found.again} computation{'s' * (found.again != 1)}",
    )


async def _times(make: Make, size: Size) -> tuple[list[float], list[float]]:
    """Return the ratios of hits and of misses to those of the dict."""
    calls = max(10, size.calls // 5)
    keys = [f"engineer_{number:06d}" for number in range(min(1000, size.keys))]

    async def compute(_key: str) -> str:
        return PROMPT

    async with AsyncExitStack() as stack:
        caches = {"peer": await make(compute, stack), "dict": await ALL[BARE](compute, stack)}
        for cache in caches.values():
            for key in keys:
                await cache.call(key)
        hits = {name: chunk_of_calls(cache.call, zipf(keys, calls)) for name, cache in caches.items()}
        misses = {name: chunk_of_calls(cache.call, new_keys(calls)) for name, cache in caches.items()}
        hit, miss = await interleaved(hits, size.rounds), await interleaved(misses, size.rounds)
    return ratios(hit["peer"], hit["dict"]), ratios(miss["peer"], miss["dict"])


async def _behaviour(make: Make, callers: int) -> _Behaviour:
    lost, again = await _first_cancelled(make)
    return _Behaviour(computations=await _stampede(make, callers), stale=await _stale(make), lost=lost, again=again)


async def _stampede(make: Make, callers: int) -> int:
    """Return how many computations the callers of one key cause."""
    gated = Gated()
    async with AsyncExitStack() as stack:
        cache = await make(gated.compute, stack)
        calls = [asyncio.create_task(_call(cache, "k")) for _ in range(callers)]
        await _until(gated)
        gated.gate.set()
        await asyncio.wait_for(asyncio.gather(*calls), _PATIENCE * 4)
    return gated.computations


async def _stale(make: Make) -> bool | None:
    """Return whether the old value is served after an invalidation that came during its computation."""
    gated = Gated()
    async with AsyncExitStack() as stack:
        cache = await make(gated.compute, stack)
        first = asyncio.create_task(_call(cache, "k"))
        await _until(gated)
        gated.world = 2
        try:
            await asyncio.wait_for(cache.invalidate("k"), _PATIENCE)
            gated.gate.set()
            await asyncio.wait([first], timeout=_PATIENCE)
            return bool(await asyncio.wait_for(cache.call("k"), _PATIENCE) != "version 2")
        except TimeoutError:
            return None
        finally:
            gated.gate.set()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)


async def _first_cancelled(make: Make) -> tuple[int, int]:
    """Return how many of nine others got nothing, and how many computations there were."""
    gated = Gated()
    async with AsyncExitStack() as stack:
        cache = await make(gated.compute, stack)
        first = asyncio.create_task(_call(cache, "k"))
        await _until(gated)
        others = [asyncio.create_task(_call(cache, "k")) for _ in range(9)]
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        gated.gate.set()
        _, late = await asyncio.wait(others, timeout=_PATIENCE)
        for task in late:
            task.cancel()
        found = await asyncio.gather(first, *others, return_exceptions=True)
    return sum(value != "version 1" for value in found[1:]), gated.computations


async def _call(cache: _peers.Peer, key: str) -> object:
    return await cache.call(key)


async def _until(gated: Gated) -> None:
    """Wait until a computation has begun and all who were going to call have called."""
    async with asyncio.timeout(_PATIENCE):
        await gated.began.wait()
    await asyncio.sleep(0.01)
