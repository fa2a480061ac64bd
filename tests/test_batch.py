"""Sets and invalidations applied together: all of them when the block ends, or none.

Seen to fail on planted bugs: steps that are applied although the block raised; a batch of another task, or of another
cache, that is joined; values that are kept unjudged, or that do not take over what the block has read.
"""

import asyncio

import pytest

from _support import Counted
from shared_prompt_cache import (
    ApiCall,
    CacheClosedError,
    CacheKeyError,
    ConfigError,
    ConfigTypeError,
    Invalidation,
    Removal,
    SharedPromptCache,
)
from shared_prompt_cache.testing import ManualClock, wait_until

WAYS = {
    "key": lambda cache: cache.invalidate("plan"),
    "pattern": lambda cache: cache.invalidate_pattern("pl*"),
    "tag": lambda cache: cache.invalidate_tag("planning"),
    "agent": lambda cache: cache.invalidate_agent("engineer"),
    "project": lambda cache: cache.invalidate_project("web"),
    "all": lambda cache: cache.clear(),
}


async def prompts(cache, *keys):
    """Return what is cached of `keys`, by key."""
    return {key: found.prompt for key, found in (await cache.get_many(keys)).items()}


# All at once, in the order of the calls.


async def test_everything_is_applied_when_the_block_ends_and_nothing_before(cache):
    await cache.set_prompt("old", "goes")
    async with cache.batch() as batch:
        batch.set_prompt("a", 1)
        batch.set_prompt("b", 2)
        batch.invalidate("old")
        assert await prompts(cache, "a", "b", "old") == {"old": "goes"}
    assert await prompts(cache, "a", "b", "old") == {"a": 1, "b": 2}


async def test_its_verbs_may_be_awaited(cache):
    async with cache.batch() as batch:
        assert await batch.set_prompt("a", 1) is None
        assert await batch.invalidate("b") is None
    assert await prompts(cache, "a") == {"a": 1}


async def test_no_other_task_finds_a_part_of_it(cache):
    seen = set()
    over = asyncio.Event()

    async def look():
        while not over.is_set():
            seen.add(len(cache._memory.entries))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    async with cache.batch() as batch:
        for number in range(100):
            batch.set_prompt(f"key {number}", number)
            await asyncio.sleep(0)
    over.set()
    await looking
    assert seen <= {0, 100}


async def test_the_last_of_two_steps_on_a_key_wins(cache):
    await cache.set_prompt("set last", "old")
    async with cache.batch() as batch:
        batch.set_prompt("twice", 1)
        batch.set_prompt("twice", 2)
        batch.set_prompt("invalidated last", 3)
        batch.invalidate("invalidated last")
        batch.invalidate("set last")
        batch.set_prompt("set last", 4)
    assert await prompts(cache, "twice", "invalidated last", "set last") == {"twice": 2, "set last": 4}


async def test_a_value_is_kept_with_its_options(open_cache, tmp_path):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    file = tmp_path / "memory.md"
    file.write_text("- use tabs\n")
    async with cache.batch() as batch:
        batch.set_prompt("a", 1, {"n": 1}, 10, agent="qa", project="web", tags=["x"], depends_on=file)
        batch.set_prompt("b", 2)
    cached = await cache.get_prompt("a")
    assert (dict(cached.metadata), cached.agent, cached.project, cached.tags) == ({"n": 1}, "qa", "web", {"x"})
    assert cached.dependencies == (str(file),)
    file.write_text("- use spaces\n")
    assert await prompts(cache, "a", "b") == {"b": 2}
    async with cache.batch() as batch:
        batch.set_prompt("a", 1, ttl=10)
    clock.advance(10)
    assert await prompts(cache, "a", "b") == {"b": 2}


async def test_a_running_computation_of_a_key_that_is_set_is_not_kept(cache):
    gate = asyncio.Event()
    computing = asyncio.create_task(cache.get_or_compute("a", Counted("computed", gate=gate)))
    await wait_until(lambda: cache.get_stats().computations == 1)
    async with cache.batch() as batch:
        batch.set_prompt("a", "set")
    gate.set()
    assert await computing == "computed"
    assert await prompts(cache, "a") == {"a": "set"}


async def test_a_subscriber_is_told_of_each_invalidation_once_and_after_the_sets(cache):
    await cache.set_prompt("a", 1)
    subscription = cache.events.subscribe(removals=True)
    async with cache.batch() as batch:
        batch.invalidate("a")
        batch.set_prompt("b", 2)
        batch.invalidate("nothing")
        assert not subscription._events
    events = [await anext(subscription) for _ in range(3)]
    assert await prompts(cache, "b") == {"b": 2}
    told = [(event.name, event.dropped, event.cause) for event in events if isinstance(event, Invalidation)]
    cause = ApiCall(verb="batch.invalidate")
    assert told == [("a", 1, cause), ("nothing", 0, cause)]
    assert [(event.key, event.reason) for event in events if isinstance(event, Removal)] == [("a", "invalidated")]
    assert not subscription._events


# Nothing at all.


async def test_an_exception_inside_applies_nothing(cache):
    await cache.set_prompt("old", "stays")

    async def fail():
        async with cache.batch() as batch:
            batch.set_prompt("a", 1)
            await cache.set_prompt("b", 2)
            batch.invalidate("old")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await prompts(cache, "a", "b", "old") == {"old": "stays"}


async def test_cancelled_in_the_middle_nothing_is_applied(cache):
    inside = asyncio.Event()

    async def fill():
        async with cache.batch() as batch:
            batch.set_prompt("a", 1)
            inside.set()
            await asyncio.Event().wait()

    filling = asyncio.create_task(fill())
    await inside.wait()
    filling.cancel()
    await asyncio.wait([filling])
    assert filling.cancelled()
    assert await prompts(cache, "a") == {}
    await cache.set_prompt("b", 2)
    assert await prompts(cache, "b") == {"b": 2}


async def test_cancelled_while_it_reads_declared_files_nothing_is_applied(cache, tmp_path):
    ending = asyncio.Event()

    async def fill():
        async with cache.batch() as batch:
            batch.set_prompt("a", 1)
            batch.set_prompt("b", 2, depends_on=tmp_path)
            ending.set()

    filling = asyncio.create_task(fill())
    await ending.wait()
    filling.cancel()
    await asyncio.wait([filling])
    assert filling.cancelled()
    assert await prompts(cache, "a", "b") == {}


async def test_a_declared_path_that_cannot_be_read_applies_nothing(cache):
    batch = await cache.batch().__aenter__()
    batch.set_prompt("a", 1)
    batch.set_prompt("b", 2, depends_on="/dev/null")
    with pytest.raises(ConfigError, match="no regular file"):
        await batch.__aexit__(None, None, None)
    assert await prompts(cache, "a", "b") == {}


async def test_a_wrong_argument_is_refused_at_the_call(cache):
    async with cache.batch() as batch:
        with pytest.raises(CacheKeyError):
            batch.set_prompt("", 1)
        with pytest.raises(CacheKeyError):
            batch.invalidate("")
        with pytest.raises(ConfigTypeError, match="tags"):
            batch.set_prompt("a", 1, tags="x")
        batch.set_prompt("b", 2)
    assert await prompts(cache, "a", "b") == {"b": 2}


async def test_a_batch_that_is_over_takes_no_more(cache):
    async with cache.batch() as batch:
        pass
    for late in (lambda: batch.set_prompt("a", 1), lambda: batch.invalidate("a")):
        with pytest.raises(CacheClosedError, match="the batch is over"):
            late()
    with pytest.raises(CacheClosedError, match="the batch is over"):
        await batch.__aexit__(None, None, None)


async def test_a_cache_that_was_closed_meanwhile_takes_nothing(open_cache):
    cache = await open_cache()
    batch = await cache.batch().__aenter__()
    batch.set_prompt("a", 1)
    await cache.aclose()
    with pytest.raises(CacheClosedError, match="is closed"):
        await batch.__aexit__(None, None, None)
    with pytest.raises(CacheClosedError, match="is closed"):
        await cache.batch().__aenter__()
    await cache.start()
    assert await prompts(cache, "a") == {}


# Who joins.


async def test_a_set_of_the_same_task_joins(cache):
    async with cache.batch():
        await cache.set_prompt("a", 1, agent="qa")
        assert await prompts(cache, "a") == {}
    assert await prompts(cache, "a") == {"a": 1}


async def test_a_set_of_another_task_does_not_join_even_of_one_started_inside(cache):
    async with cache.batch():
        await asyncio.create_task(cache.set_prompt("a", 1))
        assert await prompts(cache, "a") == {"a": 1}


async def test_a_set_in_a_computation_that_the_block_awaits_does_not_join(cache):
    async def compute():
        await cache.set_prompt("inner", 1)
        return 2

    async with cache.batch():
        assert await cache.get_or_compute("outer", compute) == 2
        assert await prompts(cache, "inner", "outer") == {"inner": 1, "outer": 2}


async def test_another_task_may_add_to_it_by_name(cache):
    async def add(batch):
        batch.set_prompt("a", 1)

    async with cache.batch() as batch:
        await asyncio.create_task(add(batch))
    assert await prompts(cache, "a") == {"a": 1}


async def test_nested_batches_end_one_by_one_and_a_set_joins_the_inner_one(cache):
    async with cache.batch():
        await cache.set_prompt("outer", 1)
        async with cache.batch():
            await cache.set_prompt("inner", 2)
        assert await prompts(cache, "outer", "inner") == {"inner": 2}
        await cache.set_prompt("outer again", 3)
    assert await prompts(cache, "outer", "inner", "outer again") == {"outer": 1, "inner": 2, "outer again": 3}


async def test_batches_of_two_caches_at_once_keep_apart(open_cache):
    one, two = await open_cache(), await open_cache()
    async with one.batch():
        async with two.batch():
            await one.set_prompt("key", 1)
            await two.set_prompt("key", 2)
            assert (await prompts(one, "key"), await prompts(two, "key")) == ({}, {})
        assert (await prompts(one, "key"), await prompts(two, "key")) == ({}, {"key": 2})
    assert await prompts(one, "key") == {"key": 1}


async def test_left_by_another_task_it_is_applied_and_the_one_around_it_is_joined_again(cache):
    async with cache.batch():
        inner = cache.batch()
        await inner.__aenter__()
        await cache.set_prompt("inner", 1)
        await asyncio.create_task(inner.__aexit__(None, None, None))
        assert await prompts(cache, "inner") == {"inner": 1}
        await cache.set_prompt("outer", 2)
        assert await prompts(cache, "outer") == {}
    assert await prompts(cache, "outer") == {"outer": 2}


async def test_a_batch_may_be_used_again(cache):
    batch = cache.batch()
    for number in range(2):
        async with batch:
            batch.set_prompt(f"key {number}", number)
    assert await prompts(cache, "key 0", "key 1") == {"key 0": 0, "key 1": 1}


# P3: what arrives meanwhile.


@pytest.mark.parametrize("way", WAYS)
async def test_an_invalidation_that_arrives_meanwhile_drops_what_it_names_and_is_named(cache, way):
    async with cache.batch() as batch:
        batch.set_prompt("plan", 1, agent="engineer", project="web", tags=["planning"])
        batch.set_prompt("bystander", 2, agent="qa", project="shop")
        await WAYS[way](cache)
    assert await prompts(cache, "plan", "bystander") == ({} if way == "all" else {"bystander": 2})
    explanation = cache.explain("plan")
    assert explanation.state == "not kept"
    assert explanation.invalidation.scope == way
    assert cache.get_stats().dropped_values == (2 if way == "all" else 1)


async def test_an_invalidation_before_the_set_drops_it_too(cache):
    """What is set was read at some moment since the block began."""
    async with cache.batch() as batch:
        await cache.invalidate("plan")
        batch.set_prompt("plan", "made before")
    assert await prompts(cache, "plan") == {}


async def test_what_was_made_from_a_value_that_went_meanwhile_is_not_kept(cache):
    await cache.set_prompt("source", "old")
    async with cache.batch() as batch:
        batch.set_prompt("before it was read", 1)
        source = await cache.get_prompt("source")
        batch.set_prompt("derived", f"from {source.prompt}")
        await cache.invalidate("source")
    assert await prompts(cache, "before it was read", "derived") == {"before it was read": 1}
    assert cache.explain("derived").invalidation.name == "source"


async def test_what_was_made_from_a_file_that_changed_meanwhile_goes_at_the_first_read(cache, tmp_path):
    file = tmp_path / "memory.md"
    file.write_text("- use tabs\n")
    async with cache.batch() as batch:
        batch.set_prompt("plan", await cache.files.read_text(file))
        file.write_text("- use spaces\n")
    assert await prompts(cache, "plan") == {}


async def test_its_own_invalidations_do_not_hit_what_it_sets_after_them(cache):
    """A value renamed in a batch: made from the old one, which goes, and there to stay."""
    await cache.set_prompt("old name", "prompt")
    async with cache.batch() as batch:
        cached = await cache.get_prompt("old name")
        batch.invalidate("old name")
        batch.set_prompt("new name", cached.prompt)
    assert await prompts(cache, "old name", "new name") == {"new name": "prompt"}
    await cache.invalidate("something else")
    assert await prompts(cache, "new name") == {"new name": "prompt"}
    await cache.set_prompt("old name", "another")
    await cache.invalidate("old name")
    assert await prompts(cache, "new name") == {}


async def test_a_batch_inside_a_computation_tells_it_what_was_read(cache):
    await cache.set_prompt("source", "old")

    async def compute():
        async with cache.batch() as batch:
            cached = await cache.get_prompt("source")
            batch.set_prompt("by the way", 1)
        return cached.prompt

    await cache.get_or_compute("derived", compute)
    await cache.invalidate("source")
    assert await prompts(cache, "derived", "by the way") == {}


async def test_a_disabled_cache_keeps_nothing_of_it(tmp_path):
    async with SharedPromptCache.from_config({"enabled": False}) as cache:
        async with cache.batch() as batch:
            batch.set_prompt("a", 1)
        assert await prompts(cache, "a") == {}
