"""T19, the files: the folder and the database are their owner's alone, and what somebody else has put there is refused.

Seen to fail on planted bugs: a mode that the umask decides; a folder made without its own mode; `stat` where `lstat`
belongs; an owner that is not asked for; a log file that is not looked at; a lock that another connection can take too.
"""

import os
import sqlite3
import stat

import pytest

from shared_prompt_cache.errors import ConfigError, ConfigTypeError, StoreError
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.stores._sqlite import place as places
from shared_prompt_cache.stores._sqlite.place import Place, PlaceLock
from shared_prompt_cache.stores._sqlite.schema import pragma
from stores._rows import modes, notice, opened, put


@pytest.fixture(params=[0o000, 0o022, 0o777])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


async def test_folder_and_files_are_private_whatever_the_umask(tmp_path, umask):
    folder = tmp_path / "not yet" / "there"
    store = await opened(folder)
    await put(store, "key")
    await store.invalidate([notice()])
    seen = modes(folder)
    await store.aclose()
    assert {"store.db", "store.db-wal", "store.db-shm", "store.lock", ".gitignore"} == set(seen)
    assert set(seen.values()) == {0o600}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)] == [0o700, 0o700]


async def test_git_is_told_to_leave_it_alone_and_what_the_user_says_there_stays(tmp_path):
    await (await opened(tmp_path / "new")).aclose()
    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"
    (tmp_path / "new" / ".gitignore").write_text("store.db*\n")
    await (await opened(tmp_path / "new")).aclose()
    assert (tmp_path / "new" / ".gitignore").read_text() == "store.db*\n"


async def test_files_that_others_could_read_are_made_private(tmp_path):
    await (await opened(tmp_path / "store")).aclose()
    (tmp_path / "store" / "store.db").chmod(0o644)
    await (await opened(tmp_path / "store")).aclose()
    assert set(modes(tmp_path / "store").values()) == {0o600}


async def test_any_name_will_do_for_the_folder(tmp_path):
    for name in ("with space", "per%20cent?mode=memory#x", "späßchen", os.fsdecode(b"no utf-8 \xff")):
        store = await opened(tmp_path / name)
        await put(store, "key")
        await store.aclose()
        assert (tmp_path / name / "store.db").stat().st_size > 0


async def refusal(path):
    with pytest.raises(StoreError) as caught:
        await opened(path)
    assert caught.value.operation == "open"
    assert caught.value.__cause__ is not None
    return str(caught.value)


async def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    message = await refusal(tmp_path / "link")
    assert str(tmp_path / "link") in message
    assert "give the folder it leads to" in message
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["store.db", "store.db-wal", "store.db-shm", "store.db-journal", "store.lock"])
@pytest.mark.parametrize("target", ["there", "missing"])
async def test_a_link_in_the_place_of_a_file_is_refused(tmp_path, name, target):
    (tmp_path / "there").write_text("precious")
    await (await opened(tmp_path / "store")).aclose()
    (tmp_path / "store" / name).unlink(missing_ok=True)
    (tmp_path / "store" / name).symlink_to(tmp_path / target)
    message = await refusal(tmp_path / "store")
    assert str(tmp_path / "store" / name) in message
    assert "remove it" in message
    assert (tmp_path / "there").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


async def test_a_link_that_appears_while_the_store_is_open_is_not_followed(tmp_path):
    (tmp_path / "there").write_text("precious")
    store = await opened(tmp_path / "store")
    (tmp_path / "store" / "store.db").unlink()
    (tmp_path / "store" / "store.db").symlink_to(tmp_path / "there")
    with pytest.raises(StoreError, match="symbolic link"):
        await store.get("key")
    await store.aclose()
    assert (tmp_path / "there").read_text() == "precious"


async def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("precious")
    assert "is no folder" in await refusal(tmp_path / "file")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
async def test_a_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(mode)
    message = await refusal(tmp_path / "shared")
    assert str(tmp_path / "shared") in message
    assert "chmod go-w" in message
    assert list((tmp_path / "shared").iterdir()) == []


async def test_a_folder_that_others_may_read_is_used(tmp_path):
    (tmp_path / "readable").mkdir(mode=0o755)
    await (await opened(tmp_path / "readable")).aclose()


async def test_what_belongs_to_somebody_else_is_refused(tmp_path, monkeypatch):
    await (await opened(tmp_path / "store")).aclose()
    monkeypatch.setattr(places.os, "geteuid", lambda: os.getuid() + 1)
    assert f"belongs to the user {os.getuid()}" in await refusal(tmp_path / "store")


async def test_so_is_a_file_of_somebody_else_in_a_folder_of_our_own(tmp_path, monkeypatch):
    await (await opened(tmp_path / "store")).aclose()
    check, asked = places._check_owner, []

    def check_as_if_files_were_foreign(path, status):
        asked.append(path.rpartition("/")[2])
        check(path, os.stat_result((*status[:4], os.getuid() + 1, *status[5:])) if path.endswith(".db") else status)

    monkeypatch.setattr(places, "_check_owner", check_as_if_files_were_foreign)
    assert "store.db belongs to" in await refusal(tmp_path / "store")
    assert asked == ["store", "store.db"]


PRAGMAS = {
    "busy_timeout": 5000,
    "synchronous": 1,
    "journal_mode": "wal",
    "trusted_schema": 0,
    "cell_size_check": 1,
    "mmap_size": 0,
    "page_size": 8192,
    "auto_vacuum": 2,
}


async def test_the_database_is_set_up_as_promised(tmp_path):
    store = await opened(tmp_path / "store")
    doors = store._doors
    for database in (doors.writer, doors.reader):
        found = await database.run(lambda raw=database._connection: {name: pragma(raw, name) for name in PRAGMAS})
        assert found == PRAGMAS
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await doors.reader.run(lambda: doors.reader._connection.execute("DELETE FROM entries"))
    await store.aclose()


def test_one_at_a_time_holds_the_lock_and_who_waits_in_vain_is_told(tmp_path):
    place = Place(tmp_path / "store")
    first, second = (PlaceLock(place, 0, lambda: False) for _ in range(2))
    with first, pytest.raises(TimeoutError, match="locked by others"), second:
        pass
    with second:
        pass
    first.close()
    second.close()


@pytest.mark.parametrize("path", [None, 3, b"bytes", ["list"]])
def test_a_path_that_is_none_is_an_error(path):
    with pytest.raises(ConfigTypeError, match=r"^path holds .*; give (a path|paths)"):
        SQLiteStore(path)


@pytest.mark.parametrize("path", ["", "nul\0"])
def test_a_path_that_cannot_be_is_an_error(path):
    with pytest.raises(ConfigError, match=r"^path holds .*; give (a path|paths)"):
        SQLiteStore(path)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_cannot_be_is_an_error(tmp_path, limit):
    with pytest.raises(ConfigError, match="max_size_mb"):
        SQLiteStore(tmp_path, max_size_mb=limit)


@pytest.mark.parametrize("limit", ["1", True])
def test_a_limit_that_is_no_number_is_an_error(tmp_path, limit):
    with pytest.raises(ConfigTypeError, match="max_size_mb"):
        SQLiteStore(tmp_path, max_size_mb=limit)
