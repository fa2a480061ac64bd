"""Many at once: a stampede computes each key once, and a storm of cancellations leaves nothing behind.

The stampede has failed on a planted bug where a flight was started after an await; the storm on one where a cancelled
waiter stayed in the list of those who wait.
"""

import asyncio
import random

import anyio
import pytest

from _support import Counted, size
from shared_prompt_cache.testing import wait_until


async def test_a_stampede_computes_each_key_once(cache):
    gets, keys = size(2_000, 10_000), 100
    gate = asyncio.Event()
    computes = [Counted(f"prompt {number}", gate=gate) for number in range(keys)]
    order = [number % keys for number in range(gets)]
    random.Random(4).shuffle(order)
    callers = [asyncio.create_task(cache.get_or_compute(f"key-{n}", computes[n])) for n in order]
    await wait_until(lambda: cache.get_stats().shared_computations == gets - keys)
    gate.set()
    assert await asyncio.gather(*callers) == [f"prompt {n}" for n in order]
    assert [compute.began for compute in computes] == [1] * keys
    assert cache.get_stats().computations == keys


class Storm:
    """Operations on a few keys, each of which gives way to others a random number of times."""

    def __init__(self, cache, seed):
        self.cache, self.draw = cache, random.Random(seed)
        self.version = 0

    async def compute(self):
        version = self.version
        for _ in range(self.draw.randrange(6)):
            await asyncio.sleep(0)
        if self.draw.random() < 0.1:
            raise LookupError
        return version

    async def operation(self):
        key = f"engineer_{self.draw.randrange(5)}"
        kind = self.draw.randrange(8)
        if kind < 4:
            floor = self.version
            value = await self.cache.get_or_compute(key, self.compute, tags=["storm"])
            assert value >= floor
        elif kind == 4:
            async with self.cache.lock(key):
                await asyncio.sleep(0)
        elif kind == 5:
            async with self.cache.batch():
                await asyncio.sleep(0)
                await self.cache.set_prompt(f"other-{key}", "set")
        elif kind == 6:
            self.version += 1
            await self.cache.clear()
        else:
            await self.cache.get_prompt(key)


async def passes(count):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["asyncio", "anyio"])
@pytest.mark.parametrize("seed", range(2))
async def test_a_storm_of_cancellations_leaves_nothing(cache, how, seed):
    storm = Storm(cache, seed)
    operations, at_once = size(1_000, 10_000), 50

    async def under_a_scope(patience):
        with anyio.CancelScope() as scope:
            if patience is not None:
                asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(later(scope, patience)))
            await storm.operation()

    async def later(scope, patience):
        await passes(patience)
        scope.cancel()

    for _ in range(operations // at_once):
        if how == "asyncio":
            tasks = [asyncio.create_task(storm.operation()) for _ in range(at_once)]
            doomed = storm.draw.sample(tasks, at_once // 2)
            for task in doomed:
                await passes(storm.draw.randrange(3))
                task.cancel()
        else:
            tasks = [
                asyncio.create_task(under_a_scope(storm.draw.choice([None, storm.draw.randrange(8)])))
                for _ in range(at_once)
            ]
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError | LookupError), repr(outcome)
    await wait_until(lambda: not cache._flights.running)
    assert not cache._flights.table
    assert len(cache._locks) == 0
    assert await cache.get_or_compute("engineer_0", Counted("after the storm"), ttl=1) is not None
    async with asyncio.timeout(5), cache.lock("engineer_0"):
        pass
