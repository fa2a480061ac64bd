"""A connection to the database of a place: whole transactions, in one thread, on whatever database is there now.

Each function is run with a connection to the file that is at the path at that moment. If that file is damaged, it is
set aside, an empty one is begun, and the function is run on that: it answers as an empty store would. If the file is
gone, or another, the function is run on a new one.

A database that takes the place of another must not take over its numbers: what stands for "up to here" in the old
journal would be believed of the new one. So its journal begins at a number of its own (`journal.begin_at`).
"""

import logging
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from shared_prompt_cache._logging import log
from shared_prompt_cache._mounts import is_remote
from shared_prompt_cache.clock import Clock
from shared_prompt_cache.stores._sqlite import journal, schema
from shared_prompt_cache.stores._sqlite.place import Identity, Place, PlaceLock
from shared_prompt_cache.stores._sqlite.root import Root
from shared_prompt_cache.stores._sqlite.schema import DamagedError
from shared_prompt_cache.stores._sqlite.thread import ObedientConnection

T = TypeVar("T")
Function = Callable[[sqlite3.Connection], T]

_TRIES: Final = 3
_VACUUM_PAGES: Final = 512
_ELSEWHERE: Final = frozenset(
    {
        sqlite3.SQLITE_ABORT,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_TOOBIG,
    }
)
"""Codes of errors that say nothing against the database. Our statements are constant: what else fails is its fault."""


@dataclass(slots=True)
class Shared:
    """What the connections of one store have in common.

    Attributes:
        root: Whose paths are kept relative.
        patience: Seconds to wait for others.
        tell: Called when something was changed by somebody else; from any thread.
        identity: The database that was used last, in any of them.
        corrupt: How often it was damaged, and set aside.
        has_wal: Whether it has a write-ahead log.
    """

    place: Place
    clock: Clock
    root: Root
    patience: float
    tell: Callable[[], None]
    identity: Identity | None = None
    corrupt: int = 0
    has_wal: bool = False
    warned: bool = False


class Database(ObedientConnection):
    """A connection of a store. Its methods but those of its base are called in its thread."""

    def __init__(self, shared: Shared, name: str, *, reader: "Database | None" = None) -> None:
        """Nothing is opened yet.

        Args:
            shared: What it has in common with the other connections of the store.
            name: Its name, for the thread.
            reader: For a connection that writes: the one that reads. None: it is that.
        """
        super().__init__(self._connect_first, name)
        self._shared = shared
        self._place = shared.place
        self._reader = reader
        self.lock = PlaceLock(shared.place, shared.patience, self._is_given_up)
        self._identity: Identity | None = None
        self._log_inode: int | None = None
        self._version: object = None
        self._insists = False

    def _is_given_up(self) -> bool:
        return self.stopped and not self._insists

    def hurry(self) -> None:
        """Break off the statement that runs, unless it is an invalidation: one that fails would take all rows along."""
        if not self._insists:
            super().hurry()

    # What follows is called in the thread.

    def read(self, query: Function[T]) -> T:
        """Return what `query` finds."""
        for _ in range(_TRIES):
            raw = self._connection
            if raw is None or self._place.identity() != self._identity:
                with self.lock:
                    raw = self._reconnect()
            try:
                return query(raw)
            except (sqlite3.Error, DamagedError) as error:
                if not is_damage(error):
                    raise
                with self.lock:
                    self._begin_anew(error)
        raise OSError(f"{self._place.database} is damaged again and again")

    def write(self, change: Function[T], *, durable: bool = False) -> T:
        """Return what `change` returns, in one transaction; none is open afterwards.

        Args:
            change: What is to be done; it may be done more than once, the last time counts.
            durable: Whether it has reached the disk when this returns, not only the system.
        """
        for _ in range(_TRIES):
            with self.lock:
                raw = self._connection
                if raw is None or self._place.identity() != self._identity:
                    raw = self._reconnect()
                try:
                    self._check_log()
                    result = self._transact(raw, change, durable=durable)
                except (sqlite3.Error, DamagedError) as error:
                    if not is_damage(error):
                        raise
                    self._begin_anew(error)
                    continue
                if self._place.identity() == self._identity:
                    return result
                # Removed by somebody who does not know the lock, before or behind the commit: once more, on the new.
        raise OSError(f"{self._place.database} is damaged or removed again and again")

    def invalidate(self, change: Function[T]) -> T:
        """As `write`, durable; if that fails, all that the database holds is put out of reach before it is tried again.

        Raises:
            Exception: What `write` raised, if there is no way to write it down. The database may be gone nevertheless.
        """
        self._insists = True  # though the store is closed meanwhile
        try:
            return self._invalidate(change)
        finally:
            self._insists = False

    def _invalidate(self, change: Function[T]) -> T:
        try:
            return self.write(change, durable=True)
        except Exception as error:  # noqa: BLE001 - raised below, unless it was got over
            failure = error
        log(logging.WARNING, "store.begun_anew", path=self._place.database, reason=str(failure))
        patience, self.lock.patience = self.lock.patience, 0  # it has been waited for
        try:
            for get_rid in (self._set_aside, self._place.discard):
                # Without the lock: who writes to what is gone finds that out before he is done, and writes again.
                with suppress(OSError):
                    get_rid()
                with suppress(Exception):
                    return self.write(change, durable=True)
        finally:
            self.lock.patience = patience
        raise failure

    def attempt(self, change: Function[object]) -> None:
        """As `write`; if it fails, nobody has to know."""
        with suppress(Exception):
            self.write(change)

    def vacuum(self) -> None:
        """Give a portion of what is free back to the file system, if it is more than a tenth of the file."""
        with self.lock:
            raw = self._connection
            if raw is not None and self._place.identity() == self._identity:
                surplus = schema.pragma(raw, "freelist_count") - schema.pragma(raw, "page_count") // 10
                if surplus > 0:
                    # As a script: by `execute` it would take one step, and give back one page.
                    raw.executescript(f"PRAGMA incremental_vacuum({min(surplus, _VACUUM_PAGES)})")
                    schema.pragma(raw, "wal_checkpoint(PASSIVE)")  # only this makes the file shorter

    def check(self) -> tuple[bool, bool]:
        """Say whether somebody else has committed since this was last asked, or the database has changed places.

        The second answer is whether the first one counts all that has been written to the log file: what has not
        reached the disk yet is there already, but is not committed.
        """
        if self._place.identity() != self._identity:
            with self.lock:
                self._reconnect()
            return True, True
        try:
            self._check_log()
            is_certain = self.lock.is_free()
            return self._is_new_version(), is_certain
        except (sqlite3.Error, DamagedError) as error:
            if not is_damage(error):
                raise
            with self.lock:
                self._begin_anew(error)
            return True, True

    def _check_log(self) -> None:
        """Raise if the log file, which SQLite has open and others will look for, was removed underneath."""
        if self._shared.has_wal and self._place.log_inode() != self._log_inode:
            raise DamagedError("its log file was removed")

    def _transact(self, raw: sqlite3.Connection, change: Function[T], *, durable: bool) -> T:
        if durable and self._shared.has_wal:
            schema.pragma(raw, "synchronous = FULL")
        try:
            raw.execute("BEGIN IMMEDIATE")
            foreign = self._is_new_version()
            result = change(raw)
            raw.execute("COMMIT")
        finally:
            with suppress(sqlite3.Error):  # what broke the transaction is told
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
                if durable and self._shared.has_wal:
                    schema.pragma(raw, "synchronous = NORMAL")
        if foreign:
            self._shared.tell()
        return result

    def _is_new_version(self) -> bool:
        """Return whether another connection has committed; with the one that writes, that is another process."""
        connection = self._connection
        version = None if connection is None else schema.pragma(connection, "data_version")
        before, self._version = self._version, version
        return before != version

    def _connect_first(self) -> sqlite3.Connection:
        self._shared.root.levels()  # raises before anything is made, if it cannot be
        with self.lock:
            return self._reconnect()

    def _reconnect(self) -> sqlite3.Connection:
        """Connect to what is at the path now, which is begun if nothing is there; the lock is held."""
        self._disconnect()
        try:
            return self._connect_to_it()
        except (sqlite3.Error, DamagedError) as error:
            if not is_damage(error):
                raise
            self._begin_anew(error)
        return self._connect_to_it()

    def _connect_to_it(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        levels = self._shared.root.levels()
        self._place.prepare()
        if self._place.identity() is None:
            self._place.create()
        identity = self._place.identity()
        raw = sqlite3.connect(
            Path(self._place.database).as_uri() + "?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=self._shared.patience,
            cached_statements=256,
        )
        try:
            wal = not is_remote(self._place.folder)
            self._shared.has_wal = schema.prepare(raw, wal=wal, levels=levels)
            self._shared.root.settle(schema.levels_of(raw))
            self._warn()
            is_another = self._shared.identity not in {None, identity}
            if is_another:
                self._number_anew(raw)
            if self._reader is None:
                schema.pragma(raw, "query_only = ON")
            self._version = schema.pragma(raw, "data_version")
            self._log_inode = self._place.log_inode()
        except BaseException:
            raw.close()
            raise
        self._lend(raw)
        self._identity = identity
        self._shared.identity = identity
        if is_another:
            self._shared.tell()
        return raw

    def _warn(self) -> None:
        if not self._shared.has_wal and not self._shared.warned:
            self._shared.warned = True
            log(logging.WARNING, "store.without_log", path=self._place.database, reason="network file system")

    def _number_anew(self, raw: sqlite3.Connection) -> None:
        """Have the journal begin at a number that no journal before it has reached."""
        raw.execute("BEGIN IMMEDIATE")
        if journal.begins_at(raw) == 0:
            # By seconds, so that it rises; by chance, so that two are never alike.
            journal.begin_at(raw, int(max(1, self._shared.clock.wall())) << 31 | secrets.randbits(31))
        raw.execute("COMMIT")

    def _begin_anew(self, error: Exception) -> None:
        """Set the database aside because of `error`, unless somebody has done so; connect to the new one. Locked."""
        if self._place.identity() == self._identity or self._identity is None:
            self._set_aside()
            self._shared.corrupt += 1
            log(logging.WARNING, "store.set_aside", path=self._place.database, reason=str(error))
        self._disconnect()
        self._connect_to_it()

    def _set_aside(self) -> None:
        self._place.set_aside(f"{self._shared.clock.wall():.0f}")

    def _disconnect(self) -> None:
        raw, self._identity = self._take_back(), None
        if raw is not None:
            with suppress(sqlite3.Error):
                raw.close()

    def _close_here(self) -> object:
        try:
            if self._reader is not None:
                self._reader.join()  # of two that close at once neither is the last, who checkpoints and tidies up
                if self._connection is not None:
                    with suppress(OSError), self.lock:
                        self._disconnect()
            self._disconnect()
        finally:
            self.lock.close()
        return super()._close_here()


def is_damage(error: Exception) -> bool:
    """Return whether an error says that the database is damaged, or none of ours."""
    if isinstance(error, DamagedError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # of the module: of a text that is no UTF-8, or of an argument that is not to be bound
        return isinstance(error, sqlite3.OperationalError)
    if code == sqlite3.SQLITE_IOERR_SHORT_READ:  # a file ends before it should
        return True
    return code != sqlite3.SQLITE_CONSTRAINT_NOTNULL and code & 0xFF not in _ELSEWHERE
