"""What a store is: entries as bytes, the journal of invalidations, leases, and the baseline of watched files.

A store decides nothing about validity beyond two rules, which each method keeps in one transaction:

1. An invalidation deletes what it selects, enters the journal and ends the leases it touches, all or nothing.
2. An entry is put only if no invalidation that came after its stamp selects it.

Bytes go in and come out as they were; who reads them checks them (`_seal.py`), since anybody may have written them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from shared_prompt_cache.clock import Clock
from shared_prompt_cache.stores._selection import Selection


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a computation began, as the journal of a store tells time.

    Attributes:
        sequence: The last invalidation of the journal that was in force in the cache that computed.
        origin: That cache.
        number: The last invalidation of its own that was in force there; it may have reached the journal later.
    """

    sequence: int
    origin: str
    number: int

    def is_before(self, entry: JournalEntry) -> bool:
        """Return whether the computation began before the invalidation `entry`, so that it may have read the old."""
        own = entry.origin == self.origin and entry.number <= self.number
        return entry.sequence > self.sequence and not own


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as a store keeps it.

    Attributes:
        key: The key.
        codec: How the payload is encoded.
        payload: The value, encoded.
        head: Everything else, encoded: metadata, labels, times, fingerprints, names, stamp.
        checksum: Over all of the above, with a key that the store does not know.
    """

    key: str
    codec: str
    payload: bytes
    head: bytes
    checksum: bytes


@dataclass(frozen=True, slots=True)
class Write:
    """An entry to be put, with what a store has to know of it.

    Attributes:
        entry: The bytes.
        names: What it can be selected by; `_selection.py` says how they are built.
        stamp: When its computation began.
        expires_at: In seconds since the epoch; `math.inf` for never.
        lease: The lease it was computed under; it is put only while that is held. None: without one.
    """

    entry: StoredEntry
    names: tuple[str, ...]
    stamp: Stamp
    expires_at: float
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """An invalidation on its way into the journal.

    Attributes:
        origin: The cache in which it began.
        number: Its number there; numbers of one origin rise.
        selection: What it takes.
        body: What the caches that read it are told, encoded.
    """

    origin: str
    number: int
    selection: Selection
    body: bytes


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """An invalidation that has been carried out.

    Attributes:
        sequence: Its place in the journal; rises by one.
        origin: As in its notice; so are the next three.
        number: Its number there.
        selection: What it took.
        body: What the caches that read it are told.
    """

    sequence: int
    origin: str
    number: int
    selection: Selection
    body: bytes


@dataclass(frozen=True, slots=True)
class Journal:
    """A part of the journal.

    Attributes:
        entries: What came after the sequence that was asked for, oldest first.
        complete: Whether that is all of it. If not, what is missing has been forgotten, or the store was begun anew.
        last: The last sequence there is, 0 if there was none yet.
    """

    entries: tuple[JournalEntry, ...]
    complete: bool
    last: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to compute a key, among all caches that share the store.

    Attributes:
        key: The key.
        holder: The cache that has it.
        fence: Rises with each lease of the store; tells two leases of one holder apart.
    """

    key: str
    holder: str
    fence: int


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A request for the lease of a key.

    Attributes:
        key: The key.
        names: What the value will be selected by: an invalidation that touches them ends the lease.
        seen: The checksum of the entry of `key` that the cache has found useless; None: there was none.
    """

    key: str
    names: tuple[str, ...]
    seen: bytes | None = None


Denial = Literal["held", "changed"]
"""Why there is no lease: another cache holds it, or there is another entry of the key than the one that was seen."""


@dataclass(frozen=True, slots=True)
class Swap:
    """The change of one record of the baseline.

    Attributes:
        path: The watched file.
        old: The record that is replaced; None: there is none.
        new: The new one; None: the file is gone.
    """

    path: str
    old: bytes | None
    new: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """The figures of a store.

    Attributes:
        entries: How many there are.
        payload_bytes: What their payloads and heads take.
        file_bytes: What the store takes on disk; 0 where that means nothing.
        evictions: How many entries this process removed for want of room.
        corrupt: How often this process found the store itself damaged; rows that cannot be read are counted by the
            cache, which alone can tell.
        journal: How many invalidations are remembered.
    """

    entries: int
    payload_bytes: int
    file_bytes: int
    evictions: int
    corrupt: int
    journal: int


class Store(Protocol):
    """A second tier. Every method may raise `StoreError`, and nothing else; the cache then goes on without it.

    A store is opened by one cache at a time. Others share what it keeps by stores of their own over the same place: a
    file, a server, `MemoryStore.connect()`.

    All methods may be called at once by many tasks of one loop. A cancelled caller leaves no transaction open, no
    handle, and no lock; what it had asked for is carried out in full or not at all, an invalidation in full.
    """

    @property
    def path(self) -> str | None:
        """The folder in which it writes files, absolute, None if it writes none: nothing there is ever a cause."""

    @property
    def root(self) -> str | None:
        """The folder that may be moved as a whole with the store in it, absolute; None if there is none.

        It is known once the store is open, and the same for all caches that share the store. Paths at or below it are
        given to the store relative to it, in names, selections and records of the baseline.
        """

    async def open(self, clock: Clock, changed: Callable[[], None]) -> None:
        """Make it ready.

        Args:
            clock: Where time comes from.
            changed: Called on the loop, soon (within 50 ms) after somebody else may have changed anything.

        Raises:
            StoreError: If it cannot be opened now; `final` says that it never can until somebody changes something.
            ConfigError: If it was made with something that does not fit what is there; of all methods only here.
        """

    async def aclose(self) -> None:
        """Close what `open` opened; no thread, handle or task is left. Idempotent."""

    async def get(self, key: str) -> StoredEntry | None:
        """Return the entry of `key`, unexpired or not."""

    async def get_many(self, keys: Collection[str]) -> dict[str, StoredEntry]:
        """Return the entries of those of `keys` that are there, seen at one moment."""

    async def put_many(self, writes: Sequence[Write]) -> list[bool]:
        """Put entries in one transaction, each in the place of an older one of its key; return which were put.

        One is not put if an invalidation after its stamp selects it, if so much was invalidated since that this
        cannot be told, or if its lease is not held any more. The lease of one that is put is released.
        """

    async def delete(self, keys: Collection[str], *, checksums: Mapping[str, bytes] | None = None) -> int:
        """Delete entries without a word to anybody: expired, unreadable or outdated ones; return how many.

        Args:
            keys: Their keys.
            checksums: Delete one only if it still has this checksum: another may have replaced it.
        """

    async def invalidate(self, notices: Sequence[Notice]) -> list[int]:
        """Delete what the notices select, enter them in the journal in order, end the leases they touch; durable.

        Returns the sequences. If the transaction fails the store tries to get rid of all it holds, which is an
        invalidation of everything, before it gives up.
        """

    async def journal(self, after: int) -> Journal:
        """Return the invalidations after the sequence `after`."""

    async def keys(self, *, most: int, after: str = "") -> list[str]:
        """Return keys in order, at most `most`, from the first behind `after`."""

    async def most_used(self, most: int) -> list[str]:
        """Return the keys read last, latest first."""

    async def acquire(self, requests: Sequence[LeaseRequest], holder: str, ttl: float) -> list[Lease | Denial]:
        """Return the lease of each key that is asked for, or why it is not to be had, in one transaction.

        The holder of a lease who asks again gets another in its place.

        Args:
            requests: What is asked for.
            holder: The cache.
            ttl: Seconds until a lease can be taken over.
        """

    async def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """Hold leases for `ttl` seconds from now; return which are held, and not lost."""

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases up; nothing happens to those that are lost already."""

    async def baseline(self, root: str) -> dict[str, bytes]:
        """Return the records of the watched files at or below `root`, by path."""

    async def swap(self, swaps: Sequence[Swap], notices: Sequence[Notice]) -> list[int] | None:
        """Replace records of the baseline and carry the notices out, as `invalidate` does, in one transaction.

        Returns the sequences; None, with nothing changed, if a record is another than the one to be replaced:
        somebody else has seen the change first.
        """

    async def sweep(self, most: int) -> int:
        """Delete at most `most` expired entries, and the least recently used beyond the size limit; return how many."""

    async def stats(self) -> StoreStats:
        """Return the figures."""
