"""What is kept small and quick: the file, the reads, and what is loaded.

Seen to fail on planted bugs: pages that are never given back; a read that writes; uses that are forgotten at the end;
an invalidation that the disk need not have; names that stay when the last entry that has them is gone; an index that
nothing uses.
"""

import os
import subprocess
import sys
from itertools import pairwise

import pytest

from _support import size
from shared_prompt_cache.stores import Selection
from shared_prompt_cache.stores._sqlite import entries, schema
from shared_prompt_cache.stores._sqlite import store as stores
from stores._rows import entry, in_transaction, notice, opened, put, write

ROWS = size(1_500, 20_000)


@pytest.fixture
async def store(tmp_path):
    store = await opened(tmp_path / "store")
    yield store
    await store.aclose()


async def ask(store, statement):
    writer = store._doors.writer
    return await writer.run(lambda: writer._connection.execute(statement).fetchall())


def test_who_uses_no_store_does_not_load_sqlite():
    program = (
        "import sys, shared_prompt_cache.stores as stores\n"
        "assert not {'aiosqlite', 'sqlite3'} & set(sys.modules)\n"
        "stores.SQLiteStore\n"
        "assert 'aiosqlite' in sys.modules\n"
        "try: stores.NoStore\n"
        "except AttributeError as error: assert 'NoStore' in str(error)\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it loads sqlite3
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_file_is_at_most_half_as_large_again_as_what_it_keeps(tmp_path):
    store = await opened(tmp_path / "store")
    for start in range(0, ROWS, 250):
        writes = []
        for number in range(start, start + 250):
            names = (f"agent\x1fagent-{number % 50}", "project\x1f/home/user/shop", "tag\x1fplanning")
            file = f"file\x1f/home/user/shop/.claude-mpm/memories/agent-{number % 50}.md"
            writes.append(write(f"agent-{number % 50}_{number * 7919:016x}", bytes(2048), names=(*names, file)))
        await store.put_many(writes)
    kept = (await store.stats()).payload_bytes
    await store.aclose()
    assert (tmp_path / "store" / "store.db").stat().st_size <= 1.5 * kept


async def test_what_is_deleted_is_given_back_by_and_by(store):
    await put(store, *map(str, range(ROWS)), payload=bytes(2000))
    before = (await ask(store, "PRAGMA page_count"))[0][0]
    await store.delete([str(number) for number in range(ROWS - 10)])
    pages = [before]
    for _ in range(before // 512 + 3):
        await store.sweep(100)
        pages.append((await ask(store, "PRAGMA page_count"))[0][0])
    assert pages[-1] < before / 5
    assert max(first - second for first, second in pairwise(pages)) <= 520
    assert (await ask(store, "PRAGMA integrity_check")) == [("ok",)]


async def test_a_read_writes_nothing_and_is_noted_with_the_next_write(store):
    await put(store, "a", "b", "c")
    before = await ask(store, "PRAGMA data_version"), await ask(store, "SELECT total_changes()")
    assert await store.get("a") == entry("a")
    await store.get_many(["b", "a"])
    await store.get("none")
    assert (await ask(store, "PRAGMA data_version"), await ask(store, "SELECT total_changes()")) == before
    await put(store, "d")
    assert await store.most_used(4) == ["d", "a", "b", "c"]


async def test_what_was_read_before_the_end_is_known_after_it(tmp_path):
    store = await opened(tmp_path / "store")
    await put(store, "a", "b", "c")
    await store.get("a")
    await store.aclose()
    store = await opened(tmp_path / "store")
    assert await store.most_used(2) == ["a", "c"]
    await store.aclose()


async def test_uses_that_are_to_be_noted_are_bounded(store, monkeypatch):
    monkeypatch.setattr(stores, "_MOST_USES", 3)
    await put(store, *"abcdef")
    for key in "fedcba":
        await store.get(key)
    assert len(store._uses) == 3


async def test_an_invalidation_waits_for_the_disk_and_a_put_does_not(store):
    writer = store._doors.writer
    seen = []

    def change(raw):
        seen.append(schema.pragma(raw, "synchronous"))

    await writer.run(lambda: writer.write(change))
    await writer.run(lambda: writer.invalidate(change))
    await writer.run(lambda: writer.write(change, durable=True))
    assert seen == [1, 2, 2]
    assert await ask(store, "PRAGMA synchronous") == [(1,)]


async def test_a_name_goes_with_the_last_entry_that_has_it(store):
    await put(store, "a", "b", names=("tag\x1ft",))
    await put(store, "a", names=("tag\x1fu",))
    assert await ask(store, "SELECT name FROM names ORDER BY name") == [(b"tag\x1ft",), (b"tag\x1fu",)]
    await store.delete(["a", "b"])
    for table in ("names", "named", "life", "entries"):
        assert await ask(store, f"SELECT * FROM {table}") == []


async def test_to_put_an_entry_again_touches_no_name(store):
    await put(store, *map(str, range(100)), names=("tag\x1ft", "agent\x1fqa"))
    before = (await ask(store, "SELECT total_changes()"))[0][0]
    await put(store, *map(str, range(100)), names=("tag\x1ft", "agent\x1fqa"), payload=b"new")
    assert (await ask(store, "SELECT total_changes()"))[0][0] - before == 200


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (entries._READ, 1),
        ("SELECT id, name FROM names WHERE name >= ? AND name < ?", 2),
        ("SELECT id, key FROM entries WHERE key >= ? AND key < ?", 2),
        ("SELECT entry FROM named WHERE name = (SELECT id FROM names WHERE name = ?)", 1),
        ("SELECT entry FROM life WHERE expires <= ? ORDER BY expires LIMIT ?", 2),
        ("SELECT max(used) FROM life", 0),
        ("SELECT entry, size FROM life ORDER BY used LIMIT ?", 1),
        ("SELECT key FROM life JOIN entries ON id = entry ORDER BY used DESC LIMIT ?", 1),
        ("SELECT sequence FROM journal WHERE sequence > ? ORDER BY sequence", 1),
    ],
)
async def test_no_statement_of_every_day_looks_at_every_row(store, statement, arguments):
    writer = store._doors.writer
    explain = f"EXPLAIN QUERY PLAN {statement}"
    plan = await writer.run(lambda: writer._connection.execute(explain, (1,) * arguments).fetchall())
    steps = [row[3] for row in plan]
    assert not [step for step in steps if "TEMP B-TREE" in step or (step.startswith("SCAN") and "INDEX" not in step)]


async def test_to_invalidate_all_of_many_is_one_transaction(store):
    await put(store, *map(str, range(ROWS)))
    assert await store.invalidate([notice(), notice(Selection(names=("tag\x1ft",)))]) == [1, 2]
    assert await store.keys(most=5) == []
    assert not await in_transaction(store)
