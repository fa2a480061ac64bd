"""An invalidation against what a cache without an index would do: look at every key."""

import asyncio
from itertools import count
from time import perf_counter

from _entries import PATTERN_FAMILIES, family, key_of, prompts, spare_agent
from _holds import quiet
from _measure import Findings, Size, interleaved, ratios, row

from shared_prompt_cache import SharedPromptCache


def invalidation(size: Size) -> Findings:
    """Measure invalidations of an agent and of a prefix."""
    return asyncio.run(_invalidation(size))


async def _invalidation(size: Size) -> Findings:
    rounds = min(size.invalidations, PATTERN_FAMILIES - 1)
    agents, families = count(), count()
    keys = [key_of(number) for number in range(size.entries)]
    async with SharedPromptCache(max_size=2 * size.entries, max_memory_mb=100_000) as cache:
        for key, name in prompts(size.entries, size.agents):
            await cache.set_prompt(key, "a prompt", agent=name)

        async def scan() -> float:
            prefix = f"{family(0)}_"
            started = perf_counter()
            found = [key for key in keys if key.startswith(prefix)]
            taken = perf_counter() - started
            assert len(found) == size.entries // 100
            return taken

        async def agent() -> float:
            name = spare_agent(next(agents), size.agents)
            started = perf_counter()
            dropped = await cache.invalidate_agent(name)
            taken = perf_counter() - started
            assert dropped == size.entries // size.agents, f"{dropped} entries of {name} dropped"
            await quiet()
            return taken

        async def pattern() -> float:
            name = f"{family(next(families))}_*"
            started = perf_counter()
            dropped = await cache.invalidate_pattern(name)
            taken = perf_counter() - started
            assert dropped == size.entries // 100, f"{dropped} entries like {name} dropped"
            await quiet()
            return taken

        seconds = await interleaved({"scan": scan, "agent": agent, "pattern": pattern}, rounds)
    scans = seconds["scan"]
    return Findings(
        rows=(
            row(
                f"invalidate_agent, {size.entries:,} entries / a scan of the keys",
                ratios(seconds["agent"], scans),
                target=0.01,
            ),
            row(
                f"invalidate_pattern, 1 % of {size.entries:,} / a scan of the keys",
                ratios(seconds["pattern"], scans),
                target=0.1,
            ),
        )
    )
