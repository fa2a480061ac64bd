"""Of all caches that share a store one computes a key, and none waits for a computation that leads nowhere.

Seen to fail on planted bugs: an answer of the store that is taken for a lease, whatever it is; a lease that is kept
when the computation fails, or is overtaken; a lease that is not renewed; who waits and is not told of a change; a look
that goes by whether there is an entry and not by which; a refusal that removes the entry of who took the lease over;
no second look for who asks to refresh; a value that is written under no lease.
"""

import asyncio

import pytest

from _gated import GatedStore
from _support import Counted
from _ways import KEY, WAYS, invalidate, options
from shared_prompt_cache import Computed, ComputeTimeout
from shared_prompt_cache._tier import leases
from shared_prompt_cache.stores import MemoryStore
from shared_prompt_cache.testing import ChaosStore, ManualClock, wait_until


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def store():
    return GatedStore()


@pytest.fixture
async def pair(open_cache, store, clock):
    """Return two caches that share a store and a clock."""
    return [await open_cache(store=one, clock=clock) for one in (store, store.connect())]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("- use tabs\n")
    return path


@pytest.fixture(autouse=True)
def no_ticks(monkeypatch):
    """Let nobody ask without being told."""
    monkeypatch.setattr(leases, "_TICK", 3600)


@pytest.fixture
def ticks(monkeypatch):
    """Let leases be renewed, and asked for again, each hundredth of a second."""
    monkeypatch.setattr(leases, "_TICK", 0.01)


def ask(cache, compute, *, key=KEY, **more):
    return asyncio.create_task(cache.get_or_compute(key, compute, **more))


async def waits(cache):
    """Return when the cache waits for a lease that another holds."""
    await wait_until(lambda: cache._tier._leases._waiting and not cache._tier._leases)


async def test_one_computes_and_all_callers_of_all_get_its_value(pair):
    gate = asyncio.Event()
    compute = Counted("value", gate=gate)
    tasks = [ask(cache, compute) for _ in range(50) for cache in pair]
    await wait_until(lambda: compute.began)
    await waits(pair[1] if pair[0]._tier._leases.held else pair[0])
    gate.set()
    assert set(await asyncio.gather(*tasks)) == {"value"}
    assert compute.began == 1
    assert sum(cache.get_stats().computations for cache in pair) == 1
    for cache in pair:
        await cache.flush()
        assert not cache._tier._leases.held  # what is written is not renewed


async def test_many_keys_are_shared_out_and_each_is_computed_once(pair):
    computed = {f"key {number}": Counted(number) for number in range(50)}
    tasks = [ask(cache, compute, key=key) for key, compute in computed.items() for cache in pair for _ in range(5)]
    assert sorted(set(await asyncio.gather(*tasks))) == list(range(50))
    assert {compute.began for compute in computed.values()} == {1}


async def test_with_single_flight_in_the_process_each_computes(open_cache, store):
    pair = [await open_cache(store=one, single_flight="process") for one in (store, store.connect())]
    gate = asyncio.Event()
    compute = Counted("value", gate=gate)
    tasks = [ask(cache, compute) for cache in pair for _ in range(5)]
    await wait_until(lambda: compute.began == 2)
    gate.set()
    assert set(await asyncio.gather(*tasks)) == {"value"}
    assert compute.began == 2
    assert not store.calls["acquire"]


async def test_who_waits_does_not_ask_all_the_time(pair, store):
    first, second = pair
    gate = asyncio.Event()
    holding = ask(second, Counted("value", gate=gate))
    await wait_until(lambda: second._tier._leases.held)
    waiting = ask(first, Counted("another"))
    await waits(first)
    asked = store.calls["acquire"]
    for _ in range(500):
        await asyncio.sleep(0)
    assert store.calls["acquire"] == asked
    gate.set()
    assert {await holding, await waiting} == {"value"}


@pytest.mark.parametrize(
    "failure", [ValueError("no memory"), asyncio.CancelledError()], ids=["fails", "cancels itself"]
)
async def test_where_the_holder_fails_another_computes_at_once(pair, failure):
    first, second = pair
    gate = asyncio.Event()
    failing = ask(first, Counted(failure, gate=gate))
    await wait_until(lambda: first._tier._leases.held)
    waiting = ask(second, Counted("value"))
    await waits(second)
    gate.set()
    assert await waiting == "value"
    assert isinstance((await asyncio.gather(failing, return_exceptions=True))[0], Exception)


async def test_where_all_callers_of_the_holder_leave_another_computes_at_once(pair):
    first, second = pair
    leaving = ask(first, Counted("never", gate=asyncio.Event()))
    await wait_until(lambda: first._tier._leases.held)
    waiting = ask(second, Counted("value"))
    await waits(second)
    leaving.cancel()
    assert await waiting == "value"


async def test_where_the_holder_is_closed_another_computes_at_once(pair):
    first, second = pair
    closed = ask(first, Counted("never", gate=asyncio.Event()))
    await wait_until(lambda: first._tier._leases.held)
    waiting = ask(second, Counted("value"))
    await waits(second)
    await first.aclose()
    assert await waiting == "value"
    await asyncio.gather(closed, return_exceptions=True)


@pytest.mark.parametrize("keep", [False, True], ids=["not to be kept", "not to be encoded"])
async def test_where_the_value_is_not_stored_each_computes_its_own(pair, keep):
    first, second = pair
    gate = asyncio.Event()
    value = object()
    one = ask(first, Counted(Computed(value, keep=keep), gate=gate))
    await wait_until(lambda: first._tier._leases.held)
    other = ask(second, Counted("value"))
    await waits(second)
    gate.set()
    assert await one is value
    assert await other == "value"


async def test_when_the_holder_dies_another_takes_over(open_cache, pair, clock, ticks):
    first, second = pair
    dead = ask(first, Counted("never", gate=asyncio.Event()))
    await wait_until(lambda: first._tier._leases.held)
    first._tier._leases._timer.cancel()  # the dead renew nothing
    waiting = ask(second, Counted("value"))
    await waits(second)
    clock.advance(4.9)
    await waits(second)
    clock.advance(0.2)
    assert await waiting == "value"
    dead.cancel()


async def test_who_lives_keeps_the_lease(pair, store, clock, ticks):
    first, second = pair
    gate = asyncio.Event()
    living = ask(first, Counted("value", gate=gate))
    await wait_until(lambda: first._tier._leases.held)
    waiting = ask(second, Counted("another"))
    for _ in range(10):
        renewed = store.calls["renew"]
        clock.advance(4)
        await wait_until(lambda renewed=renewed: store.calls["renew"] >= renewed + 2)
    gate.set()
    assert {await living, await waiting} == {"value"}


async def test_who_has_lost_the_lease_publishes_nothing_and_removes_nothing(pair, store, clock, ticks):
    """A process that was stopped for longer than a lease lasts, and goes on."""
    first, second = pair
    gate = asyncio.Event()
    stopped = ask(first, Counted("late", gate=gate))
    await wait_until(lambda: first._tier._leases.held)
    clock.advance(6)
    assert await second.get_or_compute(KEY, Counted("in time")) == "in time"
    await second.flush()
    gate.set()
    assert await stopped == "late"
    await first.flush()
    assert first.get_stats().store["refused"] == 1
    await second.evict_oldest()
    assert (await second.get_prompt(KEY)).prompt == "in time"


@pytest.mark.parametrize("way", WAYS)
async def test_who_computes_after_an_invalidation_does_not_wait_for_who_began_before(pair, file, way):
    first, second = pair
    gate = asyncio.Event()
    compute = Counted("old", gate=gate)
    old = ask(first, compute, **options(file))
    await wait_until(lambda: compute.began)
    await invalidate(second, way, file)
    assert await second.get_or_compute(KEY, Counted("new"), **options(file)) == "new"
    await second.flush()
    gate.set()
    assert await old == "old"
    await first.flush()
    assert (await first.get_prompt(KEY)).prompt == "new"
    assert await second.get_or_compute(KEY, Counted(AssertionError())) == "new"


@pytest.mark.parametrize("way", WAYS)
async def test_who_invalidates_gets_a_lease_that_outlasts_it(pair, store, file, way):
    first, second = pair
    async with store.gate("invalidate") as gate:
        invalidating = asyncio.create_task(invalidate(first, way, file))
        await gate.reached.wait()
        computing = ask(first, Counted("new"), **options(file))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not store.calls["acquire"]  # the invalidation would end that lease
    assert await computing == "new"
    await invalidating
    await first.flush()
    assert await second.get_or_compute(KEY, Counted(AssertionError()), **options(file)) == "new"


async def test_a_store_that_is_slow_to_invalidate_does_not_hold_a_computation_up(pair, store):
    first, _ = pair
    first._tier._breaker.reading = 0.01
    async with store.gate("invalidate") as gate:
        invalidating = asyncio.create_task(first.invalidate(KEY))
        await gate.reached.wait()
        assert await first.get_or_compute(KEY, Counted("new")) == "new"
    await invalidating


async def test_who_waits_gets_what_another_sets_by_hand(pair):
    first, second = pair
    holding = ask(first, Counted("computed", gate=asyncio.Event()))
    await wait_until(lambda: first._tier._leases.held)
    waiting = ask(second, Counted(AssertionError()))
    await waits(second)
    await first.set_prompt(KEY, "set")
    assert await waiting == "set"
    holding.cancel()


async def test_one_refreshes_for_all(pair, clock):
    first, second = pair
    refresh = Counted("newer")
    for cache in pair:
        await cache.get_or_compute(KEY, Counted("old"), ttl=100)
        await cache.flush()
    clock.advance(90)
    await first.get_or_compute(KEY, refresh, ttl=100, refresh_ahead=0.8)
    await wait_until(lambda: not first._flights.running)
    await first.flush()
    await second.get_or_compute(KEY, refresh, ttl=100, refresh_ahead=0.8)
    await wait_until(lambda: not second._flights.running)
    assert refresh.began == 1
    assert [(await cache.get_prompt(KEY)).prompt for cache in pair] == ["newer", "newer"]


async def test_an_entry_that_is_of_no_use_holds_nobody_up(pair, clock):
    first, second = pair
    await first.get_or_compute(KEY, Counted("old"), ttl=10)
    await first.flush()
    clock.advance(11)
    compute = Counted("new")
    assert set(await asyncio.gather(ask(first, compute), ask(second, compute))) == {"new"}
    assert compute.began == 1


async def test_a_store_that_always_has_something_new_and_never_of_use_is_not_asked_for_ever(pair, store, monkeypatch):
    async def changed(requests, holder, ttl):
        return ["changed" for _ in requests]

    monkeypatch.setattr(store._store, "acquire", changed)
    assert await pair[0].get_or_compute(KEY, Counted("value")) == "value"
    assert 1 < store.calls["acquire"] < 100


async def test_what_is_written_soon_is_waited_for(open_cache, store):
    """The value has left memory and is not in the store yet."""
    cache = await open_cache(store=store, max_size=1)
    async with store.gate("put_many") as gate:
        await cache.get_or_compute(KEY, Counted("value"))
        await gate.reached.wait()
        await cache.set_prompt("another", "takes its place")
        again = ask(cache, Counted(AssertionError()))
        await asyncio.sleep(0)
    assert await again == "value"


async def test_the_time_that_a_computation_may_take_covers_the_waiting(pair):
    first, second = pair
    holding = ask(first, Counted("never", gate=asyncio.Event()))
    await wait_until(lambda: first._tier._leases.held)
    compute = Counted("value")
    with pytest.raises(ComputeTimeout):
        await second.get_or_compute(KEY, compute, hard_timeout=0.05)
    assert compute.began == 0
    assert not second._tier._leases._waiting
    holding.cancel()


async def test_without_the_store_each_computes(open_cache, clock):
    chaos = ChaosStore(MemoryStore(), errors=0.0, seed=1)
    first, second = [await open_cache(store=one, clock=clock) for one in (chaos._store.connect(), chaos)]
    holding = ask(first, Counted("never", gate=asyncio.Event()))
    await wait_until(lambda: first._tier._leases.held)
    waiting = ask(second, Counted("value"))
    await waits(second)
    chaos.errors = 1.0
    await second.set_prompt("another", "makes it notice")
    assert await waiting == "value"
    assert await second.get_or_compute("a third", Counted("at once")) == "at once"
    holding.cancel()
    chaos.errors = 0.0
