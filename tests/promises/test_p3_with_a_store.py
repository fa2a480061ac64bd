"""P3 on the roads of the store: promotion into memory, and writing.

Every way of invalidating at every moment of a road: nothing that was begun before it is returned, kept or stored. Seen
to fail on planted bugs: stamps without the number of the cache's own invalidations; invalidations that are not durable
yet and not looked at by reads; a row that is believed although its stamp is older than an invalidation of it; a verb
that does not wait until its invalidation is durable; an invalidation that the store is not told of.
"""

import asyncio

import pytest

from _gated import GatedStore
from _support import Counted
from _ways import KEY, WAYS, invalidate, options
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.testing import wait_until

pytestmark = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("- use tabs\n")
    return path


@pytest.fixture
async def store(file):
    """Return a store with an old value."""
    store = GatedStore()
    async with SharedPromptCache(store=store) as cache:
        await cache.get_or_compute(KEY, Counted("old"), **options(file))
        await cache.get_or_compute("bystander", Counted("stays"), agent="qa", project="shop")

        async def derived():
            return "from " + await cache.get_or_compute(KEY, Counted(AssertionError()), **options(file))

        await cache.get_or_compute("derived", derived)
    return store


async def stored(store, key=KEY):
    """Return the value that a cache finds in the store which knows nothing else."""
    async with SharedPromptCache(store=store) as cache:
        entry = await cache.get_prompt(key)
        return None if entry is None else entry.prompt


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("after", [False, True], ids=["before the look-up", "behind the look-up"])
@pytest.mark.parametrize("key", [KEY, "derived"])
async def test_an_invalidation_during_a_promotion_keeps_the_old_value_out(store, file, way, key, after, soft):
    async with SharedPromptCache(store=store) as cache:
        for read in (lambda: cache.get_prompt(key), lambda: cache.get_or_compute(key, Counted("new"), **options(file))):
            async with store.gate("get", after=after) as gate:
                reading = asyncio.create_task(read())
                await gate.reached.wait()
                await invalidate(cache, way, file, soft=soft)
            assert await reading in (None, "new")
            kept = await cache.get_prompt(key)
            assert kept is None or kept.prompt == "new"
            await cache.clear()
            await cache.get_or_compute(KEY, Counted("old"), **options(file))
            await cache.flush()
            await cache.evict_oldest(10)
    assert await stored(store, "derived") is None


async def test_who_comes_after_it_does_not_join_the_promotion(store, file, way):
    async with SharedPromptCache(store=store) as cache:
        async with store.gate("get", after=True) as gate:
            reading = asyncio.create_task(cache.get_or_compute(KEY, Counted("new"), **options(file)))
            await gate.reached.wait()
            await invalidate(cache, way, file)
            late = asyncio.create_task(cache.get_or_compute(KEY, Counted("late"), **options(file)))
        assert {await reading, await late} <= {"new", "late"}


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "behind the write"])
async def test_an_invalidation_while_the_value_is_written_removes_it_there(store, file, way, after):
    async with SharedPromptCache(store=store) as cache:
        await cache.clear()
        async with store.gate("put_many", after=after) as gate:
            await cache.get_or_compute(KEY, Counted("older"), **options(file))
            await gate.reached.wait()
            invalidating = asyncio.create_task(invalidate(cache, way, file))
            await wait_until(lambda: cache.get_stats().store["pending_invalidations"])
            assert await cache.get_prompt(KEY) is None  # it is in force, though the journal does not know it yet
        await invalidating
    assert await stored(store) is None


async def test_an_invalidation_while_the_write_is_queued_keeps_it_out(store, file, way):
    async with SharedPromptCache(store=store) as cache:
        await cache.clear()
        async with store.gate("put_many") as gate:
            await cache.set_prompt("another", "holds the writer up", agent="qa", project="shop")
            await gate.reached.wait()
            await cache.get_or_compute(KEY, Counted("older"), **options(file))
            invalidating = asyncio.create_task(invalidate(cache, way, file))
            await wait_until(lambda: cache.get_stats().store["pending_invalidations"])
            await cache.set_prompt("bystander", "stays", agent="qa", project="shop")
        await invalidating
    assert await stored(store) is None
    assert await stored(store, "bystander") == "stays"


async def test_while_it_is_not_durable_no_row_that_it_takes_is_read(store, file, way):
    async with SharedPromptCache(store=store) as cache:
        async with store.gate("invalidate") as gate:
            invalidating = asyncio.create_task(invalidate(cache, way, file))
            await gate.reached.wait()
            assert await cache.get_prompt(KEY) is None
            assert await cache.get_prompt("derived") is None
            assert (await cache.get_prompt("bystander") is None) == (way == "all")
            assert not invalidating.done()
        await invalidating
    assert (await stored(store, "bystander") is None) == (way == "all")


async def test_its_cancelled_caller_changes_nothing(store, file, way):
    async with SharedPromptCache(store=store) as cache:
        async with store.gate("invalidate") as gate:
            invalidating = asyncio.create_task(invalidate(cache, way, file))
            await gate.reached.wait()
            invalidating.cancel()
            await asyncio.wait([invalidating])
        await cache.flush()
        assert await cache.get_prompt(KEY) is None
    assert await stored(store) is None


async def test_what_is_computed_right_after_it_is_stored(store, file, way):
    async with SharedPromptCache(store=store) as cache:
        async with store.gate("invalidate") as gate:
            invalidating = asyncio.create_task(invalidate(cache, way, file))
            await gate.reached.wait()
            computing = asyncio.create_task(cache.get_or_compute(KEY, Counted("new"), **options(file)))
        assert await computing == "new"
        await invalidating
    assert await stored(store) == "new"


async def test_a_background_refresh_that_it_overtakes_is_not_stored(store, file, way):
    async with SharedPromptCache(store=store) as cache:
        gate = asyncio.Event()
        refresh = Counted("old again", gate=gate)
        await cache.get_or_compute(KEY, refresh, refresh_ahead=1e-9, **options(file))
        await cache.get_or_compute(KEY, refresh, refresh_ahead=1e-9, **options(file))
        await wait_until(lambda: refresh.began == 1)
        await invalidate(cache, way, file)
        gate.set()
        await wait_until(lambda: not cache._flights.running)
        assert await cache.get_prompt(KEY) is None
    assert await stored(store) is None


async def test_a_row_that_somebody_put_back_is_not_believed(store, file, way):
    rows = dict(store._store._place.entries)
    async with SharedPromptCache(store=store) as cache:
        await invalidate(cache, way, file)
    store._store._place.entries.update(rows)
    assert await stored(store) is None
