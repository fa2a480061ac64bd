"""F27 to F29: noise, many files and many dependencies cost what one change costs, and hold nobody up.

Work is counted, not timed: what is compared, in which portions the loop is given it, how many calls an event makes. The
longest hold of the loop is judged at full size alone, by the processor time of its thread. Seen to fail on planted
bugs: a walk for each unknown path, a batch that is handed over in one piece, invalidations that are put in force in one
piece, a mark that looks at everything held, a table that asks about all known files on the loop.
"""

import asyncio
import os
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from _support import STRESS, replace, size
from _watched import Comparisons, dropped, fill
from shared_prompt_cache import WatchRule, presets
from shared_prompt_cache._core.memory import Memory
from shared_prompt_cache._files import proof, watch
from shared_prompt_cache._files.matching import RuleTable
from shared_prompt_cache._files.watchers._worker import SLICE
from shared_prompt_cache.testing import FakeWatcher, wait_until


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for agent in ("engineer", "qa"):
        (folder / f"{agent}.md").write_text("old")
    return folder


def rules(root):
    return [WatchRule(root, "**/{agent}.md", "agent")]


@contextmanager
def holds():
    """Measure each turn of the loop by the processor time of its thread; at full size, judge the longest."""
    loop = asyncio.get_running_loop()
    turns, turn = [], loop._run_once

    def measured():
        began = time.thread_time()
        turn()
        turns.append(time.thread_time() - began)

    loop._run_once = measured
    try:
        yield
    finally:
        del loop._run_once
    assert turns
    assert not STRESS or max(turns) < 0.02, f"the loop was held for {max(turns) * 1000:.1f} ms"


# F27


async def test_f27_an_edit_amid_noise_is_seen_while_the_noise_goes_on(open_cache, root, monkeypatch):
    """An unrelated file each millisecond; none of them leads to a comparison of more than what was edited."""
    cache = await open_cache(watch=rules(root))
    comparisons = Comparisons(monkeypatch)
    stop, made = threading.Event(), []

    def noise():
        while not stop.wait(0.001):
            made.append(root / f"noise-{len(made)}.txt")
            made[-1].touch()

    noisy = asyncio.create_task(asyncio.to_thread(noise))
    try:
        for version in range(size(3, 100)):
            await fill(cache, "engineer", "qa")
            before = len(made)
            await wait_until(lambda before=before: len(made) > before + 50)
            await asyncio.to_thread(replace, root / "qa.md", f"version {version}")
            await wait_until(lambda: gone(cache, "qa"))
            assert await dropped(cache, "engineer") == set()
        before = len(made)
        await wait_until(lambda: len(made) > before)  # it still goes on
    finally:
        stop.set()
        await noisy
    assert None not in comparisons.of
    assert {path for paths in comparisons.of for path in paths} == {str(root / "qa.md")}


async def gone(cache, *agents):
    return await dropped(cache, *agents) == {*agents}


# F28


@pytest.mark.timeout(600)
async def test_f28_many_touched_files_reach_the_loop_in_portions_and_change_nothing(open_cache, root, monkeypatch):
    files = size(1_000, 100_000)
    paths = [root / f"folder-{number % 10}" / f"agent-{number}.md" for number in range(files)]
    for number in range(10):
        (root / f"folder-{number}").mkdir()
    for path in paths:
        path.touch()
    portions = []
    tell = watch.FileWatch.changed
    monkeypatch.setattr(watch.FileWatch, "changed", lambda self, told: portions.append(len(told)) or tell(self, told))
    cache = await open_cache(watch=rules(root))
    events = []
    cache.events.listen(events.append)
    await fill(cache, "agent-7", "qa")
    with holds():
        await asyncio.to_thread(lambda: [os.utime(path) for path in paths])
        await wait_until(lambda: sum(portions) >= files, timeout=300)
        await cache.sync()
    assert max(portions) <= SLICE
    assert events == []
    assert await dropped(cache, "agent-7", "qa") == set()


async def test_f28_a_large_batch_lets_others_run_between_its_portions(open_cache, root, monkeypatch):
    """What a thread of the watcher hands over at once is taken in portions, and so is what follows from it."""
    agents = [f"agent-{number}" for number in range(size(600, 20_000))]
    watcher = FakeWatcher()
    cache = await open_cache(watch=rules(root), watcher=watcher)
    await fill(cache, "qa", "agent-7", agents[-1])
    on_the_loop, most, now = threading.get_ident(), 0, 0
    invalidate, targets = Memory.invalidate, RuleTable.targets

    loop = asyncio.get_running_loop()

    def next_pass():
        nonlocal now
        now = 0

    def counted(memory, *args, **options):
        nonlocal most, now
        if not now:
            loop.call_soon(next_pass)
        now += 1
        most = max(most, now)
        return invalidate(memory, *args, **options)

    def beside(table, changes, known=()):
        changes = list(changes)
        assert len(changes) <= 12 or threading.get_ident() != on_the_loop
        return targets(table, changes, known)

    monkeypatch.setattr(Memory, "invalidate", counted)
    monkeypatch.setattr(RuleTable, "targets", beside)

    for agent in agents:
        (root / f"{agent}.md").write_text("new")
    watcher.push(root)
    with holds():
        # Nothing of it is served before all of it is in force.
        assert await dropped(cache, agents[-1], "agent-7", "qa") == {agents[-1], "agent-7"}
    assert cache.get_stats().invalidations["agent"] == len(agents)
    assert cache.get_stats().watcher["batches"] == 1
    assert most <= watch._PORTION + 1


async def test_f28_what_concerns_all_agents_is_found_out_beside_the_loop(open_cache, root, monkeypatch):
    folder = root / ".claude" / "agents"
    folder.mkdir(parents=True)
    agents = [f"agent-{number}" for number in range(100)]
    for agent in agents:
        (folder / f"{agent}.md").write_text("old")
    watcher = FakeWatcher()
    cache = await open_cache(watch=presets.claude_mpm(root, home=root / "home"), watcher=watcher)
    await fill(cache, *agents, "a stranger")
    on_the_loop = threading.get_ident()
    match, looked = RuleTable.match, []

    def counted(table, path):
        if threading.get_ident() == on_the_loop:
            looked.append(path)
        return match(table, path)

    monkeypatch.setattr(RuleTable, "match", counted)
    base = folder / "BASE-AGENT.md"
    base.write_text("new")
    watcher.push(base)
    assert await dropped(cache, *agents, "a stranger") == set(agents)
    assert set(looked) == {str(base)}


@pytest.mark.timeout(600)
async def test_f28_of_many_folders_only_those_that_rules_name_are_looked_into(open_cache, root, monkeypatch):
    folders = size(300, 10_000)
    for number in range(folders):
        folder = root / f"area-{number % 100}" / f"folder-{number}"
        folder.mkdir(parents=True)
        for name in range(size(2, 10)):
            (folder / f"file-{name}.md").touch()
    named = [root / f"area-{number}" / f"folder-{number}" for number in range(20)]
    await open_cache(watch=rules(root / "absent"))  # so that nothing is imported any more
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    with holds():
        cache = await open_cache(watch=[WatchRule(folder, "{agent}.md", "agent") for folder in named])
        cache_of_one_root = await open_cache(
            watch=[WatchRule(root, f"area-{number}/folder-{number}/{{agent}}.md", "agent") for number in range(20)]
        )
    assert set(listed) == set(map(str, named))
    assert cache._proofs.armed == set(map(str, named))
    assert cache_of_one_root._proofs.armed == {str(root), *map(str, named), *(str(f.parent) for f in named)}
    assert cache.get_stats().watcher["files"] == 20 * size(2, 10)


# F29

MOST = size(500, 100_000)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("event", ["unrelated file", "dependency", "folder"])
async def test_f29_an_event_costs_the_same_at_any_number_of_dependencies(open_cache, root, event):
    """Every call of Python and of C that is made for it is counted: the same number at ten times the dependencies."""
    watcher = FakeWatcher()
    cache = await open_cache(
        2 * MOST,
        max_memory_mb=10_000,
        watch=[WatchRule(root, "*.txt", "files")],
        watcher=watcher,
        freshness="events",
    )
    calls = []
    path = {"unrelated file": root / "notes", "dependency": root / "part-0/file-0.md", "folder": root / "part-0"}[event]
    for dependencies in (MOST // 10, MOST):
        await depend(cache, root, dependencies)
        await cache.sync()
        calls.append(min(calls_of(watcher, path) for _ in range(5)))  # one may find the loop late, and say so
        assert len(cache._proofs._marks) == (event != "unrelated file")
    assert calls[0] == calls[1]


async def depend(cache, root, count):
    """Let there be entries made from so many files, ten for each folder below the root."""
    for number in range(count):
        folder = root / f"part-{number // 10}"
        folder.mkdir(exist_ok=True)
        file = folder / f"file-{number % 10}.md"
        if not file.exists():
            file.write_text("old")
            await cache.set_prompt(f"made from {number}", "prompt", depends_on=file)
    await wait_until(lambda: cache.health().unwatched == 0, timeout=300)


def calls_of(watcher, path):
    """Return how many calls the telling of an event makes."""
    made = [0]

    def count(frame, kind, _):
        made[0] += kind in {"call", "c_call"}

    usual = sys.getprofile()
    sys.setprofile(count)
    try:
        watcher.push(path)
    finally:
        sys.setprofile(usual)
    return made[0]


async def test_f29_after_the_event_of_a_folder_only_what_lies_below_is_compared(open_cache, root, monkeypatch):
    watcher = FakeWatcher()
    cache = await open_cache(watch=[WatchRule(root, "*.txt", "files")], watcher=watcher, freshness="events")
    await depend(cache, root, 200)
    for number in range(200):
        assert await cache.get_prompt(f"made from {number}") is not None
    compared = []
    compare = proof.compare
    monkeypatch.setattr(proof, "compare", lambda known: compared.append(known.path) or compare(known))
    watcher.push(root / "part-3")
    for number in range(200):
        assert await cache.get_prompt(f"made from {number}") is not None
    assert set(compared) == {str(root / "part-3" / f"file-{number}.md") for number in range(10)}
