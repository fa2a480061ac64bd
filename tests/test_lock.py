"""The per-key lock: get-compute-set by hand, and everything that could wait in a circle through it."""

import asyncio

import pytest

from _support import Counted
from shared_prompt_cache import CacheClosedError, CacheKeyError, RecursiveComputeError, SharedPromptCache
from shared_prompt_cache.testing import wait_until


async def test_one_at_a_time_in_the_order_of_asking(cache):
    order = []

    async def hold(number):
        async with cache.lock("key"):
            order.append(number)
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(hold(number) for number in range(5)))
    assert order == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(cache._locks) == 0


async def test_other_keys_are_not_held_up(cache):
    async with cache.lock("key"), cache.lock("another"):
        assert await cache.get_or_compute("a third", Counted("prompt")) == "prompt"


async def test_while_it_is_held_nobody_computes_the_key(cache):
    compute = Counted("computed")
    held = asyncio.Event()

    async def ask():
        await held.wait()
        return await cache.get_or_compute("key", compute)

    asking = asyncio.create_task(ask())
    async with cache.lock("key"):
        held.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await cache.get_prompt("key") is None
        await cache.set_prompt("key", "set by hand")
    assert await asking == "set by hand"
    assert compute.began == 0


async def test_it_waits_for_a_computation_that_is_under_way(cache):
    gate = asyncio.Event()
    computing = asyncio.create_task(cache.get_or_compute("key", Counted("computed", gate=gate)))
    await wait_until(lambda: cache.get_stats().computations == 1)

    async def hold():
        async with cache.lock("key"):
            return await cache.get_prompt("key")

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    gate.set()
    assert (await holding).prompt == "computed"
    await computing


async def test_cancelled_while_waiting_or_holding_it_passes_on(cache):
    async def hold():
        async with cache.lock("key"):
            await asyncio.Event().wait()

    holder, waiter = asyncio.create_task(hold()), asyncio.create_task(hold())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.sleep(0)
    holder.cancel()
    await asyncio.gather(holder, waiter, return_exceptions=True)
    async with asyncio.timeout(5), cache.lock("key"):
        pass
    assert len(cache._locks) == 0


async def test_an_exception_inside_lets_it_go(cache):
    with pytest.raises(LookupError):
        async with cache.lock("key"):
            raise LookupError
    assert await cache.get_or_compute("key", Counted("prompt")) == "prompt"


async def test_it_may_be_entered_and_left_by_different_tasks(cache):
    lock = cache.lock("key")
    await asyncio.create_task(lock.__aenter__())
    await asyncio.create_task(lock.__aexit__(None, None, None))
    async with asyncio.timeout(5), cache.lock("key"):
        pass


async def test_leaving_what_is_not_held_is_an_error(cache):
    lock = cache.lock("key")
    with pytest.raises(CacheClosedError, match="is not held"):
        await lock.__aexit__(None, None, None)


async def test_a_key_is_checked_at_once(cache):
    with pytest.raises(CacheKeyError):
        cache.lock("")


async def test_closing_ends_the_waiting_for_it():
    cache = SharedPromptCache()
    entered = asyncio.Event()

    async def hold():
        async with cache.lock("key"):
            entered.set()
            await asyncio.sleep(0.01)

    async def ask():
        return await cache.get_or_compute("key", Counted("prompt"))

    holding, asking = asyncio.create_task(hold()), asyncio.create_task(ask())
    await entered.wait()
    await asyncio.sleep(0)
    await cache.aclose()
    with pytest.raises(CacheClosedError):
        await asking
    await holding


# Circles. Each of these was a standstill before the block inside a computation took part in the graph of waits.


async def test_the_lock_is_not_reentrant(cache):
    async with cache.lock("key"):
        with pytest.raises(RecursiveComputeError, match="'key' -> 'key'"):
            async with cache.lock("key"):
                pass
        with pytest.raises(RecursiveComputeError):
            await cache.get_or_compute("key", Counted("prompt"))


async def test_a_computation_that_wants_the_lock_of_who_waits_for_it(cache):
    async def compute():
        async with cache.lock("x"):
            return "prompt"

    async with cache.lock("x"):
        with pytest.raises(RecursiveComputeError, match="'a' -> 'x' -> 'a'"):
            await cache.get_or_compute("a", compute)


@pytest.mark.parametrize("block", ["lock", "batch"])
async def test_a_circle_through_a_block_inside_a_computation(cache, block):
    async def first():
        async with cache.lock("x") if block == "lock" else cache.batch():
            return await cache.get_or_compute("second", second)

    async def second():
        return await cache.get_or_compute("first", first)

    async with asyncio.timeout(5):
        with pytest.raises(RecursiveComputeError, match=r"'second' -> 'first' -> '.*' -> 'second'"):
            await cache.get_or_compute("first", first)


async def test_a_circle_through_the_queue_in_front_of_a_lock(cache):
    held, wants = asyncio.Event(), asyncio.Event()

    async def compute():
        wants.set()
        async with cache.lock("x"):
            return "prompt"

    async def ask():
        await held.wait()
        return await cache.get_or_compute("a", compute)

    asking = asyncio.create_task(ask())  # it knows nothing of who holds the lock
    async with cache.lock("x"):
        held.set()
        await wants.wait()
        async with asyncio.timeout(5):
            with pytest.raises(RecursiveComputeError, match="'x' -> 'a' -> 'x'"):
                await cache.get_or_compute("a", compute)
    assert await asking == "prompt"
