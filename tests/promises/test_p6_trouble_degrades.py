"""P6: trouble degrades, it never lies. Here: the watch over files and whatever it stands on.

A watcher that raises, goes dead or lost events, and a comparison that cannot be made, fail no call and leave nothing
stale: the cache goes on with what it can prove, says so in `health()`, logs it once, and recovers by itself. Each has
failed on a planted bug: an exception that ends `start()`; a retry that outlives the cache, whose doubt nobody settles;
a failure that is logged at each attempt; folders that still count as watched when their watcher has failed; folders
that cannot be watched and are not looked at either.
"""

import asyncio
from collections import Counter

import pytest

from _support import replace
from _watched import Comparisons, dropped, fill, hasten, rules
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache._files import watch
from shared_prompt_cache.testing import FakeWatcher, wait_until

AGENTS = ("engineer", "qa")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for agent in AGENTS:
        (folder / f"{agent}.md").write_text("old")
    return folder


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture
def logged(caplog):
    """Return how often each event was logged."""
    return lambda: Counter(record.event for record in caplog.records)


class Breaking(FakeWatcher):
    """A watcher of which some methods raise."""

    def __init__(self, *broken):
        super().__init__()
        self.broken = set(broken)
        self.failures = 0

    def _fail(self, method):
        if method in self.broken:
            self.failures += 1
            raise OSError(f"{method} is broken")

    async def start(self, sink):
        self._fail("start")
        await super().start(sink)

    async def watch(self, folders):
        self._fail("watch")
        return await super().watch(folders)

    async def aclose(self):
        await super().aclose()
        self._fail("aclose")


async def read(cache, root, agent="qa", **options):
    async def compute():
        return await cache.files.read_text(root / f"{agent}.md")

    return await cache.get_or_compute(f"made for {agent}", compute, **options)


# A watcher that raises


@pytest.mark.parametrize("method", ["start", "watch"])
async def test_a_watcher_that_is_broken_at_the_start_fails_no_call(open_cache, root, method, logged):
    watcher = Breaking(method)
    cache = await open_cache(watch=rules(root), watcher=watcher)
    assert cache.health().status == "degraded"
    assert f"{method} is broken" in cache.health().parts["watcher"].reason
    await fill(cache, *AGENTS)
    assert await read(cache, root) == "old"
    replace(root / "qa.md", "new")
    assert await read(cache, root) == "new"
    await cache.sync()
    assert await dropped(cache, *AGENTS) == {"qa"}
    await wait_until(lambda: watcher.failures > 3)
    assert logged() == {"watch.failed": 1}


@pytest.mark.parametrize("method", ["start", "watch"])
async def test_it_recovers_by_itself(open_cache, root, method, logged):
    watcher = Breaking(method)
    cache = await open_cache(watch=rules(root), watcher=watcher)
    await fill(cache, *AGENTS)
    replace(root / "engineer.md", "new")  # nobody tells
    watcher.broken.clear()
    await wait_until(lambda: cache.health().status == "ok")
    assert await dropped(cache, *AGENTS) == {"engineer"}
    assert "began anew" in cache.health().parts["watcher"].reason
    await fill(cache, *AGENTS)
    replace(root / "qa.md", "new")
    watcher.push(root / "qa.md")
    assert await dropped(cache, *AGENTS) == {"qa"}
    assert logged() == {"watch.failed": 1, "watch.recovered": 1}


async def test_a_watcher_that_breaks_later_is_noticed_and_outlived(open_cache, root, logged):
    watcher = Breaking()
    cache = await open_cache(watch=rules(root), watcher=watcher)
    await fill(cache, *AGENTS)
    watcher.broken.add("watch")
    (root / "more").mkdir()
    (root / "more" / "ops.md").write_text("old")
    watcher.push(root / "more")
    await wait_until(lambda: cache.health().status == "degraded")
    await fill(cache, "ops", "qa")
    replace(root / "qa.md", "new")
    (root / "more" / "ops.md").unlink()
    await wait_until(lambda: gone(cache, "qa", "ops"), what="what changed is found without events")
    watcher.broken.clear()
    await wait_until(lambda: cache.health().status == "ok")
    assert str(root / "more") in cache._proofs.armed
    assert logged() == {"watch.failed": 1, "watch.recovered": 1}


async def gone(cache, *agents):
    return await dropped(cache, *agents) == {*agents}


async def test_with_events_alone_nothing_is_trusted_that_a_broken_watcher_was_to_watch(open_cache, root, monkeypatch):
    monkeypatch.setattr(watch, "_RETRY", 60)
    watcher = Breaking()
    cache = await open_cache(freshness="events", watcher=watcher)
    assert await read(cache, root) == "old"
    await wait_until(lambda: cache.health().unwatched == 0)
    watcher.broken.add("watch")
    other = root.parent / "other"
    other.mkdir()
    await cache.set_prompt("from elsewhere", "prompt", depends_on=other)
    await wait_until(lambda: cache.health().status == "degraded")
    assert cache.health().unwatched == 2
    for version in range(3):
        replace(root / "qa.md", f"version {version}")
        assert await read(cache, root) == f"version {version}"


async def test_a_watcher_that_cannot_be_closed_keeps_nothing_from_being_closed(root, logged):
    cache = SharedPromptCache(watch=rules(root), watcher=Breaking("aclose"))
    listening = []
    async with cache:
        cache.events.listen(listening.append)
        assert await read(cache, root) == "old"  # by a thread, which the next test would find
    assert logged() == {"watcher.failed": 1}


async def test_what_a_watcher_says_after_the_end_is_not_heard(root, logged):
    watcher = FakeWatcher()
    cache = SharedPromptCache(watch=rules(root), watcher=watcher)
    async with cache:
        sink = watcher._sink
    sink.doubted("a call that was under way")
    sink.changed([str(root / "qa.md")])
    async with cache, asyncio.timeout(5):
        await fill(cache, "qa")
        assert await dropped(cache, "qa") == set()
    assert logged() == {}


# A watcher that does not see


async def test_a_folder_that_cannot_be_watched_is_looked_at_instead(open_cache, root, logged):
    watcher = FakeWatcher()
    cache = await open_cache(watch=rules(root), watcher=watcher)
    watcher.refused = {str(root)}
    watcher.degrade(root, "the limit is reached")
    await fill(cache, *AGENTS)
    for version in range(3):
        assert cache.health().parts[f"folder:{root}"].reason == "the limit is reached"
        replace(root / "qa.md", f"version {version}")
        await wait_until(lambda: gone(cache, "qa"))
        await fill(cache, "qa")
    assert await dropped(cache, *AGENTS) == set()
    watcher.refused = set()
    watcher.degrade(root, None)
    await wait_until(lambda: str(root) in cache._proofs.armed)
    assert cache.health().status == "ok"
    assert logged() == {"watch.degraded": 1}


async def test_with_events_alone_a_folder_that_cannot_be_watched_is_not_trusted(open_cache, root):
    watcher = FakeWatcher()
    cache = await open_cache(freshness="events", watcher=watcher)
    assert await read(cache, root) == "old"
    await wait_until(lambda: cache.health().unwatched == 0)
    assert await read(cache, root) == "old"
    watcher.refused = {str(root)}
    watcher.degrade(root, "the limit is reached")
    replace(root / "qa.md", "new")
    assert await read(cache, root) == "new"
    assert cache.health().unwatched == 1


async def test_when_events_were_lost_everything_is_compared_and_what_is_equal_stays(open_cache, root, logged):
    watcher = FakeWatcher()
    cache = await open_cache(watch=rules(root), watcher=watcher, freshness="events")
    await fill(cache, *AGENTS)
    await read(cache, root)
    await read(cache, root, "engineer")
    await wait_until(lambda: cache.health().unwatched == 0)
    computations = cache.get_stats().computations
    replace(root / "qa.md", "new")
    watcher.lose("the queue was full")
    assert await dropped(cache, *AGENTS) == {"qa"}
    assert await read(cache, root) == "new"
    assert await read(cache, root, "engineer") == "old"
    assert cache.get_stats().computations == computations + 1
    assert cache.health().status == "ok"
    assert cache.health().parts["watcher"].reason == "the queue was full"
    assert logged() == {"watch.doubted": 1}


# A comparison that cannot be made


@pytest.fixture
def comparisons(monkeypatch):
    return Comparisons(monkeypatch)


async def test_what_cannot_be_compared_is_invalidated(open_cache, root, comparisons, logged):
    watcher = FakeWatcher()
    cache = await open_cache(watch=rules(root), watcher=watcher)
    events = []
    cache.events.listen(events.append)
    await fill(cache, *AGENTS)
    comparisons.error = MemoryError()
    watcher.push(root / "qa.md")
    assert await dropped(cache, "qa", "engineer") == {"qa", "engineer"}
    await wait_until(lambda: events)
    assert (events[0].scope, events[0].cause.reason) == ("all", "a comparison with the files could not be finished")
    await cache.sync()
    assert cache.health().status == "degraded"
    assert cache.health().parts["watcher"].reason == "MemoryError()"
    assert await read(cache, root) == "old"
    began = comparisons.began
    await wait_until(lambda: comparisons.began > began + 3)
    assert logged() == {"watch.failed": 1}
    comparisons.error = None
    await wait_until(lambda: cache.health().status == "ok")
    assert logged() == {"watch.failed": 1, "watch.recovered": 1}
    await fill(cache, *AGENTS)
    replace(root / "qa.md", "new")
    watcher.push(root / "qa.md")
    assert await dropped(cache, *AGENTS) == {"qa"}


async def test_a_baseline_that_could_not_be_taken_at_the_start_is_taken_later(open_cache, root, comparisons):
    comparisons.error = MemoryError()
    watcher = FakeWatcher()
    cache = await open_cache(watch=rules(root), watcher=watcher)
    assert cache.health().status == "degraded"
    comparisons.error = None
    await wait_until(lambda: cache.health().status == "ok")
    await fill(cache, *AGENTS)
    replace(root / "qa.md", "new")
    watcher.push(root / "qa.md")
    assert await dropped(cache, *AGENTS) == {"qa"}


async def test_a_folder_that_could_not_be_looked_into_is_compared_instead(open_cache, root, monkeypatch):
    watcher = FakeWatcher()
    cache = await open_cache(watch=rules(root), watcher=watcher)
    await fill(cache, "ops")

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(watch, "lead_to_files", fail)
    (root / "more").mkdir()
    (root / "more" / "ops.md").write_text("new")
    watcher.push(root / "more")
    await wait_until(lambda: gone(cache, "ops"))


async def test_a_cache_that_is_closed_in_trouble_is_whole_when_it_is_started_again(root, comparisons, monkeypatch):
    """The retry of the first life would have come in the second one."""
    monkeypatch.setattr(watch, "_RETRY", 0.1)
    watcher = FakeWatcher()
    cache = SharedPromptCache(watch=rules(root), watcher=watcher)
    async with cache:
        comparisons.error = MemoryError()
        watcher.push(root / "qa.md")
        await wait_until(lambda: cache.health().status == "degraded")
    comparisons.error = None
    async with cache, asyncio.timeout(5):
        assert cache.health().status == "ok"
        await fill(cache, *AGENTS)
        await asyncio.sleep(0.2)
        assert await dropped(cache, *AGENTS) == set()


async def test_who_waits_for_an_answer_when_the_cache_is_closed_gets_none(root, comparisons):
    watcher = FakeWatcher()
    cache = SharedPromptCache(watch=rules(root), watcher=watcher)
    async with cache:
        await fill(cache, "qa")
        comparisons.gate.clear()
        watcher.push(root / "qa.md")
        waiting = asyncio.create_task(cache.get_prompt("of qa"))
        syncing = asyncio.create_task(cache.sync())
        await wait_until(lambda: comparisons.began == 2)
        closing = asyncio.create_task(cache.aclose())
        await wait_until(lambda: waiting.done() and syncing.done())
        comparisons.gate.set()
        await closing
        assert await waiting is None
