"""The watcher that looks: for file systems whose changes no event tells of.

One thread compares, each second, the full status of every watched folder and of what lies directly in it. Each look
at a file gives up the GIL, and after a portion of them the thread rests, so that many files take longer rather than
hold up the rest of the process.
"""

import asyncio
import logging
import os
import queue
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from shared_prompt_cache._files.watchers import Sink
from shared_prompt_cache._files.watchers._worker import Worker, hand_over, in_slices, settle
from shared_prompt_cache._logging import log
from shared_prompt_cache.errors import CacheClosedError

Status = tuple[int, int, int, int, int]
"""Device, inode, size, mtime_ns and ctime_ns."""

_LEASH = 0.05  # seconds between two looks whether the loop is still there
_PORTION, _REST = 500, 0.001  # files after which the thread rests, and for how many seconds
_SLACK = 20_000_000  # nanoseconds in which a second change can leave the status of a file as it is
_COARSE_SLACK = 2_100_000_000  # the same, where timestamps are whole seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a folder looked like.

    Attributes:
        own: The status of the folder; None if there is none.
        children: The status of each child by name; of a symlink, also that of its target.
        unsettled: The children that had changed so shortly before that a later change might look the same.
        trouble: Why the folder cannot be looked at.
    """

    own: Status | None = None
    children: Mapping[str, tuple[Status, ...]] = field(default_factory=dict)
    unsettled: AbstractSet[str] = frozenset()
    trouble: str | None = None

    @property
    def watched(self) -> bool:
        """Whether the folder could be looked at."""
        return self.own is not None and self.trouble is None


def compare(folder: str, old: Snapshot, new: Snapshot) -> Iterator[str]:
    """The paths at which two looks at a folder differ."""
    if old.trouble != new.trouble or (old.own and old.own[:2]) != (new.own and new.own[:2]):
        yield folder  # there, gone, or another one: which says all about what is in it
        return
    names = {
        name for name in old.children.keys() | new.children.keys() if old.children.get(name) != new.children.get(name)
    }
    names |= old.unsettled
    if not names and old.own != new.own:
        yield folder  # something came and went between the two looks
    for name in names:
        yield os.path.join(folder, name)


class PollingWatcher:
    """Watches folders by looking at them again and again.

    Attributes:
        name: "polling".
        exact: False; changes arrive up to one interval, and the time of one look at everything, after they were made.
        sink: Who is told; None while it is not running.
        restarts: How often a look at everything failed for a reason that is not the file system's.
        watched: How many folders are watched.
    """

    name: str = "polling"
    exact: bool = False

    def __init__(self, *, interval: float = 1.0) -> None:
        """Nothing is looked at before `start` and `watch`.

        Args:
            interval: Seconds between the end of one look at everything and the next.
        """
        self._interval = interval
        self._lock = asyncio.Lock()
        self._poller: _Poller | None = None
        self._answer: asyncio.Future[AbstractSet[str]] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._unstarted: dict[str, str] = {}  # what is not looked at because there is no thread for it
        self.sink: Sink | None = None
        self.restarts = 0
        self.watched = 0

    async def start(self, sink: Sink) -> None:
        """Begin; nothing is watched yet.

        Raises:
            RuntimeError: It is running already.
        """
        if self.sink is not None:
            raise RuntimeError("This watcher is running; close it before it is started again.")
        self._lock = asyncio.Lock()
        self.sink = sink

    async def watch(self, folders: AbstractSet[str]) -> AbstractSet[str]:
        """Watch exactly these folders; see `Watcher.watch`. If cancelled, they are watched all the same.

        Raises:
            CacheClosedError: It has not been started, or is closed.
        """
        async with self._lock:
            if self.sink is None:
                raise CacheClosedError("The watcher is closed, or was not started.")
            if self._poller is None and folders:
                self._poller = self._start_poller(folders)
            if self._poller is None:
                return frozenset()
            self._answer = asyncio.get_running_loop().create_future()
            self._poller.requests.put((frozenset(folders), self._answer))
            armed = await self._answer
            self.watched = len(armed)
            if not folders:
                await self._end_poller()
            return armed

    def drain(self) -> None:
        """Do nothing: the system has queued nothing."""

    async def aclose(self) -> None:
        """End the thread; may be called again, and goes on to the end if the caller is cancelled."""
        self.sink = None
        if self._answer is not None:
            settle(self, self._answer, None, CacheClosedError("The watcher was closed."))
        await self._end_poller()

    def _start_poller(self, folders: AbstractSet[str]) -> "_Poller | None":
        poller = _Poller(self, self._interval)
        try:
            poller.start("polling", poller.run)
        except RuntimeError as error:  # no thread can be started
            self._unstarted = {folder: str(error) for folder in folders}
            for folder, reason in self._unstarted.items():
                _degrade(self, folder, reason)
            return None
        while self._unstarted:
            _degrade(self, self._unstarted.popitem()[0], None)
        return poller

    async def _end_poller(self) -> None:
        self.watched = 0
        if self._poller is not None:
            self._poller.end()
            self._ending = asyncio.get_running_loop().create_task(self._poller.join())
            self._poller = None
        if self._ending is not None:
            await asyncio.shield(self._ending)


def _degrade(owner: PollingWatcher, folder: str, reason: str | None) -> None:
    if owner.sink is not None:
        owner.sink.degraded(folder, reason)


def _fail(owner: PollingWatcher, error: Exception) -> None:
    owner.restarts += 1
    if owner.restarts == 1:
        log(logging.WARNING, "watcher.failed", watcher=owner.name, exc_info=error)
    if owner.sink is not None:
        owner.sink.doubted(f"a look at the watched folders failed: {error or type(error).__name__}")


_Request = tuple[frozenset[str], "asyncio.Future[AbstractSet[str]]"]


class _Ended(Exception):  # noqa: N818 - no error, the way out of a long look
    pass


class _Poller(Worker):
    """The thread that looks, and what it saw last."""

    def __init__(self, owner: PollingWatcher, interval: float) -> None:
        super().__init__(owner)
        self.requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._interval = interval
        self._known: dict[str, Snapshot] = {}  # of the thread alone
        self._looks = 0

    def end(self) -> None:
        super().end()
        self.requests.put(None)  # so that it is noticed at once

    def run(self) -> None:
        next_at = time.monotonic() + self._interval
        while not self.over():
            try:
                request = self.requests.get(timeout=max(0.0, min(_LEASH, next_at - time.monotonic())))
            except queue.Empty:
                request = None
            try:
                if request is not None:
                    self._answer(*request)
                if time.monotonic() >= next_at:
                    self._look_at(self._known)
                    next_at = time.monotonic() + self._interval
            except _Ended:
                return
            except Exception as error:  # noqa: BLE001 - memory has run out, for example: told, and tried again
                next_at = time.monotonic() + self._interval
                self.post(_fail, error)
                if request is not None:
                    self.post(settle, request[1], frozenset(), None)

    def _answer(self, folders: frozenset[str], answer: "asyncio.Future[AbstractSet[str]]") -> None:
        """Take over the wanted folders: those that are new get looked at, the others at the next turn."""
        for folder in self._known.keys() - folders:
            if self._known.pop(folder).trouble is not None:
                self.post(_degrade, folder, None)
        for folder in folders - self._known.keys():
            self._known[folder] = Snapshot()
            self._take(folder, self._look(folder))
        self._look_at([folder for folder in folders if not os.path.isdir(folder) or not self._known[folder].watched])
        armed = frozenset(folder for folder in folders if self._known[folder].watched)
        self.post(settle, answer, armed, None)

    def _look_at(self, folders: Collection[str]) -> None:
        changed: list[str] = []
        for folder in folders:
            old, new = self._known[folder], self._look(folder)
            self._take(folder, new)
            changed.extend(compare(folder, old, new))
        if changed:
            self.post(hand_over, in_slices(changed))

    def _take(self, folder: str, new: Snapshot) -> None:
        if new.trouble != self._known[folder].trouble:
            self.post(_degrade, folder, new.trouble)
        self._known[folder] = new

    def _look(self, folder: str) -> Snapshot:
        children: dict[str, tuple[Status, ...]] = {}
        unsettled: set[str] = set()
        own: Status | None = None
        try:
            status = os.stat(folder)
            if not stat.S_ISDIR(status.st_mode):
                return Snapshot()
            own = _tuple(status)
            with os.scandir(folder) as entries:
                for entry in entries:
                    self._rest()
                    statuses = tuple(_statuses(entry))
                    children[entry.name] = statuses
                    if any(_is_recent(status) for status in statuses):
                        unsettled.add(entry.name)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return Snapshot()
        except OSError as error:
            return Snapshot(own=own, trouble=error.strerror or str(error))
        return Snapshot(own=own, children=children, unsettled=unsettled)

    def _rest(self) -> None:
        self._looks += 1
        if self._looks % _PORTION == 0:
            time.sleep(_REST)
            if self.over():
                raise _Ended


def _statuses(entry: "os.DirEntry[str]") -> Iterator[Status]:
    try:
        status = entry.stat(follow_symlinks=False)
        yield _tuple(status)
        if stat.S_ISLNK(status.st_mode):
            yield _tuple(entry.stat())
    except OSError:
        return  # gone since, or a link that leads nowhere: the next look tells the difference


def _tuple(status: os.stat_result) -> Status:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_recent(status: Status) -> bool:
    changed_at = status[-1]
    slack = _SLACK if changed_at % 1_000_000_000 else _COARSE_SLACK
    return abs(time.time_ns() - changed_at) < slack
