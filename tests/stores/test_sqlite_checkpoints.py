"""No two processes checkpoint at once, and none while another writes: SQLite before 3.51.3 may damage a database so.

Who checkpoints holds a lock of SQLite's own, a byte of the index of the log; so does who writes. Whoever holds the lock
of the place can see from outside that nobody has one of these.

Seen to fail on planted bugs: what is free given back without the lock; a transaction without it.
"""

import contextlib
import fcntl
import os
import sqlite3
import time

import pytest

from _support import size
from stores._rows import end_of, line_of, start

WRITES, CHECKPOINTS = 120, 121  # the bytes, as the file format of the write-ahead log has them
PATIENCE = 60.0

WRITE = """
async def written(store):
    writer = store._doors.writer
    await writer.run(lambda: writer._connection.execute("PRAGMA wal_autocheckpoint = 1"))
    for number in range(5):
        await put(store, f"{os.getpid()} {number}", payload=os.urandom(20_000))
    await store.delete([f"{os.getpid()} {number}" for number in range(5)])
    await store.sweep(10)  # which gives back what is free, and checkpoints

await written(store)
print("ready", flush=True)
parent = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
while not parent.done():
    await written(store)
    if OPENS:
        await store.aclose()
        store = await opened(path)
await store.aclose()
"""


def is_locked(index, first, length):
    """Say whether another process has locked one of these bytes."""
    try:
        fcntl.lockf(index, fcntl.LOCK_EX | fcntl.LOCK_NB, length, first)
    except BlockingIOError:
        return True
    fcntl.lockf(index, fcntl.LOCK_UN, length, first)
    return False


def nobody_comes(index):
    """Look for some time, so that who would not wait for the lock of the place comes."""
    for _ in range(20):
        if is_locked(index, WRITES, CHECKPOINTS - WRITES + 1):
            return False
        time.sleep(0.0001)
    return True


@contextlib.contextmanager
def file(path):
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.timeout(300)
async def test_who_holds_the_lock_of_the_place_sees_nobody_write_or_checkpoint(tmp_path):
    folder = tmp_path / "store"
    programs = [start(folder, WRITE.replace("OPENS", opens)) for opens in ("False", "True", "False")]
    for program in programs:
        await line_of(program)
    with file(folder / "store.lock") as lock, file(folder / "store.db-shm") as index:
        seen = looks = 0
        until = time.monotonic() + PATIENCE
        while seen < size(10, 500) or looks < size(100, 5000):
            seen += is_locked(index, CHECKPOINTS, 1)  # somebody does checkpoint, and it can be seen
            if seen > looks // 10:
                fcntl.flock(lock, fcntl.LOCK_EX)
                assert nobody_comes(index)
                fcntl.flock(lock, fcntl.LOCK_UN)
                looks += 1
            assert time.monotonic() < until, f"{seen} checkpoints were seen, and {looks} times none"
    for program in programs:
        program.stdin.write("end\n")
        assert await end_of(program) == (0, "")
    with contextlib.closing(sqlite3.connect(folder / "store.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
