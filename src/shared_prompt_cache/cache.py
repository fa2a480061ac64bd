"""The cache. Read this first: one lookup, one invalidation, and the verbs around them.

One lookup: an entry that is there, stands (`Scopes.judge`), has not expired and whose files are proved is returned.
Else the caller joins the flight of the key, if what that has read so far still holds, or starts one. The flight
(`_computation.py`) notes the scopes' numbers, records what `compute` reads, compares the files again, publishes its
value if numbers and files still stand, and only then wakes those who wait.

One invalidation: whatever the cause, `_apply` gives scopes new numbers in one synchronous stretch; subscribers are
told after it, and memory is reclaimed behind it.

Between a check and the change that relies on it there is never an await; comments mark where a stretch begins.
"""

import asyncio
import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from shared_prompt_cache._batch import Batch
from shared_prompt_cache._blocking import BlockingCache
from shared_prompt_cache._bus import Bus
from shared_prompt_cache._cached import Decorator, decorator
from shared_prompt_cache._computation import Computations
from shared_prompt_cache._core.entry import CachedPrompt, Entry
from shared_prompt_cache._core.filing import Filing, agent_ids, project_ids
from shared_prompt_cache._core.memory import SLICE, Memory
from shared_prompt_cache._core.options import (
    Call,
    Computed,
    Freshness,
    Making,
    Paths,
    check_compute,
    check_count,
    check_fraction,
    check_freshness,
    check_metadata,
    check_paths,
    check_ttl,
)
from shared_prompt_cache._core.scopes import (
    ALL,
    Condition,
    ScopeId,
    Scopes,
    Sweep,
    Verdict,
    file_condition,
    glob_condition,
    shapes_condition,
)
from shared_prompt_cache._core.stats import (
    FILE_CHANGED,
    CacheStats,
    Explanation,
    Health,
    History,
    PartHealth,
    explain_entry,
    ratio,
)
from shared_prompt_cache._files.files import Files
from shared_prompt_cache._files.matching import Target
from shared_prompt_cache._files.projects import Labelling, check_project
from shared_prompt_cache._files.proof import absolute
from shared_prompt_cache._files.recorder import ACTIVE, Recorder, current
from shared_prompt_cache._files.watch import FileWatch
from shared_prompt_cache._files.watchers import Watcher
from shared_prompt_cache._files.watchers.choice import check_watcher
from shared_prompt_cache._flights import Flight
from shared_prompt_cache._lock import KeyLock, Locks
from shared_prompt_cache._logging import log
from shared_prompt_cache._warm import Progress, WarmReport, warm
from shared_prompt_cache.clock import Clock, SystemClock, seconds
from shared_prompt_cache.config import CacheConfig, load
from shared_prompt_cache.errors import CacheClosedError, ConfigTypeError, WrongLoopError
from shared_prompt_cache.events import ApiCall, Cause, Invalidation, Removal, RemovalReason, ScopeKind
from shared_prompt_cache.keys import check_key, check_pattern
from shared_prompt_cache.presets import rules_of
from shared_prompt_cache.rules import WatchRule, normalise_agent

T = TypeVar("T")
Compute = Callable[[], Awaitable[T | Computed[T]]]
_Span = float | timedelta | None
_PathLike = str | os.PathLike[str]
_MOST_WARNED: Final = 1000


class SharedPromptCache:
    """An asyncio cache for prompts and agent memory: computed once, and never served after its files changed.

    Args:
        max_size: The most entries that are kept in memory.
        ttl_seconds: The default time to live, in seconds or as a timedelta; `math.inf` for never.
        max_memory_mb: The most memory that entries may take, in MiB, with keys, metadata and bookkeeping.
        eviction_policy: Which entry goes when there is no room: `"lru"`, the least recently used.
        watch: Rules that turn changes of files into invalidations, usually from `presets`.
        freshness: `"strict"`: a value made from files is proved by them at each read. `"events"`: it is trusted until
            the watcher reports a change.
        watcher: `"auto"`, `"watchfiles"`, `"polling"`, or a watcher such as `testing.FakeWatcher`.
        name: What logs and figures call this cache.
        clock: Where time comes from; `testing.ManualClock` in tests.

    Raises:
        ConfigError: If an argument cannot be used; it names the argument.

    A cache belongs to the event loop of its first await. Without `watch` it needs no start; with it, use
    `async with cache:` or `await cache.start()` and `await cache.aclose()`.
    """

    def __init__(
        self,
        max_size: int = 1000,
        ttl_seconds: float | timedelta = 3600,
        *,
        max_memory_mb: float = 100,
        eviction_policy: Literal["lru"] = "lru",
        watch: Iterable[WatchRule] = (),
        freshness: Freshness = "strict",
        watcher: Literal["auto", "watchfiles", "polling"] | Watcher = "auto",
        name: str = "default",
        clock: Clock | None = None,
    ) -> None:
        config = CacheConfig(
            max_size=max_size,
            default_ttl=seconds(ttl_seconds, "ttl_seconds"),
            max_memory_mb=max_memory_mb,
            eviction_policy=eviction_policy,
            freshness=freshness,
            watcher=watcher if isinstance(watcher, str) else "auto",
            name=name,
        )
        check_watcher(watcher)
        rules = _check_rules(watch)
        self.name = config.name
        self.events = Bus()
        self._enabled = True
        self._rules = rules
        self._ttl = config.default_ttl
        self._strict = config.freshness == "strict"
        self._clock: Clock = SystemClock() if clock is None else clock
        self._scopes = Scopes()
        self._labelling = Labelling(Filing(self._scopes, self._clock), rules)
        self._history = History()
        self._memory = Memory(
            self._scopes,
            config.eviction_policy,
            max_size=config.max_size,
            max_bytes=int(config.max_memory_mb * 1024 * 1024),
            removed=self._note_removal,
            released=self._note_release,
        )
        self._watch = FileWatch(
            self._scopes,
            rules,
            watcher=watcher,
            select=self._select_target,
            raised=self._raise_targets,
            follow_dependencies=not self._strict,
            wall=self._clock.wall,
        )
        self._proofs = self._watch.proofs
        self._computations = Computations(
            self.name, self._scopes, self._memory, self._proofs, self._labelling, self._history, self._clock
        )
        self._flights = self._computations.flights
        self._locks = Locks()
        self._announcements: deque[_Announcement] = deque()
        self._sequence = 0
        self._reclaiming: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: Literal["new", "started", "closed"] = "new"
        self._origin = f"{socket.gethostname()}:{os.getpid()}:{self.name}:{id(self):x}"
        self._invalidations: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._misses = self._shared = self._stale_served = self._expirations = 0
        # What a hit touches, bound once.
        self._hits = 0
        self._get = self._memory.entries.get
        self._touch = self._memory.touch
        self._now = self._clock.monotonic
        self.files = Files(self._proofs)
        """What a computation reads through this is recorded as what its value was made from."""
        self.blocking = BlockingCache(self)
        """The synchronous face, for worker threads and plain scripts."""

    @classmethod
    def from_config(cls, source: CacheConfig | Mapping[str, Any] | _PathLike) -> Self:
        """Return the cache that a configuration describes.

        Args:
            source: A `CacheConfig`, a mapping, or the path of a YAML file.

        Raises:
            ConfigError: If a field cannot be used; it names file, line and field.
        """
        config = load(source)
        cache = cls(
            config.max_size,
            config.default_ttl,
            max_memory_mb=config.max_memory_mb,
            eviction_policy=config.eviction_policy,  # type: ignore[arg-type] # checked by the configuration
            watch=rules_of(config.watch),
            freshness=config.freshness,
            watcher=config.watcher,
            name=config.name,
        )
        cache._enabled = config.enabled
        return cache

    # Life.

    async def start(self) -> None:
        """Begin to watch; needed where there are watch rules. Returns when no change is missed any more. Idempotent."""
        loop = asyncio.get_running_loop()
        if self._state == "started":
            self._enter()
            return
        if self._loop is None or self._state == "closed":
            self._loop = loop
        self._state = "started"
        self._enter()
        try:
            await self._watch.start()
        except BaseException:
            self._state = "closed"
            await asyncio.shield(asyncio.ensure_future(self._watch.aclose()))
            raise

    async def aclose(self) -> None:
        """End flights, watch, listeners and threads, and forget the entries. Who waits gets `CacheClosedError`."""
        if self._state == "closed":
            return
        if self._loop is not None:
            self._enter()
        self._state = "closed"
        closing = asyncio.ensure_future(self._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing  # what was begun is ended, then the caller is cancelled
            raise

    async def _close(self) -> None:
        await self._flights.aclose()
        self._computations.clear_failures()
        self._memory.invalidate((ALL,))
        while self._memory.reclaim():
            await asyncio.sleep(0)
        self._announce()
        await self._watch.aclose()
        await self.events.aclose()
        await self.blocking.released()
        if self._reclaiming is not None:
            self._reclaiming.cancel()
            self._reclaiming = None
        self._loop = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _enter(self) -> asyncio.AbstractEventLoop:
        """Check that the cache may be used here and now; the first call binds it to its loop."""
        loop = asyncio.get_running_loop()
        if self._state == "closed":
            raise CacheClosedError(
                f"the cache {self.name!r} is closed; use it inside `async with cache:`, or start() it"
            )
        if self._state == "new" and self._rules:
            raise CacheClosedError(
                f"the cache {self.name!r} watches files and was not started; use it inside `async with cache:`"
            )
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongLoopError(
                f"the cache {self.name!r} belongs to another event loop; "
                "use one cache for each loop, or cache.blocking from other threads"
            )
        return loop

    # One lookup.

    async def get_prompt(self, key: str, *, freshness: Freshness | None = None) -> CachedPrompt | None:
        """Return the entry of `key`, or None; never waits for a computation.

        Args:
            key: The key.
            freshness: `"strict"` or `"events"`, for this call; default: that of the cache.
        """
        try:
            entry = self._get(key)
        except TypeError:  # unhashable
            entry = None
        if entry is not None and entry.revision == self._scopes.revision and self._now() < entry.deadline:
            self._hits += 1
            self._touch(key)
            if ACTIVE:
                self._consumed(entry)
            return entry
        self._enter()
        entry = await self._find(check_key(key), self._strict if freshness is None else check_freshness(freshness))
        if entry is None:
            self._misses += 1
            return None
        self._hit(entry)
        return entry

    async def get_or_compute(
        self,
        key: str,
        compute: Compute[T],
        *,
        ttl: _Span = None,
        metadata: Mapping[str, Any] | None = None,
        agent: str | None = None,
        project: str | os.PathLike[str] | None = None,
        tags: Iterable[str] = (),
        depends_on: Paths = (),
        freshness: Freshness | None = None,
        stale_for: float | timedelta = 0,
        soft_timeout: _Span = None,
        hard_timeout: _Span = None,
        refresh_ahead: float | None = None,
        cache_errors_for: _Span = None,
    ) -> T:
        """Return the value of `key`, computed by `await compute()` if need be, once for all who ask meanwhile.

        What `compute` reads through `cache.files`, and cached values it gets, is recorded: the value goes when they
        change. A value overtaken by an invalidation or a change of a file reaches those who wait and is kept nowhere.

        Args:
            key: The key.
            compute: An async function without arguments; it may return `Computed` to say how to keep the value.
            ttl: Time to live in seconds or as a timedelta, `math.inf` for never; default: that of the cache.
            metadata: Kept with the value, as a frozen copy.
            agent: The agent that the value belongs to; default: `metadata["agent"]`.
            project: The project, as a path or a name; default: `metadata["project"]`.
            tags: For `invalidate_tag`.
            depends_on: Files and folders that the value is made from, if `compute` reads them in other ways.
            freshness: `"strict"` or `"events"`, for this call.
            stale_for: For how long after its expiry a value may be returned while it is computed anew.
            soft_timeout: How long to wait for the new value where a stale one could be had; default: not at all.
            hard_timeout: When to end the computation, for all who wait for it.
            refresh_ahead: The fraction of the time to live after which a hit starts a computation in the background.
            cache_errors_for: For how long a failure is kept and raised again without computing.

        Raises:
            ComputeTimeout: If the computation was ended by its `hard_timeout`.
            ComputeCancelled: If the computation cancelled itself.
            RecursiveComputeError: If it would wait for itself.
            Exception: Whatever `compute` raised, as it is.
        """
        try:
            entry = self._get(key)
        except TypeError:  # unhashable
            entry = None
        if (
            entry is not None
            and entry.revision == self._scopes.revision
            and self._now() < entry.deadline
            and refresh_ahead is None
        ):
            self._hits += 1
            self._touch(key)
            if ACTIVE:
                self._consumed(entry)
            if agent is not None or project is not None or tags:
                self._compare_labels(entry, agent, project, tags)
            value: T = entry.value
            return value
        self._enter()
        check_key(key)
        check_compute(compute)
        call = Call(
            key,
            compute,
            self._labelling.labels(agent, project, tags, check_metadata(metadata)),
            Making(
                self._ttl if ttl is None else check_ttl(ttl),
                metadata,
                check_paths(depends_on) if depends_on else (),
                None if hard_timeout is None else seconds(hard_timeout, "hard_timeout"),
                0.0 if cache_errors_for is None else seconds(cache_errors_for, "cache_errors_for", zero=True),
            ),
            self._strict if freshness is None else check_freshness(freshness),
            seconds(stale_for, "stale_for", zero=True) if stale_for else 0.0,
            None if soft_timeout is None else seconds(soft_timeout, "soft_timeout", zero=True),
            None if refresh_ahead is None else check_fraction(refresh_ahead),
        )
        value = await self._serve(call)
        return value

    async def _serve(self, call: Call) -> Any:
        """Return the value for a call that the fast path could not answer."""
        key, strict = call.key, call.strict
        if not self._enabled:
            value = await call.compute()
            return value.value if isinstance(value, Computed) else value
        recorder = current()
        compared: Flight | None = None
        while True:
            entry = self._get(key) and await self._find(key, strict)
            if entry is not None:
                self._hit(entry)
                if call.refresh_ahead is not None:
                    self._refresh(entry, call)
                self._compare_labels(entry, call.labels.agent, call.labels.project, call.labels.tags)
                return entry.value
            if (
                self._computations.failures
                and (failure := await self._find_in(self._computations.failures, key, strict)) is not None
            ):
                self._hits += 1
                raise failure.value[0].with_traceback(failure.value[1])
            stale = await self._find_stale(call) if call.stale_for else None
            flight = self._flights.table.get(key)
            if flight is not None and flight is not compared and flight.task is not None:
                if not await self._still_holds(flight, strict):
                    self._flights.detach(flight, "what it was made from changed while it ran")
                compared = flight
                continue
            # No await from here to the start of the flight, or to the queue of those who wait for it.
            if self._get(key) is not None:
                continue
            if flight is None:
                self._misses += 1
                if stale is not None and call.soft_timeout is None and not self._flights.may_leave_behind():
                    return self._serve_stale(stale)
                flight = self._launch(call)
            elif flight.task is not None:
                self._shared += 1
            if stale is not None and call.soft_timeout is None and flight.task is not None:
                flight.background = True
                return self._serve_stale(stale)
            in_time = await self._flights.wait(
                flight,
                caller=None if recorder is None else recorder.owner,
                timeout=None if stale is None else call.soft_timeout,
                background=True,
            )
            failed = isinstance(flight.error, Exception)
            if call.stale_for and (failed or not in_time) and (stale := await self._find_stale(call)) is not None:
                return self._serve_stale(stale)
            if in_time and flight.task is not None:
                if recorder is not None:
                    self._delivered(flight, recorder)
                return flight.result()
            call.soft_timeout = call.soft_timeout if flight.task is None else None

    async def _find(self, key: str, strict: bool) -> Entry | None:  # noqa: FBT001 - an option read at the edge
        """Return the entry of `key` if it stands, is proved and has not expired; valid when this returns."""
        while (entry := self._get(key)) is not None:
            holds = await self._holds(entry, strict)
            # No await from here on.
            if self._get(key) is not entry:
                continue
            if not holds:
                self._memory.fall(entry)
            elif self._now() >= entry.deadline:
                self._expire(entry)
            else:
                return entry
        return None

    def _expire(self, entry: Entry) -> None:
        self._expirations += 1
        self._memory.expire(entry)

    async def _find_in(self, table: MutableMapping[str, Entry], key: str, strict: bool) -> Entry | None:  # noqa: FBT001
        """Return what lies under `key` in the shelf or among the failures, if it stands and is proved."""
        while (entry := table.get(key)) is not None:
            holds = await self._holds(entry, strict)
            if table.get(key) is not entry:
                continue
            if holds and (table is self._memory.shelf or self._now() < entry.deadline):
                return entry
            if table is self._memory.shelf:
                self._memory.unshelve(key)
            else:
                self._computations.forget_failure(key)
        return None

    async def _find_stale(self, call: Call) -> Entry | None:
        entry = await self._find_in(self._memory.shelf, call.key, call.strict)
        return entry if entry is not None and self._now() < entry.deadline + call.stale_for else None

    async def _holds(self, entry: Entry, strict: bool) -> bool:  # noqa: FBT001
        """Return whether scopes and files of `entry` stand; True is true when this returns."""
        compared = False
        while True:
            revision = self._scopes.revision
            if entry.checked != revision:
                verdict = self._scopes.judge(entry)
                if verdict is Verdict.FALLEN:
                    return False
                if verdict is Verdict.DOUBTED:
                    await self._watch.answered(self._scopes.doubts_about(entry))
                    continue
            origin = entry.origin
            if origin is None or not origin.dependencies:
                entry.judged(revision)
                return True
            if compared or self._proofs.proved(origin, revision, strict=strict):
                return True
            if not await self._proofs.compare(origin):
                return False
            compared = True

    async def _still_holds(self, flight: Flight, strict: bool) -> bool:  # noqa: FBT001
        """Return whether a caller who arrives now may take the value of `flight`: nothing it read has changed."""
        while True:
            if flight.revision != self._scopes.revision:
                verdict = self._scopes.judge(flight)
                if verdict is Verdict.FALLEN:
                    return False
                if verdict is Verdict.DOUBTED:
                    await self._watch.answered(self._scopes.doubts_about(flight))
                    continue
            return not flight.recorder.reads or await self._proofs.unmoved(
                flight.recorder.dependencies, flight.revision, strict=strict
            )

    def _hit(self, entry: Entry) -> None:
        self._hits += 1
        self._touch(entry.key)
        if ACTIVE:
            self._consumed(entry)

    def _serve_stale(self, entry: Entry) -> Any:
        self._hits += 1
        self._stale_served += 1
        if ACTIVE:
            self._consumed(entry)
        return entry.value

    def _consumed(self, entry: Entry) -> None:
        """Tell the computation that runs here what it has been given."""
        recorder = current()
        if recorder is not None:
            scope = self._scopes.scope(("key", entry.key))
            pairs = (*entry.pairs, (scope, scope.number))
            recorder.consume(self._scopes, entry.key, entry.agent, pairs, entry.origin)

    def _delivered(self, flight: Flight, recorder: Recorder) -> None:
        """Tell the computation that waited for `flight` what the value was made from."""
        late = self._scopes.note_late((("key", flight.key),), flight.revision)
        if flight.detached is not None or late is None:
            recorder.spoil(f"it was made from {flight.key!r}, which was invalidated meanwhile")
        pairs = (*flight.pairs, *(late or ()))
        recorder.consume(self._scopes, flight.key, flight.agent, pairs, flight.recorder.origin())

    def _refresh(self, entry: Entry, call: Call) -> None:
        """Start a computation behind a hit, if the entry is old enough for it."""
        assert call.refresh_ahead is not None  # noqa: S101 - the caller looked
        left = entry.deadline - self._now()
        if (
            left < (1 - call.refresh_ahead) * entry.ttl
            and call.key not in self._flights.table
            and self._flights.may_leave_behind()
        ):
            self._launch(call).background = True

    def _launch(self, call: Call) -> Flight:
        assert self._loop is not None  # noqa: S101 - _enter has bound it
        return self._computations.launch(self._loop, call.key, call.compute, call.labels, call.making)

    def _compare_labels(
        self, entry: Entry, agent: str | None, project: str | os.PathLike[str] | None, tags: Iterable[str]
    ) -> None:
        """Log, once for a key, that a hit names other scopes than its entry has."""
        labels = entry.labels
        if (agent is None or agent == labels.agent) and project is None and not tags:
            return
        asked = self._labelling.labels(agent, project, tags, None)
        same = asked.tags <= labels.tags and {scope.id for scope in asked.scopes} <= {s.id for s in labels.scopes}
        if same or entry.key in self._warned or len(self._warned) >= _MOST_WARNED:
            return
        if agent is not None or project is not None or asked.tags:
            self._warned.add(entry.key)
            log(logging.WARNING, "entry.scopes_differ", cache=self.name, key=entry.key)

    async def get_many(self, keys: Iterable[str]) -> dict[str, CachedPrompt]:
        """Return the entries of those of `keys` that are there."""
        found = {}
        for count, key in enumerate(keys, 1):
            entry = await self.get_prompt(key)
            if entry is not None:
                found[key] = entry
            if count % SLICE == 0:
                await asyncio.sleep(0)
        return found

    # What is put in.

    async def set_prompt(
        self,
        key: str,
        prompt: Any,
        metadata: Mapping[str, Any] | None = None,
        ttl: _Span = None,
        *,
        agent: str | None = None,
        project: _PathLike | None = None,
        tags: Iterable[str] = (),
        depends_on: Paths = (),
    ) -> None:
        """Store a value.

        What it was made from counts as read at the call; inside a computation, a `lock()` or a `batch()`, at the
        beginning of that. Where an invalidation may come between reading and storing, use `get_or_compute`.

        Args:
            key: The key; a running computation of it is not kept.
            prompt: The value, shared by reference from now on: never mutate it.
            metadata: Kept with the value, as a frozen copy.
            ttl: Time to live in seconds or as a timedelta, `math.inf` for never; default: that of the cache.
            agent: The agent that the value belongs to; default: `metadata["agent"]`.
            project: The project, as a path or a name; default: `metadata["project"]`.
            tags: For `invalidate_tag`.
            depends_on: Files and folders that the value was made from.
        """
        self._enter()
        check_key(key)
        labels = self._labelling.labels(agent, project, tags, check_metadata(metadata))
        making = Making(
            self._ttl if ttl is None else check_ttl(ttl), metadata, check_paths(depends_on) if depends_on else ()
        )
        batch = Batch.joined(self)
        if batch is not None:
            await batch.add(key, prompt, labels, making)
            return
        around = current()
        block = Flight(key, labels, (), self._scopes.revision, Recorder(self._scopes))
        self._scopes.begin(block)
        try:
            if making.depends_on:
                await self._proofs.declare(block.recorder, making.depends_on)
            # No await from here on.
            if around is not None and around.scopes is self._scopes and around.owner is not None:
                block.revision = around.owner.revision
                block.recorder.take(around)
            self._set(block, prompt, making)
        finally:
            self._scopes.end(block)

    def _set(self, block: Flight, value: Any, making: Making) -> bool:
        """Put in what a block made; return whether it was kept."""
        flight = self._flights.table.get(block.key)
        if flight is not None and flight.task is not None:
            self._flights.detach(flight, "set_prompt() gave the key another value")
        if not self._enabled:
            return False
        self._computations.begin_late(block)
        kept = self._computations.keep(block, value, making.metadata, making.ttl)
        self._kick()
        return kept

    def batch(self) -> Batch:
        """Return a block whose sets and invalidations are applied together when it ends, and not if it raises.

        `async with cache.batch() as batch:`; `batch.set_prompt` and `batch.invalidate` take what the verbs of the
        cache take, and `cache.set_prompt` from the same task joins in.
        """
        return Batch(self)

    def lock(self, key: str) -> KeyLock:
        """Return the lock of `key`, for get-compute-set by hand: `async with cache.lock(key):`.

        While it is held, nobody else computes the key; callers of `get_or_compute` wait. It is not reentrant.
        """
        return KeyLock(self, check_key(key))

    async def warm(
        self,
        keys: Iterable[str],
        compute: Callable[[str], Awaitable[Any]],
        *,
        concurrency: int = 8,
        on_progress: Progress | None = None,
        **options: Any,
    ) -> WarmReport:
        """Fill keys ahead of use by `await compute(key)`.

        Args:
            keys: The keys; those that are there already are left alone.
            compute: An async function of a key.
            concurrency: How many are computed at once.
            on_progress: Called after each key with how many are done, and how many there are.
            **options: Passed to `get_or_compute`.

        Returns:
            What was computed and what was there; failures are collected, not raised.
        """
        return await warm(self, keys, compute, concurrency=concurrency, on_progress=on_progress, **options)

    def cached(self, key: Any = None, **options: Any) -> Decorator:
        """Return a decorator that caches an async function by its arguments.

        Args:
            key: A prefix, or a function of the arguments that returns the key; default: name and arguments.
            **options: Those of `get_or_compute`; each may be a function of the arguments.
        """
        return decorator(self, key, options)

    # One invalidation.

    async def invalidate(self, key: str, *, soft: bool = False) -> bool:
        """Remove the entry of `key`, and what was made from it; return whether it was there.

        Args:
            key: The key.
            soft: Let it expire instead, so that `stale_for` may still serve it while it is computed anew.
        """
        announcement = self._apply("key", check_key(key), cause=ApiCall(verb="invalidate"), soft=soft)
        await self._counted(announcement)
        return announcement.found

    async def invalidate_pattern(self, pattern: str, *, soft: bool = False) -> int:
        """Remove the entries whose keys match a shell glob; return how many were dropped here."""
        return await self._invalidate("pattern", check_pattern(pattern), verb="invalidate_pattern", soft=soft)

    async def invalidate_agent(self, agent: str, project: _PathLike | None = None, *, soft: bool = False) -> int:
        """Remove the entries of an agent: in every project, or in one and in none; return how many were dropped."""
        name = normalise_agent(agent)
        where = None if project is None else check_project(project)
        return await self._invalidate("agent", name, project=where, verb="invalidate_agent", soft=soft)

    async def invalidate_project(self, project: _PathLike, *, soft: bool = False) -> int:
        """Remove the entries of a project, and those that name none; return how many were dropped here."""
        return await self._invalidate("project", check_project(project), verb="invalidate_project", soft=soft)

    async def invalidate_tag(self, tag: str, *, soft: bool = False) -> int:
        """Remove the entries with a tag; return how many were dropped here."""
        if not isinstance(tag, str):
            raise ConfigTypeError(f"the tag {tag!r:.200} is no string; give a string", field="tag")
        return await self._invalidate("tag", tag, verb="invalidate_tag", soft=soft)

    async def invalidate_file(self, path: _PathLike, *, soft: bool = False) -> int:
        """Remove the entries made from a file, or from anything below a folder; return how many were dropped."""
        (name,) = check_paths((path,), "path")
        return await self._invalidate("file", absolute(name), verb="invalidate_file", soft=soft)

    async def clear(self, *, soft: bool = False) -> int:
        """Remove all entries; return how many were dropped here."""
        return await self._invalidate("all", None, verb="clear", soft=soft)

    async def _invalidate(
        self, scope: ScopeKind, name: str | None, *, project: str | None = None, verb: str, soft: bool
    ) -> int:
        announcement = self._apply(scope, name, project=project, cause=ApiCall(verb=verb), soft=soft)
        return await self._counted(announcement)

    def _apply(
        self, scope: ScopeKind, name: str | None, *, project: str | None = None, cause: Cause, soft: bool = False
    ) -> "_Announcement":
        """Put an invalidation in force. It is final when this returns; telling and reclaiming follow behind."""
        self._enter()
        soft_at = self._now() if soft else None
        ids, condition = self._select(scope, name, project)
        self._sequence += 1
        told = Invalidation(
            scope=scope,
            name=name,
            project=project,
            cause=cause,
            origin=self._origin,
            sequence=self._sequence,
            at=self._clock.wall(),
            dropped=0,
            soft=soft,
        )
        found = scope == "key" and name is not None and self._remove_key(name, told, soft_at)
        sweep = self._memory.invalidate(ids, condition, told, soft_at=soft_at)
        self._invalidations[scope] += 1
        announcement = _Announcement(told, sweep, found=found)
        self._announcements.append(announcement)
        self._kick()
        self._announce()
        return announcement

    def _select(
        self, scope: ScopeKind, name: str | None, project: str | None
    ) -> tuple[tuple[ScopeId, ...], Condition | None]:
        """Return the scopes that an invalidation names, and what it selects besides."""
        if scope == "all" or name is None:
            return (ALL,), None
        if scope == "agent":
            names = None if project is None else self._labelling.of_target(project)
            return agent_ids(name, names), shapes_condition(name, names)
        if scope == "project":
            return project_ids(self._labelling.of_target(name)), None
        if scope == "pattern":
            return (), glob_condition(name)
        if scope == "file":
            return (), file_condition(name)
        return ((scope, name),), None

    def _select_target(self, target: Target) -> tuple[tuple[ScopeId, ...], Condition | None]:
        return self._select(target.scope, target.name, target.project)

    def _remove_key(self, key: str, told: Invalidation, soft_at: float | None) -> bool:
        """Remove, or expire, the entry and the flight of one key; return whether there was an entry."""
        flight = self._flights.table.get(key)
        entry = self._get(key)
        found = entry is not None and self._scopes.judge(entry) is not Verdict.FALLEN and self._now() < entry.deadline
        self._computations.forget_failure(key)
        if soft_at is not None:
            if flight is not None:
                flight.soften(soft_at)
            if found and entry is not None:
                entry.soften(soft_at)
                self._expire(entry)
            return found
        if flight is not None and flight.task is not None:
            self._flights.detach(flight, "it was invalidated while it was computed")
        if entry is not None:
            self._memory.remove(entry, "invalidated")
            self._history.note(key, "invalidated", told, told.at)
        self._memory.unshelve(key)
        return found

    def _raise_targets(self, targets: list[tuple[Target, Cause]]) -> None:
        """Put in force what changes of files invalidate, all of it in one stretch."""
        for target, cause in targets:
            self._apply(target.scope, target.name, project=target.project, cause=cause)

    async def _counted(self, announcement: "_Announcement") -> int:
        while not announcement.sweep.counted:
            # The invalidation is in force. Only the count is waited for: a cancelled caller changes nothing.
            await asyncio.sleep(0)
        return announcement.dropped

    def _kick(self) -> None:
        """See to it that what is left to reclaim is reclaimed between other work of the loop."""
        if self._reclaiming is None and self._loop is not None and self._memory.has_work:
            self._reclaiming = self._loop.call_soon(self._reclaim)

    def _reclaim(self) -> None:
        self._reclaiming = None
        self._memory.reclaim()
        self._announce()
        self._kick()

    def _announce(self) -> None:
        """Tell subscribers of what has been counted, in the order in which it was applied."""
        while self._announcements and self._announcements[0].sweep.counted:
            announcement = self._announcements.popleft()
            self.events.publish(replace(announcement.told, dropped=announcement.dropped))

    def _note_removal(self, entry: Entry, reason: RemovalReason) -> None:
        if reason == "invalidated":
            invalidation = self._scopes.why(entry)
            why = reason if invalidation is not None else FILE_CHANGED
            self._history.note(entry.key, why, invalidation, self._clock.wall())
        elif reason != "replaced":
            self._history.note(entry.key, reason, None, self._clock.wall())
        if self.events.wants_removals:
            self.events.publish(Removal(key=entry.key, reason=reason))

    def _note_release(self, entry: Entry) -> None:
        if entry.origin is not None:
            self._proofs.release(entry.origin)

    # The rest.

    async def sync(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - part of the public interface
        """Return when every change of a file made before the call has been applied.

        After it, reads see what the caller, or anybody on this machine, has written before it.

        Raises:
            TimeoutError: If that takes longer than `timeout` seconds.
        """
        self._enter()
        limit = None if timeout is None else seconds(timeout, "timeout")
        async with asyncio.timeout(limit):
            await self._watch.sync()

    async def evict_oldest(self, count: int = 1) -> int:
        """Evict up to `count` entries, the least recently used first; return how many went."""
        self._enter()
        wanted = check_count(count, "count", least=0)
        gone = 0
        while gone < wanted and (went := self._memory.evict(wanted - gone)):
            gone += went
            if gone < wanted:
                await asyncio.sleep(0)
        return gone

    def get_stats(self) -> CacheStats:
        """Return the figures of the cache."""
        lookups = self._hits + self._misses
        memory, computations = self._memory, self._computations
        return CacheStats(
            hit_rate=ratio(self._hits, lookups),
            miss_rate=ratio(self._misses, lookups),
            eviction_rate=ratio(memory.evictions, computations.sets),
            memory_usage_mb=memory.bytes / (1024 * 1024),
            entry_count=len(memory),
            eviction_count=memory.evictions,
            hits=self._hits,
            misses=self._misses,
            sets=computations.sets,
            computations=computations.begun,
            shared_computations=self._shared,
            stale_served=self._stale_served,
            expirations=self._expirations,
            dropped_values=computations.refused,
            invalidations=dict(self._invalidations),
            watcher=self._watch.figures,
        )

    def explain(self, key: str) -> Explanation:
        """Return whether `key` is cached, since when and from which files; if not, what removed it."""
        check_key(key)
        entry = self._get(key) or self._memory.shelf.get(key)
        if entry is not None and self._scopes.judge(entry) is Verdict.FALLEN:
            self._history.note(key, "invalidated", self._scopes.why(entry), self._clock.wall())
            entry = None
        return explain_entry(key, entry, key in self._flights.table, self._history)

    def health(self) -> Health:
        """Return whether all parts of the cache do what they should."""
        parts = {"memory": PartHealth(status="ok"), **self._watch.health()}
        degraded = any(part.status == "degraded" for part in parts.values())
        return Health(status="degraded" if degraded else "ok", parts=parts, unwatched=self._proofs.unwatched)


class _Announcement:
    """An invalidation that is in force and has to be told.

    Attributes:
        told: The event, but for the number of dropped entries.
        sweep: Counts them.
        found: Whether an entry of that very key was there.
    """

    __slots__ = ("found", "sweep", "told")

    def __init__(self, told: Invalidation, sweep: Sweep, *, found: bool) -> None:
        self.told = told
        self.sweep = sweep
        self.found = found

    @property
    def dropped(self) -> int:
        """How many entries went."""
        return self.sweep.dropped + self.found


def _check_rules(watch: Iterable[WatchRule]) -> tuple[WatchRule, ...]:
    if isinstance(watch, WatchRule):
        watch = (watch,)
    if isinstance(watch, str) or not isinstance(watch, Iterable):
        raise ConfigTypeError(f"watch is {watch!r:.200}; give WatchRules, for example a preset's", field="watch")
    rules = tuple(watch)
    for rule in rules:
        if not isinstance(rule, WatchRule):
            raise ConfigTypeError(f"watch holds {rule!r:.200}; give WatchRules, for example a preset's", field="watch")
    return rules
