"""`FakeWatcher`, as a test of a program with a cache uses it: events come when the test says so.

Seen to fail on planted bugs: a path that is not made absolute, a folder that is refused and yet armed, events of a
watcher that is closed, and a loss of events that puts nothing in doubt.
"""

import asyncio

import pytest

from _support import Counted
from shared_prompt_cache import CacheClosedError, FileChange, SharedPromptCache, WatchRule
from shared_prompt_cache.testing import FakeWatcher, wait_until


@pytest.fixture
def memory(tmp_path):
    path = tmp_path / "engineer.md"
    path.write_text("one")
    return path


@pytest.fixture
def watcher():
    return FakeWatcher()


@pytest.fixture
async def watching(open_cache, memory, watcher):
    """Return a cache that watches the memory of agents, with an entry of one of them."""
    cache = await open_cache(watch=[WatchRule(memory.parent, "{agent}.md", "agent")], watcher=watcher)
    await cache.set_prompt("of engineer", "prompt", agent="engineer")
    return cache


async def test_a_change_that_is_pushed_invalidates(watching, watcher, memory):
    events = []
    watching.events.listen(events.append)
    memory.write_text("two")
    watcher.push(memory)
    assert await watching.get_prompt("of engineer") is None, "who reads after the push waits for its outcome"
    await wait_until(lambda: events)
    assert events[0].cause == FileChange(path=memory, kind="modified")


async def test_without_a_push_rules_hear_of_nothing(watching, watcher, memory):
    memory.write_text("two")
    assert (await watching.get_prompt("of engineer")).prompt == "prompt"
    await watching.sync()
    assert await watching.get_prompt("of engineer") is None


async def test_a_push_of_what_has_not_changed_invalidates_nothing(watching, watcher, memory):
    watcher.push(memory, memory.parent)
    await watching.sync()
    assert (await watching.get_prompt("of engineer")).prompt == "prompt"


async def test_a_push_of_a_folder_is_about_all_below_it(watching, watcher, memory):
    memory.unlink()
    watcher.push(memory.parent)
    assert await watching.get_prompt("of engineer") is None


async def test_paths_may_be_relative_and_text(watching, watcher, memory, monkeypatch):
    monkeypatch.chdir(memory.parent)
    memory.write_text("two")
    watcher.push("engineer.md")
    assert await watching.get_prompt("of engineer") is None


async def test_lost_events_put_everything_in_doubt(watching, watcher, memory):
    """P6."""
    memory.write_text("two")
    watcher.lose()
    assert await watching.get_prompt("of engineer") is None
    assert watching.health().parts["watcher"].reason == "the test lost events"


async def test_with_events_alone_a_value_stays_until_the_push(open_cache, memory, watcher):
    cache = await open_cache(watcher=watcher, freshness="events")
    compute = Counted(lambda: cache.files.read_text(memory))
    await cache.get_or_compute("key", compute)
    await wait_until(lambda: str(memory.parent) in watcher.watched)
    await wait_until(lambda: not cache.health().unwatched)
    assert await cache.get_or_compute("key", compute) == "one"
    memory.write_text("two")
    assert await cache.get_or_compute("key", compute) == "one"
    watcher.push(memory)
    assert await cache.get_or_compute("key", compute) == "two"


async def test_a_folder_that_is_refused_is_not_trusted(open_cache, memory, watcher):
    cache = await open_cache(watcher=watcher, freshness="events")
    watcher.refused.add(str(memory.parent))
    compute = Counted(lambda: cache.files.read_text(memory))
    await cache.get_or_compute("key", compute)
    await wait_until(lambda: str(memory.parent) in watcher.watched)
    await asyncio.sleep(0)
    assert cache.health().unwatched == 1
    memory.write_text("two")
    assert await cache.get_or_compute("key", compute) == "two"


async def test_a_folder_is_reported_degraded_and_well_again(watching, watcher, memory):
    watcher.degrade(memory.parent, "no room for another watch")
    health = watching.health()
    assert health.status == "degraded"
    assert "no room for another watch" in {part.reason for part in health.parts.values()}
    watcher.degrade(memory.parent, None)
    assert watching.health().status == "ok"


async def test_it_tells_what_the_cache_wants_watched(watching, watcher, memory):
    assert str(memory.parent) in watcher.watched
    assert watching.get_stats().watcher["name"] == "fake"
    watcher.drain()


@pytest.mark.parametrize("report", [lambda w: w.push("/a"), lambda w: w.lose(), lambda w: w.degrade("/a", "full")])
async def test_it_reports_only_inside_of_the_cache_s_life(memory, report):
    watcher = FakeWatcher()
    with pytest.raises(CacheClosedError, match="push inside `async with cache:`"):
        report(watcher)
    async with SharedPromptCache(watch=[WatchRule(memory.parent, "*", "all")], watcher=watcher) as cache:
        report(watcher)
        await cache.sync()
    with pytest.raises(CacheClosedError, match="not started"):
        report(watcher)
    async with cache:
        report(watcher)
