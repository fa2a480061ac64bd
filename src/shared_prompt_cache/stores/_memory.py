"""The store in memory: what the protocol means, in as few words as Python allows.

Two rules:

1. What is shared is a `_Place`; a `MemoryStore` is the door to it that one cache opens. So one cache can be told of
   what another did, and closing one door leaves the place as it is.
2. No method awaits anything. Each is one synchronous stretch: it sees the place at one moment, changes it in full or
   not at all, and a cancellation finds nothing half done.

What is searched is searched by a look at each entry, so a call takes longer the more there is. It is for tests, and
for a few thousand entries.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from shared_prompt_cache._options import check_megabytes
from shared_prompt_cache.clock import Clock
from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.stores._protocol import (
    Denial,
    Journal,
    JournalEntry,
    Lease,
    LeaseRequest,
    Notice,
    StoredEntry,
    StoreStats,
    Swap,
    Write,
)

_MOST_REMEMBERED: Final = 10_000


class MemoryStore:
    """A store that lives as long as the process, for tests and as the model of other stores.

    Several caches on one event loop share it, each through a door of its own:

    ```python
    store = MemoryStore()
    first = SharedPromptCache(store=store)
    second = SharedPromptCache(store=store.connect())
    ```

    What is in it outlasts the caches: one that is opened behind a closed one finds what that left.

    Args:
        max_size_mb: How much payloads and heads may take once `sweep` has returned; None: any amount.
    """

    def __init__(self, *, max_size_mb: float | None = None) -> None:
        self._place = _Place(check_megabytes(max_size_mb, "max_size_mb"))
        self._door: _Door | None = None

    @property
    def path(self) -> None:
        """See `Store`."""

    @property
    def root(self) -> None:
        """See `Store`; what does not outlive the process is never moved."""

    def connect(self) -> MemoryStore:
        """Return another store over the same place, not opened, for another cache."""
        other = MemoryStore()
        other._place = self._place
        return other

    async def open(self, clock: Clock, changed: Callable[[], None]) -> None:
        """See `Store`; a store is opened by one cache at a time, and all that share a place are on one loop."""
        if self._door is not None:
            raise StoreError("the store is open already; give another cache store.connect()", operation="open")
        self._door = self._place.enter(_Door(clock, changed, asyncio.get_running_loop()))

    async def aclose(self) -> None:
        """See `Store`; the place stays as it is."""
        if self._door is not None:
            self._place.doors.discard(self._door)
            self._door = None

    def _opened(self, operation: str, key: str | None = None) -> _Door:
        if self._door is None:
            raise StoreError("the store is not open; await store.open(...) first", operation=operation, key=key)
        return self._door

    async def get(self, key: str) -> StoredEntry | None:
        """See `Store`."""
        self._opened("get", key)
        return self._place.read(key)

    async def get_many(self, keys: Collection[str]) -> dict[str, StoredEntry]:
        """See `Store`."""
        self._opened("get_many")
        return {key: found for key in keys if (found := self._place.read(key)) is not None}

    async def put_many(self, writes: Sequence[Write]) -> list[bool]:
        """See `Store`."""
        door = self._opened("put_many")
        put = [self._place.put(write, door.clock.monotonic()) for write in writes]
        self._place.tell_others(door)
        return put

    async def delete(self, keys: Collection[str], *, checksums: Mapping[str, bytes] | None = None) -> int:
        """See `Store`; with checksums, a key that they do not name is left."""
        door = self._opened("delete")
        entries = self._place.entries
        gone = [
            key
            for key in dict.fromkeys(keys)
            if key in entries and (checksums is None or checksums.get(key) == entries[key].entry.checksum)
        ]
        self._place.drop(gone)
        self._place.tell_others(door)
        return len(gone)

    async def invalidate(self, notices: Sequence[Notice]) -> list[int]:
        """See `Store`."""
        door = self._opened("invalidate")
        sequences = self._place.carry_out(notices)
        self._place.tell_others(door)
        return sequences

    async def journal(self, after: int) -> Journal:
        """See `Store`."""
        self._opened("journal")
        place = self._place
        return Journal(tuple(place.invalidations(after)), place.remembers(after), place.last)

    async def keys(self, *, most: int, after: str = "") -> list[str]:
        """See `Store`."""
        self._opened("keys")
        return sorted(key for key in self._place.entries if key > after)[:most]

    async def most_used(self, most: int) -> list[str]:
        """See `Store`; to be put counts as to be read."""
        self._opened("most_used")
        return list(islice(reversed(self._place.entries), most))

    async def acquire(self, requests: Sequence[LeaseRequest], holder: str, ttl: float) -> list[Lease | Denial]:
        """See `Store`."""
        now = self._opened("acquire").clock.monotonic()
        return [self._place.lend(request, holder, now, ttl) for request in requests]

    async def renew(self, leases: Sequence[Lease], ttl: float) -> list[bool]:
        """See `Store`."""
        now = self._opened("renew").clock.monotonic()
        held = [self._place.is_held(lease, now) for lease in leases]
        for lease, stands in zip(leases, held, strict=True):
            if stands:
                self._place.leases[lease.key].until = now + ttl
        return held

    async def release(self, leases: Sequence[Lease]) -> None:
        """See `Store`."""
        door = self._opened("release")
        for lease in leases:
            self._place.end(lease)
        self._place.tell_others(door)

    async def baseline(self, root: str) -> dict[str, bytes]:
        """See `Store`."""
        self._opened("baseline")
        below = root.rstrip("/") + "/"
        return {path: seen for path, seen in self._place.baseline.items() if path == root or path.startswith(below)}

    async def swap(self, swaps: Sequence[Swap], notices: Sequence[Notice]) -> list[int] | None:
        """See `Store`."""
        door = self._opened("swap")
        baseline = self._place.baseline
        if any(baseline.get(swap.path) != swap.old for swap in swaps):
            return None
        for swap in swaps:
            if swap.new is None:
                baseline.pop(swap.path, None)
            else:
                baseline[swap.path] = swap.new
        sequences = self._place.carry_out(notices)
        self._place.tell_others(door)
        return sequences

    async def sweep(self, most: int) -> int:
        """See `Store`; `most` bounds both kinds together."""
        door = self._opened("sweep")
        place = self._place
        gone = list(islice(place.expired(door.clock.wall()), most))
        place.drop(gone)
        evicted = list(islice(place.beyond_limit(), most - len(gone)))
        place.drop(evicted)
        place.evictions += len(evicted)
        place.end_expired_leases(door.clock.monotonic())
        if gone or evicted:
            place.tell_others(door)
        return len(gone) + len(evicted)

    async def stats(self) -> StoreStats:
        """See `Store`."""
        self._opened("stats")
        place = self._place
        return StoreStats(
            entries=len(place.entries),
            payload_bytes=place.size,
            file_bytes=0,
            evictions=place.evictions,
            corrupt=0,
            journal=len(place.remembered),
        )


class _Door:
    """What one cache gave when it opened the store."""

    __slots__ = ("changed", "clock", "loop")

    def __init__(self, clock: Clock, changed: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.clock = clock
        self.changed = changed
        self.loop = loop


@dataclass(slots=True)
class _Held:
    """A lease, until when it is held by the monotonic clock, and the names an invalidation can touch it by."""

    lease: Lease
    until: float
    names: tuple[str, ...]


class _Place:
    """What the stores of one place share. Each method leaves it in order."""

    def __init__(self, max_bytes: int | None) -> None:
        self.max_bytes = max_bytes
        self.entries: OrderedDict[str, Write] = OrderedDict()  # the least recently used first
        self.size = 0
        self.evictions = 0
        self.remembered: deque[JournalEntry] = deque()  # without a gap, up to `last`
        self.last = 0
        self.leases: dict[str, _Held] = {}
        self.fence = 0
        self.baseline: dict[str, bytes] = {}
        self.doors: set[_Door] = set()

    def enter(self, door: _Door) -> _Door:
        """Note that a cache has come; a loop that was closed has none any more."""
        self.doors = {known for known in self.doors if not known.loop.is_closed()}
        if any(known.loop is not door.loop for known in self.doors):
            raise StoreError("the store is open on another event loop; make a store for each", operation="open")
        self.doors.add(door)
        return door

    def tell_others(self, door: _Door) -> None:
        """Tell all caches but the one that did it; soon, since none expects to be called while it calls."""
        for other in self.doors:
            if other is not door:
                other.loop.call_soon(self._tell, other)

    def _tell(self, door: _Door) -> None:
        if door in self.doors:  # it may have been closed meanwhile
            door.changed()

    def read(self, key: str) -> StoredEntry | None:
        """Return an entry, which makes it the one that was used last."""
        found = self.entries.get(key)
        if found is None:
            return None
        self.entries.move_to_end(key)
        return found.entry

    def put(self, write: Write, now: float) -> bool:
        """Put an entry, unless something speaks against it."""
        if not self.remembers(write.stamp.sequence):
            return False
        for entry in self.invalidations(write.stamp.sequence):
            if write.stamp.is_before(entry) and entry.selection.selects(write.names):
                return False
        if write.lease is not None:
            if not self.is_held(write.lease, now):
                return False
            self.end(write.lease)
        key = write.entry.key
        self.drop([key])
        self.entries[key] = write
        self.size += _size(write)
        return True

    def drop(self, keys: Iterable[str]) -> None:
        """Drop entries."""
        for key in keys:
            gone = self.entries.pop(key, None)
            if gone is not None:
                self.size -= _size(gone)

    def carry_out(self, notices: Iterable[Notice]) -> list[int]:
        """Delete what the notices select, end the leases they touch, and enter them in the journal."""
        sequences = []
        for notice in notices:
            selects = notice.selection.selects
            self.drop([key for key, write in self.entries.items() if selects(write.names)])
            self.leases = {key: held for key, held in self.leases.items() if not selects(held.names)}
            self.last += 1
            self.remembered.append(JournalEntry(self.last, notice.origin, notice.number, notice.selection, notice.body))
            if len(self.remembered) > _MOST_REMEMBERED:
                self.remembered.popleft()
            sequences.append(self.last)
        return sequences

    def remembers(self, sequence: int) -> bool:
        """Return whether all that came after `sequence` is known, and it is of this journal at all."""
        return self.last - len(self.remembered) <= sequence <= self.last

    def invalidations(self, after: int) -> Iterable[JournalEntry]:
        """Return what is known of the time after a sequence, oldest first."""
        forgotten = self.last - len(self.remembered)
        return islice(self.remembered, max(0, after - forgotten), None)

    def lend(self, request: LeaseRequest, holder: str, now: float, ttl: float) -> Lease | Denial:
        """Give out the lease of a key, unless another has it, or there is something new to look at."""
        key = request.key
        entry, held = self.entries.get(key), self.leases.get(key)
        if (None if entry is None else entry.entry.checksum) != request.seen:
            return "changed"
        if held is not None and held.until > now and held.lease.holder != holder:
            return "held"
        self.fence += 1
        lease = Lease(key, holder, self.fence)
        self.leases[key] = _Held(lease, now + ttl, request.names)
        return lease

    def is_held(self, lease: Lease, now: float) -> bool:
        """Return whether it is this very lease that stands, and its time is not up."""
        held = self.leases.get(lease.key)
        return held is not None and held.lease == lease and held.until > now

    def end(self, lease: Lease) -> None:
        """End this very lease."""
        held = self.leases.get(lease.key)
        if held is not None and held.lease == lease:
            del self.leases[lease.key]

    def end_expired_leases(self, now: float) -> None:
        """Forget leases whose time is up, which nobody may ever ask for again."""
        self.leases = {key: held for key, held in self.leases.items() if held.until > now}

    def expired(self, now: float) -> Iterable[str]:
        """Return the keys of entries that have expired by the wall clock."""
        return (key for key, write in self.entries.items() if write.expires_at <= now)

    def beyond_limit(self) -> Iterable[str]:
        """Return the keys, least recently used first, that have to go until the others are within the limit."""
        surplus = -1 if self.max_bytes is None else self.size - self.max_bytes
        for key, write in self.entries.items():
            if surplus <= 0:
                return
            yield key
            surplus -= _size(write)


def _size(write: Write) -> int:
    return len(write.entry.payload) + len(write.entry.head)
