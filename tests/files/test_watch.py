"""From an event to what follows from it: in doubt at once, compared in a thread, invalidated or found unchanged.

The events are a test's own; `test_editing_styles.py` has those of the system. Seen to fail on planted bugs: a question
that is settled before its answer is in force, a second question that forgets the first, a suspect that is taken for a
file, a comparison that takes what arrives meanwhile for answered.
"""

import asyncio
from pathlib import Path

import pytest

from _support import Counted, replace
from _watched import Comparisons, dropped, fill, hasten, rules
from shared_prompt_cache import WatchRule
from shared_prompt_cache._files import watch as module
from shared_prompt_cache.testing import FakeWatcher, wait_until

AGENTS = ("engineer", "qa", "ops")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for agent in AGENTS:
        (folder / f"{agent}.md").write_text("0")
    return folder


@pytest.fixture
def watcher():
    return FakeWatcher()


@pytest.fixture
def comparisons(monkeypatch):
    found = Comparisons(monkeypatch)
    yield found
    found.gate.set()


@pytest.fixture
async def cache(open_cache, root, watcher):
    cache = await open_cache(watch=rules(root), watcher=watcher)
    await fill(cache, *AGENTS)
    return cache


@pytest.fixture
def events(cache):
    told = []
    cache.events.listen(told.append)
    return told


def named(events):
    return sorted((event.scope, event.name) for event in events)


async def steps(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


# One question


async def test_an_edit_drops_what_its_rule_names(cache, events, root, watcher):
    replace(root / "qa.md", "1")
    watcher.push(root / "qa.md")
    assert await dropped(cache, *AGENTS) == {"qa"}
    await wait_until(lambda: named(events) == [("agent", "qa")])
    assert (events[0].cause.path, events[0].cause.kind) == (root / "qa.md", "modified")
    assert cache.get_stats().watcher["batches"] == 1


async def test_an_event_without_a_change_drops_nothing(cache, events, root, watcher, comparisons):
    watcher.push(root / "qa.md")
    assert await dropped(cache, *AGENTS) == set()
    assert comparisons.began == 1
    assert events == []
    assert cache.get_stats().watcher["batches"] == 0


async def test_reads_of_what_is_in_question_wait_and_others_do_not(cache, root, watcher, comparisons):
    comparisons.gate.clear()
    replace(root / "qa.md", "1")
    watcher.push(root / "qa.md")
    waiting = asyncio.create_task(dropped(cache, "qa"))
    assert await dropped(cache, "engineer", "ops") == set()
    await wait_until(lambda: comparisons.began == 1)
    await steps()
    assert not waiting.done()
    comparisons.gate.set()
    assert await waiting == {"qa"}


async def test_a_key_that_names_the_agent_is_in_question_too(cache, root, watcher, comparisons):
    await cache.set_prompt("qa_1", "prompt")
    comparisons.gate.clear()
    replace(root / "qa.md", "1")
    watcher.push(root / "qa.md")
    waiting = asyncio.create_task(cache.get_prompt("qa_1"))
    await steps()
    assert not waiting.done()
    comparisons.gate.set()
    assert await waiting is None


async def test_a_new_file_and_one_that_is_gone_are_changes(cache, events, root, watcher):
    await fill(cache, "new")
    (root / "new.md").write_text("1")
    (root / "ops.md").unlink()
    watcher.push(root / "new.md", root / "ops.md")
    assert await dropped(cache, "new", *AGENTS) == {"new", "ops"}
    await wait_until(lambda: len(events) == 2)
    assert {(event.name, event.cause.kind) for event in events} == {("new", "added"), ("ops", "deleted")}


async def test_a_computation_in_question_is_not_joined_until_the_answer(cache, root, watcher, comparisons):
    gate = asyncio.Event()
    old, new = Counted("old", gate=gate), Counted("new")
    first = asyncio.create_task(cache.get_or_compute("prompt", old, agent="qa"))
    await wait_until(lambda: old.began == 1)
    comparisons.gate.clear()
    replace(root / "qa.md", "1")
    watcher.push(root / "qa.md")
    second = asyncio.create_task(cache.get_or_compute("prompt", new, agent="qa"))
    await steps()
    assert new.began == 0
    comparisons.gate.set()
    assert await second == "new"
    gate.set()
    assert await first == "old"
    assert (await cache.get_prompt("prompt")).prompt == "new"


# Several questions


async def test_a_question_that_is_added_takes_the_first_one_along(cache, root, watcher, comparisons):
    for agent in ("engineer", "qa"):
        replace(root / f"{agent}.md", "1")
        watcher.push(root / f"{agent}.md")
    assert await dropped(cache, *AGENTS) == {"engineer", "qa"}
    assert comparisons.of == [{str(root / "engineer.md"), str(root / "qa.md")}]


async def test_what_happens_during_a_comparison_is_answered_by_the_next_one(cache, root, watcher, comparisons):
    comparisons.gate.clear()
    watcher.push(root / "engineer.md")
    await wait_until(lambda: comparisons.began == 1)
    replace(root / "engineer.md", "1")
    watcher.push(root / "engineer.md")
    comparisons.gate.set()
    assert await dropped(cache, *AGENTS) == {"engineer"}
    await wait_until(lambda: comparisons.began == 2)


async def test_sync_waits_for_a_comparison_that_began_after_it_was_called(cache, root, watcher, comparisons):
    comparisons.gate.clear()
    watcher.push(root / "engineer.md")
    await wait_until(lambda: comparisons.began == 1)
    replace(root / "qa.md", "1")  # of which no event tells
    syncing = asyncio.create_task(cache.sync())
    await steps()
    comparisons.gate.set()
    await syncing
    assert comparisons.of[1:] == [None]
    assert await dropped(cache, *AGENTS) == {"qa"}


async def test_a_sync_that_its_caller_leaves_disturbs_nobody(cache, root, comparisons):
    comparisons.gate.clear()
    with pytest.raises(TimeoutError):
        await cache.sync(timeout=0.01)
    replace(root / "qa.md", "1")
    syncing = asyncio.create_task(cache.sync())
    await steps()
    comparisons.gate.set()
    await syncing
    assert await dropped(cache, *AGENTS) == {"qa"}


# What no rule matches


async def test_a_folder_that_leads_to_files_is_looked_into(cache, root, watcher):
    """Moved in with what is in it: nothing but the folder is told."""
    outside = root.parent / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "new.md").write_text("1")
    await fill(cache, "new")
    outside.rename(root / "inside")
    watcher.push(root / "inside")
    await wait_until(lambda: dropped_now(cache, "new"))
    await wait_until(lambda: str(root / "inside" / "deep") in watcher.watched)


async def dropped_now(cache, agent):
    return agent in await dropped(cache, agent)


async def test_what_leads_to_no_file_is_not_looked_into(cache, root, watcher, comparisons, monkeypatch):
    sifted = []
    lead_to_files = module.lead_to_files

    def sift(table, paths):
        sifted.append(set(paths))
        return lead_to_files(table, paths)

    monkeypatch.setattr(module, "lead_to_files", sift)
    (root / "notes.txt").write_text("1")
    (root / "node_modules").mkdir()
    (root.parent / "elsewhere").mkdir()
    strangers = [root / "notes.txt", root / "node_modules", root.parent / "elsewhere", root / "gone"]
    watcher.push(*strangers)
    await wait_until(lambda: sifted == [{str(stranger) for stranger in strangers}])
    await steps()
    assert comparisons.began == 0
    assert await dropped(cache, *AGENTS) == set()


async def test_a_storm_of_new_paths_is_compared_everywhere_without_asking_rules(cache, root, watcher, comparisons):
    paths = [root / f"{number}.txt" for number in range(module._STORM + 1)]
    watcher.push(*paths[:-1])
    await steps()
    assert comparisons.of == []
    replace(root / "qa.md", "1")
    watcher.push(*paths)
    assert await dropped(cache, *AGENTS) == {"qa"}
    assert comparisons.of == [None]


async def test_an_event_of_a_watched_folder_is_one_of_all_below_it(cache, root, watcher, comparisons):
    """Also of any folder above a root: what becomes of those, the root shares."""
    for place in (root, root.parent, Path("/")):
        comparisons.of.clear()
        await fill(cache, "qa")
        replace(root / "qa.md", str(place))
        watcher.push(place)
        assert await dropped(cache, *AGENTS) == {"qa"}
        assert comparisons.of[0] is None


# Links


async def test_a_change_of_an_imported_file_puts_its_importer_in_question(cache, root, watcher, comparisons):
    (root / "more.txt").write_text("0")
    replace(root / "qa.md", "@more.txt")
    watcher.push(root / "qa.md")
    assert await dropped(cache, *AGENTS) == {"qa"}
    await fill(cache, "qa")
    comparisons.gate.clear()
    replace(root / "more.txt", "1")
    watcher.push(root / "more.txt")
    waiting = asyncio.create_task(dropped(cache, "qa"))
    assert await dropped(cache, "engineer", "ops") == set()
    await steps()
    assert not waiting.done()
    comparisons.gate.set()
    assert await waiting == {"qa"}


@pytest.mark.parametrize("way", ["import", "import through a symlink", "import to be", "symlink", "symlink to be"])
async def test_what_an_edit_links_to_is_watched_from_then_on(open_cache, root, way):
    """With the events of the system; the folder of the target has been of no interest before."""
    docs, target = root / "node_modules", root / "node_modules" / "text"
    cache = await open_cache(watch=rules(root))
    events = []
    cache.events.listen(events.append)
    if not way.endswith("to be"):
        docs.mkdir()
        target.write_text("version 0")
    if way.startswith("import"):
        if way == "import through a symlink":
            (root / "link").symlink_to(target)
        replace(root / "qa.md", "@link" if "through" in way else f"@{docs.name}/{target.name}")
    else:
        (root / "link").symlink_to(target)
        (root / "link").replace(root / "qa.md")
    await wait_until(lambda: named(events) == [("agent", "qa")])
    await cache.sync()
    if way.endswith("to be"):
        docs.mkdir()
        await wait_until(lambda: str(docs) in cache._proofs.armed)
    for version in range(1, 4):
        events.clear()
        replace(target, f"version {version}")
        await wait_until(lambda: named(events) == [("agent", "qa")], what=f"version {version} is seen")


@pytest.mark.parametrize("name", ["qa", "new"])
async def test_of_two_spellings_of_a_folder_the_other_is_told_too(open_cache, root, tmp_path, watcher, name):
    alias = tmp_path / "alias"
    alias.symlink_to(root)
    rule = WatchRule(alias, "{agent}.md", "agent", anywhere=True)
    cache = await open_cache(watch=[WatchRule(root, "*.txt", "all"), rule], watcher=watcher)
    events = []
    cache.events.listen(events.append)
    replace(root / f"{name}.md", "1")
    watcher.push(root / f"{name}.md")
    await wait_until(lambda: named(events) == [("agent", name)])
    assert events[0].cause.path == alias / f"{name}.md"


# Without rules


async def test_without_rules_a_strict_cache_needs_no_watcher(open_cache, watcher):
    cache = await open_cache(watcher=watcher)
    assert watcher._sink is None
    assert cache.health().parts.keys() == {"memory"}
    assert cache.get_stats().watcher == {}
    await cache.sync()


async def test_with_events_alone_the_folders_of_dependencies_are_watched(open_cache, root, watcher):
    cache = await open_cache(freshness="events", watcher=watcher)
    await cache.get_or_compute("prompt", lambda: cache.files.read_text(root / "qa.md"))
    await wait_until(lambda: str(root) in watcher.watched)
    await wait_until(lambda: cache.health().unwatched == 0)
    assert (await cache.get_prompt("prompt")).prompt == "0"
    replace(root / "qa.md", "1")
    assert (await cache.get_prompt("prompt")).prompt == "0"  # nobody has told
    watcher.push(root / "qa.md")
    assert await cache.get_prompt("prompt") is None


async def test_a_folder_that_is_another_one_now_is_armed_again(open_cache, root, watcher, monkeypatch):
    """Under the same name, and with the same inode on many file systems: the native watch of it is dead."""
    hasten(monkeypatch)
    armed = []
    watch = watcher.watch

    async def count(folders):
        armed.append(folders)
        return await watch(folders)

    watcher.watch = count
    cache = await open_cache(watch=rules(root), watcher=watcher)
    await fill(cache, *AGENTS)
    before = len(armed)
    watcher.push(root)
    assert str(root) not in cache._proofs.armed
    replace(root / "qa.md", "1")
    await wait_until(lambda: len(armed) > before)
    await wait_until(lambda: dropped_now(cache, "qa"))
    await wait_until(lambda: str(root) in cache._proofs.armed)
