"""`cache.blocking`: the cache for threads that cannot await.

A verb called in a thread runs on the event loop of the cache while the thread waits; `_crossing` is how it gets there
and back. A cache that no loop uses gets a thread with a loop of its own at the first call. That thread never keeps the
interpreter alive, and ends with the cache.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, TypeVar, Unpack, overload
from weakref import WeakSet

from shared_prompt_cache._core.entry import CachedPrompt
from shared_prompt_cache._core.stats import CacheStats, Explanation, Health
from shared_prompt_cache._crossing import Call, OwnLoop, gone
from shared_prompt_cache._options import Computed, Freshness, Paths, check_compute
from shared_prompt_cache.errors import CacheClosedError, WrongLoopError

if TYPE_CHECKING:
    from shared_prompt_cache.cache import SharedPromptCache

T = TypeVar("T")
_Path = str | PathLike[str]
_Span = float | timedelta | None


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
        self._life = threading.RLock()  # who starts waits until a closing is over
        self._own: OwnLoop | None = None
        self._forked = cache._life.loop is not None and cache._life.pid != os.getpid()
        _faces.add(self)

    # Life.

    def start(self) -> None:
        """Begin to watch, as `cache.start` does; needed where there are watch rules and no async code has done it."""
        self._check_thread()
        with self._life:
            was_started = self._cache._life.state == "started"
            try:
                self.run(self._cache.start, starting=True)
            except BaseException:
                if not was_started:
                    self.close()
                raise

    def close(self) -> None:
        """End the thread with the event loop and close the cache on it, if there is such a thread. Idempotent.

        A cache that async code has opened stays open: it is closed where it was opened.
        """
        self._check_thread()
        with self._life:
            with self._lock:
                own, self._own = self._own, None
            if own is None:
                return
            try:
                if self._cache._life.loop is own.loop:
                    closing: Call[None] = Call(own.loop)
                    closing.result(self._cache.aclose)
            finally:
                own.stop()
                own.thread.join()

    async def released(self) -> bool:
        """End the thread with the event loop, if there is one; `cache.aclose` asks for this.

        Returns:
            Whether the cache lived on that thread, and has now been closed there.
        """
        with self._lock:
            own = self._own
            if own is None or own.thread is threading.current_thread() or not own.thread.is_alive():
                return False  # on the thread itself this is asked by a closing that its end waits for
            self._own = None
        lives_there = self._cache._life.loop is own.loop
        # The closing over there goes on if the caller is cancelled here.
        closing = asyncio.run_coroutine_threadsafe(own.end(self._cache if lives_there else None), own.loop)
        await asyncio.shield(asyncio.wrap_future(closing))
        while own.thread.is_alive():  # noqa: ASYNC110 - threads tell nobody of their end; it is a moment away
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

    @overload
    def get_or_compute(self, key: str, compute: Callable[[], Computed[T]], **options: Unpack[ComputeOptions]) -> T: ...
    @overload
    def get_or_compute(
        self, key: str, compute: Callable[[], T | Computed[T]], **options: Unpack[ComputeOptions]
    ) -> T: ...
    def get_or_compute(self, key: str, compute: Callable[[], Any], **options: Unpack[ComputeOptions]) -> Any:
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
        call: Call[Any] = Call(self._home(), lent=options.get("soft_timeout") is None)

        computed = partial(call.work, compute, key)
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

    def flush(self) -> None:
        """Return when what was kept and invalidated before the call is in the store, as far as that is in use."""
        self.run(self._cache.flush)

    def evict_oldest(self, count: int = 1) -> int:
        """Evict up to `count` entries, the least recently used first; return how many went."""
        return self.run(partial(self._cache.evict_oldest, count))

    def sync(self, timeout: float | None = None) -> None:
        """Return when every change of a file made before the call has been applied."""
        self.run(partial(self._cache.sync, timeout))

    def get_stats(self) -> CacheStats:
        """Return the figures of the cache."""
        return self._look(self._cache.get_stats)

    def explain(self, key: str) -> Explanation:
        """Return whether `key` is cached, since when and from which files; if not, what removed it."""
        return self._look(partial(self._cache.explain, key))

    def health(self) -> Health:
        """Return whether all parts of the cache do what they should."""
        return self._look(self._cache.health)

    # Where they run.

    def run(self, verb: Callable[[], Awaitable[T]], *, starting: bool = False) -> T:
        """Run a verb of the cache on its event loop, and return what it returns."""
        call: Call[T] = Call(self._home(starting=starting))
        return call.result(verb)

    def _look(self, ask: Callable[[], T]) -> T:
        if self._cache._life.loop is None:
            self._check_thread()
            return ask()  # nobody uses the cache, so nothing moves

        async def asked() -> T:
            return ask()

        return self.run(asked)

    def _home(self, *, starting: bool = False) -> asyncio.AbstractEventLoop:
        """Return the event loop of the cache; start one where there is none."""
        self._check_thread()
        cache = self._cache
        with self._lock:
            loop, closed = cache._life.loop, cache._life.state == "closed"
            if loop is not None and closed and starting:
                raise CacheClosedError(f"the cache {cache.name!r} is being closed; start it when that is over")
            if loop is not None and not closed:
                if loop.is_closed() or not loop.is_running():
                    raise gone(loop)
                return loop
            if not starting and (closed or (cache._life.state == "new" and cache._life.needs_start)):
                which = "is closed" if closed else f"{cache._life.needs_start} and was not started"
                raise CacheClosedError(f"the cache {cache.name!r} {which}; use it inside `with cache.blocking:`")
            if self._own is None:
                self._own = OwnLoop(self, cache.name)
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
        self._lock, self._life = threading.Lock(), threading.RLock()
        if self._own is not None:
            self._own.finalizer.detach()
            self._own = None
        self._forked = self._forked or self._cache._life.loop is not None


class BlockingFiles:
    """`cache.files` for threads: what is read is recorded for the computation that runs in the thread."""

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


_faces: Final["WeakSet[BlockingCache]"] = WeakSet()


def _after_fork() -> None:
    for face in _faces:
        face.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
