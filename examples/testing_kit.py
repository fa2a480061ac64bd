"""Testing a program with a cache: time by hand, file events by hand, other schedules, bounded waiting.

Needs nothing but the package. Run it: python examples/testing_kit.py
"""

import asyncio
import tempfile
from functools import partial
from pathlib import Path

from shared_prompt_cache import SharedPromptCache, WatchRule
from shared_prompt_cache.testing import FakeWatcher, ManualClock, ShuffleLoop, wait_until


async def time_by_hand() -> None:
    """Let an entry expire without a sleep."""
    clock = ManualClock()
    async with SharedPromptCache(clock=clock) as cache:
        await cache.set_prompt("greeting", "hello", ttl=60)
        clock.advance(59)
        assert await cache.get_prompt("greeting") is not None
        clock.advance(1)
        assert await cache.get_prompt("greeting") is None


async def events_by_hand(memory: Path) -> None:
    """Report a change as a watcher would, when the test says so."""
    watcher = FakeWatcher()
    rule = WatchRule(memory.parent, "{agent}_memories.md", "agent")
    async with SharedPromptCache(watch=[rule], watcher=watcher) as cache:
        await cache.set_prompt("greeting", "hello", agent="engineer")
        memory.write_text("- use spaces\n", encoding="utf-8")
        assert await cache.get_prompt("greeting") is not None  # nobody has been told
        watcher.push(memory)
        await wait_until(lambda: cache.get_stats().entry_count == 0, what="the change reaches the cache")


async def two_callers() -> int:
    """Ask twice at once; return how often it was computed."""
    async with SharedPromptCache() as cache:

        async def compute() -> str:
            await asyncio.sleep(3600)  # virtual time: an hour takes no time
            return "hello"

        await asyncio.gather(*(cache.get_or_compute("greeting", compute) for _ in range(2)))
        return cache.get_stats().computations


asyncio.run(time_by_hand())
with tempfile.TemporaryDirectory() as folder:
    asyncio.run(events_by_hand(Path(folder) / "engineer_memories.md"))
for seed in range(50):
    with asyncio.Runner(loop_factory=partial(ShuffleLoop, seed)) as runner:
        assert runner.run(two_callers()) == 1
print("50 schedules, one computation in each")
