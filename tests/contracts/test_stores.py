"""Every store keeps what `StoreContract` promises.

Seen to fail on planted bugs, one line each, in the store in memory. Of entries: a replaced one that still counts or
keeps its place among the used; a read that is no use; checksums that delete ignores; a page of keys that repeats the
last; keys normalised. Of validity: a stamp that is judged by the last invalidation alone, by one of its own, behind a
forgotten journal, or ahead of it; only the first notice, name or prefix heeded; a pattern or projects ignored, an
empty tuple of projects taken for none; names that fold case; `[!a]` read as another glob does; an upper bound of a
prefix at U+FFFF. Of the journal: not trimmed, trimmed at the wrong end, told from one too early, bodies lost. Of
leases: one that outlives its time, is told by its holder alone, is ended by who lost it, is not released by a put,
not ended by an invalidation or ended by any; a fence for each key; a sweep that ends all. Of the baseline: no record
taken for an empty one, half a swap carried out, notices forgotten, a root that is a mere prefix, or is normalised. Of
life: another root for each, the wrong one told, one told that is closed, calls answered that are closed; an await in
the middle of put, invalidate, swap or acquire.
"""

import pytest

from shared_prompt_cache.stores import MemoryStore, SQLiteStore
from shared_prompt_cache.testing import ChaosStore, StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def make_store(self):
        return MemoryStore(max_size_mb=self.max_size_mb).connect


class TestSQLiteStore(StoreContract):
    @pytest.fixture
    def make_store(self, tmp_path):
        return lambda: SQLiteStore(tmp_path / "prompts", max_size_mb=self.max_size_mb)


class TestChaosStore(StoreContract):
    """Without errors it is the store that it stands before; what it delays can be cancelled while it waits."""

    @pytest.fixture
    def make_store(self):
        inside = MemoryStore(max_size_mb=self.max_size_mb)
        return lambda: ChaosStore(inside.connect(), errors=0, seed=1, delay=0)


class Forgetful(MemoryStore):
    """Begins anew when the last cache has closed it."""

    def connect(self):
        other = Forgetful()
        other._place = self._place
        return other

    async def aclose(self):
        was_open = self._door is not None
        await super().aclose()
        place = self._place
        if was_open and not place.doors:
            place.drop(list(place.entries))
            place.remembered.clear()
            place.baseline.clear()
            place.leases.clear()
            place.last += 1  # a sequence that no earlier journal had


class TestStoreThatForgets(StoreContract):
    """For the two switches of the contract."""

    max_size_mb = None
    survives_closing = False

    @pytest.fixture
    def make_store(self):
        return Forgetful().connect
