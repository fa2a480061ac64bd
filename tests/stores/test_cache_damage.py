"""T10, as a user of the cache meets it: bytes of the database, of its log and of its index are damaged at random.

No verb raises, what is returned is what was stored under that key, and the store is begun anew if need be.

Seen to fail on a planted bug: a checksum that nobody looks at.
"""

import asyncio
import random
import shutil

import pytest

from _support import Counted, size
from stores._caches import anew, found, well
from stores.test_sqlite_damage import damage

FILES = size(16, 4_000)
KEYS = [f"key {number}" for number in range(40)]
SEED = 3_007


def old(key):
    return f"{key} as it was. " * 80


def new(key):
    return f"{key} as it is now. " * 80


@pytest.fixture
async def pristine(tmp_path):
    """A folder as a killed process leaves it: with rows in the database and in the log."""
    folder = tmp_path / "store"
    for keys in (KEYS[:25], KEYS[25:]):
        async with anew(folder) as cache:
            for number, key in enumerate(keys):
                await cache.set_prompt(key, old(key), agent=f"agent-{number % 3}", tags=["t"], depends_on=__file__)
            await cache.invalidate("none of them")
            await cache.flush()
            await asyncio.to_thread(shutil.copytree, folder, tmp_path / "pristine", dirs_exist_ok=True)
    return tmp_path / "pristine"


async def use(folder, draw):
    """Use a cache over the folder; return what it should not have returned."""
    wrong = []

    def look(key, value):
        if value not in (None, old(key), new(key)):
            wrong.append((key, value))

    async with anew(folder) as cache:
        for key in draw.sample(KEYS, 4):
            entry = await cache.get_prompt(key)
            look(key, None if entry is None else entry.prompt)
        for key, entry in (await cache.get_many(KEYS[::2])).items():
            look(key, entry.prompt)
        for key in draw.sample(KEYS, 4):
            look(key, await cache.get_or_compute(key, Counted(new(key))))
        await cache.evict_oldest(draw.randrange(40))
        for key in draw.sample(KEYS, 3):
            await cache.set_prompt(key, new(key))
            assert (await cache.get_prompt(key)).prompt == new(key)
        await cache.invalidate_agent("agent-1")
        for key, entry in (await cache.get_many(KEYS)).items():
            look(key, entry.prompt)
            assert entry.agent != "agent-1"
        await cache.flush()
        await well(cache)
        return wrong


async def works(folder):
    """What was not noticed so far may be noticed by now; then the second attempt is on an empty database."""
    for _ in range(3):
        async with anew(folder) as cache:
            await cache.set_prompt("works", "works")
            await cache.flush()
        if await found(folder, "works") == {"works": "works"}:
            return True
    return False


@pytest.mark.timeout(1800)
async def test_no_verb_raises_and_no_value_is_wrong_whatever_is_damaged(tmp_path, pristine):
    begun_anew = 0
    for number in range(FILES):
        draw = random.Random(f"{SEED} {number}")
        folder = tmp_path / "damaged"
        await asyncio.to_thread(shutil.copytree, pristine, folder)
        how = f"seed {SEED}, file {number}: {damage(folder, draw)}"
        assert await use(folder, draw) == [], how
        assert await works(folder), how
        aside = [path.name for path in folder.glob("store.db.corrupt-*") if not path.name.endswith(("-wal", "-shm"))]
        assert len(aside) <= 1, how
        begun_anew += len(aside)
        await asyncio.to_thread(shutil.rmtree, folder)
    assert begun_anew > FILES // 20
