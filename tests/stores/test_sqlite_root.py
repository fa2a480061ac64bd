"""The root of a store is found by its path, recorded in it, and the same for all who open it.

Seen to fail on planted bugs: the first hidden folder in place of the last; a path that is not the real one; a recorded
root that is passed over; an option that is not compared with it; a database begun anew with the default; a root whose
name the store's only begins with; a root that changes underneath.
"""

import sqlite3

import pytest

from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.errors import ConfigError, ConfigTypeError, StoreError
from shared_prompt_cache.stores import SQLiteStore
from stores._rows import opened, put


async def root_of(path, **options):
    store = await opened(path, **options)
    found = store.root
    await store.aclose()
    assert store.root is None
    return found


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("project/.cache/prompts", "project"),
        ("project/.tool/cache/deep/prompts", "project"),
        ("project/.prompts", "project"),
        ("project/prompts", "project"),
        (".work/project/.cache/prompts", ".work/project"),
        (".work/project/.cache/.prompts", ".work/project/.cache"),
    ],
)
async def test_it_is_the_parent_of_the_last_hidden_folder_or_of_the_store(tmp_path, path, root):
    assert await root_of(tmp_path / path) == str(tmp_path / root)


async def test_it_is_a_real_path_however_the_store_is_reached(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "link").symlink_to("project")
    assert await root_of(tmp_path / "link" / ".cache" / "prompts") == str(tmp_path / "project")
    assert await root_of(tmp_path / "project" / ".cache" / "prompts") == str(tmp_path / "project")
    linked = {"root": tmp_path / "link"}
    assert await root_of(tmp_path / "project" / ".cache" / "prompts", **linked) == str(tmp_path / "project")
    assert await root_of(tmp_path / "link" / "more" / ".cache" / "prompts", **linked) == str(tmp_path / "project")


async def test_it_may_be_given_and_is_recorded(tmp_path, monkeypatch):
    path = tmp_path / "project" / ".cache" / "prompts"
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore(path, root=".")
    monkeypatch.chdir("/")
    assert store.root is None  # until it is open
    assert await root_of(path, root=tmp_path) == str(tmp_path)
    assert await root_of(path) == str(tmp_path)
    assert await root_of(path, root=tmp_path) == str(tmp_path)
    (tmp_path / "project").rename(tmp_path / "moved")
    assert await root_of(tmp_path / "moved" / ".cache" / "prompts") == str(tmp_path)


async def test_where_the_store_is_moved_it_lies_as_far_above_as_before(tmp_path):
    (tmp_path / "a" / "project").mkdir(parents=True)
    assert await root_of(tmp_path / "a" / "project" / "prompts", root=tmp_path / "a") == str(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert await root_of(tmp_path / "b" / "project" / "prompts") == str(tmp_path / "b")


async def test_another_than_the_recorded_one_is_an_error_that_names_both(tmp_path):
    path = tmp_path / "project" / ".cache" / "prompts"
    await root_of(path)
    with pytest.raises(ConfigError, match="was made with the root") as caught:
        await root_of(path, root=tmp_path)
    assert caught.value.field == "root"
    assert str(tmp_path / "project") in str(caught.value)
    with pytest.raises(ConfigError, match="was made with the root"):
        await SharedPromptCache(store=SQLiteStore(path, root=tmp_path)).start()
    assert await root_of(path) == str(tmp_path / "project")


@pytest.mark.parametrize("root", ["elsewhere", "proj", "project/.cache/prompts", "project/.cache/prompts/deeper"])
async def test_a_root_that_does_not_hold_the_store_is_an_error(tmp_path, root):
    with pytest.raises(ConfigError, match="does not lie below it") as caught:
        await root_of(tmp_path / "project" / ".cache" / "prompts", root=tmp_path / root)
    assert caught.value.field == "root"
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_no_path_is_an_error(tmp_path):
    with pytest.raises(ConfigTypeError, match=r"^root"):
        SQLiteStore(tmp_path, root=3)
    with pytest.raises(ConfigError, match=r"^root"):
        SQLiteStore(tmp_path, root="")


async def test_a_database_that_is_begun_anew_has_the_root_of_the_old(tmp_path):
    path = tmp_path / "project" / ".cache" / "prompts"
    await root_of(path, root=tmp_path)
    store = await opened(path)
    for name in ("store.db", "store.db-wal", "store.db-shm"):
        (path / name).unlink()
    await put(store, "key")
    assert store.root == str(tmp_path)
    assert await root_of(path) == str(tmp_path)
    await store.aclose()


async def test_a_store_whose_root_has_become_another_is_used_no_more(tmp_path):
    """All that the cache has asked of it was named by the old one."""
    path = tmp_path / "project" / ".cache" / "prompts"
    store = await opened(path)
    for name in ("store.db", "store.db-wal", "store.db-shm"):
        (path / name).unlink()
    assert await root_of(path, root=tmp_path) == str(tmp_path)
    for _ in range(2):
        with pytest.raises(StoreError, match="open the store anew"):
            await store.get("key")
    await store.aclose()
    assert await root_of(path) == str(tmp_path)


@pytest.mark.parametrize("value", [0, -1, 1 << 20, "'a'", None])
async def test_a_database_that_does_not_say_where_its_root_is_is_set_aside(tmp_path, value):
    store = await opened(tmp_path / ".cache" / "prompts")
    await put(store, "key")
    await store.aclose()
    raw = sqlite3.connect(tmp_path / ".cache" / "prompts" / "store.db")
    if value is None:
        raw.execute("DELETE FROM meta")
    else:
        raw.execute(f"UPDATE meta SET value = {value} WHERE name = 'root'")
    raw.commit()
    raw.close()
    store = await opened(tmp_path / ".cache" / "prompts")
    assert (store.root, await store.get("key")) == (str(tmp_path), None)
    assert (await store.stats()).corrupt == 1
    await store.aclose()
