"""What a cache tells of itself: figures, state of health, and why a key is there or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache._core.history import History
from shared_prompt_cache.events import Invalidation


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats(Mapping[str, Any]):
    """Figures of a cache since it was made, as attributes and as a mapping.

    Attributes:
        hit_rate: Hits among all lookups, 0.0 to 1.0; 0.0 before the first lookup.
        miss_rate: Misses among all lookups.
        eviction_rate: Evictions among all values stored.
        memory_usage_mb: What the entries count for, in MiB.
        entry_count: Entries in memory.
        eviction_count: Entries that went for want of room.
        hits: Lookups answered from the cache.
        misses: Lookups that were not.
        sets: Values stored.
        computations: Computations begun.
        shared_computations: Callers who were served by a computation that another had begun.
        stale_served: Expired values served to callers who accept them.
        expirations: Entries found expired.
        dropped_values: Values not kept, because an invalidation or a change of a file overtook them, or for want of
            room.
        invalidations: Invalidations by scope.
        store: Figures of the store, empty without one: `hits` and `misses` of keys that memory did not have; rows that
            were `written`; values not written because an invalidation overtook them (`refused`), or for want of room
            or of a store (`dropped`); rows that could not be read (`corrupt`); and what waits to be written now:
            values (`queued`), and invalidations that others do not know yet (`pending_invalidations`).
        watcher: Figures of the watcher, empty without one.
    """

    hit_rate: float
    miss_rate: float
    eviction_rate: float
    memory_usage_mb: float
    entry_count: int
    eviction_count: int
    hits: int
    misses: int
    sets: int
    computations: int
    shared_computations: int
    stale_served: int
    expirations: int
    dropped_values: int
    invalidations: Mapping[str, int]
    store: Mapping[str, Any] = field(default_factory=dict)
    watcher: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name not in _STATS:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(_STATS)

    def __len__(self) -> int:
        return len(_STATS)


_STATS: Final = {f.name: None for f in fields(CacheStats)}


def ratio(part: int, whole: int) -> float:
    """Return `part / whole`, 0.0 of nothing."""
    return part / whole if whole else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHealth:
    """The state of one part of a cache.

    Attributes:
        status: `"ok"` or `"degraded"`.
        reason: What is wrong, None if nothing is.
        since: Since when, in seconds since the epoch.
    """

    status: Literal["ok", "degraded"]
    reason: str | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The state of a cache.

    Attributes:
        status: `"degraded"` if one part is, else `"ok"`.
        parts: The parts in use, by name: `"memory"`, `"store"`, `"watcher"`, one `"root:<path>"` for each watched root.
        unwatched: Files that entries depend on and no watcher covers; they are verified at each read.
    """

    status: Literal["ok", "degraded"]
    parts: Mapping[str, PartHealth]
    unwatched: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a key is in the cache, or is not. `str()` of it is for people.

    Attributes:
        key: The key.
        state: `"cached"`, `"expired"`, `"computing"`, `"removed"`, `"not kept"` or `"unknown"`.
        since: When it was cached or removed, in seconds since the epoch.
        expires_at: When it will expire, if it is cached.
        agent: The agent it is filed under.
        project: The project.
        tags: The tags.
        dependencies: The files it was made from.
        reason: What removed it, or kept it out.
        invalidation: The invalidation that removed it.
        chain: The steps from the first cause to the key, one sentence each.
        memory_only: Why the store cannot keep the value, None if nothing is known of that.
    """

    key: str
    state: Literal["cached", "expired", "computing", "removed", "not kept", "unknown"]
    since: float | None = None
    expires_at: float | None = None
    agent: str | None = None
    project: str | None = None
    tags: frozenset[str] = frozenset()
    dependencies: tuple[str, ...] = ()
    reason: str | None = None
    invalidation: Invalidation | None = None
    chain: tuple[str, ...] = ()
    memory_only: str | None = None

    def __str__(self) -> str:
        lines = [f"{self.key!r} is {self.state}" + (f": {self.reason}" if self.reason else "")]
        lines += [f"  {step}" for step in self.chain]
        lines += [f"  made from {path}" for path in self.dependencies]
        lines += [f"  in memory alone: {self.memory_only}"] if self.memory_only else []
        return "\n".join(lines)


def explain_entry(key: str, entry: Entry | None, computing: bool, history: History) -> Explanation:  # noqa: FBT001
    """Return the explanation of a key from its entry, if it has one that stands, or from what became of it."""
    if entry is not None:
        return Explanation(
            key=key,
            state="expired" if entry.stale else "cached",
            since=entry.created_at,
            expires_at=entry.expires_at,
            agent=entry.agent,
            project=entry.project,
            tags=entry.tags,
            dependencies=entry.dependencies,
        )
    gone = history.get(key)
    if computing:
        return Explanation(key=key, state="computing", reason=None if gone is None else gone.reason)
    if gone is None:
        return Explanation(key=key, state="unknown", reason="it was never cached here, or that is long forgotten")
    steps: tuple[str, ...] = ()
    invalidation = gone.invalidation
    if invalidation is not None:
        steps = (str(invalidation.cause), f"which {invalidation} (event {invalidation.sequence})")
    if gone.sources:
        steps += (f"and with it {', '.join(map(repr, gone.sources))}, of which it was made",)
    return Explanation(
        key=key, state=gone.state, since=gone.at, reason=gone.reason, invalidation=invalidation, chain=steps
    )
