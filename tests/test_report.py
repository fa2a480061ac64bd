"""What a cache tells of itself: figures and state. `test_explain.py` has what became of a key.

Seen to fail on planted bugs: a rate of nothing that divides by zero, a shared computation that counts as a miss, a
part in trouble that tells no moment, a moment that moves with each look.
"""

import asyncio
import json
from collections.abc import Mapping

import pytest

from _support import Counted, replace
from shared_prompt_cache import CacheStats, Health, PartHealth, SharedPromptCache, WatchRule, presets
from shared_prompt_cache.testing import FakeWatcher, ManualClock, wait_until

NOTHING = {
    "hit_rate": 0.0,
    "miss_rate": 0.0,
    "eviction_rate": 0.0,
    "memory_usage_mb": 0.0,
    "entry_count": 0,
    "eviction_count": 0,
    "hits": 0,
    "misses": 0,
    "sets": 0,
    "computations": 0,
    "shared_computations": 0,
    "stale_served": 0,
    "expirations": 0,
    "dropped_values": 0,
    "invalidations": {},
    "store": {},
    "watcher": {},
}


async def test_figures_are_a_mapping_and_attributes(cache):
    stats = cache.get_stats()
    assert isinstance(stats, CacheStats)
    assert isinstance(stats, Mapping)
    assert dict(stats) == NOTHING | {"watcher": stats.watcher}
    assert list(stats) == list(NOTHING)
    assert len(stats) == len(NOTHING)
    for name in stats:
        assert stats[name] == getattr(stats, name)
    assert json.loads(json.dumps(dict(stats)))["hit_rate"] == 0.0
    with pytest.raises(KeyError):
        stats["__class__"]
    with pytest.raises(AttributeError):
        stats.hits = 5


async def test_they_are_those_of_the_moment_of_the_call(cache):
    before = cache.get_stats()
    await cache.clear()
    assert before.invalidations == {}
    assert cache.get_stats().invalidations == {"all": 1}


def figures(cache, *names):
    stats = cache.get_stats()
    return tuple(stats[name] for name in names)


async def test_hits_and_misses_of_every_kind(cache, tmp_path):
    file = tmp_path / "memory.md"
    file.write_text("old")
    rates = ("hits", "misses", "hit_rate", "miss_rate")
    await cache.get_prompt("a")
    assert figures(cache, *rates) == (0, 1, 0.0, 1.0)
    await cache.set_prompt("a", 1)
    await cache.get_prompt("a")
    await cache.get_or_compute("a", Counted(2))
    assert await cache.get_many(["a", "b"])
    assert figures(cache, *rates) == (3, 2, 0.6, 0.4)
    await cache.get_or_compute("from a file", Counted(1), depends_on=file)
    await cache.get_prompt("from a file")
    replace(file, "new")
    await cache.get_prompt("from a file")
    assert figures(cache, *rates) == (4, 4, 0.5, 0.5)
    assert figures(cache, "sets", "computations") == (2, 1)


async def test_a_value_that_is_too_large_was_not_stored():
    cache = SharedPromptCache(max_memory_mb=0.01)
    await cache.set_prompt("a", "x" * 100_000)
    await cache.set_prompt("b", "x")
    assert figures(cache, "sets", "dropped_values", "entry_count") == (1, 1, 1)


async def test_who_shares_a_computation_neither_hit_nor_missed(cache):
    gate = asyncio.Event()
    callers = [asyncio.create_task(cache.get_or_compute("a", Counted(1, gate=gate))) for _ in range(5)]
    await wait_until(lambda: cache.get_stats().shared_computations == 4)
    gate.set()
    await asyncio.gather(*callers)
    assert figures(cache, "hits", "misses", "computations") == (0, 1, 1)


async def test_what_expired_and_was_served_all_the_same(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    await cache.set_prompt("a", "old", ttl=10)
    clock.advance(10)
    assert await cache.get_or_compute("a", Counted("new"), stale_for=60) == "old"
    await wait_until(lambda: not cache._flights.running)
    assert figures(cache, "stale_served", "expirations", "computations", "entry_count") == (1, 1, 1, 1)


async def test_evictions_among_all_values_stored(open_cache):
    cache = await open_cache(max_size=6)
    for number in range(8):
        await cache.set_prompt(f"key-{number}", number)
    assert figures(cache, "eviction_count", "eviction_rate", "entry_count") == (2, 0.25, 6)


async def test_values_that_were_not_kept(open_cache):
    cache = await open_cache(max_memory_mb=1)

    async def overtaken():
        await cache.invalidate("a")

    await cache.get_or_compute("a", overtaken)
    await cache.set_prompt("b", "b" * 2_000_000)
    assert figures(cache, "dropped_values", "entry_count", "memory_usage_mb") == (2, 0, 0.0)


async def test_memory_is_told_in_mebibytes(cache):
    await cache.set_prompt("a", "a" * 2**20)
    assert cache.get_stats().memory_usage_mb == pytest.approx(1, abs=0.001)


async def test_a_watcher_has_figures_of_its_own(open_cache, tmp_path):
    watcher = FakeWatcher()
    memory = tmp_path / "engineer.md"
    memory.write_text("old")
    cache = await open_cache(watch=[WatchRule(tmp_path, "{agent}.md", "agent")], watcher=watcher)
    replace(memory, "new")
    watcher.push(memory)
    await cache.sync()
    figures = cache.get_stats().watcher
    assert (figures["name"], figures["files"], figures["events"]) == ("fake", 1, 1)


async def test_without_a_watch_only_the_memory_is_told_of(cache):
    health = cache.health()
    assert isinstance(health, Health)
    assert (health.status, health.unwatched) == ("ok", 0)
    assert health.parts["memory"] == PartHealth(status="ok")


async def test_each_part_in_trouble_says_why_and_since_when(open_cache, tmp_path):
    clock, watcher = ManualClock(wall=1_000), FakeWatcher()
    cache = await open_cache(watch=presets.claude_mpm(tmp_path), watcher=watcher, clock=clock)
    assert cache.health().status == "ok"
    folder = tmp_path / ".claude-mpm" / "memories"
    clock.advance(5)
    watcher.degrade(folder, "the limit is reached")
    clock.advance(5)
    watcher.degrade(folder, "the limit is reached")
    health = cache.health()
    assert health.status == "degraded"
    told = {part: state for part, state in health.parts.items() if state.status == "degraded"}
    assert set(told.values()) == {PartHealth(status="degraded", reason="the limit is reached", since=1_005)}
    assert health.parts["memory"].status == "ok"
    watcher.degrade(folder, None)
    assert cache.health().status == "ok"


async def test_a_root_that_cannot_be_watched_says_since_when(open_cache, tmp_path):
    """The moment is that of the first look which found it so."""
    clock = ManualClock(wall=1_000)
    cache = await open_cache(watch=[WatchRule(tmp_path, "**/*.md", "all")], watcher=FakeWatcher(), clock=clock)
    troubles, root = cache._life.watch._troubles, str(tmp_path)
    for _ in range(3):
        clock.advance(1)
        troubles.unread([(root, "it has more than 10,000 folders")])
    expected = PartHealth(status="degraded", reason="it has more than 10,000 folders", since=1_001)
    assert cache.health().parts[f"root:{root}"] == expected
    troubles.unread([(root, "it cannot be read")])
    assert cache.health().parts[f"root:{root}"].since == 1_003
    troubles.unread([])
    assert cache.health().status == "ok"
