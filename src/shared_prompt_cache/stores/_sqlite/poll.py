"""Hearing of what other processes do to the database.

Each commit writes to the log file, so its status, looked at by the loop every 25 ms, says whether there can be anything
new; only then SQLite itself is asked, in the thread that writes. Its `data_version` counts the commits of others.

A status is no proof while the clock of the file system may not have ticked since: a commit behind the look could have
left the same one. So it is believed only if it was some time old when it was looked at. And it shows what is written,
not what is committed, which comes when the disk has it: so it is asked again as long as anybody holds the lock.
"""

import asyncio
import os
import time
import weakref
from collections.abc import Callable
from typing import Final

from shared_prompt_cache.stores._sqlite.database import Database, Shared
from shared_prompt_cache.stores._sqlite.place import Place

_INTERVAL: Final = 0.025
_SLACK: Final = 0.02
_SLACK_OF_WHOLE_SECONDS: Final = 2.1
_SECOND: Final = 1_000_000_000

_stat = os.stat

_Status = tuple[int, int, int, int]


class Poll:
    """Calls `changed` on the loop soon after another process has committed; now and then once too often.

    It is no task: what is scheduled holds it weakly, and nothing is to be awaited when it ends.
    """

    def __init__(self, place: Place, changed: Callable[[], None]) -> None:
        self._place = place
        self._changed: Callable[[], None] | None = changed
        self._loop = asyncio.get_running_loop()
        self._shared: Shared | None = None
        self._database: Database | None = None
        self._seen: _Status | None = None  # believed: there is nothing new as long as it is this
        self._asking = False

    def start(self, shared: Shared, database: Database) -> None:
        """Begin to look; `database` is the connection that writes."""
        self._shared, self._database = shared, database
        self._loop.call_later(_INTERVAL, _look_again, weakref.ref(self))

    def stop(self) -> None:
        """Look no more, and call nobody."""
        self._changed = self._database = None

    def look(self) -> bool:
        """Look whether there can be anything new, and have SQLite asked; return whether to go on."""
        database = self._database
        if database is None:
            return False
        if self._asking:
            if database.lock.waiting:  # others may commit one after the other until it is our turn
                self._tell()
            return True
        status = self._status()
        if status is None or status != self._seen:
            self._seen = status if status is not None and _is_settled(status) else None
            self._asking = True
            database.post(lambda: self._ask(database))
        return True

    def _status(self) -> _Status | None:
        if self._shared is None or not self._shared.has_wal:
            return None  # on a network file system not even a status comes at once
        try:
            log, database = _stat(self._place.log_file), _stat(self._place.database)
        except OSError:
            return None
        return log.st_size, log.st_mtime_ns, log.st_ino, database.st_ino

    def _ask(self, database: Database) -> None:
        """In the thread."""
        try:
            is_new, is_certain = database.check()
        except Exception:  # noqa: BLE001 - who needs the database will be told; here it is asked again
            is_new = is_certain = False
        if not is_certain:
            self._seen = None
        self._post(self._answer, is_new)

    def _answer(self, is_new: bool) -> None:  # noqa: FBT001 - called by the loop
        self._asking = False
        if is_new:
            self._tell()

    def tell(self) -> None:
        """Have `changed` called; from the thread."""
        self._post(self._tell)

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed()

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: nobody listens
            self.stop()


def _look_again(poll: "weakref.ref[Poll]") -> None:
    found = poll()
    if found is not None and found.look():
        asyncio.get_running_loop().call_later(_INTERVAL, _look_again, poll)


def _is_settled(status: _Status) -> bool:
    changed = status[1]
    slack = _SLACK if changed % _SECOND else _SLACK_OF_WHOLE_SECONDS
    return time.time() - changed / _SECOND > slack
