"""What the cache says of itself: its figures, what became of a key, and whether its parts do what they should."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from shared_prompt_cache._core.scopes import Verdict
from shared_prompt_cache._core.stats import CacheStats, Explanation, Health, PartHealth, explain_entry, ratio

if TYPE_CHECKING:
    from shared_prompt_cache.cache import SharedPromptCache


def stats(cache: SharedPromptCache) -> CacheStats:
    """Return the figures of the cache."""
    lookups, memory, computations = cache._lookups, cache._memory, cache._computations
    hits, misses = cache._hits + lookups.hits, lookups.misses
    return CacheStats(
        hit_rate=ratio(hits, hits + misses),
        miss_rate=ratio(misses, hits + misses),
        eviction_rate=ratio(memory.evictions, computations.sets),
        memory_usage_mb=memory.bytes / (1024 * 1024),
        entry_count=len(memory),
        eviction_count=memory.evictions,
        hits=hits,
        misses=misses,
        sets=computations.sets,
        computations=computations.begun,
        shared_computations=lookups.shared,
        stale_served=lookups.stale_served,
        expirations=memory.expirations,
        dropped_values=computations.refused,
        invalidations=dict(cache._invalidations.counts),
        store={} if cache._tier is None else cache._tier.figures,
        watcher={} if cache._life.watch is None else cache._life.watch.figures,
    )


def explain(cache: SharedPromptCache, key: str) -> Explanation:
    """Return what is there under `key`, or what removed it."""
    entry = cache._memory.entries.get(key) or cache._memory.shelf.get(key)
    if entry is not None and cache._scopes.judge(entry) is Verdict.FALLEN:
        cache._history.removed(entry, "invalidated", cache._scopes.why(entry))
        entry = None
    explanation = explain_entry(key, entry, key in cache._flights.table, cache._history)
    reason = None if cache._tier is None else cache._tier.reasons.get(key)
    return explanation if reason is None else replace(explanation, memory_only=reason)


def health(cache: SharedPromptCache) -> Health:
    """Return the state of each part, and of the whole."""
    parts = {"memory": PartHealth(status="ok")}
    if cache._tier is not None:
        parts["store"] = cache._tier.health()
    if cache._life.watch is not None:
        parts |= cache._life.watch.health()
    degraded = any(part.status == "degraded" for part in parts.values())
    return Health(status="degraded" if degraded else "ok", parts=parts, unwatched=cache._proofs.unwatched)
