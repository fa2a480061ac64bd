"""What waits to be written to the store: invalidations, entries, and keys whose rows are older than what was cached.

Invalidations go first, whatever came before them. That is safe, since each entry carries the stamp of the moment at
which it was kept, and a store puts none that an invalidation after its stamp selects.

A row that the store still has although the cache has had a newer value is never read: its key stands here until the
newer one is written or the row is deleted.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Final, NamedTuple

from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache._files.baseline import Seen
from shared_prompt_cache._tier.leases import Claim
from shared_prompt_cache.stores import Notice, Stamp

_MOST_WRITES: Final = 1000
_MOST_BYTES: Final = 64 * 1024 * 1024
MOST_NOTICES: Final = 1000
"""How many invalidations wait one by one; beyond, one of everything stands for them."""
MOST_OUTDATED: Final = 10_000
"""The same of rows to be deleted."""
_BATCH_ROWS: Final = 256
_BATCH_BYTES: Final = 4 * 1024 * 1024


class Waiting(NamedTuple):
    """An entry that waits to be written.

    Attributes:
        entry: The entry.
        stamp: When it was kept.
        serial: Its place among all that were queued.
        group: What has to be written together with it; None: nothing.
        claim: The lease it was computed under; None: without one.
    """

    entry: Entry
    stamp: Stamp
    serial: int
    group: object
    claim: Claim | None


class Change:
    """A change of watched files; what it invalidates is journalled together with the new records of the files.

    Attributes:
        files: What became of each of them.
        numbers: The invalidations it has raised.
        closed: Whether it has raised all of them.
    """

    def __init__(self, files: Mapping[str, Seen]) -> None:
        self.files = files
        self.numbers: list[int] = []
        self.closed = False


class Outbox:
    """What waits, within bounds.

    Attributes:
        notices: Invalidations that are not durable yet, oldest first.
        changes: The changes of files that have raised some of them, oldest first; the last one may not be closed yet.
        outdated: Keys whose rows have to be deleted, with the checksum of the very row, or None for any.
        dropped: How many entries were not written for want of room or of a store.
        serial: That of the entry that was queued last.
    """

    def __init__(self) -> None:
        self.notices: deque[Notice] = deque()
        self.changes: deque[Change] = deque()
        self.outdated: dict[str, bytes | None] = {}
        self.dropped = 0
        self.serial = 0
        self._writes: OrderedDict[str, Waiting] = OrderedDict()
        self._writing: dict[str, Waiting] = {}
        self._bytes = 0
        self._group: object = None
        self._readings: dict[str, list[set[str]]] = {}

    def __bool__(self) -> bool:
        return bool(self.notices or self.outdated or self._writes)

    def __len__(self) -> int:
        return len(self._writes) + len(self._writing)

    @contextmanager
    def grouped(self) -> Iterator[None]:
        """Let what is queued in this block be written together."""
        self._group = object()
        try:
            yield
        finally:
            self._group = None

    @contextmanager
    def reading(self, keys: Collection[str]) -> Iterator[set[str]]:
        """Yield a set to which those of `keys` are added that are written while they are read: what was read is old."""
        overtaken: set[str] = set()
        for key in keys:
            self._readings.setdefault(key, []).append(overtaken)
        try:
            yield overtaken
        finally:
            for key in keys:
                others = [other for other in self._readings[key] if other is not overtaken]
                if others:
                    self._readings[key] = others
                else:
                    del self._readings[key]

    def knows(self, key: str) -> bool:
        """Return whether the row of `key` is older than what the cache has had."""
        return key in self._writes or key in self._writing or key in self.outdated

    def put(self, entry: Entry, stamp: Stamp, claim: Claim | None = None) -> None:
        """Queue an entry, in the place of an older one of its key, with the lease it was computed under."""
        key = entry.key
        self._forget(key)
        if len(self) >= _MOST_WRITES or self._bytes + entry.size > _MOST_BYTES:
            self.dropped += 1
            self.outdate(key)
            if claim is not None:
                claim.end()
            return
        self._overtake(key)
        self.serial += 1
        self._writes[key] = Waiting(entry, stamp, self.serial, self._group, claim)
        self._bytes += entry.size

    def outdate(self, key: str, checksum: bytes | None = None) -> None:
        """Have the row of `key` deleted: the cache has had a newer value, or the row with this checksum is bad."""
        self._forget(key)
        self._overtake(key)
        self.outdated[key] = checksum

    def _overtake(self, key: str) -> None:
        for overtaken in self._readings.get(key, ()):
            overtaken.add(key)

    def _forget(self, key: str) -> None:
        waiting = self._writes.pop(key, None)
        if waiting is not None:
            self._bytes -= waiting.entry.size
            if waiting.claim is not None:
                waiting.claim.end()

    def clear(self) -> None:
        """Forget everything, for another life of the cache."""
        self.notices.clear()
        self.changes.clear()
        self.outdated.clear()
        self._writes.clear()
        self._writing.clear()
        self._bytes = 0

    def drop(self) -> None:
        """Give up all writes: there is no store to write to."""
        self.dropped += len(self._writes)
        for key in list(self._writes):
            self.outdate(key)

    def selects(self, names: Collection[str]) -> bool:
        """Return whether an invalidation that is not durable yet takes an entry with these names."""
        return any(notice.selection.selects(names) for notice in self.notices)

    @contextmanager
    def changing(self, files: Mapping[str, Seen]) -> Iterator[Change]:
        """Let the invalidations that a change of these files raises in this block be journalled together."""
        change = Change(files)
        self.changes.append(change)
        try:
            yield change
        finally:
            change.closed = True
            if not change.numbers and change in self.changes:
                self.changes.remove(change)

    def add(self, notice: Notice, *, by_change: bool) -> None:
        """Queue an invalidation; `by_change`: a change of files has raised it."""
        self.notices.append(notice)
        if by_change and self.changes and not self.changes[-1].closed:
            self.changes[-1].numbers.append(notice.number)

    def take_notices(self) -> tuple[Change | None, list[Notice]]:
        """Return what is to be journalled next, and the change that has raised it; nothing: that is not closed yet.

        They stay here until `durable`. What was invalidated while a change raised its invalidations goes with these.
        """
        change = self.changes[0] if self.changes else None
        if change is None:
            return None, list(self.notices)
        before = [notice for notice in self.notices if not change.numbers or notice.number < change.numbers[0]]
        if before or not change.closed:
            return None, before
        return change, [notice for notice in self.notices if notice.number <= change.numbers[-1]]

    def durable(self, number: int) -> None:
        """Forget the invalidations up to `number`: they are in the journal."""
        while self.notices and self.notices[0].number <= number:
            self.notices.popleft()
        while self.changes and self.changes[0].closed and self.changes[0].numbers[-1] <= number:
            self.changes.popleft()

    def told(self, change: Change) -> None:
        """Forget what a change has raised: another cache has told of it."""
        numbers = set(change.numbers)
        self.notices = deque([notice for notice in self.notices if notice.number not in numbers])
        if change in self.changes:  # or one of everything stands for it
            self.changes.remove(change)

    def lift(self, sequence: int, number: int) -> None:
        """Note that an entry of the journal was in force here when entries were kept that wait now.

        Args:
            sequence: That of the journal's entry.
            number: Since which own invalidation it was in force.
        """
        for key, waiting in self._writes.items():
            stamp = waiting.stamp
            if stamp.sequence == sequence - 1 and stamp.number >= number:
                self._writes[key] = waiting._replace(stamp=replace(stamp, sequence=sequence))

    def take_outdated(self) -> dict[str, bytes | None]:
        """Return rows to be deleted; they stay here until `deleted`."""
        return dict(islice(self.outdated.items(), _BATCH_ROWS))

    def deleted(self, keys: dict[str, bytes | None]) -> None:
        """Forget them, but for those that were outdated again for another reason."""
        for key, checksum in keys.items():
            if self.outdated.get(key, b"") == checksum:
                del self.outdated[key]

    def take_writes(self) -> list[Waiting]:
        """Return what is to be written next; it counts as being written until `written`."""
        taken: list[Waiting] = []
        size = 0
        while self._writes:
            waiting = next(iter(self._writes.values()))
            together = bool(taken) and waiting.group is not None and waiting.group is taken[-1].group
            if not together and (len(taken) >= _BATCH_ROWS or (taken and size + waiting.entry.size > _BATCH_BYTES)):
                break
            size += waiting.entry.size
            taken.append(waiting)
            del self._writes[waiting.entry.key]
            self._bytes -= waiting.entry.size
        self._writing = {waiting.entry.key: waiting for waiting in taken}
        return taken

    def written(self, keys: Collection[str], *, refused: Collection[str] = ()) -> None:
        """Note which of what was taken is written, and which the store has refused.

        Of the others, and of what was refused without a lease, the store may have an older row. With one, what it may
        have is newer: it was put by who has taken the lease over.
        """
        writing, self._writing = self._writing, {}
        for key, waiting in writing.items():
            claim = waiting.claim
            if key in keys:
                if claim is not None:
                    claim.used()
                continue
            if claim is not None:
                claim.end()
            if key not in self._writes and (claim is None or key not in refused):
                self.outdate(key)

    def is_past(self, serial: int) -> bool:
        """Return whether everything that was queued up to `serial` is written, or given up."""
        first = next(iter(self._writing.values()), None) or next(iter(self._writes.values()), None)
        return first is None or first.serial > serial
