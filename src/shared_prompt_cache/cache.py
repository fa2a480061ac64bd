"""The cache. Read this first: one lookup, one invalidation, and the verbs around them.

One lookup: an entry that is there, stands (`Scopes.judge`), has not expired and whose files are proved is returned.
Else the caller joins the flight of the key, if what that has read so far still holds, or starts one. The flight
(`_computation.py`) notes the scopes' numbers, records what `compute` reads, compares the files again, publishes its
value if numbers and files still stand, and only then wakes those who wait.

One invalidation: whatever the cause, `Invalidations.apply` gives scopes new numbers in one synchronous stretch;
subscribers are told after it, and memory is reclaimed behind it.

Between a check and the change that relies on it there is never an await; comments mark where a stretch begins.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from shared_prompt_cache._batch import Batch
from shared_prompt_cache._bus import Bus
from shared_prompt_cache._computation import Computations
from shared_prompt_cache._core.entry import CachedPrompt
from shared_prompt_cache._core.filing import Filing
from shared_prompt_cache._core.history import History
from shared_prompt_cache._core.memory import SLICE, Memory
from shared_prompt_cache._core.scopes import Scopes
from shared_prompt_cache._files.files import Files
from shared_prompt_cache._files.places import absolute
from shared_prompt_cache._files.projects import Labelling, agent_id, check_project
from shared_prompt_cache._files.proof import Proofs
from shared_prompt_cache._files.recorder import ACTIVE, current
from shared_prompt_cache._invalidation import Invalidations, note_corrupt, note_removal
from shared_prompt_cache._life import Life, watching
from shared_prompt_cache._lock import KeyLock, Locks
from shared_prompt_cache._lookup import Lookups
from shared_prompt_cache._options import (
    Call,
    Computed,
    Freshness,
    Making,
    Paths,
    Span,
    check_count,
    check_freshness,
    check_keys,
    check_metadata,
    check_paths,
    check_tags,
)
from shared_prompt_cache.clock import Clock, check_clock, seconds
from shared_prompt_cache.events import ApiCall, ScopeKind
from shared_prompt_cache.keys import check_key, check_pattern

if TYPE_CHECKING:
    from shared_prompt_cache._blocking import BlockingCache, ComputeOptions
    from shared_prompt_cache._cached import Decorator
    from shared_prompt_cache._core.stats import CacheStats, Explanation, Health
    from shared_prompt_cache._files.watchers import Watcher
    from shared_prompt_cache._tier.tier import Tier
    from shared_prompt_cache._warm import Progress, WarmReport
    from shared_prompt_cache.config import CacheConfig
    from shared_prompt_cache.rules import WatchRule
    from shared_prompt_cache.stores import Store

T = TypeVar("T")
Compute = Callable[[], Awaitable[T | Computed[T]]]
Telling = Callable[[], Awaitable[Computed[T]]]
_PathLike = str | os.PathLike[str]


class SharedPromptCache:
    """An asyncio cache for prompts and agent memory: computed once, and never served after its files changed.

    Args:
        max_size: The most entries that are kept in memory.
        ttl_seconds: The default time to live, in seconds or as a timedelta; `math.inf` for never.
        max_memory_mb: The most memory that entries may take, in MiB, with keys, metadata and bookkeeping.
        eviction_policy: Which entry goes when there is no room: `"lru"`, the least recently used.
        store: A second tier, such as `stores.SQLiteStore`: entries outlive the process, and processes share them.
        single_flight: `"store"`: of all caches that share the store one computes a key. `"process"`: one in each.
        watch: Rules that turn changes of files into invalidations, usually from `presets`.
        freshness: `"strict"`: a value made from files is proved by them at each read. `"events"`: it is trusted until
            the watcher reports a change.
        watcher: `"auto"`, `"watchfiles"`, `"polling"`, or a watcher such as `testing.FakeWatcher`.
        name: What logs and figures call this cache.
        clock: Where time comes from; `testing.ManualClock` in tests.

    Raises:
        ConfigError: If an argument cannot be used; it names the argument.

    A cache belongs to the event loop of its first await. Without `store` and `watch` it needs no start; with one, use
    `async with cache:` or `await cache.start()` and `await cache.aclose()`.
    """

    def __init__(
        self,
        max_size: int = 1000,
        ttl_seconds: float | timedelta = 3600,
        *,
        max_memory_mb: float = 100,
        eviction_policy: Literal["lru"] = "lru",
        store: Store | None = None,
        single_flight: Literal["process", "store"] = "store",
        watch: Iterable[WatchRule] = (),
        freshness: Freshness = "strict",
        watcher: Literal["auto", "watchfiles", "polling"] | Watcher = "auto",
        name: str = "default",
        clock: Clock | None = None,
    ) -> None:
        from shared_prompt_cache.config import CacheConfig  # noqa: PLC0415 - loaded when used

        config = CacheConfig(
            max_size=max_size,
            default_ttl=seconds(ttl_seconds, "ttl_seconds"),
            max_memory_mb=max_memory_mb,
            eviction_policy=eviction_policy,
            single_flight=single_flight,
            freshness=freshness,
            watcher=watcher if isinstance(watcher, str) else "auto",
            name=name,
        )
        self.name = config.name
        self.events = Bus()
        self._rules: tuple[WatchRule, ...] = ()
        if watch != ():
            from shared_prompt_cache.rules import check_rules  # noqa: PLC0415 - loaded when used

            self._rules = check_rules(watch)
        self._ttl = config.default_ttl
        self._strict = config.freshness == "strict"
        self._clock = check_clock(clock)
        self._scopes = Scopes()
        self._labelling = Labelling(Filing(self._scopes, self._clock), self._rules)
        self._proofs = Proofs(self._scopes)
        self._history = History(self._clock.wall)
        self._memory = Memory(
            self._scopes,
            config.eviction_policy,
            max_size=config.max_size,
            max_bytes=int(config.max_memory_mb * 1024 * 1024),
            removed=partial(note_removal, self._history, self.events),  # not the cache: it may be forgotten unclosed
            released=self._proofs.release,
        )
        self._tier: Tier | None = None
        if store is not None:
            from shared_prompt_cache._tier.tier import Tier  # noqa: PLC0415 - loaded when used

            parts = (self._scopes, self._labelling, self._proofs, self._clock)
            self._tier = Tier(store, self.name, *parts, shares=config.single_flight == "store")
            self._tier.corrupt = partial(note_corrupt, self.events)
        self._computations = Computations(
            self.name, self._scopes, self._memory, self._proofs, self._labelling, self._history, self._clock, self._tier
        )
        self._flights = self._computations.flights
        self._lookups = Lookups(
            self.name, self._scopes, self._memory, self._computations, self._proofs, self._labelling, self._clock
        )
        self._invalidations = Invalidations(
            self.name,
            self._scopes,
            self._memory,
            self._computations,
            self._labelling,
            self.events,
            self._clock,
            self._tier,
        )
        self._locks = Locks()
        self._life = Life(
            self.name,
            self._memory,
            self._computations,
            self._invalidations,
            self._proofs,
            self.events,
            watching=watching(
                self._scopes,
                self._proofs,
                self._rules,
                self._invalidations,
                watcher,
                strict=self._strict,
                wall=self._clock.wall,
                # What is written there would be a cause to write again.
                ignored=() if store is None or store.path is None else (store.path,),
            ),
            needs_start="watches files" if self._rules else None if store is None else "has a store",
            tier=self._tier,
        )
        self._enter = self._life.enter
        # What a hit touches, bound once.
        self._hits = 0
        self._get = self._memory.entries.get
        self._touch = self._memory.touch
        self._now = self._clock.monotonic
        self.files = Files(self._proofs)
        """What a computation reads through this is recorded as what its value was made from."""

    @classmethod
    def from_config(cls, source: CacheConfig | Mapping[str, Any] | _PathLike) -> Self:
        """Return the cache that a configuration describes.

        Args:
            source: A `CacheConfig`, a mapping, or the path of a YAML file.

        Raises:
            ConfigError: If a field cannot be used; it names file, line and field.
        """
        from shared_prompt_cache.config import load  # noqa: PLC0415 - loaded when used
        from shared_prompt_cache.presets import rules_of  # noqa: PLC0415 - loaded when used

        config = load(source)
        store = None
        if config.persistence.enabled:
            from shared_prompt_cache.stores import SQLiteStore  # noqa: PLC0415 - loaded when used

            store = SQLiteStore(config.persistence.path, max_size_mb=config.persistence.max_size_mb)
        cache = cls(
            config.max_size,
            config.default_ttl,
            max_memory_mb=config.max_memory_mb,
            eviction_policy=config.eviction_policy,  # type: ignore[arg-type] # checked by the configuration
            store=store,
            single_flight=config.single_flight,
            watch=rules_of(config.watch),
            freshness=config.freshness,
            watcher=config.watcher,
            name=config.name,
        )
        cache._computations.enabled = config.enabled
        return cache

    async def start(self) -> None:
        """Open the store and begin to watch; needed where there is a store, or watch rules. Idempotent.

        Returns when no change is missed any more. A store that fails does not: `health()` says so, and it is tried
        again.

        Raises:
            ConfigError: If the store cannot be used as it is set up.
            StoreError: If its folder, or the key file, is not to be trusted, say because others may write to it.
        """
        await self._life.start(self.aclose)

    async def aclose(self) -> None:
        """End flights, watch, listeners and threads, and forget the entries. Who waits gets `CacheClosedError`.

        What is to be written to the store is written first, for 5 seconds at the most.
        """
        if self._blocking is None or not await self._blocking.released():
            await self._life.aclose()

    _blocking: BlockingCache | None = None  # made when it is first asked for

    @property
    def blocking(self) -> BlockingCache:
        """The synchronous face of the cache, for worker threads and plain scripts."""
        if self._blocking is None:
            from shared_prompt_cache._blocking import BlockingCache  # noqa: PLC0415 - loaded when used

            return vars(self).setdefault("_blocking", BlockingCache(self))  # in one step: threads may come together
        return self._blocking

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def get_prompt(self, key: str, *, freshness: Freshness | None = None) -> CachedPrompt | None:
        """Return the entry of `key`, or None; never waits for a computation.

        Args:
            key: The key.
            freshness: `"strict"` or `"events"`, for this call; default: that of the cache.
        """
        try:
            entry = self._get(key)
        except Exception:  # of its hash
            check_key(key)  # it is no string, so this raises
            raise
        if entry is not None and entry.revision == self._scopes.revision and self._now() < entry.deadline:
            self._hits += 1
            self._touch(key)
            if ACTIVE:
                self._lookups.consumed(entry)
            return entry
        if entry is not None and freshness is None and self._lookups.proved(entry, self._strict):
            return entry
        self._enter()
        entry = await self._lookups.find(
            check_key(key), self._strict if freshness is None else check_freshness(freshness)
        )
        if entry is None and self._tier is not None and self._computations.enabled:
            entry = await self._lookups.promote(key, self._strict if freshness is None else freshness == "strict")
        if entry is None:
            self._lookups.misses += 1
            return None
        self._lookups.hit(entry)
        return entry

    @overload
    async def get_or_compute(self, key: str, compute: Telling[T], **options: Unpack[ComputeOptions]) -> T: ...
    @overload
    async def get_or_compute(self, key: str, compute: Compute[T], **options: Unpack[ComputeOptions]) -> T: ...
    async def get_or_compute(
        self,
        key: str,
        compute: Compute[T],
        # For callers these are keyword-only; here they are not, since a hit pays for each such default it leaves out.
        ttl: Span = None,
        metadata: Mapping[str, Any] | None = None,
        agent: str | None = None,
        project: _PathLike | None = None,
        tags: Iterable[str] = (),
        depends_on: Paths = (),
        freshness: Freshness | None = None,
        stale_for: float | timedelta = 0,
        soft_timeout: Span = None,
        hard_timeout: Span = None,
        refresh_ahead: float | None = None,
        cache_errors_for: Span = None,
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
        except Exception:  # of its hash
            check_key(key)  # it is no string, so this raises
            raise
        if (
            entry is not None
            and entry.revision == self._scopes.revision
            and self._now() < entry.deadline
            and refresh_ahead is None
        ):
            self._hits += 1
            self._touch(key)
            if ACTIVE:
                self._lookups.consumed(entry)
            if agent is not None or project is not None or tags:
                self._lookups.compare_labels(entry, agent, project, tags)
            return entry.value
        flight = None
        if entry is None:
            flight = self._flights.table.get(key)
        elif freshness is None and refresh_ahead is None and self._lookups.proved(entry, self._strict):
            self._lookups.compare_labels(entry, agent, project, tags)
            return entry.value
        loop = self._enter()
        if flight is not None and not stale_for and flight.is_untouched(self._scopes.revision):
            self._lookups.shared += 1
            if ACTIVE and (recorder := current()) is not None:
                return await self._lookups.join(flight, recorder)
            waiter = self._flights.queue(loop, flight)  # `Flights.wait` in short: a stampede feels each coroutine
            try:
                await waiter
            except BaseException:
                self._flights.leave(flight, waiter)
                raise
            return flight.result()
        call = Call(
            check_key(key),
            compute,
            self._labelling.labels(agent, project, tags, check_metadata(metadata)),
            Making(self._ttl, ttl, metadata, depends_on, hard_timeout, cache_errors_for),
            self._strict if freshness is None else check_freshness(freshness),
            stale_for,
            soft_timeout,
            refresh_ahead,
        )
        return await self._lookups.serve(call)

    async def get_many(self, keys: Iterable[str]) -> dict[str, CachedPrompt]:
        """Return the entries of those of `keys` that are there; the store is asked for 32 at once."""
        if self._tier is not None and self._computations.enabled:
            self._enter()
            return await self._lookups.find_many(check_keys(keys), self._strict)
        found = {}
        for count, key in enumerate(check_keys(keys), 1):
            if (entry := await self.get_prompt(key)) is not None:
                found[key] = entry
            if count % SLICE == 0:
                await asyncio.sleep(0)
        return found

    async def set_prompt(
        self,
        key: str,
        prompt: Any,
        metadata: Mapping[str, Any] | None = None,
        ttl: Span = None,
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
        making = Making(self._ttl, ttl, metadata, depends_on)
        batch = Batch.joined(self)
        if batch is not None:
            batch.add(key, prompt, labels, making)
            return
        await self._computations.put(key, prompt, labels, making)

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
        keys: Iterable[str] = (),
        compute: Callable[[str], Awaitable[Any]] | None = None,
        *,
        most_used: int = 0,
        concurrency: int = 8,
        on_progress: Progress | None = None,
        **options: Any,
    ) -> WarmReport:
        """Fill keys ahead of use by `await compute(key)`, or from the store; failures are reported, not raised.

        Args:
            keys: The keys; those that are there already are left alone.
            compute: An async function of a key.
            most_used: How many of the entries that were read last are loaded from the store first.
            concurrency: How many are computed at once.
            on_progress: Called after each key with the number of those done, and of all.
            **options: Passed to `get_or_compute`.
        """
        from shared_prompt_cache._warm import warm  # noqa: PLC0415 - loaded when used

        more = partial(warm, most_used=most_used, concurrency=concurrency, on_progress=on_progress)
        return await more(self, keys, compute, **options)

    def cached(self, key: str | Callable[..., str] | None = None, **options: Any) -> Decorator:
        """Return a decorator that caches an async function by its arguments.

        Args:
            key: A prefix, or a function of the arguments that returns the key; default: name and arguments.
            **options: Those of `get_or_compute`; each may be a function of the arguments.
        """
        from shared_prompt_cache._cached import decorator  # noqa: PLC0415 - loaded when used

        return decorator(self, key, options)

    async def invalidate(self, key: str, *, soft: bool = False) -> bool:
        """Remove the entry of `key`, and what was made from it; return whether it was there.

        Args:
            key: The key.
            soft: Let it expire instead, so that `stale_for` may still serve it while it is computed anew.
        """
        self._enter()
        told = self._invalidations.apply("key", check_key(key), cause=ApiCall(verb="invalidate"), soft=soft)
        await self._invalidations.counted(told)
        await self._invalidations.durable()
        return told.found

    async def invalidate_pattern(self, pattern: str, *, soft: bool = False) -> int:
        """Remove the entries whose keys match a shell glob; return how many were dropped here."""
        return await self._invalidate("pattern", check_pattern(pattern), verb="invalidate_pattern", soft=soft)

    async def invalidate_agent(self, agent: str, project: _PathLike | None = None, *, soft: bool = False) -> int:
        """Remove the entries of an agent: in every project, or in one and in none; return how many were dropped."""
        name = agent_id(agent)
        where = None if project is None else check_project(project)
        return await self._invalidate("agent", name, project=where, verb="invalidate_agent", soft=soft)

    async def invalidate_project(self, project: _PathLike, *, soft: bool = False) -> int:
        """Remove the entries of a project, and those that name none; return how many were dropped here."""
        return await self._invalidate("project", check_project(project), verb="invalidate_project", soft=soft)

    async def invalidate_tag(self, tag: str, *, soft: bool = False) -> int:
        """Remove the entries with a tag; return how many were dropped here."""
        (name,) = check_tags((tag,))
        return await self._invalidate("tag", name, verb="invalidate_tag", soft=soft)

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
        self._enter()
        told = self._invalidations.apply(scope, name, project=project, cause=ApiCall(verb=verb), soft=soft)
        dropped = await self._invalidations.counted(told)
        await self._invalidations.durable()
        return dropped

    async def flush(self) -> None:
        """Return when what was kept and invalidated before the call is in the store, as far as the store is in use."""
        self._enter()
        if self._tier is not None:
            await self._tier.flush()

    async def sync(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - part of the public interface
        """Return when every change of a file made before the call has been applied.

        After it, reads see what the caller, or anybody on this machine, has written before it.

        Raises:
            TimeoutError: If that takes longer than `timeout` seconds.
        """
        self._enter()
        async with asyncio.timeout(None if timeout is None else seconds(timeout, "timeout")):
            if self._life.watch is not None:
                await self._life.watch.sync()
        self._enter()  # it may have been closed before all of them were applied

    async def evict_oldest(self, count: int = 1) -> int:
        """Evict up to `count` entries, the least recently used first; return how many went."""
        self._enter()
        wanted, gone = check_count(count, "count", least=0), 0
        while gone < wanted and (went := self._memory.evict(wanted - gone)):
            gone += went
            await asyncio.sleep(0)
        return gone

    def get_stats(self) -> CacheStats:
        """Return the figures of the cache."""
        from shared_prompt_cache._report import stats  # noqa: PLC0415 - loaded when used

        return stats(self)

    def explain(self, key: str) -> Explanation:
        """Return whether `key` is cached, since when and from which files; if not, what removed it."""
        from shared_prompt_cache._report import explain  # noqa: PLC0415 - loaded when used

        return explain(self, check_key(key))

    def health(self) -> Health:
        """Return whether all parts of the cache do what they should."""
        from shared_prompt_cache._report import health  # noqa: PLC0415 - loaded when used

        return health(self)
