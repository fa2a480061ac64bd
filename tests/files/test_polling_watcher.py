import asyncio
import os
import time

import pytest

from contracts.watcher import WatcherContract, running, until
from shared_prompt_cache._files.watchers import _polling
from shared_prompt_cache._files.watchers._polling import PollingWatcher, Snapshot, compare
from shared_prompt_cache.errors import CacheClosedError

FOLDER, FILE = (1, 10, 4096, 5, 5), (1, 11, 3, 7, 7)


@pytest.fixture
async def watcher():
    return PollingWatcher(interval=0.02)


def fail(*_):
    raise MemoryError


class TestPollingWatcher(WatcherContract):
    pass


@pytest.mark.parametrize(
    ("new", "told"),
    [
        (Snapshot(own=FOLDER, children={"a": (FILE,)}), set()),
        (Snapshot(own=FOLDER, children={"a": ((1, 11, 3, 7, 8),)}), {"/f/a"}),
        (Snapshot(own=FOLDER, children={"a": (FILE, FILE)}), {"/f/a"}),
        (Snapshot(own=(1, 10, 4096, 6, 6), children={"a": (FILE,), "b": (FILE,)}), {"/f/b"}),
        (Snapshot(own=(1, 10, 4096, 6, 6), children={}), {"/f/a"}),
        (Snapshot(own=(1, 10, 4096, 6, 6), children={"a": (FILE,)}), {"/f"}),
        (Snapshot(own=(1, 99, 4096, 5, 5), children={"a": (FILE,)}), {"/f"}),
        (Snapshot(), {"/f"}),
        (Snapshot(own=FOLDER, trouble="permission denied"), {"/f"}),
    ],
)
def test_a_difference_is_told_where_it_is(new, told):
    assert set(compare("/f", Snapshot(own=FOLDER, children={"a": (FILE,)}), new)) == told


def test_what_had_just_changed_is_told_once_more():
    """A write within the same tick of the clock, of the same size, leaves the status as it was."""
    old = Snapshot(own=FOLDER, children={"a": (FILE,), "b": (FILE,)}, unsettled={"a"})
    new = Snapshot(own=FOLDER, children={"a": (FILE,), "b": (FILE,)})
    assert list(compare("/f", old, new)) == ["/f/a"]
    assert list(compare("/f", new, new)) == []


@pytest.mark.parametrize(("age", "fraction", "recent"), [(0, 5, True), (1, 5, False), (1, 0, True), (3, 0, False)])
def test_whole_second_timestamps_are_recent_for_longer(age, fraction, recent):
    changed_at = (time.time_ns() // 1_000_000_000 - age) * 1_000_000_000
    changed_at = time.time_ns() if not age else changed_at + fraction
    assert _polling._is_recent((1, 1, 1, 0, changed_at)) is recent


async def test_the_target_of_a_symlink_is_looked_at_too(watcher, tmp_path):
    folder, target = tmp_path / "folder", tmp_path / "target"
    folder.mkdir()
    target.write_text("one")
    (folder / "link").symlink_to(target)
    (folder / "broken").symlink_to("nowhere")
    async with running(watcher) as sink:
        await watcher.watch({str(folder)})
        target.write_text("more")
        await sink.until_told(folder / "link")


async def test_a_folder_that_cannot_be_looked_at_is_degraded_until_it_can(watcher, tmp_path, monkeypatch):
    folder = str(tmp_path)
    scandir = os.scandir

    def refuse(path):
        if path == folder:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    async with running(watcher) as sink:
        monkeypatch.setattr(os, "scandir", refuse)
        assert await watcher.watch({folder}) == set()
        await sink.until(lambda: sink.degradations == [(folder, "Permission denied")])
        monkeypatch.setattr(os, "scandir", scandir)
        await sink.until(lambda: sink.degradations[1:] == [(folder, None)])
        await sink.until_told(folder)
        assert await watcher.watch({folder}) == {folder}
        monkeypatch.setattr(os, "scandir", refuse)
        await sink.until(lambda: len(sink.degradations) == 3)
        await watcher.watch({"/"})
        await sink.until(lambda: sink.degradations[3:] == [(folder, None)])


async def test_a_look_that_fails_is_a_doubt_and_the_next_one_follows(watcher, tmp_path, monkeypatch, caplog):
    async with running(watcher) as sink:
        await watcher.watch({str(tmp_path)})
        monkeypatch.setattr(_polling, "compare", fail)
        await sink.until(lambda: len(sink.doubts) > 1)
        monkeypatch.undo()
        assert watcher.restarts > 1
        (tmp_path / "a.md").write_text("one")
        await sink.until_told(tmp_path / "a.md")
    assert [record.event for record in caplog.records] == ["watcher.failed"]


async def test_what_cannot_be_looked_at_in_a_call_is_left_out(watcher, tmp_path, monkeypatch):
    async with running(watcher) as sink:
        monkeypatch.setattr(os, "scandir", fail)
        assert await watcher.watch({str(tmp_path)}) == set()
        assert sink.doubts
        monkeypatch.undo()
        assert await watcher.watch({str(tmp_path)}) == {str(tmp_path)}


async def test_a_long_look_is_left_when_the_watcher_is_closed(tmp_path, monkeypatch):
    for number in range(20):
        (tmp_path / str(number)).touch()
    watcher = PollingWatcher(interval=0.0)
    monkeypatch.setattr(_polling, "_PORTION", 1)
    monkeypatch.setattr(_polling, "_REST", 0.2)
    async with running(watcher) as sink:
        started = time.monotonic()
        waiting = asyncio.create_task(watcher.watch({str(tmp_path)}))
        await until(lambda: watcher._poller is not None and watcher._poller._looks > 0)
        await watcher.aclose()
        assert time.monotonic() - started < 2
        with pytest.raises(CacheClosedError):
            await waiting
        assert sink.paths == []
