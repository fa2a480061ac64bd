"""Hits and misses against the least there can be: a coroutine around a dict. And the stampede against a bare future."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count
from time import monotonic, perf_counter

from _measure import Chunk, Findings, Size, chunk_of_calls, interleaved, new_keys, ratios, row, unshared, zipf

from shared_prompt_cache import SharedPromptCache

PROMPT = "p" * 1024


def hits(size: Size) -> Findings:
    """Measure hits and misses."""
    return asyncio.run(_hits(size))


def stampede(size: Size) -> Findings:
    """Measure many callers of one key that is not there yet."""
    return asyncio.run(_stampede(size))


async def _compute() -> str:
    return PROMPT


async def _in_a_task(_key: str) -> str:
    return await asyncio.create_task(_compute())


async def _hits(size: Size) -> Findings:
    keys = [f"engineer_{number:06d}" for number in range(size.keys)]
    misses = size.calls * (size.rounds + 1)
    cache = SharedPromptCache(max_size=size.keys + misses, max_memory_mb=100_000)
    filling = SharedPromptCache(max_size=misses, max_memory_mb=100_000)
    for key in keys:
        await cache.set_prompt(key, PROMPT)
    hit = await interleaved(
        {
            "dict": chunk_of_calls(_dict_of(keys), zipf(keys, size.calls)),
            "get_prompt": chunk_of_calls(cache.get_prompt, zipf(keys, size.calls)),
            "get_or_compute": _chunk_of_get_or_compute(cache, zipf(keys, size.calls)),
            "lru": chunk_of_calls(_lru_of(keys), zipf(keys, size.calls)),
        },
        size.rounds,
    )
    miss = await interleaved(
        {
            "dict": chunk_of_calls(_dict_of(keys), zipf(keys, size.calls)),
            "get_or_compute": _chunk_of_get_or_compute(filling, new_keys(size.calls)),
            "task": chunk_of_calls(_in_a_task, new_keys(size.calls)),
        },
        size.rounds,
    )
    _expect(cache, misses=0, computations=0)
    _expect(filling, misses=misses, computations=misses)
    await cache.aclose()
    await filling.aclose()
    bare = hit["dict"]
    return Findings(
        rows=(
            row("hit: get_prompt / dict in a coroutine", ratios(hit["get_prompt"], bare), target=3.1),
            row("hit: get_or_compute / dict in a coroutine", ratios(hit["get_or_compute"], bare), target=3.5),
            row("hit: a bare LRU with expiry / dict in a coroutine", ratios(hit["lru"], bare)),
            row(
                "miss: get_or_compute / hit of a dict in a coroutine",
                ratios(miss["get_or_compute"], miss["dict"]),
                target=25,
            ),
            row("miss: a bare task around the computation / hit of a dict", ratios(miss["task"], miss["dict"])),
        )
    )


def _expect(cache: SharedPromptCache, *, misses: int, computations: int) -> None:
    stats = cache.get_stats()
    found = (stats.misses, stats.computations)
    assert found == (misses, computations), f"measured something else: {found} misses and computations"


def _dict_of(keys: Sequence[str]) -> Callable[[str], Awaitable[object]]:
    prompts = dict.fromkeys(keys, PROMPT)

    async def get(key: str) -> object:
        return prompts.get(key)

    return get


def _lru_of(keys: Sequence[str]) -> Callable[[str], Awaitable[object]]:
    deadline = monotonic() + 3600
    entries = OrderedDict((key, (PROMPT, deadline)) for key in keys)

    async def get(key: str) -> object:
        found = entries.get(key)
        if found is None or found[1] <= monotonic():
            return None
        entries.move_to_end(key)
        return found[0]

    return get


def _chunk_of_get_or_compute(cache: SharedPromptCache, batches: Iterator[Sequence[str]]) -> Chunk:
    get_or_compute = cache.get_or_compute

    async def chunk() -> float:
        keys = next(batches)
        started = perf_counter()
        for key in keys:
            await get_or_compute(key, _compute)
        return perf_counter() - started

    return unshared(chunk)


async def _stampede(size: Size) -> Findings:
    cache = SharedPromptCache()
    names = (f"architect_{number}" for number in count())
    computations: list[int] = []

    async def on_a_future() -> float:
        gate = asyncio.get_running_loop().create_future()

        async def wait() -> object:
            return await gate

        return await _released(wait, size.waiters, gate)

    async def on_a_key() -> float:
        gate = asyncio.get_running_loop().create_future()
        key = next(names)
        computed = 0

        async def compute() -> object:
            nonlocal computed
            computed += 1
            return await gate

        taken = await _released(lambda: cache.get_or_compute(key, compute), size.waiters, gate)
        computations.append(computed)
        return taken

    seconds = await interleaved({"future": on_a_future, "key": on_a_key}, size.stampedes)
    await cache.aclose()
    return Findings(
        rows=(
            row(
                f"stampede: {size.waiters:,} callers of one key / tasks on one future",
                ratios(seconds["key"], seconds["future"]),
                target=1.25,
            ),
            row("stampede: computations, at most", [max(computations)], unit="count", target=1),
        )
    )


async def _released(wait: Callable[[], Awaitable[object]], waiters: int, gate: asyncio.Future[object]) -> float:
    """Open the gate when all wait for it, and return the seconds from the first call to the last answer."""

    async def release() -> None:
        await asyncio.sleep(0)
        gate.set_result(PROMPT)

    started = perf_counter()
    found = await asyncio.gather(*[wait() for _ in range(waiters)], release())
    taken = perf_counter() - started
    assert all(value is PROMPT for value in found[:-1])
    return taken
