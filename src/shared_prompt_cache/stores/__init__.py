"""Second tiers: what keeps entries beyond the life of a process."""

from typing import TYPE_CHECKING, Any

from shared_prompt_cache.stores import _seal as _seal  # with the package, and not later on somebody's event loop
from shared_prompt_cache.stores._memory import MemoryStore
from shared_prompt_cache.stores._protocol import (
    Journal,
    JournalEntry,
    Lease,
    LeaseRequest,
    Notice,
    Stamp,
    Store,
    StoredEntry,
    StoreStats,
    Swap,
    Write,
)
from shared_prompt_cache.stores._selection import Selection

if TYPE_CHECKING:
    from shared_prompt_cache.stores._sqlite.store import SQLiteStore

__all__ = [
    "Journal",
    "JournalEntry",
    "Lease",
    "LeaseRequest",
    "MemoryStore",
    "Notice",
    "SQLiteStore",
    "Selection",
    "Stamp",
    "Store",
    "StoreStats",
    "StoredEntry",
    "Swap",
    "Write",
]


def __getattr__(name: str) -> Any:
    if name == "SQLiteStore":  # loaded when it is asked for, and aiosqlite with it
        from shared_prompt_cache.stores._sqlite.store import SQLiteStore  # noqa: PLC0415

        return SQLiteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
