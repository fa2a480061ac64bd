"""The acceptance cases F1 to F7: edits of a file, and what the next read returns.

Styles of editing one file are in `test_editing_styles.py` in full; here is what a numbered case asks beyond them.

Seen to fail on planted bugs: an event that questions no file (F1), a fingerprint without ctime (F3), a slack that is
too short on whole-second timestamps and a record that is settled although the file is young (F4), another content taken
for the same (F5), a comparison by stat alone (F6), an absence whose missing folders are looked for only once (F7).
"""

import asyncio
import os
import shutil
import statistics
import threading
import time
from types import SimpleNamespace

import pytest

from _edits import EDITS, HARMLESS, UNSEEN, copy_of_an_older_file, in_place, restored_mtime
from _support import size
from _trees import Listener, agents_in, put_values, text, until_settled, until_text, until_watched
from shared_prompt_cache._files import fingerprint, reading
from shared_prompt_cache._files.watchers._watchfiles import WatchfilesWatcher
from shared_prompt_cache.testing import wait_until

FRESHNESS = pytest.mark.parametrize("freshness", ["strict", "events"])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memories" / "engineer.md"
    path.parent.mkdir()
    path.write_text("version 0\n")
    return path


async def test_f01_a_write_of_the_same_size_is_one_event_and_drops_what_it_names(open_cache, file):
    file.with_name("qa.md").write_text("qa\n")
    cache = await open_cache(watch=agents_in(file.parent))
    listener = Listener(cache)
    await put_values(cache, "qa")
    for version in range(1, size(20, 200) + 1):
        await put_values(cache, "engineer")
        in_place(file, f"version {version % 10}\n")
        assert await text(cache, file) == f"version {version % 10}\n"
        await wait_until(lambda version=version: len(listener.events) >= version)
        assert await cache.get_prompt("of engineer") is None
    await cache.sync()
    assert {(event.scope, event.name, event.dropped) for event in listener.events} == {("agent", "engineer", 1)}
    assert len(listener.events) == version
    assert (await cache.get_prompt("of qa")).prompt == "value"


async def test_f01_an_event_comes_about_when_the_watcher_tells(open_cache, file):
    """The bound is a ratio to bare round trips of the same watcher in the same run: here, their median five times."""

    class Bell:
        def __init__(self):
            self.rung = asyncio.Event()

        def changed(self, _):
            self.rung.set()

    async def medians(edit, rung):
        spans = []
        for version in range(20):
            rung.clear()
            began = time.perf_counter()
            edit(file, f"version {version % 10 + 1}\n")
            async with asyncio.timeout(30):
                await rung.wait()
            spans.append(time.perf_counter() - began)
            await asyncio.sleep(0.02)  # the rest of the batch
        return statistics.median(spans)

    bell, watcher = Bell(), WatchfilesWatcher()
    await watcher.start(bell)
    await watcher.watch({str(file.parent)})
    bare = await medians(in_place, bell.rung)
    await watcher.aclose()

    cache, told = await open_cache(watch=agents_in(file.parent)), asyncio.Event()
    cache.events.listen(lambda _: told.set())
    assert await medians(in_place, told) < 5 * bare + 0.01


@pytest.mark.parametrize("style", sorted(EDITS.keys() - UNSEEN))
async def test_f02_a_second_edit_is_seen_whatever_the_first_was(open_cache, file, style):
    cache = await open_cache(watch=agents_in(file.parent))
    listener = Listener(cache)
    for edit, content in ((EDITS[style], "version 1\n"), (in_place, "version 2\n"), (in_place, "version 3\n")):
        await put_values(cache, "engineer")
        edit(file, content)
        assert await text(cache, file) == content
        await listener.until_told("engineer")
        await cache.sync()  # styles in several steps may be told in several
        assert await cache.get_prompt("of engineer") is None
        listener.events.clear()


@pytest.mark.parametrize("style", [restored_mtime, copy_of_an_older_file])
async def test_f03_a_modification_time_that_was_put_back_hides_nothing(open_cache, file, style):
    """Also where size and inode are the same, and stat alone had to tell."""
    cache = await open_cache()
    for version in range(1, size(3, 20) + 1):
        await until_settled(cache, file)
        style(file, f"version {version % 10}\n")
        assert await text(cache, file) == f"version {version % 10}\n"


@pytest.fixture
def whole_seconds(monkeypatch):
    """Have the package see timestamps in whole seconds, as on ext3, HFS+ or old NFS, and count contents that it reads.

    Faked at the seam: `_stat` and `tuple_of` tell mtime and ctime without their fraction; `ahead` moves `now_ns`.
    """
    seen = SimpleNamespace(reads=0, ahead=0)
    stat, tuple_of, content, now_ns = os.stat, fingerprint.tuple_of, reading._content, time.time_ns

    def coarse(path):
        status = stat(path)
        names = ("st_dev", "st_ino", "st_size")
        whole = {name: getattr(status, name) // 10**9 * 10**9 for name in ("st_mtime_ns", "st_ctime_ns")}
        return SimpleNamespace(**{name: getattr(status, name) for name in names}, **whole)

    def coarse_tuple(status):
        *who, mtime, ctime = tuple_of(status)
        return (*who, mtime // 10**9 * 10**9, ctime // 10**9 * 10**9)

    def counted(*args):
        seen.reads += 1
        return content(*args)

    monkeypatch.setattr(fingerprint, "_stat", coarse)
    monkeypatch.setattr(fingerprint, "tuple_of", coarse_tuple)
    monkeypatch.setattr(reading, "tuple_of", coarse_tuple)
    monkeypatch.setattr(reading, "_content", counted)
    monkeypatch.setattr(reading, "now_ns", lambda: now_ns() + seen.ahead)
    return seen


async def test_f04_on_whole_second_timestamps_nothing_is_stale_and_nothing_stuck(open_cache, file, whole_seconds):
    cache = await open_cache()
    for version in range(100):
        in_place(file, f"version {version % 10}\n")
        assert await text(cache, file) == f"version {version % 10}\n"
        before = whole_seconds.reads
        assert await text(cache, file) == f"version {version % 10}\n"
        assert whole_seconds.reads == before + 1  # until it has settled, a hit reads the content once
    assert cache.get_stats().computations == 100


async def test_f04_once_it_has_settled_no_content_is_read(open_cache, file, whole_seconds):
    cache = await open_cache()
    await text(cache, file)
    whole_seconds.ahead = 4 * 10**9
    await text(cache, file)
    before = whole_seconds.reads
    for _ in range(10):
        await text(cache, file)
    assert whole_seconds.reads == before
    whole_seconds.ahead = 0
    os.utime(file, (time.time() + 1, time.time() + 1))
    await text(cache, file)
    assert whole_seconds.reads > before


@FRESHNESS
async def test_f05_after_large_writes_under_concurrent_reads_the_last_read_is_new(open_cache, file, freshness):
    """A write of a megabyte moves the timestamp first and the data after it."""
    times, megabyte = size(150, 1_500), 1024 * 1024
    cache = await open_cache(freshness=freshness)
    done = threading.Event()

    def write():
        with file.open("r+b", buffering=0) as there:
            for version in range(times):
                there.seek(0)
                there.write(bytes([ord("a") + version % 26]) * megabyte)
        done.set()

    file.write_bytes(b"-" * megabyte)
    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        assert len(await text(cache, file)) == megabyte
        reads += 1
    writer.join()
    await cache.sync()
    assert await text(cache, file) == chr(ord("a") + (times - 1) % 26) * megabyte
    assert reads


@FRESHNESS
async def test_f06_harmless_edits_of_all_files_recompute_nothing(open_cache, tmp_path, freshness):
    files = [tmp_path / f"agent-{number}.md" for number in range(size(150, 1_000))]
    for path in files:
        path.write_text(path.name)
    cache = await open_cache(watch=agents_in(tmp_path), freshness=freshness)
    listener = Listener(cache)
    for harmless in HARMLESS.values():
        for path in files:
            assert await text(cache, path) == path.name
            harmless(path)
    await cache.sync()
    for path in files:
        assert await text(cache, path) == path.name
    assert cache.get_stats().computations == len(files)
    assert listener.events == []


async def test_f07_a_dependency_that_goes_or_comes_is_noticed(open_cache, tmp_path):
    cache, path = await open_cache(), tmp_path / "a" / "b" / "engineer.md"
    assert await text(cache, path) is None
    path.parent.mkdir(parents=True)
    assert await text(cache, path) is None
    for content in ("one", "two"):
        path.write_text(content)
        assert await text(cache, path) == content
        path.unlink()
        assert await text(cache, path) is None
    path.write_text("three")
    assert await text(cache, path) == "three"
    shutil.rmtree(tmp_path / "a")
    assert await text(cache, path) is None
    assert cache.get_stats().computations == 7


async def test_f07_by_events_too_and_folder_by_folder(open_cache, tmp_path):
    """Each folder that comes into being is watched, so that the next one in it is seen."""
    cache, path = await open_cache(freshness="events"), tmp_path / "a" / "b" / "engineer.md"
    assert await text(cache, path) is None
    await until_watched(cache)
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        before = cache._life.watch.events
        folder.mkdir()
        await wait_until(lambda before=before: cache._life.watch.events > before)
        assert await text(cache, path) is None
        await until_watched(cache)
    path.write_text("here")
    await until_text(cache, path, "here")
    path.unlink()
    await until_text(cache, path, None)
