"""Files that rules match and that changed while nobody watched: what they invalidate falls before anything is served.

Seen to fail on planted bugs: files that are not compared with the records of the store at the start; records that are
not written; one that is written although its file has another content; an import that is not recorded; a closing that
takes what was not compared for changed.
"""

import asyncio

import pytest

from _support import Counted, replace
from _watched import Comparisons
from shared_prompt_cache import SharedPromptCache, WatchRule
from shared_prompt_cache.stores import MemoryStore, SQLiteStore
from shared_prompt_cache.testing import ChaosStore, FakeWatcher, wait_until

AGENTS = ("same", "edited", "deleted", "created", "rewritten")


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "store")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "memories"
    folder.mkdir()
    for agent in AGENTS:
        if agent != "created":
            (folder / f"{agent}.md").write_text(f"memory of {agent}\n")
    return folder


def watched(store, root, watcher=None):
    rules = [WatchRule(root, "{agent}.md", "agent")]
    return SharedPromptCache(store=store, watch=rules, watcher=FakeWatcher() if watcher is None else watcher)


async def fill(cache):
    for agent in AGENTS:
        await cache.get_or_compute(f"prompt of {agent}", Counted(agent), agent=agent)
    await cache.flush()


def edit(root):
    replace(root / "edited.md", "another memory\n")
    (root / "deleted.md").unlink()
    (root / "created.md").write_text("new\n")
    replace(root / "rewritten.md", "memory of rewritten\n")


async def left(cache):
    return {entry.agent for entry in (await cache.get_many([f"prompt of {agent}" for agent in AGENTS])).values()}


async def test_exactly_the_agents_of_changed_files_fall(store, root):
    async with watched(store, root) as cache:
        await fill(cache)
    async with watched(store, root) as cache:
        assert await left(cache) == set(AGENTS)
        assert cache.get_stats().invalidations == {}
    edit(root)
    async with watched(store, root) as cache:
        assert await left(cache) == {"same", "rewritten"}
        assert cache.get_stats().invalidations == {"agent": 3}
        await fill(cache)
    async with watched(store, root) as cache:
        assert await left(cache) == set(AGENTS)
        assert cache.get_stats().invalidations == {}


async def test_nothing_is_served_before_the_comparison(root):
    store = MemoryStore()
    async with watched(store, root) as cache:
        await fill(cache)
    edit(root)
    cache = watched(store, root)
    starting = asyncio.create_task(cache.start())
    while not starting.done():
        await asyncio.sleep(0)
        assert await left(cache) <= {"same", "rewritten"}
    await cache.aclose()


async def test_what_changed_while_it_ran_is_not_raised_again(store, root):
    async with watched(store, root) as cache:
        await fill(cache)
        replace(root / "edited.md", "another memory\n")
        await cache.sync()
        await fill(cache)
        replace(root / "rewritten.md", "yet another\n")
        await cache.sync()
    async with watched(store, root) as cache:
        assert cache.get_stats().invalidations == {}
        assert await left(cache) == set(AGENTS) - {"rewritten"}


async def test_closing_in_the_middle_of_a_comparison_leaves_the_others_in_the_store(store, root, monkeypatch):
    comparisons = Comparisons(monkeypatch)
    watcher = FakeWatcher()
    async with watched(store, root, watcher=watcher) as cache:
        await fill(cache)
        comparisons.gate.clear()
        replace(root / "edited.md", "another memory\n")
        watcher.push(root / "edited.md")
        closing = asyncio.create_task(cache.aclose())
        await wait_until(lambda: cache.get_stats().entry_count == 0)
        comparisons.gate.set()
        await closing
    async with watched(store, root) as cache:
        assert await left(cache) == set(AGENTS) - {"edited"}


async def test_entries_of_a_life_without_rules_are_not_trusted(store, root):
    async with SharedPromptCache(store=store) as cache:
        await fill(cache)
    edit(root)
    async with watched(store, root) as cache:
        assert await left(cache) <= {"deleted"}  # nobody knows of that file that it ever was


async def test_an_import_that_changed_counts(store, root):
    outside = root.parent / "imported.md"
    outside.write_text("old\n")
    (root / "same.md").write_text("@../imported.md\n")

    def cache():
        rule = WatchRule(root, "{agent}.md", "agent", imports=True, project_root=root.parent)
        return SharedPromptCache(store=store, watch=[rule], watcher=FakeWatcher())

    async with cache() as first:
        await fill(first)
    replace(outside, "new\n")
    async with cache() as second:
        assert await left(second) == set(AGENTS) - {"same"}


async def test_what_the_store_writes_is_no_cause(tmp_path):
    store = SQLiteStore(tmp_path / ".cache" / "prompts")
    async with SharedPromptCache(store=store, watch=[WatchRule(tmp_path, "**/*", "all")]) as cache:
        for number in range(20):
            await cache.set_prompt(f"key {number}", number)
            await cache.flush()
        await cache.sync()
        assert cache.get_stats().invalidations == {}


async def test_it_is_made_up_for_when_the_store_comes_late(root):
    place = MemoryStore()
    async with watched(place, root) as cache:
        await fill(cache)
    edit(root)
    chaos = ChaosStore(place.connect(), seed=1, errors=0)
    chaos.fail_next(2)
    async with watched(chaos, root) as cache:
        assert await left(cache) == set()
        await wait_until(lambda: cache.health().parts["store"].status == "ok")
        assert await left(cache) == {"same", "rewritten"}
