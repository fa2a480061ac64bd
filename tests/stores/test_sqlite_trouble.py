"""T11, as far as the store alone: each trouble is a `StoreError` with its cause, and when it is over all works again.

What is damaged, foreign or gone is begun anew, and the journal says that it is another one.

Seen to fail on planted bugs: a foreign database that is used; a failed transaction that stays open; a database that is
begun anew with the numbers of the old one; a removed log file that nobody misses; an invalidation that gives up while
the old rows can still be read; a reader that stays with what was set aside.
"""

import asyncio
import errno
import logging
import os
import resource
import sqlite3

import pytest

from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.stores import LeaseRequest, Notice, Selection, Stamp, Swap
from shared_prompt_cache.stores._sqlite import database as database_module
from shared_prompt_cache.stores._sqlite import place as places
from shared_prompt_cache.stores._sqlite import store as stores
from shared_prompt_cache.testing import ManualClock, wait_until
from stores._rows import end_of, entry, in_transaction, notice, opened, put, start, write
from stores.test_sqlite_cancellation import holding_the_lock


@pytest.fixture
async def store(tmp_path):
    store = await opened(tmp_path / "store")
    yield store
    await store.aclose()


@pytest.fixture
def database(tmp_path):
    return tmp_path / "store" / "store.db"


def set_aside(database):
    return sorted(path.name for path in database.parent.glob("store.db.corrupt-*"))


async def works(store, key="works"):
    await put(store, key)
    assert await store.get(key) == entry(key)
    assert not await in_transaction(store)


def calls(store):
    return {
        "get": lambda: store.get("key"),
        "get_many": lambda: store.get_many(["key"]),
        "put_many": lambda: store.put_many([write("new")]),
        "delete": lambda: store.delete(["key"]),
        "journal": lambda: store.journal(0),
        "keys": lambda: store.keys(most=10),
        "acquire": lambda: store.acquire([LeaseRequest("key", ("all",))], "me", 5),
        "sweep": lambda: store.sweep(10),
        "stats": store and store.stats,
        "baseline": lambda: store.baseline("/"),
        "swap": lambda: store.swap([Swap("/a", None, b"new")], []),
    }


# What is damaged or foreign.


@pytest.mark.parametrize(
    "content", [b"no database, but as long as its header and longer: " * 9, b"\0" * 9000, b"SQLite"]
)
async def test_a_file_that_is_no_database_is_set_aside(tmp_path, database, caplog, content):
    database.parent.mkdir(mode=0o700)
    database.write_bytes(content)
    with caplog.at_level(logging.WARNING, "shared_prompt_cache"):
        store = await opened(tmp_path / "store", clock=ManualClock(wall=1_800_000_000.0))
    await works(store)
    assert (await store.stats()).corrupt == 1
    await store.aclose()
    assert set_aside(database) == ["store.db.corrupt-1800000000"]
    assert (database.parent / "store.db.corrupt-1800000000").read_bytes() == content
    assert [record.event for record in caplog.records] == ["store.set_aside"]


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA user_version = 1",
        "PRAGMA application_id = 1",
        "DROP TABLE leases",
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM journal; END",
        "CREATE TABLE another (x)",
    ],
)
async def test_a_database_of_another_program_or_version_is_set_aside(tmp_path, database, statement):
    store = await opened(tmp_path / "store")
    await put(store, "key")
    await store.aclose()
    raw = sqlite3.connect(database)
    raw.execute(statement)
    raw.commit()
    raw.close()
    store = await opened(tmp_path / "store")
    assert await store.get("key") is None
    assert (await store.stats()).corrupt == 1
    await works(store)
    await store.aclose()
    assert len(set_aside(database)) == 1


async def test_of_what_was_set_aside_one_is_kept_with_its_log(tmp_path, database):
    for second in range(3):
        store = await opened(tmp_path / "store", clock=ManualClock(wall=1_800_000_000.0 + second))
        await put(store, "key")
        spoil(database)
        assert await store.get("key") is None
        await store.aclose()
    names = set_aside(database)
    assert names[0] == "store.db.corrupt-1800000002"
    assert set(names) <= {names[0] + suffix for suffix in ("", "-wal", "-shm")}
    assert names[0] + "-wal" in names


def spoil(database):
    """Damage a database so that every page it has is wrong, in the file and in its log."""
    for path in (database, database.with_name("store.db-wal")):
        with path.open("r+b") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(0)
            file.write(b"\xa5" * length)


@pytest.mark.parametrize("name", list(calls(None)))
async def test_an_operation_on_a_damaged_database_answers_as_an_empty_store_would(store, database, caplog, name):
    await put(store, "key", names=("tag\x1ft",))
    await store.swap([Swap("/a", None, b"old")], [])
    await forget_pages(store)
    spoil(database)
    with caplog.at_level(logging.WARNING, "shared_prompt_cache"):
        found = await calls(store)[name]()
    assert found in (None, {}, 0, [], [True], [False]) or name in {"journal", "acquire", "stats", "swap"}
    await works(store)
    assert await store.get("key") is None
    assert (await store.stats()).corrupt == 1
    assert [record.event for record in caplog.records] == ["store.set_aside"]


async def forget_pages(store):
    """Have the pages read anew from now on; from those it has in memory a store would answer, rightly."""
    for one in (store._doors.writer, store._doors.reader):
        await one.run(lambda one=one: one._connection.execute("PRAGMA cache_size = 0"))


async def test_an_invalidation_on_a_damaged_database_is_done(store, database):
    await put(store, "key")
    spoil(database)
    [sequence] = await store.invalidate([notice()])
    assert await store.get("key") is None
    found = await store.journal(sequence - 1)
    assert found.last == sequence or not found.complete


# What is gone.


def remove_files(database):
    for path in database.parent.glob("store.db*"):
        path.unlink()


def remove_folder(database):
    for path in database.parent.iterdir():
        path.unlink()
    database.parent.rmdir()


def remove_database_alone(database):
    database.unlink()


def move_away(database):
    database.parent.rename(database.parent.with_name("moved"))


def remove_log(database):
    database.with_name("store.db-wal").unlink()


REMOVALS = [remove_files, remove_folder, remove_database_alone, move_away, remove_log]


@pytest.mark.parametrize("remove", REMOVALS)
async def test_what_is_removed_underneath_is_begun_anew(store, database, remove):
    await put(store, "key")
    remove(database)
    await store.sweep(1)
    await works(store)
    assert await store.get("key") is None
    assert database.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("remove", REMOVALS)
async def test_an_invalidation_is_found_in_the_new_journal(store, database, remove):
    await put(store, "key")
    remove(database)
    [sequence] = await store.invalidate([notice()])
    assert [found.sequence for found in (await store.journal(sequence - 1)).entries] == [sequence]
    assert await store.get("key") is None


@pytest.mark.parametrize("remove", REMOVALS)
async def test_a_store_that_is_idle_hears_of_it(tmp_path, database, remove):
    told = []
    store = await opened(tmp_path / "store", changed=lambda: told.append(1))
    await put(store, "key")
    remove(database)
    await wait_until(lambda: told and database.exists(), what="the loss is noticed")
    assert await store.get("key") is None
    await store.aclose()


@pytest.mark.parametrize("before", [0, 1, 5])
@pytest.mark.parametrize("by", ["itself", "another"])
async def test_the_journal_of_a_database_begun_anew_is_another_one(tmp_path, store, database, before, by):
    for number in range(before):
        await store.invalidate([notice(number=number)])
    remove_files(database)
    if by == "another":  # which never knew the old one, and begins to count at the same numbers
        other = await opened(tmp_path / "store")
        for number in range(10):
            await other.invalidate([notice(number=number)])
    found = await store.journal(before)
    assert not found.complete
    assert found.last > 10
    assert (await store.journal(found.last)).complete
    if by == "another":
        await other.aclose()


async def test_what_was_computed_before_is_not_put_into_a_database_begun_anew(store, database):
    await store.invalidate([notice()])
    remove_files(database)
    assert await store.put_many([write("a", sequence=1), write("b", sequence=0)]) == [False, False]
    assert await store.keys(most=9) == []


async def test_a_lease_of_the_old_database_is_none_of_the_new(store, database):
    (old,) = await store.acquire([LeaseRequest("key", ("all",))], "me", 60)
    remove_files(database)
    (new,) = await store.acquire([LeaseRequest("key", ("all",))], "me", 60)
    assert new.fence > old.fence
    assert await store.renew([old, new], 60) == [False, True]


async def test_a_file_is_never_begun_with_the_log_of_another(tmp_path, database):
    store = await opened(tmp_path / "store")
    await put(store, "key")
    log = database.with_name("store.db-wal").read_bytes()
    await store.aclose()
    database.unlink()
    database.with_name("store.db-wal").write_bytes(log)
    store = await opened(tmp_path / "store")
    assert await store.get("key") is None
    await works(store)
    await store.aclose()


# What fails outside.


async def limited(store, extra):
    """Let the database grow by so many pages and no more."""
    writer = store._doors.writer

    def limit():
        raw = writer._connection
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        raw.execute(f"PRAGMA max_page_count = {pages + extra}")

    await writer.run(limit)


async def test_a_full_disk_is_told_and_when_there_is_room_again_all_works(store):
    await put(store, "key")
    await limited(store, 2)
    with pytest.raises(StoreError, match="full") as caught:
        await store.put_many([write(f"big {number}", bytes(9000)) for number in range(9)])
    assert caught.value.operation == "put_many"
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert not await in_transaction(store)
    assert await store.get("key") == entry("key")
    await limited(store, 1000)
    await works(store)
    assert (await store.stats()).corrupt == 0


async def test_an_invalidation_on_a_full_disk_gets_rid_of_everything(store, database):
    """A body that does not fit any more: there is no room for the transaction, and the old rows must not stay."""
    await put(store, "key", "bystander")
    await limited(store, 0)
    selection = Selection(names=("key\x1fkey",))
    [sequence] = await store.invalidate([Notice("me", 1, selection, bytes(100_000))])
    assert await store.keys(most=9) == []
    assert [found.sequence for found in (await store.journal(sequence - 1)).entries] == [sequence]
    assert len({name.partition("-wal")[0].partition("-shm")[0] for name in set_aside(database)}) == 1


async def broken(monkeypatch, *names):
    """Have functions of the system fail, for the store alone."""

    def fail(*_, **__):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    for name in names:
        monkeypatch.setattr(places.os, name, fail)


async def test_what_cannot_be_renamed_is_unlinked(store, database, monkeypatch):
    await put(store, "key")
    await limited(store, 0)
    with monkeypatch.context() as patch:
        await broken(patch, "replace")
        await store.invalidate([Notice("me", 1, Selection(names=("key\x1fkey",)), bytes(100_000))])
    assert await store.get("key") is None
    assert set_aside(database) == []


async def test_if_nothing_helps_an_invalidation_raises(store, monkeypatch):
    await put(store, "key")
    await limited(store, 0)
    too_much = Notice("me", 1, Selection(names=("key\x1fkey",)), bytes(100_000))
    with monkeypatch.context() as patch:
        await broken(patch, "replace", "unlink")
        with pytest.raises(StoreError, match="full"):
            await store.invalidate([too_much])
    assert await store.get("key") == entry("key")  # who was told keeps it from being served
    await store.invalidate([too_much])
    assert await store.get("key") is None


async def test_an_invalidation_does_not_wait_for_ever_for_one_who_holds_the_lock(tmp_path):
    store, other = await opened(tmp_path / "store"), await opened(tmp_path / "store")
    await put(store, "key")
    held = await holding_the_lock(other)
    store._doors.writer.lock.patience = 0.05
    with pytest.raises(StoreError, match="locked by others"):
        await store.put_many([write("key", b"new")])
    with pytest.raises(StoreError, match="locked by others"):
        await store.invalidate([notice()])
    held.set()
    store._doors.writer.lock.patience = 5
    assert await store.get("key") is None
    assert await other.get("key") is None
    await works(store)
    assert await other.get("works") == entry("works")
    await store.aclose()
    await other.aclose()


async def test_one_who_has_the_database_itself_locked_is_waited_for_and_then_told_of(tmp_path, database, monkeypatch):
    monkeypatch.setattr(stores, "_PATIENCE", 0.05)
    store = await opened(tmp_path / "store")
    await put(store, "key")
    shell = sqlite3.connect(database, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="database is locked"):
        await store.put_many([write("key", b"new")])
    assert await store.get("key") == entry("key")
    shell.execute("COMMIT")
    shell.close()
    await works(store)
    await store.aclose()


async def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        await broken(patch, "mkdir")
        with pytest.raises(StoreError, match="Permission denied") as caught:
            await opened(tmp_path / "store")
    assert isinstance(caught.value.__cause__, PermissionError)
    await (await opened(tmp_path / "store")).aclose()


async def test_permissions_that_are_lost_while_it_is_open_are_told_and_it_recovers(store, database, monkeypatch):
    await put(store, "key")
    with monkeypatch.context() as patch:
        await broken(patch, "stat")
        for name, call in calls(store).items():
            with pytest.raises(StoreError, match="Permission denied") as caught:
                await call()
            assert caught.value.operation == name
    assert await store.get("key") == entry("key")
    await works(store)


async def test_damage_that_cannot_be_set_aside_is_told_again_and_again(store, database, monkeypatch):
    await put(store, "key")
    await forget_pages(store)
    spoil(database)
    with monkeypatch.context() as patch:
        await broken(patch, "replace")
        for _ in range(3):
            with pytest.raises(StoreError):
                await store.put_many([write("key")])
    await works(store)
    assert (await store.stats()).corrupt == 1


async def test_without_descriptors_nothing_hangs_and_with_them_all_works_again(tmp_path):
    program = start(
        tmp_path / "store",
        """
        import resource
        await put(store, "key")
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        files = []
        try:
            while True:
                files.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        assert is_right(await store.get("key"))
        await put(store, "another")
        os.rename(store._place.database, store._place.database + ".away")
        for call in (store.get, store.journal, store.sweep, store.most_used):
            try:  # what it closes first is enough for some
                await call(*{"get": ["key"]}.get(call.__name__, [0]))
            except StoreError as error:
                assert error.__cause__ is not None
        try:
            await opened(store._place.folder + "2")
        except StoreError as error:
            assert error.__cause__ is not None
        else:
            raise AssertionError("it did without descriptors")
        for file in files:
            os.close(file)
        assert await store.get("key") is None
        await put(store, "new")
        await store.aclose()
        """,
    )
    assert await end_of(program) == (0, "")


async def test_no_room_for_a_file_is_told(tmp_path):
    """RLIMIT_FSIZE stands for a disk that is full for the log too: its signal is ignored by Python."""
    assert resource.RLIMIT_FSIZE is not None
    program = start(
        tmp_path / "store",
        """
        import resource
        await put(store, "key")
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        refused = 0
        for number in range(200):
            try:
                await store.put_many([write(f"key {number}", bytes(4000))])
            except StoreError:
                refused += 1
        assert refused > 100, refused
        assert is_right(await store.get("key"))
        [sequence] = await store.invalidate([notice()])
        assert await store.keys(most=9) == []
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await put(store, "key")
        assert (await store.stats()).corrupt == 0
        await store.aclose()
        """,
    )
    assert await end_of(program) == (0, "")


async def test_on_a_network_file_system_there_is_no_log_and_a_warning(tmp_path, database, caplog, monkeypatch):
    asked, told = [], []
    monkeypatch.setattr(database_module, "is_remote", lambda path: asked.append(path) or True)
    with caplog.at_level(logging.WARNING, "shared_prompt_cache"):
        store = await opened(tmp_path / "store")
        assert set(asked) == {str(tmp_path / "store")}
        assert [record.event for record in caplog.records] == ["store.without_log"]
    other = await opened(tmp_path / "store", changed=lambda: told.append(1))
    await works(store)
    assert await other.get("works") == entry("works")
    await store.invalidate([notice()])
    await wait_until(lambda: told, what="the other hears of it")
    assert await other.get("works") is None
    assert not database.with_name("store.db-wal").exists()
    await store.aclose()
    await other.aclose()


async def test_arguments_that_no_database_can_keep_say_nothing_against_it(store):
    await put(store, "key")
    with pytest.raises(StoreError):
        await store.put_many([write("nan", expires_at=float("nan"))])
    with pytest.raises(StoreError):
        await store.acquire([LeaseRequest("another", ("all",))], "me", float("nan"))
    with pytest.raises(StoreError):
        await store.journal("no number") and await store.journal(1 << 70)
    assert await store.get("key") == entry("key")
    assert (await store.stats()).corrupt == 0


async def test_an_error_says_of_which_key(store, monkeypatch):
    await broken(monkeypatch, "stat")
    with pytest.raises(StoreError) as caught:
        await store.get("the key")
    monkeypatch.undo()
    assert (caught.value.operation, caught.value.key) == ("get", "the key")
    assert str(store._place.folder) in str(caught.value)


async def test_it_is_opened_once_at_a_time(store):
    with pytest.raises(StoreError, match="open already"):
        await store.open(ManualClock(), lambda: None)
    await asyncio.gather(store.aclose(), store.aclose())
    with pytest.raises(StoreError, match="not open"):
        await store.get("key")
    assert Stamp(0, "", 0) is not None
