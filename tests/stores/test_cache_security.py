"""T19, as a user of the cache meets it: what somebody else has put where the store is, is refused or is a miss.

Seen to fail on planted bugs: a seal that is not checked; one without a key; one that leaves out the key of the entry; a
row that is believed although its stamp is older than an invalidation of it; a codec that unpickles; a refusal that is
taken for trouble of a moment.
"""

import os
import sqlite3
import stat
from contextlib import closing

import pytest

from _support import Counted
from _threads import run_script
from shared_prompt_cache import SharedPromptCache, StoreError
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.stores._secret import VARIABLE
from shared_prompt_cache.stores._sqlite import place as places
from shared_prompt_cache.testing import wait_until
from stores._caches import anew, found, use_every_verb
from stores._rows import modes

NOBODY = 65534


@pytest.fixture
def folder(tmp_path):
    return tmp_path / ".cache" / "prompts"


async def fill(folder):
    async with anew(folder) as cache:
        for key in ("a", "b", "c"):
            await cache.set_prompt(key, f"value of {key}", agent="qa", metadata={"of": key})


def change(folder, *statements):
    """Do as somebody does who can write to the database, and knows all but the secret."""
    with closing(sqlite3.connect(folder / "store.db", isolation_level=None)) as raw:
        for statement in statements:
            raw.execute(statement)


async def refused(folder):
    """Return why a cache does not start."""
    cache = SharedPromptCache(store=SQLiteStore(folder))
    with pytest.raises(StoreError) as caught:
        await cache.start()
    return str(caught.value)


# Who may read and write.


async def test_with_umask_zero_all_that_is_made_is_its_owners_alone(tmp_path, folder, monkeypatch):
    """The store with its log, what was set aside of it, and the secret."""
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    before = os.umask(0)
    try:
        async with anew(folder) as cache:
            await use_every_verb(cache)
            seen = modes(folder)
        (folder / "store.db").write_bytes(b"no database" * 1000)
        await fill(folder)
    finally:
        os.umask(before)
    seen |= modes(folder) | modes(tmp_path / "state" / "shared-prompt-cache")
    assert {"store.db", "store.db-wal", "store.db-shm", "store.lock", ".gitignore", "key"} < set(seen)
    assert [name for name in seen if ".corrupt-" in name]
    assert set(seen.values()) == {0o600}
    for made in (folder, folder.parent, tmp_path / "state", tmp_path / "state" / "shared-prompt-cache"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702])
async def test_a_folder_that_others_may_write_to_is_refused_until_that_is_changed(folder, mode):
    await fill(folder)
    folder.chmod(mode)
    assert f"{folder} may be written by others; chmod go-w it" in await refused(folder)
    folder.chmod(0o700)
    assert await found(folder, "a") == {"a": "value of a"}


@pytest.mark.parametrize("whose", ["the folder", "the database"])
async def test_what_belongs_to_somebody_else_is_refused(folder, monkeypatch, whose):
    await fill(folder)
    if os.geteuid() == 0:
        os.chown(folder if whose == "the folder" else folder / "store.db", NOBODY, NOBODY)
    else:
        monkeypatch.setattr(places.os, "geteuid", lambda: NOBODY)
    assert "belongs to the user" in await refused(folder)


# Links.


@pytest.mark.parametrize("name", ["store.db", "store.db-wal", "store.db-shm", "store.lock"])
async def test_a_link_in_the_place_of_a_file_is_refused_and_not_followed(tmp_path, folder, name):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    await fill(folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(precious)
    assert f"{folder / name} is a symbolic link" in await refused(folder)
    assert precious.read_text() == "precious"


async def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path, folder):
    await fill(folder)
    (tmp_path / "link").symlink_to(folder)
    assert "give the folder it leads to" in await refused(tmp_path / "link")


async def test_a_link_that_appears_while_the_cache_is_open_is_not_followed_and_no_verb_raises(tmp_path, folder):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    async with anew(folder) as cache:
        await cache.set_prompt("a", 1)
        await cache.flush()
        (folder / "store.db").unlink()
        (folder / "store.db").symlink_to(precious)
        await use_every_verb(cache)
        await wait_until(lambda: cache.health().parts["store"].status == "degraded")
        assert "symbolic link" in cache.health().parts["store"].reason
        assert (await cache.get_prompt("a")) is None or (await cache.get_prompt("a")).prompt == 1
    assert precious.read_text() == "precious"


# Rows.

TAMPERED = {
    "value": "UPDATE entries SET payload = CAST('value of x' AS BLOB) WHERE key = CAST('a' AS BLOB)",
    "a longer value": "UPDATE entries SET payload = CAST(payload || 'x' AS BLOB) WHERE key = CAST('a' AS BLOB)",
    "codec": "UPDATE entries SET codec = 'bytes' WHERE key = CAST('a' AS BLOB)",
    "head": "UPDATE entries SET head = (SELECT head FROM entries WHERE key = CAST('b' AS BLOB))"
    " WHERE key = CAST('a' AS BLOB)",
    "value of another": "UPDATE entries SET payload = (SELECT payload FROM entries WHERE key = CAST('b' AS BLOB))"
    " WHERE key = CAST('a' AS BLOB)",
    "checksum": "UPDATE entries SET checksum = zeroblob(16) WHERE key = CAST('a' AS BLOB)",
    "no checksum": "UPDATE entries SET checksum = x'' WHERE key = CAST('a' AS BLOB)",
    "row of another key": "UPDATE entries SET (codec, checksum, head, payload) ="
    " (SELECT codec, checksum, head, payload FROM entries WHERE key = CAST('b' AS BLOB)) WHERE key = CAST('a' AS BLOB)",
}


@pytest.mark.parametrize("what", TAMPERED)
async def test_a_row_that_was_tampered_with_is_a_miss_and_told_and_removed(open_cache, folder, what):
    await fill(folder)
    change(folder, TAMPERED[what])
    cache = await open_cache(store=SQLiteStore(folder))
    removals = cache.events.subscribe(removals=True)
    assert await cache.get_or_compute("a", Counted("computed")) == "computed"
    told = await anext(removals)
    assert (told.key, told.reason) == ("a", "corrupt")
    assert cache.get_stats().store["corrupt"] == 1
    assert (await cache.get_prompt("b")).prompt == "value of b"
    await cache.flush()
    assert await found(folder, "a", "b") == {"a": "computed", "b": "value of b"}


async def test_a_row_that_is_put_back_after_it_was_invalidated_is_not_believed(folder):
    """Every table that an entry stands in is as it was; the journal, which only grows, is not."""
    await fill(folder)
    tables = ("entries", "life", "names", "named")
    with closing(sqlite3.connect(folder / "store.db")) as raw:
        rows = {table: raw.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    async with anew(folder) as cache:
        await cache.invalidate("a")
        await cache.invalidate_agent("qa")
    with closing(sqlite3.connect(folder / "store.db", isolation_level=None)) as raw:
        for table in tables:
            marks = ", ".join("?" * len(rows[table][0]))
            raw.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows[table])
        assert raw.execute("SELECT count(*) FROM entries").fetchone() == (3,)
    assert await found(folder, "a", "b", "c") == {}


async def test_a_store_of_another_secret_is_not_believed(folder, monkeypatch):
    """As that of a repository that was cloned: whoever filled it could put words into a prompt."""
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, "the secret of somebody else")
        await fill(folder)
    assert await found(folder, "a", "b", "c") == {}
    async with anew(folder) as cache:
        assert await cache.get_or_compute("a", Counted("computed")) == "computed"
    assert await found(folder, "a", "b") == {"a": "computed"}


def test_pickled_bytes_are_never_unpickled_not_even_under_the_right_seal(tmp_path):
    """Every codec is tried, and some that are none; the hook of the interpreter sees whatever would be looked up."""
    done = run_script(
        """
        import asyncio, os, pickle, sqlite3, sys, zlib
        import msgspec
        from shared_prompt_cache import SharedPromptCache
        from shared_prompt_cache.stores import SQLiteStore
        from shared_prompt_cache.stores._seal import VERSION, Head, Sealer
        from shared_prompt_cache.stores._secret import load_secret

        fired = []
        sys.addaudithook(lambda event, _: fired.append(event) if event.startswith("pickle.") else None)

        class Bomb:
            def __reduce__(self):
                return os.system, ("touch exploded",)

        pickled, sealer = pickle.dumps(Bomb()), Sealer(load_secret())

        def sealed(key, codec, head):
            packed = zlib.compress(pickled) if codec.endswith("+zlib") else pickled
            head = msgspec.structs.replace(msgspec.msgpack.decode(head[1:], type=Head), raw_size=len(pickled))
            head = bytes((VERSION,)) + msgspec.msgpack.encode(head)
            return codec, packed, head, sealer.seal(key.decode(), codec, packed, head)

        async def main():
            codecs = [name + more for more in ("", "+zlib") for name in ("str", "bytes", "msgpack", "pickle", "")]
            async with SharedPromptCache(store=SQLiteStore(sys.argv[1])) as cache:
                for codec in codecs:
                    await cache.set_prompt(f"of {codec}", {"a": [1]}, metadata={"b": 1})
            raw = sqlite3.connect(sys.argv[1] + "/store.db", isolation_level=None)
            for codec in codecs:
                key = f"of {codec}".encode()
                [head] = raw.execute("SELECT head FROM entries WHERE key = ?", (key,)).fetchone()
                raw.execute(
                    "UPDATE entries SET codec = ?, payload = ?, head = ?, checksum = ? WHERE key = ?",
                    (*sealed(key, codec, head), key),
                )
            raw.close()
            async with SharedPromptCache(store=SQLiteStore(sys.argv[1])) as cache:
                found = await cache.get_many([f"of {codec}" for codec in codecs])
                assert [(key, entry.prompt) for key, entry in found.items() if entry.prompt != pickled] == []
                assert set(found) == {"of bytes", "of bytes+zlib"}, found
                assert cache.get_stats().store["corrupt"] == len(codecs) - 2

        asyncio.run(main())
        print(fired, os.path.exists("exploded"))
        """,
        tmp_path / "store",
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[] False\n")
