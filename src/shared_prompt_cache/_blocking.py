"""`cache.blocking`: the cache for threads that cannot await.

Theory of operation: a verb called in a thread runs on the event loop of the cache, in a copy of the thread's context,
while the thread waits. What `compute` has to do comes back: the flight posts it to the waiting thread, which runs it in
a copy of the flight's context, so reads are recorded, and computations that would wait for each other in a circle are
found, as they are among coroutines. A caller who has been answered already (with a stale value, say) is not
there to work any more; a daemon thread takes its place.

A cache that no loop uses gets a thread with a loop of its own at the first call. That thread never keeps the
interpreter alive, and ends with the cache.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from contextvars import Context, copy_context
from datetime import timedelta
from functools import partial
from os import PathLike
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, TypeVar, Unpack

from shared_prompt_cache._core.entry import CachedPrompt
from shared_prompt_cache._core.options import Computed, Freshness, Paths, check_compute
from shared_prompt_cache._core.stats import CacheStats, Explanation, Health
from shared_prompt_cache.errors import CacheClosedError, WrongLoopError

if TYPE_CHECKING:
    from shared_prompt_cache.cache import SharedPromptCache

T = TypeVar("T")
_Path = str | PathLike[str]
_Span = float | timedelta | None
_Work = Callable[[], None]
_LOOK: Final = 1.0
"""How often, in seconds, a waiting thread looks whether the loop still runs; two looks in vain and it gives up."""


class ComputeOptions(TypedDict, total=False):
    """The options of `get_or_compute`."""

    ttl: _Span
    metadata: Mapping[str, Any] | None
    agent: str | None
    project: _Path | None
    tags: Iterable[str]
    depends_on: Paths
    freshness: Freshness | None
    stale_for: float | timedelta
    soft_timeout: _Span
    hard_timeout: _Span
    refresh_ahead: float | None
    cache_errors_for: _Span


class BlockingCache:
    """The synchronous face of a cache, for worker threads and plain scripts; its verbs block the thread that calls.

    Any number of threads may use it at once. On a thread where an event loop runs every verb raises `WrongLoopError`.
    Use `with cache.blocking:`, or `start()` and `close()`, where no async code opens and closes the cache.

    Attributes:
        files: `cache.files` for computations that run in a thread.
    """

    def __init__(self, cache: "SharedPromptCache") -> None:
        self.files = BlockingFiles(self)
        self._cache = cache
        self._lock = threading.Lock()
        self._own: _OwnLoop | None = None
        self._forked = False
        _FACES.add(self)

    # Life.

    def start(self) -> None:
        """Begin to watch, as `cache.start` does; needed where there are watch rules and no async code has done it."""
        try:
            self.run(self._cache.start, starting=True)
        except BaseException:
            if self._cache._state != "started":
                self.close()
            raise

    def close(self) -> None:
        """End the thread with the event loop and close the cache on it, if there is such a thread. Idempotent.

        A cache that async code has opened stays open: it is closed where it was opened.
        """
        self._check_thread()
        with self._lock:
            own, self._own = self._own, None
        if own is None:
            return
        try:
            if self._cache._loop is own.loop:
                _Call[None](own.loop).result(self._cache.aclose)
        finally:
            own.stop()
            own.thread.join()

    async def released(self) -> bool:
        """End the thread with the event loop, if there is one; `cache.aclose` asks for this.

        Returns:
            Whether the cache lived on that thread, and has now been closed there.
        """
        own = self._own
        if own is None or own.thread is threading.current_thread():
            return False  # `close` waits for this thread's end, or the next call of this does
        with self._lock:
            self._own = None
        lives_there = self._cache._loop is own.loop
        # The closing over there goes on if the caller is cancelled here.
        closing = asyncio.run_coroutine_threadsafe(own.end(self._cache if lives_there else None), own.loop)
        await asyncio.shield(asyncio.wrap_future(closing))
        while own.thread.is_alive():
            await asyncio.sleep(0)
        return lives_there

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # The verbs.

    def get_prompt(self, key: str, *, freshness: Freshness | None = None) -> CachedPrompt | None:
        """Return the entry of `key`, or None; never waits for a computation."""
        return self.run(partial(self._cache.get_prompt, key, freshness=freshness))

    def get_or_compute(self, key: str, compute: Callable[[], T | Computed[T]], **options: Unpack[ComputeOptions]) -> T:
        """Return the value of `key`, computed by `compute()` if need be, once for all threads and tasks that ask.

        `compute` runs in this thread; in one of the cache's if this caller may be answered before it is over (with a
        stale value, or ahead of the expiry). It cannot be interrupted: after a `hard_timeout` its result is dropped.

        Args:
            key: The key.
            compute: A plain function without arguments; it may return `Computed` to say how to keep the value.
            **options: Those of `cache.get_or_compute`.

        Raises:
            RecursiveComputeError: If `compute` would wait for itself, directly or through other keys.
            ComputeTimeout: If the computation was ended by its `hard_timeout`.
            CacheClosedError: If the cache is closed, or its event loop ends meanwhile.
            Exception: Whatever `compute` raised, as it is.
        """
        check_compute(compute)
        # With a soft timeout the caller must be free to go while the computation is under way.
        call = _Call[T](self._home(), works=options.get("soft_timeout") is None)

        async def computed() -> T | Computed[T]:
            posted: Future[tuple[Any, Exception | None]] = Future()
            call.post(partial(_work, posted, copy_context(), compute, key))
            value, error = await asyncio.wrap_future(posted)
            if error is not None:
                raise error
            made: T | Computed[T] = value
            return made

        return call.result(lambda: self._cache.get_or_compute(key, computed, **options))

    def set_prompt(
        self,
        key: str,
        prompt: Any,
        metadata: Mapping[str, Any] | None = None,
        ttl: _Span = None,
        *,
        agent: str | None = None,
        project: _Path | None = None,
        tags: Iterable[str] = (),
        depends_on: Paths = (),
    ) -> None:
        """Store a value; arguments as for `cache.set_prompt`."""
        self.run(
            partial(
                self._cache.set_prompt,
                key,
                prompt,
                metadata,
                ttl,
                agent=agent,
                project=project,
                tags=tags,
                depends_on=depends_on,
            )
        )

    def get_many(self, keys: Iterable[str]) -> dict[str, CachedPrompt]:
        """Return the entries of those of `keys` that are there."""
        return self.run(partial(self._cache.get_many, list(keys)))  # an iterator runs here, not on the loop

    def invalidate(self, key: str, *, soft: bool = False) -> bool:
        """Remove the entry of `key`, and what was made from it; return whether it was there."""
        return self.run(partial(self._cache.invalidate, key, soft=soft))

    def invalidate_pattern(self, pattern: str, *, soft: bool = False) -> int:
        """Remove the entries whose keys match a shell glob; return how many were dropped here."""
        return self.run(partial(self._cache.invalidate_pattern, pattern, soft=soft))

    def invalidate_agent(self, agent: str, project: _Path | None = None, *, soft: bool = False) -> int:
        """Remove the entries of an agent; return how many were dropped here."""
        return self.run(partial(self._cache.invalidate_agent, agent, project, soft=soft))

    def invalidate_project(self, project: _Path, *, soft: bool = False) -> int:
        """Remove the entries of a project, and those that name none; return how many were dropped here."""
        return self.run(partial(self._cache.invalidate_project, project, soft=soft))

    def invalidate_tag(self, tag: str, *, soft: bool = False) -> int:
        """Remove the entries with a tag; return how many were dropped here."""
        return self.run(partial(self._cache.invalidate_tag, tag, soft=soft))

    def invalidate_file(self, path: _Path, *, soft: bool = False) -> int:
        """Remove the entries made from a file, or from anything below a folder; return how many were dropped here."""
        return self.run(partial(self._cache.invalidate_file, path, soft=soft))

    def clear(self, *, soft: bool = False) -> int:
        """Remove all entries; return how many were dropped here."""
        return self.run(partial(self._cache.clear, soft=soft))

    def evict_oldest(self, count: int = 1) -> int:
        """Evict up to `count` entries, the least recently used first; return how many went."""
        return self.run(partial(self._cache.evict_oldest, count))

    def sync(self, timeout: float | None = None) -> None:
        """Return when every change of a file made before the call has been applied."""
        self.run(partial(self._cache.sync, timeout))

    def get_stats(self) -> CacheStats:
        """Return the figures of the cache."""
        return self.run(partial(_awaitable, self._cache.get_stats))

    def explain(self, key: str) -> Explanation:
        """Return whether `key` is cached, since when and from which files; if not, what removed it."""
        return self.run(partial(_awaitable, partial(self._cache.explain, key)))

    def health(self) -> Health:
        """Return whether all parts of the cache do what they should."""
        return self.run(partial(_awaitable, self._cache.health))

    # Where they run.

    def run(self, verb: Callable[[], Awaitable[T]], *, starting: bool = False) -> T:
        """Run a verb of the cache on its event loop, and return what it returns."""
        return _Call[T](self._home(starting=starting)).result(verb)

    def _home(self, *, starting: bool = False) -> asyncio.AbstractEventLoop:
        """Return the event loop of the cache; start one where there is none."""
        self._check_thread()
        cache = self._cache
        with self._lock:
            loop = cache._loop
            if loop is not None:
                if loop.is_closed() or not loop.is_running():
                    raise _gone(loop)
                return loop
            if not starting and (cache._state == "closed" or (cache._state == "new" and cache._rules)):
                which = "is closed" if cache._state == "closed" else "watches files and was not started"
                raise CacheClosedError(f"the cache {cache.name!r} {which}; use it inside `with cache.blocking:`")
            if self._own is None:
                self._own = _OwnLoop(self, cache.name)
            return self._own.loop

    def _check_thread(self) -> None:
        name = self._cache.name
        if self._forked:
            raise WrongLoopError(
                f"the cache {name!r} was in use when this process was forked; make one in each process"
            )
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise WrongLoopError(
            f"cache.blocking of {name!r} would hold the event loop of this thread; await the verb of the cache itself, "
            "or move the call into a thread with asyncio.to_thread"
        )

    def after_fork(self) -> None:
        """Give up, in a child process, what stayed behind in its parent: threads, loops, and who held the lock."""
        self._lock = threading.Lock()
        if self._own is not None or self._cache._loop is not None:
            self._own = None
            self._forked = True


class BlockingFiles:
    """`cache.files` for computations that run in a thread: what is read is recorded for the computation it is read in."""

    def __init__(self, blocking: BlockingCache) -> None:
        self._blocking = blocking

    def read_text(self, path: _Path, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the text of a file."""
        return self._blocking.run(partial(self._blocking._cache.files.read_text, path, encoding, errors))

    def read_bytes(self, path: _Path) -> bytes:
        """Return the content of a file."""
        return self._blocking.run(partial(self._blocking._cache.files.read_bytes, path))

    def glob(self, root: _Path, pattern: str) -> list[Path]:
        """Return the paths below `root` that match a pattern, sorted."""
        return self._blocking.run(partial(self._blocking._cache.files.glob, root, pattern))

    def depends_on(self, *paths: _Path) -> None:
        """Record files that are read in other ways."""
        self._blocking.run(partial(self._blocking._cache.files.depends_on, *paths))


class _Call(Generic[T]):
    """One call from a thread: its way to the event loop, and the work that comes back from there.

    `post`, `_begin`, `_leave` and `_perform` run on the loop; all else in the thread that calls.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, works: bool = True) -> None:
        self._loop = loop
        self._works = works
        self._inbox: SimpleQueue[_Work | None] = SimpleQueue()
        self._task: asyncio.Task[None] | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None

    def result(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Run `verb` on the loop; work for it meanwhile, and return what it returns."""
        try:
            self._loop.call_soon_threadsafe(self._begin, verb, copy_context())
            while (work := self._next()) is not None:
                work()
        except BaseException:
            # Interrupted, or the loop is gone. The call is given up; its work passes to a thread of its own.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._leave)
            raise
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)
        value: T = self._value
        return value

    def _next(self) -> _Work | None:
        looks = 0
        while True:
            try:
                return self._inbox.get(timeout=_LOOK)
            except Empty:
                looks = 0 if self._loop.is_running() else looks + 1
                if looks > 1 or self._loop.is_closed():
                    raise _gone(self._loop) from None

    def post(self, work: _Work) -> None:
        """Let the calling thread do some work; a thread of its own, if the caller has been answered."""
        if self._works:
            self._inbox.put(work)
        else:
            threading.Thread(target=work, name="shared-prompt-cache-compute", daemon=True).start()

    def _begin(self, verb: Callable[[], Awaitable[T]], context: Context) -> None:
        self._task = self._loop.create_task(self._perform(verb), context=context)
        # Not in the task: one that is cancelled before its first step runs nothing.
        self._task.add_done_callback(lambda _: self._inbox.put(None))

    async def _perform(self, verb: Callable[[], Awaitable[T]]) -> None:
        self._error = _gone(self._loop)
        try:
            self._value = await verb()
            self._error = None
        except asyncio.CancelledError:
            raise  # nobody but the end of the loop cancels this
        except BaseException as error:
            self._error, self._traceback = error, error.__traceback__
            if not isinstance(error, Exception):
                raise
        finally:
            # From here on, without an await between: who computes for this caller finds it gone.
            self._works = False

    def _leave(self) -> None:
        self._works = False
        if self._task is not None:
            self._task.cancel()
        while not self._inbox.empty():
            work = self._inbox.get_nowait()
            if work is not None:
                self.post(work)
