"""Second tiers: what keeps entries beyond the life of a process."""

from shared_prompt_cache.stores import _seal as _seal  # with the package, and not later on somebody's event loop
from shared_prompt_cache.stores._memory import MemoryStore
from shared_prompt_cache.stores._protocol import (
    Journal,
    JournalEntry,
    Lease,
    Notice,
    Stamp,
    Store,
    StoredEntry,
    StoreStats,
    Swap,
    Write,
)
from shared_prompt_cache.stores._selection import Selection

__all__ = [
    "Journal",
    "JournalEntry",
    "Lease",
    "MemoryStore",
    "Notice",
    "Selection",
    "Stamp",
    "Store",
    "StoreStats",
    "StoredEntry",
    "Swap",
    "Write",
]
