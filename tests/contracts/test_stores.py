"""Every store keeps what `StoreContract` promises."""

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
