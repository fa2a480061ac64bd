"""`ChaosStore`: faults by the seed or by script, before or after the effect, and never one that a store may not have.

Seen to fail on planted bugs: a fault drawn when the call goes on instead of when it comes, one after the effect that is
before it, an `open` that fails though it took effect, a scripted fault that is drawn in place of none, an `aclose` that
waits for `resume`, and an invalidation that its cancelled caller takes away.
"""

import asyncio
import gc
import math
from collections import Counter

import pytest

from shared_prompt_cache import ConfigError, StoreError
from shared_prompt_cache.stores import LeaseRequest, MemoryStore, Notice, Selection, Stamp, StoredEntry, Swap, Write
from shared_prompt_cache.testing import ChaosStore, ManualClock, wait_until

EVERYTHING = [Notice("a", 1, Selection(names=("all",)), b"")]


def write(key):
    return Write(StoredEntry(key, "str", b"payload", b"head", b"sum"), ("all",), Stamp(0, "a", 0), math.inf)


@pytest.fixture
async def inside():
    """Return the store that does the work, as another cache sees it."""
    store = MemoryStore()
    await store.open(ManualClock(), lambda: None)
    yield store
    await store.aclose()


@pytest.fixture
async def open_chaos(inside):
    stores = []

    async def opened(**options):
        store = ChaosStore(inside.connect(), **{"errors": 0, "seed": 1, **options})
        stores.append(store)
        store.errors, errors = 0, store.errors
        await store.open(ManualClock(), lambda: None)
        store.errors = errors
        return store

    yield opened
    for store in stores:
        await store.aclose()


async def outcome(call):
    try:
        await call
    except StoreError as error:
        return str(error)
    return "done"


async def test_its_share_of_calls_fails_half_of_them_after_they_took_effect(open_chaos, inside):
    chaos = await open_chaos(errors=0.3)
    keys = [f"key {number:03}" for number in range(400)]
    outcomes = {key: await outcome(chaos.put_many([write(key)])) for key in keys}
    counts = Counter(outcomes.values())
    before, after = (f"put_many fails on purpose, {how}" for how in ("without effect", "though it took effect"))
    assert set(counts) == {"done", before, after}
    assert 80 < counts[before] + counts[after] < 160
    assert min(counts[before], counts[after]) > 30
    assert await inside.keys(most=1000) == [key for key in keys if outcomes[key] != before]
    assert (chaos.failed_before, chaos.failed_after) == (counts[before], counts[after])
    assert chaos.calls == {"open": 1, "put_many": 400}


async def test_the_same_seed_gives_the_same_faults_and_another_one_others(open_chaos):
    def faults(chaos):
        return asyncio.gather(*(outcome(chaos.get("key")) for _ in range(50)))

    first, same, other = [await open_chaos(errors=0.5, seed=seed) for seed in (1, 1, 2)]
    drawn = await faults(first)
    assert drawn == await faults(same)
    assert drawn != await faults(other)


async def test_the_order_in_which_calls_come_decides_not_that_in_which_they_go_on(open_chaos):
    async def faults(chaos):
        calls = []
        for _ in range(50):
            calls.append(asyncio.create_task(outcome(chaos.get("key"))))
            await asyncio.sleep(0)
        return await asyncio.gather(*calls)

    prompt, late = await open_chaos(errors=0.5), await open_chaos(errors=0.5, delay=0.01)
    assert await faults(prompt) == await faults(late)


async def test_the_error_says_what_was_asked_of_which_key(open_chaos):
    chaos = await open_chaos(errors=1)
    with pytest.raises(StoreError) as caught:
        await chaos.get("key")
    assert (caught.value.operation, caught.value.key) == ("get", "key")


async def test_every_method_fails_but_the_closing(open_chaos):
    chaos = await open_chaos(errors=1)
    (lease,) = await (await open_chaos()).acquire([LeaseRequest("key", ())], "a", 60)
    calls = [
        *(chaos.get("a"), chaos.get_many(["a"]), chaos.put_many([write("a")]), chaos.delete(["a"])),
        *(chaos.invalidate(EVERYTHING), chaos.journal(0), chaos.keys(most=1), chaos.most_used(1)),
        chaos.acquire([LeaseRequest("a", ())], "a", 60),
        *(chaos.renew([lease], 60), chaos.release([lease]), chaos.baseline("/")),
        *(chaos.swap([], []), chaos.sweep(1), chaos.stats()),
    ]
    for call in calls:
        assert await outcome(call) != "done"
    assert await outcome(chaos.aclose()) == "done"


@pytest.mark.parametrize("seed", range(10))
async def test_an_open_that_failed_left_nothing_open(inside, seed):
    store = inside.connect()
    chaos = ChaosStore(store, errors=1, seed=seed)
    assert "without effect" in await outcome(chaos.open(ManualClock(), lambda: None))
    assert "not open" in await outcome(store.get("key"))


async def test_the_next_calls_fail_as_a_test_says(open_chaos, inside):
    chaos = await open_chaos()
    chaos.fail_next()
    chaos.fail_next(2, after=True)
    outcomes = [await outcome(chaos.put_many([write(key)])) for key in "abcd"]
    assert ["without" in one for one in outcomes] == [True, False, False, False]
    assert ["though" in one for one in outcomes] == [False, True, True, False]
    assert await inside.keys(most=10) == ["b", "c", "d"]


async def test_the_trouble_ends_when_errors_are_set_to_none(open_chaos):
    chaos = await open_chaos(errors=1)
    assert await outcome(chaos.stats()) != "done"
    chaos.errors = 0
    assert [await outcome(chaos.stats()) for _ in range(20)] == ["done"] * 20


async def test_while_it_is_paused_nothing_reaches_the_store(open_chaos, inside):
    chaos = await open_chaos()
    chaos.pause()
    calls = [asyncio.create_task(chaos.put_many([write(key)])) for key in "ab"]
    await wait_until(lambda: chaos.held == 2)
    chaos.pause()  # it is already
    assert await inside.keys(most=10) == []
    chaos.resume()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*calls) == [[True], [True]]
    assert await inside.keys(most=10) == ["a", "b"]
    assert await outcome(chaos.get("a")) == "done"
    assert chaos.held == 2


async def test_a_call_that_is_cancelled_while_it_waits_has_not_been_made(open_chaos, inside):
    chaos = await open_chaos()
    chaos.pause()
    call = asyncio.create_task(chaos.put_many([write("a")]))
    await wait_until(lambda: chaos.held == 1)
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    chaos.resume()
    await chaos.get("a")
    assert await inside.keys(most=10) == []


@pytest.mark.parametrize("how", ["invalidate", "swap"])
async def test_an_invalidation_is_made_although_its_caller_was_cancelled_while_it_waited(open_chaos, inside, how):
    chaos = await open_chaos()
    await chaos.put_many([write("a")])
    chaos.pause()
    called = chaos.invalidate(EVERYTHING) if how == "invalidate" else chaos.swap([Swap("/a", None, b"1")], EVERYTHING)
    call = asyncio.create_task(called)
    await wait_until(lambda: chaos.held == 1)
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    assert await inside.keys(most=10) == ["a"]
    await chaos.aclose()
    assert await inside.keys(most=10) == []


async def test_nobody_hears_of_a_fault_whose_caller_is_gone(open_chaos):
    heard = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    chaos = await open_chaos()
    chaos.fail_next()
    chaos.pause()
    call = asyncio.create_task(chaos.invalidate(EVERYTHING))
    await wait_until(lambda: chaos.held == 1)
    call.cancel()
    await asyncio.wait({call})
    chaos.resume()
    await wait_until(lambda: chaos.failed_before == 1)
    await asyncio.sleep(0)
    del call
    gc.collect()
    assert heard == []


async def test_closing_needs_no_resume_and_lets_those_go_who_wait(open_chaos):
    chaos = await open_chaos()
    chaos.pause()
    call = asyncio.create_task(outcome(chaos.get("a")))
    await wait_until(lambda: chaos.held == 1)
    async with asyncio.timeout(5):
        await chaos.aclose()
        assert "not open" in await call


async def test_delays_are_those_of_the_loop_and_bounded(open_chaos):
    chaos = await open_chaos()
    await chaos.get("a")
    assert chaos.delayed == 0
    chaos.delay = 0.001
    await chaos.get("a")
    assert chaos.delayed == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"errors": 1.1}, "errors"),
        ({"errors": "1"}, "errors"),
        ({"errors": -0.1}, "errors"),
        ({"delay": -1}, "delay"),
        ({"delay": "1"}, "delay"),
    ],
)
def test_options_are_checked(options, field):
    with pytest.raises(ConfigError, match=field) as caught:
        ChaosStore(MemoryStore(), seed=1, **options)
    assert caught.value.field == field
