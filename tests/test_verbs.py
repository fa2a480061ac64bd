"""The short verbs of the cache, and a cache that a configuration describes, from end to end.

Seen to fail on planted bugs: a disabled cache that keeps what it computes, an eviction that takes the newest.
"""

import asyncio

import pytest

from _support import Counted
from shared_prompt_cache import SharedPromptCache, WatchRule
from shared_prompt_cache.config import CacheConfig
from shared_prompt_cache.testing import FakeWatcher


@pytest.fixture
def rules(tmp_path):
    return [WatchRule(tmp_path, "{agent}.md", "agent")]


# Configuration.


@pytest.mark.parametrize("source", [CacheConfig(enabled=False), {"enabled": False}])
async def test_a_cache_that_is_not_enabled_computes_every_time_and_keeps_nothing(source):
    cache = SharedPromptCache.from_config(source)
    compute = Counted("value")
    assert [await cache.get_or_compute("key", compute) for _ in range(3)] == ["value"] * 3
    assert compute.began == 3
    await cache.set_prompt("key", "value")
    assert await cache.get_prompt("key") is None
    assert cache.get_stats().entry_count == 0
    await cache.aclose()


async def test_entries_outlive_the_process_where_the_configuration_says_so(tmp_path):
    source = {"persistence": {"enabled": True, "path": str(tmp_path / "prompts")}}
    for value in ("computed", "never"):
        async with SharedPromptCache.from_config(source) as cache:
            assert await cache.get_or_compute("key", Counted(value)) == "computed"


async def test_a_file_may_describe_it_with_what_it_watches(tmp_path):
    project, file = tmp_path / "shop", tmp_path / "cache.yaml"
    memory = project / ".claude-mpm" / "memories" / "engineer_memories.md"
    memory.parent.mkdir(parents=True)
    memory.write_text("old")
    file.write_text(
        f"cache:\n  shared_prompt:\n    max_size: 10\n    watch:\n"
        f"      - root: {project}\n        presets: [claude_mpm]\n"
    )
    async with await asyncio.to_thread(SharedPromptCache.from_config, file) as cache:
        await cache.set_prompt("key", "value", agent="engineer", project=project)
        memory.write_text("new")
        await cache.sync()
        assert await cache.get_prompt("key") is None


# Verbs.


async def test_many_are_looked_up_at_once(cache):
    for number in range(300):
        await cache.set_prompt(f"key {number}", number)
    found = await cache.get_many(f"key {number}" for number in range(0, 600, 2))
    assert {key: cached.prompt for key, cached in found.items()} == {f"key {n}": n for n in range(0, 300, 2)}


async def test_the_least_recently_used_are_evicted_by_hand(cache):
    for number in range(300):
        await cache.set_prompt(f"key {number}", number)
    await cache.get_prompt("key 0")
    assert await cache.evict_oldest() == 1
    assert await cache.get_prompt("key 1") is None
    assert await cache.evict_oldest(count=250) == 250
    assert await cache.get_prompt("key 0") is not None
    assert await cache.evict_oldest(count=250) == 49
    assert await cache.evict_oldest(count=0) == 0


async def test_without_a_watch_there_is_nothing_to_wait_for(cache):
    await cache.sync()
    await cache.sync(timeout=1)


async def test_a_sync_that_takes_too_long_says_so(rules, monkeypatch):
    async with SharedPromptCache(watch=rules, watcher=FakeWatcher()) as cache:
        gate = asyncio.Event()
        in_thread = cache._proofs.in_thread

        async def held_up(*args, **options):
            await gate.wait()
            return await in_thread(*args, **options)

        monkeypatch.setattr(cache._proofs, "in_thread", held_up)
        with pytest.raises(TimeoutError):
            await cache.sync(timeout=0.01)
        gate.set()
