"""The watcher over watchfiles: the system's own notification, a few milliseconds behind the change.

In the steady state there is one native watcher with one thread. A native watcher cannot be given another folder, and
making one costs time in proportion to its folders, with the GIL held. So folders that are added go to a small second
one; when no more have come for a moment, a merged one takes the place of both. Three rules hold throughout:

- what is new is armed before what is old is closed, and what is old reads on for a moment, so that a change is told
  twice rather than never;
- whatever might have been missed is a doubt, and a doubt is told after the folders are armed again, not before;
- a folder counts as armed while the path still is the folder that was armed.
"""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

from shared_prompt_cache._files.watchers import Sink
from shared_prompt_cache._files.watchers._native import Identity, Native, identify
from shared_prompt_cache._files.watchers._worker import Worker, hand_over, run_in_thread
from shared_prompt_cache._logging import log
from shared_prompt_cache.errors import CacheClosedError

_LARGE = 256  # folders in the second native watcher; more are merged at once
_GRACE = 0.25  # how long a replaced native watcher reads on: longer than its batches, and than a thread is kept waiting
_CROWD = 8  # native watchers alive at once; a user may have 128
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 2.0  # before a dead native watcher is replaced

_T = TypeVar("_T")


class WatchfilesWatcher:
    """Watches folders through the native watcher of watchfiles.

    Attributes:
        name: "watchfiles".
        exact: False; changes arrive about 1.5 steps after they were made.
        sink: Who is told; None while it is not running.
        restarts: How often a native watcher died and was replaced.
    """

    name: str = "watchfiles"
    exact: bool = False

    def __init__(
        self, *, step: int = 5, debounce: int = 10, merge_after: float = 1.0, retry_after: float = 10.0
    ) -> None:
        """Nothing is watched, and watchfiles is not imported, before `start` and `watch`.

        Args:
            step: Milliseconds between two looks at what the system has told.
            debounce: Milliseconds after which a batch is delivered although changes go on.
            merge_after: Seconds without a new folder after which one native watcher is made of several.
            retry_after: Seconds after which folders that could not be watched are tried again.
        """
        self._step = step
        self._debounce = debounce
        self._merge_after = merge_after
        self._retry_after = retry_after
        self._warned = False
        self.restarts = 0
        self.sink: Sink | None = None
        self._reset()

    def _reset(self) -> None:
        self._lock = asyncio.Lock()
        self._wanted: frozenset[str] = frozenset()
        self._natives: list[Native] = []  # those that count; all but the first are to be merged into it
        self._workers: list[Worker] = []  # every thread that may still run
        self._tasks: set[asyncio.Task[Any]] = set()
        self._refused: dict[str, str] = {}
        self._doubt: str | None = None  # why changes may have been missed, until everything is armed again
        self._delay = _FIRST_DELAY
        self._stuck = False  # the last merge could not watch as much as those it was to replace
        self._tidying: asyncio.TimerHandle | None = None
        self._revival: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def watched(self) -> int:
        """How many of the wanted folders are armed."""
        return len(self._armed())

    async def start(self, sink: Sink) -> None:
        """Begin; nothing is watched yet.

        Raises:
            RuntimeError: It is running already.
        """
        if self.sink is not None or self._closing is not None:
            raise RuntimeError("This watcher is running; close it before it is started again.")
        self._reset()
        self.sink = sink

    async def watch(self, folders: AbstractSet[str]) -> AbstractSet[str]:
        """Watch exactly these folders; see `Watcher.watch`. If cancelled, the change goes on, and is complete later.

        Raises:
            CacheClosedError: It has not been started, or is closed.
        """
        self._check_running()
        task = self._task(self._watch(frozenset(folders)))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                self._check_running()  # not this caller was cancelled, the watcher was closed
            raise

    def drain(self) -> None:
        """Do nothing: what the system has queued was taken by the native watcher's thread."""

    async def aclose(self) -> None:
        """End every thread; may be called again, and goes on to the end if the caller is cancelled."""
        if self._closing is None:
            if self.sink is None:
                return
            self.sink = None  # from here on nobody is told, and nothing is armed
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for timer in (self._tidying, self._revival):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            await worker.join()
        self._reset()

    def _check_running(self) -> Sink:
        if self.sink is None:
            raise CacheClosedError("The watcher is closed, or was not started.")
        return self.sink

    def _task(self, work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        """Run `work` in a task of the watcher's own: the one who asked may leave, `aclose()` ends it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # so that it counts as seen when the one who asked has left

    def _armed(self) -> AbstractSet[str]:
        return {folder for native in self._natives for folder in native.armed} & self._wanted

    async def _watch(self, folders: frozenset[str]) -> AbstractSet[str]:
        async with self._lock:
            self._check_running()
            deaths, before = self.restarts, self._armed()
            self._wanted = folders
            try:
                refused, gone = await self._cover(folders)
            except RuntimeError as error:  # no thread can be started
                refused, gone = dict.fromkeys(folders - self._armed(), str(error)), frozenset()
            self._conclude(refused, deaths=deaths, gone=gone)
            self._tidy_later(postpone=not self._armed() <= before)
            return self._armed()

    async def _cover(self, folders: frozenset[str]) -> tuple[dict[str, str], frozenset[str]]:
        """Arm what is not armed yet.

        Returns:
            The folders that cannot be watched, and why; and those that do not exist.
        """
        found, refused = await run_in_thread(self, identify, folders)
        self._forget_replaced(found)
        missing = found.keys() - self._armed()
        second = self._natives[1:]
        more = missing | {folder for native in second for folder in native.armed} & folders
        if not folders:
            self._drop(self._natives, grace=0)
        elif missing and len(more) > _LARGE:
            refused |= await self._arm(folders, instead_of=self._natives)
        elif missing:
            refused |= await self._arm(more, instead_of=second)
        return refused, folders - found.keys()

    async def _arm(self, folders: AbstractSet[str], *, instead_of: Sequence[Native]) -> dict[str, str]:
        """Arm `folders` in a new native watcher, which takes the place of others if it watches as much as they do.

        Returns:
            The folders that are watched by none, and why.
        """
        await self._wait_for_room()
        native = Native(
            self,
            folders,
            step=self._step,
            debounce=self._debounce,
            changed=WatchfilesWatcher._changed,
            died=WatchfilesWatcher._native_died,
        )
        self._workers.append(native)
        refused = await native.arm()  # cancelled: the native watcher ends, those before it go on
        before = self._armed()
        if native.dead:
            return {}
        if not before & refused.keys():
            self._drop([old for old in self._natives if old in instead_of], grace=_GRACE)
            gained = bool(native.armed)
        else:
            gained = bool(native.armed.keys() - before)  # at a limit of the system: those before it stay, too
        if gained:
            self._natives.append(native)
        else:
            native.end()
        return {folder: reason for folder, reason in refused.items() if folder not in self._armed()}

    async def _wait_for_room(self) -> None:
        self._workers = [worker for worker in self._workers if worker.alive]
        leaving = [worker for worker in self._workers if worker not in self._natives]
        for worker in leaving[: max(0, len(leaving) - _CROWD)]:
            await worker.join()

    def _drop(self, natives: Iterable[Native], *, grace: float) -> None:
        """Let go of native watchers: what they have been told by now they still deliver within the grace."""
        for native in list(natives):
            self._natives.remove(native)
            if grace:
                asyncio.get_running_loop().call_later(grace, native.end)
            else:
                native.end()

    def _forget_replaced(self, found: Mapping[str, Identity]) -> None:
        """Count no folder as armed whose path has become another folder, or none."""
        for native in self._natives:
            for folder in native.armed.keys() & self._wanted:
                if found.get(folder) != native.armed[folder]:
                    del native.armed[folder]

    def _conclude(
        self, refused: Mapping[str, str], *, deaths: int | None = None, gone: AbstractSet[str] = frozenset()
    ) -> None:
        """Tell what cannot be watched; and the doubt, if all was armed again and nothing has died since `deaths`."""
        if self.sink is None:
            return
        armed = self._armed()
        for folder in [*self._refused]:
            if folder in armed or folder not in self._wanted or (folder in gone and folder not in refused):
                del self._refused[folder]
                self.sink.degraded(folder, None)
        for folder, reason in refused.items():
            if self._refused.get(folder) != reason:
                self._refused[folder] = reason
                self.sink.degraded(folder, reason)
        if self._doubt is not None and deaths == self.restarts:
            reason, self._doubt = self._doubt, None
            self.sink.doubted(reason)

    def _tidy_later(self, *, postpone: bool = False) -> None:
        if self._tidying is not None:
            if not postpone:
                return
            self._tidying.cancel()
            self._tidying = None
        if self._untidy() and not self._stuck:
            delay = self._merge_after
        elif self._untidy() or self._refused:
            delay = self._retry_after
        else:
            return
        self._tidying = asyncio.get_running_loop().call_later(delay, self._start_tidying)

    def _untidy(self) -> bool:
        """Whether one native watcher could do what several do, or one of half the size what a large one does."""
        surplus = sum(native.size for native in self._natives) - len(self._armed())
        return len(self._natives) > 1 or surplus > len(self._wanted)

    def _start_tidying(self) -> None:
        self._tidying = None
        self._task(self._tidy())

    async def _tidy(self) -> None:
        """Try again what could not be watched, and make one native watcher of several."""
        async with self._lock:
            if self.sink is None or self._doubt is not None:
                return  # a revival is under way, and leaves nothing to tidy
            refused = dict(self._refused)
            try:
                if refused:
                    refused = await self._arm(refused.keys() & self._wanted, instead_of=())
                    if relieved := (self._refused.keys() - refused.keys()) & self._armed():
                        self.sink.changed(relieved)  # nobody knows what happened there in the meantime
                if self._untidy():
                    await self._arm(self._wanted, instead_of=self._natives)
                    self._stuck = self._untidy()
            finally:
                self._conclude(refused)
                self._tidy_later()

    def _changed(self, native: Native, slices: Sequence[Collection[str]], lost: Iterable[str]) -> None:
        for folder in lost:
            native.armed.pop(folder, None)
        hand_over(self, slices)

    def _native_died(self, native: Native, error: BaseException) -> None:
        """Replace it after a while: what killed it, such as a name that is not UTF-8, may go on happening."""
        if self.sink is None:
            return
        native.dead = True
        if native in self._natives:
            self._natives.remove(native)
        self.restarts += 1
        self._doubt = f"the native watcher was restarted: {error or type(error).__name__}"
        if not self._warned:
            self._warned = True
            log(logging.WARNING, "watcher.restarted", watcher=self.name, reason=str(error) or type(error).__name__)
        if asyncio.get_running_loop().time() - native.born_at > 2 * _LONGEST_DELAY:
            self._delay = _FIRST_DELAY
        self._revive_later()

    def _revive_later(self) -> None:
        if self._revival is None:
            self._revival = asyncio.get_running_loop().call_later(self._delay, self._start_reviving)
            self._delay = min(2 * self._delay, _LONGEST_DELAY)

    def _start_reviving(self) -> None:
        self._revival = None
        self._task(self._revive())

    async def _revive(self) -> None:
        async with self._lock:
            if self.sink is None or self._doubt is None:
                return  # closed, or a call of `watch` was faster
            deaths = self.restarts
            try:
                refused = await self._arm(self._wanted, instead_of=self._natives)
            except Exception as error:  # noqa: BLE001 - no thread can be started, for example: the doubt remains
                log(logging.DEBUG, "watcher.restart_failed", watcher=self.name, exc_info=error)
                self._conclude(dict.fromkeys(self._wanted - self._armed(), str(error) or type(error).__name__))
                self._revive_later()
            else:
                self._conclude(refused, deaths=deaths)
                self._tidy_later()
