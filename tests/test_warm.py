"""`cache.warm`: values computed ahead of their use, a few at a time, and a report of what became of them.

Seen to fail on planted bugs: one worker more than allowed, a failure that ends the others, a key that is taken twice.
"""

import asyncio
import logging

import pytest

from _support import Counted
from shared_prompt_cache import CacheClosedError, CacheKeyError, ConfigError, SharedPromptCache
from shared_prompt_cache.stores import MemoryStore
from shared_prompt_cache.testing import ChaosStore, wait_until

KEYS = [f"agent_{number}" for number in range(20)]


async def compute(key):
    return key.upper()


async def test_it_fills_what_is_not_there_and_leaves_the_rest_alone(cache):
    await cache.set_prompt("agent_3", "by hand")
    report = await cache.warm(KEYS, compute)
    assert (report.computed, report.present, dict(report.failures)) == (19, 1, {})
    assert (await cache.get_prompt("agent_3")).prompt == "by hand"
    assert (await cache.get_prompt("agent_4")).prompt == "AGENT_4"
    assert str(report) == "19 computed, 1 already there, 0 failed"


async def test_a_key_that_comes_twice_is_taken_once(cache):
    report = await cache.warm(["a", "b", "a"], compute)
    assert (report.computed, report.present) == (2, 0)


async def test_no_more_are_computed_at_once_than_allowed(cache):
    running, most = 0, 0

    async def counted(key):
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10):
            await asyncio.sleep(0)
        running -= 1
        return key

    await cache.warm(KEYS, counted, concurrency=3)
    assert most == 3


async def test_a_failure_is_reported_and_hurts_no_other(cache):
    async def fails_for_some(key):
        if key.endswith(("1", "2", "3")):
            raise LookupError(key)
        return key

    report = await cache.warm([*KEYS, ""], fails_for_some)
    assert (report.computed, report.present) == (14, 0)
    assert {type(error) for error in report.failures.values()} == {LookupError, CacheKeyError}
    assert str(report).splitlines()[0] == "14 computed, 0 already there, 7 failed"
    assert str(report).splitlines()[1] == "  'agent_1': LookupError: agent_1"
    assert str(report).splitlines()[-1] == "  and 2 more"


async def test_a_plain_function_fails_for_each_key_with_what_to_do(cache):
    report = await cache.warm(["a"], lambda key: key)
    assert "asyncio.to_thread" in str(report.failures["a"])


async def test_progress_is_told_after_each_key(cache):
    told, awaited = [], []

    async def later(done, total):
        awaited.append((done, total))

    await cache.warm(["a", "b", "b"], compute, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    await cache.warm(iter(["c"]), compute, on_progress=later)
    assert awaited == [(1, None)]


async def test_progress_that_fails_is_logged_once_and_hurts_nobody(cache, caplog):
    def broken(done, total):
        raise LookupError(done)

    with caplog.at_level(logging.WARNING, logger="shared_prompt_cache"):
        report = await cache.warm(KEYS, compute, on_progress=broken)
    assert report.computed == 20
    assert [record.message for record in caplog.records] == ["progress.failed cache='default'"]


async def test_options_are_those_of_a_computation_and_may_depend_on_the_key(cache):
    await cache.warm(KEYS, compute, agent=lambda key: key, tags=["warm"])
    assert await cache.invalidate_agent("agent_7") == 1
    assert await cache.invalidate_tag("warm") == 19


async def test_what_somebody_else_computes_is_waited_for(cache):
    gate = asyncio.Event()

    async def slow():
        await gate.wait()
        return "by somebody else"

    asking = asyncio.create_task(cache.get_or_compute("a", slow))
    await wait_until(lambda: cache.get_stats().computations == 1)
    warming = asyncio.create_task(cache.warm(["a"], compute))
    await wait_until(lambda: cache.get_stats().shared_computations == 1)
    gate.set()
    assert (await warming).present == 1
    assert await asking == "by somebody else"


async def test_cancelling_it_ends_what_it_has_begun(cache):
    gate, cancelled = asyncio.Event(), []

    async def slow(key):
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.append(key)
            raise

    warming = asyncio.create_task(cache.warm(KEYS, slow, concurrency=2))
    await wait_until(lambda: cache.get_stats().computations == 2)
    warming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await warming
    await wait_until(lambda: len(cancelled) == 2)


async def test_cancelling_it_while_progress_is_told_ends_it_too(cache):
    told = asyncio.Event()

    async def slow(done, total):
        told.set()
        await asyncio.Event().wait()

    warming = asyncio.create_task(cache.warm(KEYS, compute, concurrency=1, on_progress=slow))
    await told.wait()
    warming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await warming


async def test_keys_that_cannot_be_iterated_to_the_end_raise_when_what_was_begun_is_done(cache):
    def broken():
        yield "a"
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        await cache.warm(broken(), compute)
    assert (await cache.get_prompt("a")).prompt == "A"


async def test_many_keys_that_are_there_let_the_loop_breathe(cache):
    keys = [f"key {number}" for number in range(250)]
    await cache.warm(keys, compute)
    passes = 0

    async def count():
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await cache.warm(keys, compute, concurrency=1)
    counting.cancel()
    assert passes >= 2


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"keys": "agent"}, "keys"),
        ({"keys": 7}, "keys"),
        ({"compute": None}, "compute"),
        ({"most_used": -1}, "most_used"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "all"}, "concurrency"),
        ({"on_progress": 7}, "on_progress"),
        ({"ttl": 0}, "ttl"),
        ({"tll": 5}, "tll"),
        ({"colour": "red"}, "colour"),
        ({"tags": compute}, "tags"),
    ],
)
async def test_an_argument_that_cannot_be_used_is_named(cache, arguments, field):
    with pytest.raises(ConfigError) as caught:
        await cache.warm(**{"keys": KEYS, "compute": compute, **arguments})
    assert caught.value.field == field
    assert cache.get_stats().computations == 0


async def test_a_closed_cache_is_not_warmed():
    cache = SharedPromptCache()
    await cache.aclose()
    with pytest.raises(CacheClosedError):
        await cache.warm(KEYS, compute)


async def test_what_was_read_last_is_loaded_from_the_store_without_computing(open_cache):
    store = MemoryStore()
    async with SharedPromptCache(store=store) as before:
        for number in range(200):
            await before.set_prompt(f"key {number}", number)
        await before.flush()
    cache = await open_cache(store=store, max_size=100)
    report = await cache.warm(most_used=100)
    assert (report.loaded, report.computed, report.present) == (100, 0, 0)
    assert str(report) == "100 loaded, 0 computed, 0 already there, 0 failed"
    asked = cache.get_stats().store
    for number in range(199, 99, -1):
        assert (await cache.get_prompt(f"key {number}")).prompt == number
    assert cache.get_stats().store == asked


async def test_what_is_loaded_is_not_computed(open_cache):
    store = MemoryStore()
    async with SharedPromptCache(store=store) as before:
        await before.set_prompt("kept", "from the store")
        await before.flush()
    cache = await open_cache(store=store)
    report = await cache.warm(["kept", "new"], Counted("computed"), most_used=10)
    assert (report.loaded, report.computed, report.present) == (1, 1, 1)
    assert (await cache.get_prompt("kept")).prompt == "from the store"


@pytest.mark.parametrize("store", [None, ChaosStore(MemoryStore(), errors=1.0, seed=1)], ids=["none", "broken"])
async def test_without_a_store_in_use_nothing_is_loaded(open_cache, store):
    cache = await open_cache(store=store)
    assert (await cache.warm(most_used=10)).loaded == 0
