"""A store that fails or hangs: the cache goes on in memory with right answers, says so, and recovers by itself.

Seen to fail on planted bugs: a failure that reaches the caller; rows that are read before what was invalidated
meanwhile is journalled; a store that is opened late and believed to have missed nothing; writes that are kept while
there is no store; invalidations that pile up without a bound.
"""

import asyncio
import random

import pytest

from _gated import GatedStore
from _support import Counted, size
from shared_prompt_cache import ConfigError, SharedPromptCache, StoreError
from shared_prompt_cache._tier import breaker
from shared_prompt_cache.stores import MemoryStore, SQLiteStore
from shared_prompt_cache.testing import ChaosStore, wait_until


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, seconds in (("READING", 0.05), ("WRITING", 0.1), ("_FIRST_DELAY", 0.01), ("_LONGEST_DELAY", 0.04)):
        monkeypatch.setattr(breaker, name, seconds)


def state(cache):
    return cache.health().parts["store"].status


async def well(cache):
    await wait_until(lambda: state(cache) == "ok")


async def test_a_failure_reaches_no_caller_and_is_over_soon(open_cache):
    chaos = ChaosStore(MemoryStore(), seed=1, errors=0)
    cache = await open_cache(store=chaos)
    for verb in (
        lambda: cache.get_prompt("missing"),
        lambda: cache.get_or_compute("a", Counted(1)),
        lambda: cache.get_many(["b", "c"]),
        lambda: cache.invalidate("a"),
        lambda: cache.invalidate_agent("qa"),
        cache.flush,
    ):
        chaos.fail_next(3)
        await verb()
        await cache.set_prompt("d", 4)
        assert (await cache.get_prompt("d")).prompt == 4
        await cache.flush()
        await wait_until(lambda: not chaos._scripted)
        await well(cache)


async def test_a_store_that_hangs_delays_one_read_and_no_more(open_cache):
    chaos = ChaosStore(MemoryStore(), seed=1, errors=0)
    cache = await open_cache(store=chaos)
    chaos.pause()
    never_waits = Counted("computed")
    assert await cache.get_or_compute("a", never_waits, hard_timeout=30) == "computed"
    assert state(cache) == "degraded"
    part = cache.health().parts["store"]
    assert part.reason.startswith("get took longer than 0.05 s")
    assert part.since is not None
    held = chaos.held
    assert await cache.get_prompt("b") is None
    assert chaos.held == held  # nobody asks it while it is out of use
    await cache.invalidate("a")  # nor waits for it
    assert "1 invalidation is not durable yet" in cache.health().parts["store"].reason
    chaos.resume()
    await well(cache)
    assert cache.get_stats().store["pending_invalidations"] == 0


async def test_what_was_invalidated_meanwhile_is_journalled_before_a_row_is_read(open_cache):
    store = GatedStore()
    chaos = ChaosStore(store, seed=1, errors=0)
    cache = await open_cache(store=chaos)
    await cache.set_prompt("a", "old", agent="qa")
    await cache.set_prompt("b", "old")
    await cache.flush()
    await cache.evict_oldest(10)
    chaos.fail_next(1)
    assert await cache.get_prompt("missing") is None
    await cache.invalidate_agent("qa")
    await cache.set_prompt("b", "new")  # not written
    await cache.evict_oldest(10)
    assert cache.get_stats().store["dropped"] == 1
    async with store.gate("journal") as gate:
        await gate.reached.wait()
        assert store._store._place.last == 1
        assert await cache.get_prompt("a") is None
    await well(cache)
    assert await cache.get_prompt("a") is None
    assert await cache.get_prompt("b") is None  # the older row has been deleted


async def test_it_starts_with_a_store_that_cannot_be_opened_yet(open_cache):
    place = MemoryStore()
    chaos = ChaosStore(place.connect(), seed=1, errors=0)
    chaos.fail_next(3)
    other = await open_cache(store=place)
    cache = await open_cache(store=chaos)
    assert state(cache) == "degraded"
    await cache.set_prompt("a", "before", agent="qa")
    await other.invalidate_agent("qa")
    await well(cache)
    assert await cache.get_prompt("a") is None  # it may have missed that
    await cache.set_prompt("a", "after")
    await cache.flush()
    assert (await other.get_prompt("a")).prompt == "after"


async def test_a_store_that_answers_nonsense_is_out_of_use_and_nobody_waits_for_ever(open_cache, monkeypatch):
    store = MemoryStore()
    cache = await open_cache(store=store)

    async def nonsense(*_):
        return []

    with monkeypatch.context() as patch:
        patch.setattr(store, "invalidate", nonsense)
        patch.setattr(store, "put_many", nonsense)
        await cache.set_prompt("a", 1)
        await cache.flush()
        await cache.invalidate("b")
        await wait_until(lambda: state(cache) == "degraded")
        assert (await cache.get_prompt("a")).prompt == 1
    await well(cache)
    assert cache.get_stats().store["pending_invalidations"] == 0


async def test_what_somebody_has_to_change_is_raised_at_the_start(monkeypatch):
    monkeypatch.setenv("SHARED_PROMPT_CACHE_KEY", "too short")
    cache = SharedPromptCache(store=MemoryStore())
    with pytest.raises(ConfigError, match="SHARED_PROMPT_CACHE_KEY has 9 characters"):
        await cache.start()


async def test_so_is_a_folder_that_is_not_to_be_trusted(tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    folder.chmod(0o777)
    cache = SharedPromptCache(store=SQLiteStore(folder))
    with pytest.raises(StoreError, match="may be written by others; chmod go-w it"):
        await cache.start()


async def test_closing_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr("shared_prompt_cache._tier.tier._ENDING", 0.05)
    monkeypatch.setattr(breaker, "WRITING", 60)
    chaos = ChaosStore(MemoryStore(), seed=1, errors=0)
    async with asyncio.timeout(5), SharedPromptCache(store=chaos) as cache:
        chaos.pause()
        await cache.set_prompt("a", 1)


async def test_a_row_that_cannot_be_read_is_a_miss_and_is_removed(open_cache):
    store = MemoryStore()
    async with SharedPromptCache(store=store) as cache:
        await cache.set_prompt("a", "value")
        await cache.set_prompt("b", "value")
    entries = store._place.entries
    row = entries["a"].entry
    object.__setattr__(row, "payload", b"another")
    cache = await open_cache(store=store)
    events = cache.events.subscribe(removals=True)
    assert await cache.get_prompt("a") is None
    event = await anext(events)
    assert (event.key, event.reason) == ("a", "corrupt")
    await cache.flush()
    await wait_until(lambda: "a" not in entries)
    assert cache.get_stats().store["corrupt"] == 1
    assert (await cache.get_prompt("b")).prompt == "value"


async def test_rows_under_another_secret_are_not_believed(open_cache, monkeypatch):
    store = MemoryStore()
    async with SharedPromptCache(store=store) as cache:
        await cache.set_prompt("a", "value")
    monkeypatch.setenv("SHARED_PROMPT_CACHE_KEY", "the secret of somebody else")
    assert await (await open_cache(store=store)).get_prompt("a") is None


async def test_what_waits_is_bounded(open_cache):
    chaos = ChaosStore(MemoryStore(), seed=1, errors=0)
    cache = await open_cache(store=chaos, max_size=100)
    chaos.pause()
    await cache.get_prompt("missing")
    for number in range(11_000):
        await cache.set_prompt(f"key {number}", number)
    for number in range(1500):
        await cache.invalidate(f"key {number}")
    outbox = cache._tier._outbox
    assert len(outbox.notices) <= 1000
    assert len(outbox.outdated) <= 10_000
    assert len(outbox) == 0
    chaos.resume()
    await well(cache)
    assert not outbox.notices


async def test_right_answers_through_trouble(open_cache):
    """Two caches, a store of which three calls in ten fail or take their time: nothing old is ever served."""
    place = MemoryStore()
    seed = 11
    chaos = [ChaosStore(place, seed=seed), ChaosStore(place.connect(), seed=seed + 1)]
    caches = [await open_cache(store=store, max_size=6) for store in chaos]
    for store in chaos:
        store.errors, store.delay = 0.3, 0.001
    draw = random.Random(seed)
    truth = dict.fromkeys(range(8), 0)
    for step in range(size(250, 6000)):
        cache, number = draw.choice(caches), draw.randrange(8)
        if draw.random() < 0.3:
            truth[number] += 1
            # In force at once where it began; the other is asked to make sure of it by itself.
            for one in caches:
                await one.invalidate(f"key {number}")
        found = await cache.get_or_compute(f"key {number}", Counted(truth[number]))
        assert found == truth[number], (seed, step)
    for store in chaos:
        store.errors, store.delay = 0.0, None
    for cache in caches:
        await well(cache)
    for number, value in truth.items():
        for cache in caches:
            assert await cache.get_or_compute(f"key {number}", Counted(value)) == value
