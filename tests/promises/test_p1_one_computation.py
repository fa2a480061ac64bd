"""P1: at most one current computation of a key runs; its callers share its value, or its one failure.

Each of these has failed on a planted bug: a flight that is not found by those who come later (no `Flights.start`), a
failure that is kept without being asked for, a stale caller who starts a flight of his own.
"""

import asyncio
import traceback

import pytest

from _support import Counted
from shared_prompt_cache import Computed, RecursiveComputeError, SharedPromptCache
from shared_prompt_cache.testing import ManualClock, wait_until

CALLERS = 50


async def joined(cache, count):
    """Wait until `count` callers have joined computations."""
    await wait_until(lambda: cache.get_stats().shared_computations == count)


async def test_all_who_ask_meanwhile_share_one_computation(cache):
    gate = asyncio.Event()
    compute = Counted("prompt", gate=gate)
    callers = [asyncio.create_task(cache.get_or_compute("key", compute)) for _ in range(CALLERS)]
    await joined(cache, CALLERS - 1)
    gate.set()
    assert await asyncio.gather(*callers) == ["prompt"] * CALLERS
    assert compute.began == 1
    stats = cache.get_stats()
    assert (stats.misses, stats.computations, stats.shared_computations) == (1, 1, CALLERS - 1)


async def test_they_share_the_very_object(cache):
    gate = asyncio.Event()
    compute = Counted(dict, gate=gate)
    first, second = (asyncio.create_task(cache.get_or_compute("key", compute)) for _ in range(2))
    gate.set()
    assert await first is await second
    assert await cache.get_or_compute("key", compute) is await first


async def test_keys_are_computed_side_by_side(cache):
    gate = asyncio.Event()
    compute = Counted("prompt", gate=gate)
    callers = [asyncio.create_task(cache.get_or_compute(f"key-{n}", compute)) for n in range(CALLERS)]
    await wait_until(lambda: compute.began == CALLERS)
    gate.set()
    await asyncio.gather(*callers)


async def test_a_failure_reaches_all_who_wait_with_its_own_traceback(cache):
    gate = asyncio.Event()

    async def compute():
        await gate.wait()
        raise LookupError("no such memory")

    callers = [asyncio.create_task(cache.get_or_compute("key", compute)) for _ in range(CALLERS)]
    await joined(cache, CALLERS - 1)
    gate.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert all(error is errors[0] for error in errors)
    assert isinstance(errors[0], LookupError)
    assert "in compute" in "".join(traceback.format_exception(errors[0]))


async def test_a_traceback_does_not_grow_with_those_who_wait(cache):
    gate = asyncio.Event()
    compute = Counted(LookupError("no such memory"), gate=gate)
    callers = [asyncio.create_task(cache.get_or_compute("key", compute)) for _ in range(CALLERS)]
    await joined(cache, CALLERS - 1)
    gate.set()
    (error, *_) = await asyncio.gather(*callers, return_exceptions=True)
    assert len(traceback.extract_tb(error.__traceback__)) < 10


async def test_a_failure_is_not_cached(cache):
    compute = Counted(LookupError("not yet"))
    for _ in range(2):
        with pytest.raises(LookupError):
            await cache.get_or_compute("key", compute)
    assert compute.began == 2
    assert await cache.get_or_compute("key", Counted("prompt")) == "prompt"


async def test_a_failure_is_cached_for_as_long_as_asked_and_no_longer(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    compute = Counted(LookupError("not yet"))
    for _ in range(3):
        with pytest.raises(LookupError, match="not yet"):
            await cache.get_or_compute("key", compute, cache_errors_for=10)
    assert compute.began == 1
    clock.advance(10)
    with pytest.raises(LookupError):
        await cache.get_or_compute("key", compute, cache_errors_for=10)
    assert compute.began == 2
    await cache.invalidate("key")
    assert await cache.get_or_compute("key", Counted("prompt"), cache_errors_for=10) == "prompt"


@pytest.mark.parametrize("value", [None, "", False, 0, [], Ellipsis])
async def test_any_value_is_a_value(cache, value):
    compute = Counted([value])

    async def first():
        return (await compute())[0]

    for _ in range(2):
        assert await cache.get_or_compute("key", first) is value
    assert compute.began == 1
    cached = await cache.get_prompt("key")
    assert cached is not None
    assert cached.prompt is value


async def test_callers_who_are_served_stale_share_the_one_refresh(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    gate = asyncio.Event()
    await cache.get_or_compute("key", Counted("old"), ttl=10)
    clock.advance(10)
    refresh = Counted("new", gate=gate)
    for _ in range(CALLERS):
        assert await cache.get_or_compute("key", refresh, ttl=10, stale_for=60) == "old"
    waiting = asyncio.create_task(cache.get_or_compute("key", refresh, ttl=10))  # this one takes nothing stale
    await joined(cache, 1)
    gate.set()
    assert await waiting == "new"
    assert await cache.get_or_compute("key", refresh, stale_for=60) == "new"
    assert refresh.began == 1
    assert cache.get_stats().stale_served == CALLERS


async def test_a_refresh_ahead_is_one_computation_and_nobody_waits_for_it(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    gate = asyncio.Event()
    await cache.get_or_compute("key", Counted("old"), ttl=100)
    refresh = Counted("new", gate=gate)
    clock.advance(79)
    assert await cache.get_or_compute("key", refresh, ttl=100, refresh_ahead=0.8) == "old"
    assert cache.get_stats().computations == 1
    clock.advance(2)
    for _ in range(CALLERS):
        assert await cache.get_or_compute("key", refresh, ttl=100, refresh_ahead=0.8) == "old"
    gate.set()
    await wait_until(lambda: refresh.ended == 1)
    assert await cache.get_or_compute("key", refresh, ttl=100, refresh_ahead=0.8) == "new"
    assert refresh.began == 1


async def test_those_who_run_out_of_patience_leave_the_one_computation_behind(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    gate = asyncio.Event()
    await cache.get_or_compute("key", Counted("old"), ttl=10)
    clock.advance(10)
    refresh = Counted("new", gate=gate)
    callers = [
        asyncio.create_task(cache.get_or_compute("key", refresh, stale_for=60, soft_timeout=0.001))
        for _ in range(CALLERS)
    ]
    assert await asyncio.gather(*callers) == ["old"] * CALLERS
    gate.set()
    await wait_until(lambda: refresh.ended == 1)
    assert await cache.get_or_compute("key", refresh) == "new"
    assert refresh.began == 1


async def test_a_value_that_is_not_to_be_kept_still_reaches_all_who_wait(cache):
    gate = asyncio.Event()
    compute = Counted(lambda: Computed("prompt", keep=False), gate=gate)
    callers = [asyncio.create_task(cache.get_or_compute("key", compute)) for _ in range(CALLERS)]
    await joined(cache, CALLERS - 1)
    gate.set()
    assert await asyncio.gather(*callers) == ["prompt"] * CALLERS
    assert compute.began == 1
    assert await cache.get_prompt("key") is None


async def test_a_cycle_of_computations_is_an_error_and_no_standstill(cache):
    async def first():
        return await cache.get_or_compute("second", second)

    async def second():
        return await cache.get_or_compute("first", first)

    with pytest.raises(RecursiveComputeError, match=r"'second' -> 'first' -> 'second'|'first' -> 'second' -> 'first'"):
        await cache.get_or_compute("first", first)
    assert await cache.get_or_compute("first", Counted("prompt")) == "prompt"


async def test_caches_side_by_side_share_nothing():
    one, other = SharedPromptCache(name="one"), SharedPromptCache(name="other")
    compute = Counted("prompt")
    await one.get_or_compute("key", compute)
    await other.get_or_compute("key", compute)
    assert compute.began == 2
    await one.aclose()
    await other.aclose()
