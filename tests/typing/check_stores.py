"""The stores are stores, and what takes one takes each; read by type checkers, never run."""

from shared_prompt_cache.stores import MemoryStore, Store
from shared_prompt_cache.testing import ChaosStore, StoreContract

in_memory: Store = MemoryStore(max_size_mb=8).connect()
failing: Store = ChaosStore(MemoryStore(), errors=0.1, seed=1, delay=0.01)
twice: Store = ChaosStore(failing, seed=2)


class TestFailing(StoreContract):
    """A subclass says what is different about its store."""

    max_size_mb = None
    most_remembered = 500
    survives_closing = False
