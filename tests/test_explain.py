"""`cache.explain`: what is there, and the chain from the first cause to the key that is not.

Seen to fail on planted bugs: a changed file that is not named, a chain that stops at the invalidation, an entry that
has fallen and is told as cached because nobody has reclaimed it yet.
"""

import asyncio

import pytest

from _support import Counted, replace
from shared_prompt_cache import WatchRule
from shared_prompt_cache.testing import ManualClock, wait_until


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "engineer.md"
    path.write_text("old")
    return path


async def test_what_is_cached_is_told_with_its_scopes_its_files_and_its_times(open_cache, file):
    clock = ManualClock()
    cache = await open_cache(clock=clock, ttl_seconds=60)
    at = clock.wall()
    await cache.set_prompt("key", 1, agent="Engineer", project="web", tags=["a"], depends_on=file)
    clock.advance(10)
    told = cache.explain("key")
    assert (told.state, told.since, told.expires_at) == ("cached", at, at + 60)
    assert (told.agent, told.project, told.tags, told.dependencies) == ("Engineer", "web", {"a"}, (str(file),))
    assert str(told) == f"'key' is cached\n  made from {file}"
    clock.advance(50)
    assert cache.explain("key").state == "expired"


async def test_a_changed_file_is_named(cache, file):
    await cache.set_prompt("key", 1, depends_on=[file, file.with_name("other.md")])
    replace(file, "new")
    assert await cache.get_prompt("key") is None
    told = cache.explain("key")
    assert (told.state, told.reason) == ("removed", f"the file {file} changed")


async def test_an_event_of_a_file_is_the_beginning_of_the_chain(open_cache, file):
    cache = await open_cache(watch=[WatchRule(file.parent, "{agent}.md", "agent")])
    await cache.set_prompt("source", 1, agent="engineer")

    async def derived():
        return (await cache.get_prompt("source")).prompt

    await cache.get_or_compute("derived", derived)
    await cache.get_or_compute("derived twice", lambda: cache.get_or_compute("derived", derived))
    replace(file, "new")
    await cache.sync()
    first = f"the file {file} was modified"
    second = f"which invalidated the agent 'engineer' in the project '{file.parent}' (event 1)"
    assert cache.explain("source").chain == (first, second)
    assert cache.explain("derived").chain == (first, second, "and with it 'source', of which it was made")
    assert cache.explain("derived twice").chain[2] in {
        "and with it 'derived', 'source', of which it was made",
        "and with it 'source', 'derived', of which it was made",
    }


async def test_the_key_that_a_value_was_made_from_is_named_when_it_is_invalidated(cache):
    async def derived():
        return await cache.get_or_compute("source", Counted(1)) + await cache.get_or_compute("other", Counted(1))

    await cache.get_or_compute("derived", derived)
    await cache.invalidate("source")
    assert cache.explain("derived").chain[1:] == (
        "which invalidated the key 'source' (event 1)",
        "and with it 'source', of which it was made",
    )


async def test_an_entry_that_has_fallen_is_not_told_as_cached_before_it_is_reclaimed(open_cache):
    cache = await open_cache(max_size=2_000)
    for number in range(2_000):
        await cache.set_prompt(f"key {number}", number, tags=["all of them"])
    invalidating = asyncio.create_task(cache.invalidate_tag("all of them"))
    await asyncio.sleep(0)
    assert cache._memory.has_work
    assert {cache.explain(f"key {number}").state for number in range(2_000)} == {"removed"}
    assert await invalidating == 2_000


async def test_what_is_being_computed_is_told_so_and_what_nobody_knows_too(cache):
    gate = asyncio.Event()
    compute = Counted(1, gate=gate)
    asking = asyncio.create_task(cache.get_or_compute("key", compute))
    await wait_until(lambda: compute.began == 1)
    assert cache.explain("key").state == "computing"
    await cache.invalidate("key")
    gate.set()
    await asking
    told = cache.explain("key")
    assert (told.state, told.reason) == ("not kept", "it was invalidated while it was computed")
    assert cache.explain("nobody").state == "unknown"


@pytest.mark.parametrize("reason", ["evicted", "expired"])
async def test_what_left_by_itself_has_no_chain(open_cache, reason):
    clock = ManualClock()
    cache = await open_cache(max_size=1, clock=clock, ttl_seconds=60)
    await cache.set_prompt("key", 1)
    if reason == "expired":
        clock.advance(60)
    await cache.set_prompt("another", 2)
    told = cache.explain("key")
    assert (told.state, told.reason, told.chain, str(told)) == ("removed", reason, (), f"'key' is removed: {reason}")


async def test_what_went_with_the_cache_is_not_blamed_on_a_file(cache, file):
    await cache.set_prompt("changed", 1, depends_on=file)
    await cache.set_prompt("kept", 1, depends_on=file.with_name("other.md"))
    await cache.set_prompt("plain", 1)
    replace(file, "new")
    await cache.get_prompt("changed")
    await cache.aclose()
    assert cache.explain("changed").reason == f"the file {file} changed"
    assert {cache.explain(key).reason for key in ("kept", "plain")} == {"the cache was closed"}
