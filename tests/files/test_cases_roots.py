"""F13, F14 and F16: a watched root that goes, comes, becomes another folder, or changes while the loop stands still.

Real files, and the watcher that `auto` chooses. After each change an entry made from a file of the root is read at
once, one that only a rule connects with it after `sync()`; then the watch has to be live again. Seen to fail on planted
bugs: roots that are looked at once, a pause that nobody notices.
"""

import asyncio
import shutil
import time

import pytest

from shared_prompt_cache import WatchRule
from shared_prompt_cache._files import heartbeat
from shared_prompt_cache.testing import wait_until


class Project:
    """A root with one memory file, an entry that was made from it, and one that a rule connects with it."""

    def __init__(self, cache, root):
        self.cache, self.root = cache, root
        self.events = []
        cache.events.listen(self.events.append)

    @property
    def memory(self):
        return self.root / "memories" / "engineer.md"

    def fill(self, text, root=None):
        folder = (self.root if root is None else root) / "memories"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "engineer.md").write_text(text)

    async def read(self):
        async def compute():
            try:
                return await self.cache.files.read_text(self.memory)
            except FileNotFoundError:
                return "absent"

        return await self.cache.get_or_compute("from the file", compute)

    async def by_rule(self):
        async def compute():
            return await asyncio.to_thread(lambda: self.memory.read_text() if self.memory.exists() else "absent")

        await self.cache.sync()
        return await self.cache.get_or_compute("by the rule", compute, agent="engineer")

    async def is_now(self, text):
        assert await self.read() == text
        assert await self.by_rule() == text

    async def is_live(self):
        await wait_until(
            lambda: str(self.memory.parent) in self.cache._proofs.armed, what="the folder is watched again"
        )
        await self.cache.set_prompt("by the rule", "old", agent="engineer")
        before = len(self.events)
        await asyncio.to_thread(self.memory.write_text, f"live {before}")
        await wait_until(lambda: len(self.events) > before, what="an event of the edit")
        assert await self.cache.get_prompt("by the rule") is None
        await self.is_now(f"live {before}")


@pytest.fixture
async def project(open_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "TICK", 0.02)  # roots are looked at every fourth tick
    root = tmp_path / "above" / "project"
    rule = WatchRule(root, "memories/{agent}.md", "agent")
    project = Project(await open_cache(watch=[rule]), root)
    project.fill("first")
    await project.is_now("first")
    await project.is_live()
    return project


def removed_and_made_again(project):
    shutil.rmtree(project.root)
    project.fill("second")


def renamed_and_replaced(project):
    project.root.rename(project.root.with_name("old"))
    project.fill("second")


def with_its_parent_renamed(project):
    project.root.parent.rename(project.root.parent.with_name("old above"))
    project.fill("second")


def swapped_with_another(project):
    other = project.root.with_name("other")
    project.fill("second", other)
    project.root.rename(project.root.with_name("old"))
    other.rename(project.root)


def replaced_by_a_link(project):
    other = project.root.with_name("other")
    project.fill("second", other)
    project.root.rename(project.root.with_name("old"))
    project.root.symlink_to(other)


WAYS = [removed_and_made_again, renamed_and_replaced, with_its_parent_renamed, swapped_with_another, replaced_by_a_link]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_f13_a_root_that_becomes_another_is_never_stale_and_soon_live_again(project, way):
    await asyncio.to_thread(way, project)
    await project.is_now("second")
    await project.is_live()


async def test_f13_a_link_to_a_root_that_is_retargeted(open_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "TICK", 0.02)
    for name in ("one", "two"):
        Project.fill(type("At", (), {"root": tmp_path / name})(), name)
    root = tmp_path / "root"
    root.symlink_to("one")
    project = Project(await open_cache(watch=[WatchRule(root, "memories/{agent}.md", "agent")]), root)
    await project.is_now("one")
    root.unlink()
    root.symlink_to("two")
    await project.is_now("two")
    await project.is_live()


async def test_f13_a_root_that_is_gone_is_waited_for(project):
    shutil.rmtree(project.root)
    await project.is_now("absent")
    name = f"root:{project.root}"
    await wait_until(lambda: project.cache.health().parts[name].reason == "waiting until it exists")
    project.fill("back")
    await project.is_now("back")
    await project.is_live()
    await wait_until(lambda: project.cache.health().parts[name].reason is None)


async def test_f14_a_root_that_is_absent_at_the_start_is_live_when_it_appears(open_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "TICK", 0.02)
    root = tmp_path / "not" / "yet"
    cache = await open_cache(watch=[WatchRule(root, "memories/{agent}.md", "agent")])
    assert cache.health().status == "ok"
    assert cache.health().parts[f"root:{root}"].reason == "waiting until it exists"
    project = Project(cache, root)
    await project.is_now("absent")
    project.fill("here")
    await project.is_now("here")
    await project.is_live()


async def test_f16_the_first_read_after_the_loop_stood_still_is_new(project):
    await project.cache.set_prompt("by the rule", "old", agent="engineer")
    pauses = project.cache.get_stats().watcher["pauses"]
    project.memory.write_text("meanwhile")
    time.sleep(0.6)  # noqa: ASYNC251 - the loop stands still, and events wait in the thread of the watcher
    assert await project.cache.get_prompt("by the rule") is None
    assert await project.read() == "meanwhile"
    assert project.cache.get_stats().watcher["pauses"] == pauses + 1
    assert "did not run" in project.cache.health().parts["watcher"].reason
    await project.is_live()
