"""`cache.batch()`: sets and invalidations that are applied together, or not at all.

Seen to fail on planted bugs: a set that is applied at its call, a batch that is applied although its block raised, an
invalidation from outside that the block's values survive, a task beside the block that joins it.
"""

import asyncio

import pytest

from shared_prompt_cache import CacheClosedError
from shared_prompt_cache.testing import wait_until


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("- use tabs\n")
    return path


async def test_nothing_is_seen_before_the_end_and_all_of_it_then(cache):
    await cache.set_prompt("old", 0)
    async with cache.batch() as batch:
        batch.set_prompt("a", 1)
        await batch.set_prompt("b", 2, {"version": "1"}, 60, agent="qa", tags=["web"])
        batch.invalidate("old")
        assert await cache.get_many(["a", "b", "old"]) == {"old": await cache.get_prompt("old")}
    found = await cache.get_many(["a", "b", "old"])
    assert {key: cached.prompt for key, cached in found.items()} == {"a": 1, "b": 2}
    assert (found["b"].agent, found["b"].metadata) == ("qa", {"version": "1"})


async def test_a_block_that_raises_changes_nothing(cache):
    await cache.set_prompt("a", 0)

    async def block():
        async with cache.batch() as batch:
            batch.set_prompt("a", 1)
            batch.invalidate("a")
            raise LookupError

    with pytest.raises(LookupError):
        await block()
    assert (await cache.get_prompt("a")).prompt == 0


async def test_a_block_that_is_cancelled_changes_nothing(cache):
    entered = asyncio.Event()

    async def block():
        async with cache.batch() as batch:
            batch.set_prompt("a", 1)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await cache.get_prompt("a") is None


async def test_sets_of_the_same_task_join_it_and_those_of_another_do_not(cache):
    async with cache.batch():
        await cache.set_prompt("a", 1)
        await asyncio.create_task(cache.set_prompt("b", 2))
        assert await cache.get_prompt("a") is None
        assert (await cache.get_prompt("b")).prompt == 2
    assert (await cache.get_prompt("a")).prompt == 1


async def test_the_calls_are_applied_in_their_order(cache):
    async with cache.batch() as batch:
        batch.set_prompt("a", 1)
        batch.invalidate("a")
        batch.invalidate("b")
        batch.set_prompt("b", 2)
        batch.set_prompt("b", 3)
    assert await cache.get_prompt("a") is None
    assert (await cache.get_prompt("b")).prompt == 3


async def test_an_invalidation_during_the_block_wins_over_what_it_sets_and_says_so(cache):
    async with cache.batch() as batch:
        batch.set_prompt("plan_a", 1, tags=["web"])
        batch.set_prompt("b", 2)
        await cache.invalidate_tag("web")
        batch.set_prompt("plan_c", 3)
        await cache.invalidate_pattern("plan_c")
    assert set(await cache.get_many(["plan_a", "b", "plan_c"])) == {"b"}
    assert cache.explain("plan_a").state == "not kept"
    assert cache.get_stats().dropped_values == 2


async def test_what_was_read_in_it_counts_for_what_is_set_after(cache, file):
    async with cache.batch() as batch:
        batch.set_prompt("before", 1)
        text = await cache.files.read_text(file)
        batch.set_prompt("after", text)
    file.write_text("- use spaces\n")
    assert set(await cache.get_many(["before", "after"])) == {"before"}


async def test_declared_files_count_too(cache, file):
    async with cache.batch() as batch:
        batch.set_prompt("declared", 1, depends_on=file)
    assert (await cache.get_prompt("declared")).dependencies == (str(file),)
    file.write_text("- use spaces\n")
    assert await cache.get_prompt("declared") is None


async def test_a_file_that_cannot_be_declared_leaves_everything_as_it_was(cache, tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as sparse:
        sparse.truncate(17 * 1024 * 1024)

    async def block():
        async with cache.batch() as batch:
            batch.set_prompt("a", 1)
            batch.set_prompt("b", 2, depends_on=large)

    with pytest.raises(ValueError, match="16777216"):
        await block()
    assert await cache.get_many(["a", "b"]) == {}


async def test_it_overtakes_the_computations_of_its_keys(cache):
    gate = asyncio.Event()

    async def compute():
        await gate.wait()
        return "computed"

    waiting = asyncio.create_task(cache.get_or_compute("a", compute))
    await wait_until(lambda: cache.get_stats().computations == 1)
    async with cache.batch() as batch:
        batch.set_prompt("a", "by hand")
    gate.set()
    assert await waiting == "computed"
    assert (await cache.get_prompt("a")).prompt == "by hand"


async def test_subscribers_are_told_of_its_invalidations_in_order(cache):
    await cache.set_prompt("b", 1)
    events = cache.events.subscribe()
    async with cache.batch() as batch:
        batch.invalidate("a")
        batch.invalidate("b")
    events.close()
    assert [(event.name, event.dropped, event.cause.verb) async for event in events] == [
        ("a", 0, "batch.invalidate"),
        ("b", 1, "batch.invalidate"),
    ]


async def test_one_inside_another_ends_by_itself(cache):
    async with cache.batch() as outer:
        outer.set_prompt("a", 1)
        async with cache.batch() as inner:
            await cache.set_prompt("b", 2)
            inner.set_prompt("c", 3)
        assert set(await cache.get_many(["a", "b", "c"])) == {"b", "c"}
        await cache.set_prompt("d", 4)
        assert await cache.get_prompt("d") is None
    assert set(await cache.get_many("abcd")) == set("abcd")


async def test_it_may_be_left_by_another_task_than_it_was_entered_by(cache):
    batch = cache.batch()
    await asyncio.create_task(batch.__aenter__())
    batch.set_prompt("a", 1)
    await asyncio.create_task(batch.__aexit__(None, None, None))
    assert (await cache.get_prompt("a")).prompt == 1


async def test_it_is_over_when_it_is_over(cache):
    async with cache.batch() as batch:
        pass
    with pytest.raises(CacheClosedError, match="the batch is over"):
        batch.set_prompt("a", 1)
    with pytest.raises(CacheClosedError):
        batch.invalidate("a")
    with pytest.raises(CacheClosedError):
        await batch.__aexit__(None, None, None)


async def test_the_batch_of_one_cache_takes_nothing_of_another(cache, open_cache):
    other = await open_cache()
    async with cache.batch():
        await other.set_prompt("a", 1)
        assert (await other.get_prompt("a")).prompt == 1
