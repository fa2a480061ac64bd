"""`SQLiteStore`: each method of the protocol as one function, run in one thread, in one transaction."""

import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from shared_prompt_cache._options import check_megabytes, check_paths
from shared_prompt_cache.clock import Clock
from shared_prompt_cache.errors import ConfigError, StoreError
from shared_prompt_cache.stores._protocol import (
    Denial,
    Journal,
    Lease,
    LeaseRequest,
    Notice,
    StoredEntry,
    StoreStats,
    Swap,
    Write,
)
from shared_prompt_cache.stores._sqlite import entries, journal, leases
from shared_prompt_cache.stores._sqlite.database import Database, Shared
from shared_prompt_cache.stores._sqlite.place import Place, RefusedError
from shared_prompt_cache.stores._sqlite.poll import Poll
from shared_prompt_cache.stores._sqlite.root import Root

T = TypeVar("T")

_PATIENCE: Final = 5.0
"""Seconds to wait for others who write."""
_MOST_USES: Final = 2_000


class SQLiteStore:
    """A store that survives restarts, in an SQLite database, shared by the processes of one host.

    ```python
    cache = SharedPromptCache(store=SQLiteStore(".cache/prompts"))
    ```

    A cancelled call is carried out in full, or not at all if it had not begun. A damaged database is set aside as
    `store.db.corrupt-<time>` and an empty one begun; one that was deleted is begun anew. `journal` then says that it
    is not complete, and what was computed before is not put.

    Args:
        path: The folder that the database is in. It is made if need be, for its owner alone; a link, a folder of
            somebody else, or one that others may write to is refused.
        max_size_mb: How much payloads and heads may take once `sweep` has returned; None: any amount.
        root: A folder above it; paths at or below this are kept relative to it, so the store stays good if this is
            moved or copied as a whole. None: the parent of the last hidden folder on the path of the store (the
            project, for `project/.cache/prompts`), or else the folder that the store lies in. It is recorded when the
            database is made; a store that has another one cannot be opened with this one (`ConfigError`).

    On a network file system, where a write-ahead log does not work, a rollback journal is kept in its place.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_size_mb: float | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        self._place = Place(os.fspath(check_paths((path,), "path")[0]))
        self._root = None if root is None else os.path.abspath(check_paths((root,), "root")[0])  # noqa: PTH100 - as text
        self._max_bytes = check_megabytes(max_size_mb, "max_size_mb")
        self._doors: _Doors | None = None
        self._uses: dict[str, None] = {}  # keys that were read, in order, and have not been noted in the database
        self._evictions = 0

    @property
    def path(self) -> str:
        """See `Store`."""
        return self._place.folder

    @property
    def root(self) -> str | None:
        """See `Store`."""
        return None if self._doors is None else self._doors.shared.root.path

    async def open(self, clock: Clock, changed: Callable[[], None]) -> None:
        """See `Store`."""
        if self._doors is not None:
            raise StoreError("the store is open already; make another one for another cache", operation="open")
        doors = _Doors(self._place, self._root, clock, changed)
        try:
            await doors.writer.open()
            await doors.reader.open()
        except BaseException as error:
            # Failed or cancelled: the threads close what they have opened, or will, and end.
            doors.stop()
            if not isinstance(error, Exception):
                raise
            await doors.close()
            if isinstance(error, ConfigError):
                raise
            raise self._failure(error, "open", None) from error
        doors.poll.start(doors.shared, doors.writer)
        self._doors = doors

    async def aclose(self) -> None:
        """See `Store`; calls that are under way are answered before, or told that the store is closed."""
        doors, self._doors = self._doors, None
        if doors is None:
            return
        doors.poll.stop()
        if doors.pid != os.getpid():
            return  # a forked child has nothing to close: the threads are its parent's
        if self._uses:
            uses = self._take_uses()
            doors.writer.post(partial(doors.writer.attempt, partial(entries.use, keys=uses)))
        # From here on the threads end by themselves, though this be cancelled.
        await doors.close()

    async def get(self, key: str) -> StoredEntry | None:
        """See `Store`."""
        found = await self._read("get", partial(entries.get, key=key), key)
        if found is not None:
            self._note_use(key)
        return found

    async def get_many(self, keys: Collection[str]) -> dict[str, StoredEntry]:
        """See `Store`."""
        found = await self._read("get_many", partial(entries.get_many, keys=list(keys)))
        for key in keys:
            if key in found:
                self._note_use(key)
        return found

    async def put_many(self, writes: Sequence[Write]) -> list[bool]:
        """See `Store`."""
        doors = self._opened("put_many")
        change = partial(_put_many, writes=tuple(writes), uses=self._take_uses(), clock=doors.shared.clock)
        return await self._write("put_many", change)

    async def delete(self, keys: Collection[str], *, checksums: Mapping[str, bytes] | None = None) -> int:
        """See `Store`; with checksums, a key that they do not name is left."""
        checksums = None if checksums is None else dict(checksums)
        return await self._write("delete", partial(entries.delete, keys=list(keys), checksums=checksums))

    async def invalidate(self, notices: Sequence[Notice]) -> list[int]:
        """See `Store`."""
        doors = self._opened("invalidate")
        change = partial(journal.carry_out, notices=tuple(notices))
        return await self._run("invalidate", doors.writer, partial(doors.writer.invalidate, change))

    async def journal(self, after: int) -> Journal:
        """See `Store`."""
        return await self._read("journal", partial(journal.read, after=after))

    async def keys(self, *, most: int, after: str = "") -> list[str]:
        """See `Store`."""
        return await self._read("keys", partial(entries.keys, most=most, after=after))

    async def most_used(self, most: int) -> list[str]:
        """See `Store`; to be put counts as to be read."""
        uses = self._take_uses()
        if uses:
            await self._write("most_used", partial(entries.use, keys=uses))
        return await self._read("most_used", partial(entries.most_used, most=most))

    async def acquire(self, requests: Sequence[LeaseRequest], holder: str, ttl: float) -> list[Lease | Denial]:
        """See `Store`."""
        clock = self._opened("acquire").shared.clock
        change = partial(leases.acquire, requests=tuple(requests), holder=holder, ttl=ttl, clock=clock)
        return await self._write("acquire", change)

    async def renew(self, held: Sequence[Lease], ttl: float) -> list[bool]:
        """See `Store`."""
        clock = self._opened("renew").shared.clock
        return await self._write("renew", partial(leases.renew, leases=tuple(held), ttl=ttl, clock=clock))

    async def release(self, held: Sequence[Lease]) -> None:
        """See `Store`."""
        await self._write("release", partial(leases.end, leases=tuple(held)))

    async def baseline(self, root: str) -> dict[str, bytes]:
        """See `Store`."""
        return await self._read("baseline", partial(journal.baseline, root=root))

    async def swap(self, swaps: Sequence[Swap], notices: Sequence[Notice]) -> list[int] | None:
        """See `Store`."""
        doors = self._opened("swap")
        change = partial(journal.swap, swaps=tuple(swaps), notices=tuple(notices))
        return await self._run("swap", doors.writer, partial(doors.writer.write, change, durable=True))

    async def sweep(self, most: int) -> int:
        """See `Store`; `most` bounds both kinds together."""
        doors = self._opened("sweep")
        change = partial(_sweep, most=most, max_bytes=self._max_bytes, uses=self._take_uses(), clock=doors.shared.clock)
        expired, evicted = await self._write("sweep", change)
        self._evictions += evicted
        await self._run("sweep", doors.writer, doors.writer.vacuum)
        return expired + evicted

    async def stats(self) -> StoreStats:
        """See `Store`."""
        doors = self._opened("stats")
        number, size, remembered, on_disk = await self._read("stats", partial(_measure, place=self._place))
        return StoreStats(
            entries=number,
            payload_bytes=size,
            file_bytes=on_disk,
            evictions=self._evictions,
            corrupt=doors.shared.corrupt,
            journal=remembered,
        )

    def _note_use(self, key: str) -> None:
        """Remember a use; it is written with what is written next, since a read must not become a write."""
        self._uses.pop(key, None)
        if len(self._uses) < _MOST_USES:
            self._uses[key] = None

    def _take_uses(self) -> tuple[str, ...]:
        uses, self._uses = tuple(self._uses), {}
        return uses

    def _opened(self, operation: str, key: str | None = None) -> "_Doors":
        doors = self._doors
        if doors is None:
            raise StoreError("the store is not open; await store.open(...) first", operation=operation, key=key)
        if doors.pid != os.getpid():
            raise StoreError(
                "the store was opened before this process was forked; make one in each process",
                operation=operation,
                key=key,
            )
        return doors

    async def _read(self, operation: str, query: Callable[[sqlite3.Connection], T], key: str | None = None) -> T:
        reader = self._opened(operation, key).reader
        return await self._run(operation, reader, partial(reader.read, query), key)

    async def _write(self, operation: str, change: Callable[[sqlite3.Connection], T], key: str | None = None) -> T:
        writer = self._opened(operation, key).writer
        return await self._run(operation, writer, partial(writer.write, change), key)

    async def _run(self, operation: str, database: Database, function: Callable[[], T], key: str | None = None) -> T:
        try:
            # Cancelled here: the function is run in full nevertheless, with nobody to hear its answer.
            return await database.run(function)
        except Exception as error:  # whatever it is, the cache goes on without the store
            raise self._failure(error, operation, key) from error

    def _failure(self, error: Exception, operation: str, key: str | None) -> StoreError:
        if self._doors is None and operation != "open":
            return StoreError("the store was closed meanwhile", operation=operation, key=key)
        message = f"{operation} failed in {self._place.folder}: {error}"
        return StoreError(message, operation=operation, key=key, final=isinstance(error, RefusedError))


class _Doors:
    """What is open: a connection that writes, one that reads, and the one who listens for others."""

    def __init__(self, place: Place, root: str | None, clock: Clock, changed: Callable[[], None]) -> None:
        self.pid = os.getpid()
        self.poll = Poll(place, changed)
        self.shared = Shared(place, clock, Root(place.folder, root), _PATIENCE, self.poll.tell)
        self.reader = Database(self.shared, "store reader")
        self.writer = Database(self.shared, "store writer", reader=self.reader)

    def stop(self) -> None:
        """Have the threads end."""
        self.reader.stop()
        self.writer.stop()

    async def close(self) -> None:
        """Have the threads end, and wait until they have."""
        self.stop()
        await self.reader.close()
        await self.writer.close()


def _put_many(raw: sqlite3.Connection, *, writes: Sequence[Write], uses: Sequence[str], clock: Clock) -> list[bool]:
    unseen = journal.Unseen(raw, [write.stamp for write in writes])
    put = []
    for write in writes:
        accepted = not unseen.refuses(write.stamp, write.names)
        if accepted and write.lease is not None:
            accepted = leases.is_held(raw, write.lease, clock.monotonic())
            if accepted:
                leases.end(raw, (write.lease,))
        put.append(accepted)
    entries.use(raw, uses)
    entries.put(raw, [write for write, accepted in zip(writes, put, strict=True) if accepted])
    return put


def _sweep(
    raw: sqlite3.Connection,
    *,
    most: int,
    max_bytes: int | None,
    uses: Sequence[str],
    clock: Clock,
) -> tuple[int, int]:
    entries.use(raw, uses)
    expired = entries.remove_expired(raw, clock.wall(), most)
    evicted = 0 if max_bytes is None else entries.remove_least_used(raw, max_bytes, most - expired)
    leases.end_expired(raw, clock.monotonic())
    return expired, evicted


def _measure(raw: sqlite3.Connection, *, place: Place) -> tuple[int, int, int, int]:
    number, size = entries.totals(raw)
    forgotten, last = journal.bounds(raw)
    return number, size, last - forgotten, place.bytes_on_disk()
