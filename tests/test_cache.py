"""The life of a cache, its arguments, and the verbs that stand in no other file.

Seen to fail on planted bugs: a cache that binds its loop when it is made, a second `start()` that watches twice, verbs
of a closed cache that go on, a disabled cache that keeps what it computes.
"""

import asyncio
import math
from datetime import timedelta

import pytest

from _support import Counted
from shared_prompt_cache import CacheClosedError, ConfigError, SharedPromptCache, WatchRule, WrongLoopError
from shared_prompt_cache.config import CacheConfig
from shared_prompt_cache.testing import FakeWatcher, ManualClock, wait_until


@pytest.fixture
def rules(tmp_path):
    return [WatchRule(tmp_path, "{agent}.md", "agent")]


# Life.


async def test_without_rules_no_start_is_needed():
    cache = SharedPromptCache()
    await cache.set_prompt("key", "value")
    assert (await cache.get_prompt("key")).prompt == "value"
    await cache.aclose()


async def test_with_rules_a_verb_before_the_start_says_how_to_start(rules):
    cache = SharedPromptCache(watch=rules, watcher=FakeWatcher())
    for verb in (cache.get_prompt("key"), cache.set_prompt("key", "value"), cache.clear(), cache.sync()):
        with pytest.raises(CacheClosedError, match="async with"):
            await verb


async def test_starting_and_closing_twice_is_as_good_as_once(rules):
    watcher = FakeWatcher()
    cache = SharedPromptCache(watch=rules, watcher=watcher)
    await cache.start()
    await cache.start()
    assert watcher.watched
    await cache.aclose()
    await cache.aclose()


async def test_it_may_be_left_by_another_task_than_it_was_entered_by(rules):
    cache = SharedPromptCache(watch=rules, watcher=FakeWatcher())
    await asyncio.create_task(cache.__aenter__())
    assert await cache.get_or_compute("key", Counted("value")) == "value"
    await asyncio.create_task(cache.__aexit__(None, None, None))
    with pytest.raises(CacheClosedError, match="async with"):
        await cache.get_or_compute("key", Counted("value"))


async def test_it_can_be_started_again_and_has_forgotten_everything(rules):
    cache = SharedPromptCache(watch=rules, watcher=FakeWatcher())
    async with cache:
        await cache.set_prompt("key", "value")
    async with cache:
        assert await cache.get_prompt("key") is None
        await cache.set_prompt("key", "again")
        assert (await cache.get_prompt("key")).prompt == "again"


async def test_a_start_that_fails_leaves_nothing_open(rules, monkeypatch):
    class Broken(FakeWatcher):
        async def start(self, sink):
            raise KeyboardInterrupt  # what is no Exception ends the start

    cache = SharedPromptCache(watch=rules, watcher=Broken())
    with pytest.raises(KeyboardInterrupt):
        await cache.start()
    with pytest.raises(CacheClosedError):
        await cache.get_prompt("key")


async def test_closing_ends_those_who_wait_with_an_error_of_ours():
    cache = SharedPromptCache()
    gate = asyncio.Event()
    compute = Counted("value", gate=gate)
    waiting = [asyncio.create_task(cache.get_or_compute("key", compute)) for _ in range(3)]
    await wait_until(lambda: compute.began == 1)
    await cache.aclose()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CacheClosedError] * 3
    assert compute.cancelled == 1


async def test_a_computation_may_close_the_cache_it_runs_in():
    cache = SharedPromptCache()
    closed = asyncio.Event()

    async def compute():
        await cache.aclose()
        closed.set()
        return "value"

    with pytest.raises(CacheClosedError):
        await cache.get_or_compute("key", compute)
    await closed.wait()


async def test_a_closing_that_is_cancelled_goes_on_to_its_end():
    cache = SharedPromptCache()
    await cache.set_prompt("key", "value")
    closing = asyncio.create_task(cache.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    async with cache:
        assert await cache.get_prompt("key") is None


def test_it_belongs_to_the_loop_of_its_first_await_and_to_none_before():
    cache = SharedPromptCache()
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(cache.set_prompt("key", "value"))
        with pytest.raises(WrongLoopError, match=r"cache\.blocking"):
            second.run(cache.get_or_compute("other", Counted("value")))
        first.run(cache.aclose())
        second.run(cache.start())  # closed, it belonged to nobody
        second.run(cache.set_prompt("key", "value"))
        second.run(cache.aclose())


# Arguments.


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_size", 0),
        ("max_size", 1.5),
        ("max_size", "many"),
        ("ttl_seconds", 0),
        ("ttl_seconds", math.nan),
        ("ttl_seconds", "an hour"),
        ("max_memory_mb", 0),
        ("max_memory_mb", -1),
        ("eviction_policy", "newest"),
        ("freshness", "always"),
        ("watcher", "inotify?"),
        ("name", ""),
        ("watch", 7),
        ("watch", ["**/*.md"]),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(argument, value):
    with pytest.raises(ConfigError) as caught:
        SharedPromptCache(**{argument: value})
    assert argument.removesuffix("_seconds") in f"{caught.value.field} {caught.value}"


async def test_something_that_is_no_watcher_is_told_at_the_start(rules):
    cache = SharedPromptCache(watch=rules, watcher=object())
    with pytest.raises(ConfigError, match="'auto', 'watchfiles', 'polling' or a watcher"):
        await cache.start()


async def test_times_to_live_may_be_spans():
    clock = ManualClock()
    cache = SharedPromptCache(10, timedelta(minutes=1), clock=clock)
    await cache.set_prompt("key", "value")
    clock.advance(59)
    assert await cache.get_prompt("key") is not None
    clock.advance(1)
    assert await cache.get_prompt("key") is None
    await cache.aclose()


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


def test_entries_that_are_to_outlive_the_process_are_refused_and_not_forgotten_in_silence():
    with pytest.raises(ConfigError, match="set enabled: false") as caught:
        SharedPromptCache.from_config({"persistence": {"enabled": True}})
    assert caught.value.field == "persistence.enabled"


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
