"""P2: nobody pays for another's cancellation. The computation belongs to the cache, callers only wait for it.

Each of these has failed on a planted bug: a waiter that awaits the task itself, so that its cancellation cancels that;
a last waiter that leaves the computation running; an unlimited background.
"""

import asyncio

import anyio
import pytest

from _support import Counted
from shared_prompt_cache import CacheClosedError, ComputeCancelled, ComputeTimeout, SharedPromptCache
from shared_prompt_cache._flights import MOST_BACKGROUND
from shared_prompt_cache.testing import ManualClock, wait_until

CALLERS = 20


async def many_callers(cache, compute):
    callers = [asyncio.create_task(cache.get_or_compute("key", compute)) for _ in range(CALLERS)]
    await wait_until(lambda: cache.get_stats().shared_computations == CALLERS - 1)
    return callers


@pytest.mark.parametrize("cancelled", [[0], [7], [CALLERS - 1], [0, 3, 8], list(range(CALLERS - 1))])
async def test_a_cancelled_caller_disturbs_nobody(cache, cancelled):
    gate = asyncio.Event()
    compute = Counted("prompt", gate=gate)
    callers = await many_callers(cache, compute)
    for number in cancelled:
        callers[number].cancel()
    outcomes = await asyncio.gather(*(callers[n] for n in cancelled), return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    gate.set()
    others = [caller for number, caller in enumerate(callers) if number not in cancelled]
    assert await asyncio.gather(*others) == ["prompt"] * len(others)
    assert (compute.began, compute.cancelled) == (1, 0)
    assert await cache.get_or_compute("key", compute) == "prompt"
    assert compute.began == 1


async def test_the_last_caller_to_be_cancelled_ends_the_computation(cache):
    compute = Counted("prompt", gate=asyncio.Event())
    for caller in await many_callers(cache, compute):
        caller.cancel()
    await wait_until(lambda: compute.cancelled == 1)
    assert await cache.get_prompt("key") is None


async def test_who_comes_after_the_last_was_cancelled_starts_afresh(cache):
    compute = Counted("prompt", gate=asyncio.Event())
    callers = await many_callers(cache, compute)
    for caller in callers:
        caller.cancel()
    late = asyncio.create_task(cache.get_or_compute("key", Counted("fresh")))
    assert await late == "fresh"
    assert compute.cancelled == 1


async def test_cancel_scopes_of_anyio_count_as_cancelled_callers(cache):
    gate = asyncio.Event()
    compute = Counted("prompt", gate=gate)
    staying = asyncio.create_task(cache.get_or_compute("key", compute))
    with anyio.move_on_after(0.001) as scope:
        await cache.get_or_compute("key", compute)
    assert scope.cancelled_caught
    gate.set()
    assert await staying == "prompt"
    assert compute.began == 1


async def test_a_computation_that_cancels_itself_is_an_error_of_ours(cache):
    async def compute():
        raise asyncio.CancelledError

    with pytest.raises(ComputeCancelled, match="'key' was cancelled from inside") as caught:
        await cache.get_or_compute("key", compute)
    assert caught.value.key == "key"
    assert asyncio.current_task().cancelling() == 0


async def test_cancellation_is_no_failure_to_be_kept(cache):
    compute = Counted("prompt", gate=asyncio.Event())
    caller = asyncio.create_task(cache.get_or_compute("key", compute, cache_errors_for=60))
    await wait_until(lambda: compute.began == 1)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert await cache.get_or_compute("key", Counted("fresh"), cache_errors_for=60) == "fresh"


async def test_cancellation_is_no_reason_to_serve_something_stale(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    await cache.get_or_compute("key", Counted("old"), ttl=10)
    clock.advance(10)
    gate = asyncio.Event()
    caller = asyncio.create_task(
        cache.get_or_compute("key", Counted("new", gate=gate), stale_for=60, soft_timeout=3600)
    )
    await wait_until(lambda: cache.get_stats().computations == 2)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_hard_timeout_ends_the_computation_for_all_who_wait(cache):
    compute = Counted("prompt", gate=asyncio.Event())

    def call():
        return cache.get_or_compute("key", compute, hard_timeout=0.005)

    outcomes = await asyncio.gather(*(call() for _ in range(CALLERS)), return_exceptions=True)
    assert all(isinstance(outcome, ComputeTimeout) for outcome in outcomes)
    assert isinstance(outcomes[0], TimeoutError)
    assert (outcomes[0].key, outcomes[0].timeout) == ("key", 0.005)
    await wait_until(lambda: compute.cancelled == 1)
    assert await cache.get_or_compute("key", Counted("fresh")) == "fresh"


async def test_a_computation_that_ignores_its_hard_timeout_is_kept_nowhere(cache):
    gate, ended = asyncio.Event(), asyncio.Event()

    async def stubborn():
        try:
            await gate.wait()
        except asyncio.CancelledError:
            ended.set()
        return "too late"

    with pytest.raises(ComputeTimeout):
        await cache.get_or_compute("key", stubborn, hard_timeout=0.005)
    await ended.wait()
    await wait_until(lambda: not cache._flights.running)
    assert await cache.get_prompt("key") is None


async def test_who_was_served_stale_leaves_a_flight_behind_that_nobody_can_cancel(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    await cache.get_or_compute("key", Counted("old"), ttl=10)
    clock.advance(10)
    gate = asyncio.Event()
    refresh = Counted("new", gate=gate)
    caller = asyncio.create_task(cache.get_or_compute("key", refresh, stale_for=60))
    assert await caller == "old"
    waiting = asyncio.create_task(cache.get_or_compute("key", refresh))
    await wait_until(lambda: cache.get_stats().shared_computations == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gate.set()
    await wait_until(lambda: refresh.ended == 1)
    assert (await cache.get_prompt("key")).prompt == "new"


async def test_the_number_of_flights_that_are_left_behind_is_bounded(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    keys = [f"key-{number}" for number in range(2 * MOST_BACKGROUND)]
    for key in keys:
        await cache.get_or_compute(key, Counted("old"), ttl=10)
    clock.advance(10)
    gate = asyncio.Event()
    refresh = Counted("new", gate=gate)
    for key in keys:
        assert await cache.get_or_compute(key, refresh, stale_for=60) == "old"
    await wait_until(lambda: refresh.began == MOST_BACKGROUND)
    assert len(cache._flights.running) == MOST_BACKGROUND
    gate.set()
    await wait_until(lambda: not cache._flights.running)


async def test_closing_tells_those_who_wait():
    cache = SharedPromptCache()
    compute = Counted("prompt", gate=asyncio.Event())
    callers = await many_callers(cache, compute)
    await cache.aclose()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(outcome, CacheClosedError) for outcome in outcomes)
    assert compute.cancelled == 1
