"""T10: bytes of the database, of its log and of its index are damaged at random. Nothing but `StoreError` comes out.

A row that comes back is the one that was put, or its checksum says that it is not. Afterwards the store works, and
keeps one copy of what it set aside.

Seen to fail on planted bugs: a text that is not UTF-8 any more and raises as it likes; a list nested so deep that
reading it raises; a number beyond all numbers that no later one can follow.
"""

import random
import shutil

import pytest

from _support import size
from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.stores import LeaseRequest, Selection, Swap
from stores._rows import is_right, notice, opened, put, write

FILES = size(100, 4_000)
KEYS = [f"key {number}" for number in range(60)]
LARGE, LOGGED = bytes(range(256)) * 5, b"in the log" * 100
PUT = {key: {(key, payload) for payload in (LARGE, LOGGED, b"new")} for key in KEYS}
SEED = 1_848


@pytest.fixture
async def pristine(tmp_path):
    """A folder as a killed process leaves it: with rows in the database and in the log."""
    store = await opened(tmp_path / "store")
    await put(store, *KEYS[:40], payload=LARGE, names=("agent\x1fqa", "file\x1f/home/memory.md"))
    await store.swap([Swap(f"/home/{number}.md", None, b"seen") for number in range(20)], [])
    await store.invalidate([notice(number=1)] * 3)
    await put(store, *KEYS[:40], payload=LARGE, names=("agent\x1fqa", "file\x1f/home/memory.md"))
    await store.aclose()
    store = await opened(tmp_path / "store")
    await put(store, *KEYS[40:], payload=LOGGED, names=("shape\x1fkey", "tag\x1ft"))
    await store.acquire([LeaseRequest("another key", ("all",))], "me", 1000)
    shutil.copytree(tmp_path / "store", tmp_path / "pristine")
    await store.aclose()
    return tmp_path / "pristine"


def damage(folder, draw):
    """Write into one of the files, and say how."""
    path = folder / draw.choice(["store.db", "store.db", "store.db-wal", "store.db-wal", "store.db-shm"])
    content = bytearray(path.read_bytes())
    kind = draw.choice(["bits", "bytes", "block", "zeros", "head", "cut"])
    start = draw.randrange(len(content))
    if kind == "bits":
        for _ in range(draw.choice([1, 5, 50])):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == "bytes":
        for _ in range(draw.choice([1, 20, 500])):
            content[draw.randrange(len(content))] = draw.randrange(256)
    elif kind == "block":
        content[start : start + 600] = draw.randbytes(len(content[start : start + 600]))
    elif kind == "zeros":
        content[start : start + 9000] = bytes(len(content[start : start + 9000]))
    elif kind == "head":
        content[draw.randrange(100)] ^= 0xFF
    else:
        del content[start:]
    path.write_bytes(content)
    return f"{path.name}, {kind}"


async def use(store, draw):
    """Call everything; return the errors that are not the store's own, and the rows that are wrong and look right."""
    wrong = []

    async def call(awaitable):
        try:
            return await awaitable
        except StoreError:
            return None

    for key in draw.sample(KEYS, 10):
        found = await call(store.get(key))
        if found is not None and is_right(found) and (found.key, found.payload) not in PUT[key]:
            wrong.append(found)
    found = await call(store.get_many(KEYS)) or {}
    wrong += [one for key, one in found.items() if is_right(one) and (one.key, one.payload) not in PUT[key]]
    calls = [
        lambda: store.put_many([write(key, b"new", sequence=3) for key in draw.sample(KEYS, 5)]),
        lambda: store.keys(most=1000),
        lambda: store.most_used(1000),
        lambda: store.journal(0),
        lambda: store.baseline("/"),
        lambda: store.swap([Swap("/home/1.md", b"seen", b"changed")], [notice()]),
        lambda: store.acquire([LeaseRequest("another key", ("all",))], "you", 5),
        lambda: store.delete(draw.sample(KEYS, 5)),
        lambda: store.sweep(100),
        store.stats,
    ]
    draw.shuffle(calls)
    for one in calls:
        await call(one())
    return wrong


@pytest.mark.timeout(900)
async def test_no_error_of_another_kind_comes_out_and_no_wrong_row(tmp_path, pristine):
    noticed = 0
    for number in range(FILES):
        draw = random.Random(f"{SEED} {number}")
        folder = tmp_path / "damaged"
        shutil.copytree(pristine, folder)
        how = f"seed {SEED}, file {number}: {damage(folder, draw)}"
        store = await opened(folder)
        assert await use(store, draw) == [], how
        corrupt = (await store.stats()).corrupt
        noticed += corrupt > 0
        await works_or_is_begun_anew(store, how)
        await store.aclose()
        aside = [path for path in folder.glob("store.db.corrupt-*") if not path.name.endswith(("-wal", "-shm"))]
        assert len(aside) == min(1, (corrupt or len(aside))), how
        shutil.rmtree(folder)
    assert noticed > FILES // 10


async def works_or_is_begun_anew(store, how):
    """What was not noticed so far may be noticed by now; then the second attempt is on an empty database."""
    for attempt in range(3):
        try:
            await store.invalidate([notice()])
            await put(store, "works")
            if is_right(await store.get("works")):
                return
        except (StoreError, AssertionError, AttributeError):
            assert attempt < 2, how


@pytest.mark.timeout(900)
async def test_damage_while_it_is_open_is_noticed_and_survived(tmp_path, pristine):
    for number in range(FILES // 10):
        draw = random.Random(f"{SEED} open {number}")
        folder = tmp_path / "damaged"
        shutil.copytree(pristine, folder)
        store = await opened(folder)
        await store.get("key 1")
        path = folder / draw.choice(["store.db", "store.db-wal"])
        with path.open("r+b") as file:  # in place: SQLite has it open
            length = path.stat().st_size
            for _ in range(200):
                file.seek(draw.randrange(length))
                file.write(draw.randbytes(20))
        how = f"seed {SEED}, file {number}: {path.name}"
        assert await use(store, draw) == [], how
        await works_or_is_begun_anew(store, how)
        await store.aclose()
        shutil.rmtree(folder)


HARMLESS = ("DELETE FROM names", "DELETE FROM named", "INSERT INTO meta VALUES ('begin', 'never')")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE life SET names = '[1, \"two\"]'",
        "UPDATE life SET names = '[9999999999999999999999]'",
        "UPDATE life SET names = '" + "[" * 100_000 + "'",
        "UPDATE life SET names = CAST(x'ff' AS TEXT)",
        "UPDATE life SET used = 9223372036854775807",
        "UPDATE life SET used = 'often'",
        "UPDATE entries SET id = 9223372036854775807 WHERE id = 1",
        "UPDATE entries SET payload = 3, codec = 4.5",
        "UPDATE entries SET codec = CAST(x'ff' AS TEXT)",
        "UPDATE entries SET key = x'ff' WHERE id = 1",
        "UPDATE names SET id = 9223372036854775807 WHERE id = 1",
        "DELETE FROM life",
        "UPDATE journal SET selection = '{}'",
        "UPDATE journal SET selection = '[1, 2, 3, 4]'",
        "UPDATE journal SET origin = x'ff'",
        "UPDATE journal SET number = 'one'",
        "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'journal'",
        "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'journal'",
        "UPDATE sqlite_sequence SET seq = 'many'",
        "UPDATE leases SET names = 'none'",
        "UPDATE baseline SET record = 'text'",
        *HARMLESS,
    ],
)
async def test_what_can_be_read_but_cannot_be_is_damage_too(tmp_path, pristine, statement):
    """It is found by whoever comes upon it, who is answered, and by nobody else."""
    store = await opened(pristine)
    writer = store._doors.writer
    await writer.run(lambda: writer._connection.execute(statement))
    await store.get_many(KEYS)
    await store.journal(0)
    await store.baseline("/")
    await store.keys(most=100)
    await store.put_many([write(key, b"new", sequence=3) for key in KEYS])
    await store.put_many([write("another", b"new", sequence=0)])
    await store.invalidate([notice(Selection(prefixes=("agent\x1f",), projects=("web",)))])
    await store.invalidate([notice(Selection(names=("agent\x1fqa",)))])
    await store.delete(KEYS)
    await store.invalidate([notice()])
    assert (await store.stats()).corrupt == (statement not in HARMLESS)
    await put(store, "works")
    assert is_right(await store.get("works"))
    await store.aclose()
