"""A store of one's own: one that measures another, held to the contract of all stores.

Needs pytest, pytest-asyncio and hypothesis. Run it: python examples/write_a_store.py
"""

import subprocess
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import pytest

from shared_prompt_cache.stores import MemoryStore, Store, StoredEntry
from shared_prompt_cache.testing import StoreContract


class MeasuredStore:
    """What another store does, with a count of the keys that were asked for and of those that were there."""

    def __init__(self, store: Store) -> None:
        self.asked = self.found = 0
        self._store = store

    @property
    def path(self) -> str | None:
        """Where the other store writes files, if it does."""
        return self._store.path

    @property
    def root(self) -> str | None:
        """The folder that may be moved with the other store in it."""
        return self._store.root

    async def get(self, key: str) -> StoredEntry | None:
        """Return the entry of a key, and count it."""
        entry = await self._store.get(key)
        self.asked += 1
        self.found += entry is not None
        return entry

    async def get_many(self, keys: Collection[str]) -> dict[str, StoredEntry]:
        """Return the entries of keys, and count them."""
        entries = await self._store.get_many(keys)
        self.asked += len(set(keys))
        self.found += len(entries)
        return entries

    if not TYPE_CHECKING:  # to type checkers it is the store with the two methods above

        def __getattr__(self, name: str) -> Any:
            """Leave everything else to the other store."""
            return getattr(self._store, name)


class TestMeasuredStore(StoreContract):
    """What a cache relies on, and what this store adds."""

    @pytest.fixture
    def make_store(self) -> Callable[[], Any]:
        """Return what makes stores, not opened, over one place: that of this test."""
        place = MemoryStore(max_size_mb=self.max_size_mb)
        return lambda: MeasuredStore(place.connect())

    async def test_it_counts_what_is_asked_for(self, store: MeasuredStore) -> None:
        """Use the fixtures of the contract in tests of one's own."""
        await store.get("a")
        await store.get_many(["a", "b", "b"])
        assert (store.asked, store.found) == (3, 0)


if __name__ == "__main__":
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    assert subprocess.run(command, check=False).returncode == 0  # noqa: S603 - this very file
