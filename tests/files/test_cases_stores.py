"""F22, F23 and F31: files and a store. What changed while nobody ran is seen, and what the store writes is no change.

Seen to fail on planted bugs: rows that are believed without a look at their files; a look at size and modification
time alone; watched files that are not compared with the records of the store at the start; a folder of the store that
is watched like any other.
"""

import asyncio
import shutil
import time

import pytest

from _edits import EDITS, HARMLESS, copy_of_an_older_file, restored_mtime
from _support import replace, size
from shared_prompt_cache import SharedPromptCache, WatchRule
from shared_prompt_cache._files import watch
from shared_prompt_cache._files.watchers._worker import Worker
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.testing import wait_until
from stores._caches import run_program

# F22


def deleted(file, _):
    file.unlink()


def recreated(file, text):
    file.unlink()
    file.write_text(text)


def folder_swapped(file, text):
    """Another folder, with a file of the same name, size and modification time, changes places with its own."""
    other = file.parent.with_name(f"{file.parent.name} before")
    shutil.copytree(file.parent, other, dirs_exist_ok=True)
    (other / file.name).write_text(text)
    shutil.copystat(file, other / file.name)
    aside = file.parent.with_name(f"{file.parent.name} aside")
    file.parent.rename(aside)
    other.rename(file.parent)
    aside.rename(other)


def copied_tree(file, _):
    """An equal folder in the place of its own, as a checkout or a restored backup is."""
    other = file.parent.with_name(f"{file.parent.name} copy")
    shutil.copytree(file.parent, other)
    shutil.rmtree(file.parent)
    other.rename(file.parent)


CHANGES = {
    "edited": EDITS["in place"],
    "replaced": EDITS["rename from inside"],
    "edited with its mtime kept": restored_mtime,
    "an older file copied over it": copy_of_an_older_file,
    "deleted": deleted,
    "recreated at the same size": recreated,
    "folder swapped": folder_swapped,
}
REMAINS = {
    "left alone": lambda file, _: None,
    "tree copied": copied_tree,
    **{name: lambda file, _, change=change: change(file) for name, change in HARMLESS.items()},
}
STYLES = CHANGES | REMAINS


class Project:
    """A file for each style, and two values made from each: by what was read, and by a rule, read past the cache."""

    def __init__(self, base, freshness):
        self.files = {name: base / "memories" / name / "memory.md" for name in STYLES}
        for file in self.files.values():
            file.parent.mkdir(parents=True)
            file.write_text("version 00\n")
        self._store = SQLiteStore(base / "store")
        self._rule = WatchRule(base / "memories", "{agent}/memory.md", "agent")
        self._freshness = freshness

    async def life(self):
        """Return what the first reads of a process return, which of them were computed, and how many were stored."""
        values, computed = {}, set()
        async with SharedPromptCache(store=self._store, watch=[self._rule], freshness=self._freshness) as cache:
            for name, file in self.files.items():
                for how, read in (("by file", cache.files.read_text), ("by rule", self._read)):

                    async def compute(one=(name, how), read=read, file=file):
                        computed.add(one)
                        try:
                            return await read(file)
                        except FileNotFoundError:
                            return "gone"

                    values[name, how] = await cache.get_or_compute(
                        f"{name} {how}", compute, agent=name if how == "by rule" else None
                    )
            return values, computed, cache.get_stats().store["hits"]

    async def _read(self, file):
        return await asyncio.to_thread(file.read_text)

    def change(self, text):
        for name, change in STYLES.items():
            if self.files[name].exists():
                change(self.files[name], text)
            else:
                self.files[name].write_text(text)  # it was deleted, and is created now

    def contents(self):
        return {name: file.read_text() if file.exists() else "gone" for name, file in self.files.items()}


@pytest.mark.parametrize("age", ["young", "settled"])
@pytest.mark.parametrize("freshness", ["strict", "events"])
async def test_f22_after_changes_while_no_process_ran_the_first_reads_are_right(tmp_path, freshness, age):
    project = Project(tmp_path, freshness)
    for version in range(1, size(1, 20) + 1):
        if age == "settled":
            now = time.time()
            await wait_until(lambda now=now: time.time() > now + 0.05, what="the files are old enough for their status")
        await project.life()
        assert (await project.life())[1:] == (set(), 2 * len(STYLES))  # nothing has changed, and nothing is computed
        project.change(f"version {version:02}\n")
        values, computed, hits = await project.life()
        contents = project.contents()
        assert values == {(name, how): contents[name] for name, how in values}
        assert computed == {(name, how) for name, how in values if name in CHANGES}
        assert hits == 2 * len(REMAINS)


# F23


@pytest.mark.timeout(900)
def test_f23_readers_are_killed_while_edits_never_stop_and_no_read_is_stale(tmp_path):
    assert run_program("stores._killed", "readers", tmp_path, size(2, 80), 23, timeout=900) == ["intact"]


# F31


@pytest.mark.timeout(900)
async def test_f31_ten_thousand_writes_to_a_store_in_a_watched_root_wake_nobody(open_cache, tmp_path, monkeypatch):
    """Neither in the process that writes, nor in another that watches the same root: no event, and no word of one."""
    told, woken = [], []
    tell, post = watch.FileWatch.changed, Worker.post
    monkeypatch.setattr(watch.FileWatch, "changed", lambda self, paths: told.extend(paths) or tell(self, paths))
    monkeypatch.setattr(Worker, "post", lambda self, *call: woken.append(call) or post(self, *call))
    (tmp_path / "CLAUDE.md").write_text("old")
    rules = [WatchRule(tmp_path, "**/*", "all")]
    caches = [await open_cache(store=SQLiteStore(tmp_path / ".cache" / "prompts"), watch=rules) for _ in range(2)]
    events = []
    for cache in caches:
        cache.events.listen(events.append)
    before = len(woken)
    for number in range(size(300, 10_000)):
        await caches[0].set_prompt(f"key {number % 500}", number)
        if number % 10 == 0:
            await caches[0].flush()
    await caches[0].flush()
    assert (await caches[1].get_prompt(f"key {number % 500}")).prompt == number
    assert (told, events, woken[before:]) == ([], [], [])
    replace(tmp_path / "CLAUDE.md", "new")  # what came before it would have been told before it
    await wait_until(lambda: len(events) == 2)
    assert set(told) <= {str(tmp_path / name) for name in ("CLAUDE.md", "CLAUDE.md.new~")}
    assert all(cache.get_stats().invalidations == {"all": 1} for cache in caches)
