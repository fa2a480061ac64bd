"""T11, as a user of the cache meets it: no verb raises, memory goes on, health says so, and it recovers by itself.

What was invalidated meanwhile is gone for ever, also for the next process, and so is the row of a value that could not
be replaced. What the store itself does in each trouble is in `test_sqlite_trouble.py`.

Seen to fail on planted bugs: no pause before a store is tried again; a pause that does not grow; a row that is not
deleted after a failed write of a newer value; invalidations that are dropped with the writes; a store that is closed
without a last try while an invalidation waits.
"""

import fcntl
import math
import os
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import pytest

from _support import size
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache._tier import breaker
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.stores._sqlite import database as database_module
from shared_prompt_cache.stores._sqlite import store as stores
from shared_prompt_cache.testing import ChaosStore, wait_until
from stores._caches import anew, fill, found, hasten, run_program, state, use_every_verb, well


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    hasten(monkeypatch.setattr)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


async def goes_on(cache, folder):
    """It recovers, what was invalidated stays away, and what is set is kept; return what was there before and is."""
    await well(cache)
    await cache.set_prompt("after", "after")
    await cache.flush()
    assert cache.get_stats().store["pending_invalidations"] == 0
    left = await found(folder, "after", "doomed", "kept", "another")
    assert left.pop("after") == "after"
    assert left.items() <= {"kept": "kept", "another": "another"}.items()
    return left


# What happens to the files.


def remove_files(folder):
    for path in folder.glob("store.db*"):
        path.unlink()


def remove_log(folder):
    (folder / "store.db-wal").unlink()


def move_away(folder):
    folder.rename(folder.with_name("moved"))


def overwrite(folder):
    for path in folder.glob("store.db*"):
        path.write_bytes(b"\xa5" * 5000)


@pytest.mark.parametrize("happens", [remove_files, remove_log, move_away, shutil.rmtree, overwrite])
async def test_a_store_that_is_deleted_underneath_is_begun_anew(open_cache, folder, happens):
    cache = await open_cache(store=SQLiteStore(folder))
    await fill(cache)
    happens(folder)
    assert (await cache.get_prompt("kept")).prompt == "kept"
    await use_every_verb(cache, forgets=True)
    await goes_on(cache, folder)
    assert folder.stat().st_mode & 0o777 == 0o700


# What fails for a while.


def lock_database(folder):
    """As a shell does in which somebody is in the middle of something."""
    shell = sqlite3.connect(folder / "store.db", isolation_level=None)
    shell.execute("BEGIN EXCLUSIVE")
    return shell.close


def lock_place(folder):
    """As another process does that is stopped while it writes."""
    descriptor = os.open(folder / "store.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return lambda: os.close(descriptor)


@pytest.mark.parametrize("lock", [lock_database, lock_place])
async def test_a_store_that_is_locked_for_long_is_done_without(open_cache, folder, monkeypatch, lock):
    monkeypatch.setattr(stores, "_PATIENCE", 0.01)
    cache = await open_cache(store=SQLiteStore(folder))
    await fill(cache)
    unlock = lock(folder)
    await cache.set_prompt("late", 1)
    await cache.flush()
    assert "locked" in state(cache).reason
    for _ in range(2):
        await use_every_verb(cache)
        assert state(cache).status == "degraded"
    unlock()  # an invalidation may have had the database set aside meanwhile
    await goes_on(cache, folder)


async def test_a_database_that_may_not_grow_is_done_without(open_cache, folder):
    cache = await open_cache(store=SQLiteStore(folder))
    await fill(cache)
    writer = cache._tier._store._doors.writer

    def limit(extra):
        raw = writer._connection
        raw.execute(f"PRAGMA max_page_count = {raw.execute('PRAGMA page_count').fetchone()[0] + extra}")

    await writer.run(lambda: limit(0))
    await cache.set_prompt("kept", os.urandom(100_000))
    await cache.flush()
    assert "full" in state(cache).reason
    await use_every_verb(cache)
    await writer.run(lambda: limit(10_000))
    assert "kept" not in await goes_on(cache, folder)  # the old value, in the place of one that did not fit


async def test_on_a_network_file_system_it_works_and_what_it_keeps_survives(folder, monkeypatch):
    monkeypatch.setattr(database_module, "is_remote", lambda _: True)
    async with anew(folder) as cache:
        await fill(cache)
        await use_every_verb(cache)
        assert state(cache).status == "ok"
    assert await found(folder, "kept", "doomed", "last") == {"kept": "kept", "last": 6}
    assert not (folder / "store.db-wal").exists()


# What the system refuses.


def test_permissions_that_are_lost_are_survived():
    with tempfile.TemporaryDirectory() as base:  # not `tmp_path`, which is below a folder of its owner alone
        Path(base).chmod(0o711)
        assert run_program("stores._refusals", "permissions", base) == [
            "lost",
            "lost-before",
            "read-only",
            "read-only-before",
            "gone-and-not-to-be-made",
        ]


def test_descriptors_and_room_for_files_that_are_exhausted_are_survived(tmp_path):
    assert run_program("stores._refusals", "limits", tmp_path) == [
        "descriptors",
        "descriptors-before",
        "descriptors-and-file",
        "no-room",
        "no-room-before",
    ]


def test_a_disk_that_is_full_is_survived(tmp_path):
    """On a file system of 2 MiB where this user can mount one; else under a limit that no file outgrows."""
    mount = f"mount -t tmpfs -o size=2m tmpfs '{tmp_path}'"
    alone = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    try:
        mountable = subprocess.run([*alone, mount], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mountable = False
    if mountable:
        before = (*alone, f'{mount} && exec "$@"', "sh")
        assert run_program("stores._refusals", "room", tmp_path, before=before) == ["full", "full-before"]
    else:
        assert "no-room" in run_program("stores._refusals", "limits", tmp_path)


# A store that fails again and again.


async def test_a_store_that_stays_broken_is_tried_at_growing_intervals(open_cache, folder, monkeypatch):
    """However long it takes: so many tries need so much time, since each pause is twice as long as the last."""
    first, longest = 0.002, 0.064
    monkeypatch.setattr(breaker, "_FIRST_DELAY", first)
    monkeypatch.setattr(breaker, "_LONGEST_DELAY", longest)
    chaos = ChaosStore(SQLiteStore(folder), seed=1, errors=0)
    cache = await open_cache(store=chaos)
    clock = cache._life.loop.time
    chaos.errors = 1.0
    began, before = clock(), chaos.calls.total()
    await cache.set_prompt("key", 1)
    await wait_until(lambda: chaos.calls.total() - before > size(8, 40), timeout=60)
    tries, passed = chaos.calls.total() - before - 1, clock() - began
    growing = int(math.log2(longest / first))
    least = sum(first * 2 ** min(number, growing) for number in range(tries))
    assert passed >= least, f"{tries} tries in {passed:.3f} s"
    chaos.errors = 0.0
    await well(cache)
    assert cache._tier._breaker.delay <= longest


@pytest.mark.parametrize("after", [False, True], ids=["before it took effect", "after it took effect"])
@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_a_failed_write_leaves_no_older_row_to_be_served(folder, monkeypatch, after, how):
    """Neither in this life nor, the store having recovered, in the next."""
    chaos = ChaosStore(SQLiteStore(folder), seed=1, errors=0)
    async with SharedPromptCache(store=chaos) as cache:
        await cache.set_prompt("key", "old")
        await cache.flush()
        if how == "hangs":
            cache._tier._breaker.writing = 0.01
            chaos.pause()
        else:
            chaos.fail_next(after=after)
        calls = chaos.calls["put_many"]
        await cache.set_prompt("key", "new")
        await cache.flush()
        assert chaos.calls["put_many"] == calls + 1
        assert (await cache.get_prompt("key")).prompt == "new"
        await cache.evict_oldest()
        assert await cache.get_prompt("key") is None
        chaos.resume()
        await well(cache)
        assert await cache.get_prompt("key") is None
    assert await found(folder, "key") == {}


@pytest.mark.parametrize("pending", ["an invalidation", "a newer value"])
@pytest.mark.parametrize("gap", [1, 2])
async def test_what_waits_when_it_is_closed_is_tried_once_more(folder, pending, gap):
    """A moment of trouble and then the end of the program: the next must not find what this one knew to be old."""
    chaos = ChaosStore(SQLiteStore(folder), seed=1, errors=0)
    async with SharedPromptCache(store=chaos) as cache:
        await cache.set_prompt("key", "old")
        await cache.flush()
        chaos.fail_next(gap)
        if pending == "an invalidation":
            await cache.invalidate("key")
        else:
            await cache.set_prompt("key", "new")
            await cache.flush()
    assert "old" not in (await found(folder, "key")).values()
