"""A cache that is not enabled: it computes every time, keeps nothing, and breaks no other promise.

Seen to fail on planted bugs: a computation that keeps its place, a set that is kept.
"""

import asyncio

import pytest

from _support import Counted
from _ways import KEY
from shared_prompt_cache import CacheClosedError, Computed, ComputeTimeout, ConfigError, SharedPromptCache
from shared_prompt_cache.testing import wait_until


@pytest.fixture
async def off():
    async with SharedPromptCache.from_config({"enabled": False}) as cache:
        yield cache


async def test_switched_off_it_computes_every_time_and_keeps_nothing(off):
    compute = Counted(lambda: Computed("prompt", ttl=60))
    for _ in range(3):
        assert await off.get_or_compute(KEY, compute, agent="engineer", stale_for=60, refresh_ahead=0.5) == "prompt"
    assert compute.began == 3
    await off.set_prompt("set", "prompt")
    async with off.batch() as batch:
        batch.set_prompt("batched", "prompt")
    async with off.lock("locked"):
        assert await off.get_or_compute("locked", compute) == "prompt"
        await off.set_prompt("locked", "prompt")
    report = await off.warm(["warmed"], compute)
    assert (report.computed, report.present) == (1, 0)
    assert await off.get_many([KEY, "set", "batched", "locked", "warmed"]) == {}
    stats = off.get_stats()
    assert (stats.entry_count, stats.sets, stats.hits, stats.computations) == (0, 0, 0, 5)
    assert off.explain(KEY).reason == "the cache is not enabled"


async def test_switched_off_each_caller_has_a_computation_of_its_own(off):
    gate = asyncio.Event()
    compute = Counted("prompt", gate=gate)
    callers = [asyncio.create_task(off.get_or_compute(KEY, compute)) for _ in range(3)]
    await wait_until(lambda: compute.began == 3)
    callers[0].cancel()
    gate.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == ["prompt", "prompt"]
    assert compute.cancelled == 1


async def test_switched_off_what_was_promised_about_failures_holds(off):
    failing = Counted(LookupError())
    for _ in range(2):
        with pytest.raises(LookupError):
            await off.get_or_compute(KEY, failing, cache_errors_for=60)
    assert failing.began == 2
    with pytest.raises(ComputeTimeout):
        await off.get_or_compute(KEY, Counted("prompt", gate=asyncio.Event()), hard_timeout=0.001)
    with pytest.raises(TypeError, match="plain function"):
        await off.get_or_compute(KEY, lambda: "prompt")
    with pytest.raises(ConfigError, match="ttl is 0"):
        await off.get_or_compute(KEY, failing, ttl=0)


async def test_switched_off_who_waits_is_told_when_it_is_closed(off):
    compute = Counted("never", gate=asyncio.Event())
    waiting = asyncio.create_task(off.get_or_compute(KEY, compute))
    await wait_until(lambda: compute.began == 1)
    await off.aclose()
    with pytest.raises(CacheClosedError):
        await waiting
