"""The memory tier: entries within limits, and the reclaiming of what invalidations took.

Two rules:

1. Nothing here decides by itself what is valid: `Scopes` does. An entry that has fallen is never served, whether it
   has been reclaimed or not.
2. No call does work that grows with the number of entries beyond `SLICE`: more is left for `reclaim`, which the
   cache calls between other work of the loop until it returns False.

An entry that has expired leaves the table for the shelf, where only callers who accept a stale value look.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, MutableMapping
from typing import Final

from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache._core.index import Index, Walk
from shared_prompt_cache._core.policies import POLICIES
from shared_prompt_cache._core.scopes import Condition, ScopeId, Scopes, Sweep, Verdict
from shared_prompt_cache.events import Invalidation, RemovalReason

SLICE: Final = 256
_AT_ONCE: Final = 2048
ENTRY_OVERHEAD: Final = 320
"""What an entry counts for in bytes beside its key, value and metadata."""


class Memory:
    """Entries by key, within a number and a number of bytes.

    Attributes:
        entries: The table; the hit path looks here.
        touch: What a hit calls with its key.
        shelf: Expired entries that may still be served as stale.
        bytes: What table and shelf count for.
        evictions: How many entries had to go for want of room.
        expirations: How many expired.
        wake: Called when there is work for `reclaim`.

    Args:
        removed: Called with each entry that leaves the table, the reason, and the invalidation if it is of its key.
        released: Called with each entry made from files that is not kept any more.
    """

    def __init__(
        self,
        scopes: Scopes,
        policy: str,
        *,
        max_size: int,
        max_bytes: int,
        removed: Callable[[Entry, RemovalReason, Invalidation | None], None],
        released: Callable[[Entry], None],
    ) -> None:
        self._scopes = scopes
        self._policy = POLICIES[policy]()
        self.entries: MutableMapping[str, Entry] = self._policy.entries
        self.touch = self._policy.touch
        self.shelf: OrderedDict[str, Entry] = OrderedDict()
        self.bytes = 0
        self.evictions = 0
        self.expirations = 0
        self.wake: Callable[[], None] = _nobody
        self._max_size = max_size
        self._max_bytes = max_bytes
        self._removed = removed
        self._released = released
        self._index = Index()
        self._derived = 0  # entries made from other entries: they fall by keys that are not their own
        self._sweeps: list[Sweep] = []  # applied, not reclaimed in full, oldest first
        self._jobs: deque[_Job] = deque()
        self._dying = 0  # counted as dropped, not reclaimed yet

    def __len__(self) -> int:
        return max(0, len(self.entries) - self._dying)

    # What is put in and taken out.

    def put(self, entry: Entry) -> bool:
        """Keep `entry`, in the place of an older one of its key; return False if it is larger than all the room.

        The older one goes in any case.
        """
        key = entry.key
        old = self.entries.get(key)
        if entry.size > self._max_bytes:
            if old is not None:
                self.remove(old, "replaced")
            self.unshelve(key)
            return False
        if old is not None:
            self._credit(old)
            self._uncount(old)
            self._drop(old)
            self._removed(old, "replaced", None)
        elif self.shelf:
            self.unshelve(key)
        self.entries[key] = entry
        if old is not None:
            self.touch(key)
        self.bytes += entry.size
        self._index.add(entry)
        for scope, number in entry.pairs:
            if scope.number == number:
                scope.live += 1
        if entry.origin is not None and entry.origin.consumed:
            self._derived += 1
        if self._over():
            self._make_room()
            if self.has_work:
                self.wake()
        return True

    def remove(self, entry: Entry, reason: RemovalReason, told: Invalidation | None = None) -> None:
        """Take `entry` out of the table; it must be there. `told` is the invalidation of just this key."""
        del self.entries[entry.key]
        self._uncount(entry)
        self._drop(entry)
        self._removed(entry, reason, told)

    def unshelve(self, key: str) -> None:
        """Forget the expired entry of `key`, if there is one."""
        entry = self.shelf.pop(key, None)
        if entry is not None:
            self._drop(entry)

    def evict(self, count: int) -> int:
        """Evict the `count` entries that would go next, `SLICE` at the most; return how many went."""
        gone = 0
        while gone < min(count, SLICE) and (key := self._policy.victim()) is not None:
            self._evict(key)
            gone += 1
        return gone

    def _over(self) -> bool:
        return len(self.entries) + len(self.shelf) > self._max_size or self.bytes > self._max_bytes

    def _make_room(self) -> None:
        for _ in range(SLICE):
            if self.shelf:
                self._drop(self.shelf.popitem(last=False)[1])
            elif (key := self._policy.victim()) is not None:
                self._evict(key)
            if not self._over():
                return

    def _evict(self, key: str) -> None:
        entry = self.entries[key]
        if self._scopes.judge(entry) is Verdict.FALLEN:
            self.fall(entry)
        elif entry.stale:
            self.remove(entry, "expired")
        else:
            self.evictions += 1
            self.remove(entry, "evicted")

    def _uncount(self, entry: Entry) -> None:
        for scope, number in entry.pairs:
            if scope.number == number:
                scope.live -= 1

    def _drop(self, entry: Entry) -> None:
        self.bytes -= entry.size
        self._index.remove(entry)
        if entry.origin is not None:
            if entry.origin.consumed:
                self._derived -= 1
            if entry.origin.dependencies:
                self._released(entry)

    # What invalidations take.

    def invalidate(
        self,
        ids: Iterable[ScopeId],
        condition: Condition | None = None,
        told: Invalidation | None = None,
        *,
        soft_at: float | None = None,
    ) -> Sweep:
        """Apply an invalidation, and reclaim what it took as far as that is little work.

        Until the sweep that is returned says `counted`, `reclaim` has to be called to know what was dropped.
        """
        alone = not self._sweeps and not self._derived
        sweep = self._scopes.apply(ids, condition, told, soft_at=soft_at)
        live = sum(scope.live for scope in sweep.scopes)
        if alone:
            # Exact: no entry is in two of the scopes that one invalidation names, and none is dead already.
            sweep.dropped, sweep.by_number = live, True
        if soft_at is None:
            for scope in sweep.scopes:
                scope.live = 0
            if sweep.by_number:
                self._dying += live
        self._sweeps.append(sweep)
        if alone and (condition is None or condition.heads is not None):
            if condition is not None and condition.heads is not None:
                self._jobs.append(_Job(self._index.walk(condition.heads), counts=sweep))
            else:
                sweep.counted = True
            if live:
                self._jobs.append(_Job(None))
        else:
            self._jobs.append(_Job(None))
        most = _AT_ONCE
        while most > 0 and self.reclaim():
            most -= SLICE
        if self.has_work:
            self.wake()
        return sweep

    def fall(self, entry: Entry) -> None:
        """Take out an entry of the table that has been judged fallen."""
        self._credit(entry)
        self.remove(entry, "invalidated")

    def expire(self, entry: Entry) -> None:
        """Put `entry`, which has expired, on the shelf."""
        self._credit(entry)
        self.expirations += 1
        del self.entries[entry.key]
        self._uncount(entry)
        self.shelf[entry.key] = entry
        self._removed(entry, "expired", None)

    def _credit(self, entry: Entry) -> None:
        """Count `entry` for the first invalidation that took it."""
        for sweep in self._sweeps:
            if entry.checked < sweep.revision and sweep.took(entry):
                if not sweep.by_number or not sweep.numbered(entry):
                    sweep.dropped += 1
                elif not sweep.soft:
                    self._dying -= 1
                return

    def _visit(self, entry: Entry) -> None:
        revision = self._scopes.revision
        if entry.checked == revision:
            return
        verdict = self._scopes.judge(entry)
        shelved = self.shelf.get(entry.key) is entry
        if verdict is Verdict.FALLEN:
            if shelved:
                self.unshelve(entry.key)
            else:
                self.fall(entry)
        elif not shelved and any(
            sweep.soft and entry.checked < sweep.revision and sweep.took(entry) for sweep in self._sweeps
        ):
            self.expire(entry)
        elif verdict is Verdict.STANDS and entry.origin is None:
            entry.judged(revision)

    @property
    def has_work(self) -> bool:
        """Whether `reclaim` has something to do."""
        return bool(self._jobs) or self._over()

    def reclaim(self) -> bool:
        """Do a slice of what is left to do; return whether more is left."""
        if self._jobs:
            job = self._jobs[0]
            if job.walk is None:
                job.walk, job.since = self._index.walk(), self._scopes.revision
            if not job.walk.step(self._visit, SLICE):
                self._jobs.popleft()
                self._walked(job)
        elif self._over():
            self._make_room()
        return self.has_work

    def _walked(self, job: "_Job") -> None:
        if job.counts is not None:
            job.counts.counted = True
            if job.counts.condition is not None:
                self._scopes.swept(job.counts.condition)
            if job.counts in self._sweeps and not any(rest.walk is None for rest in self._jobs):
                self._sweeps.remove(job.counts)
            return
        for sweep in self._sweeps:
            if sweep.revision <= job.since:
                sweep.counted = True
                if sweep.condition is not None:
                    self._scopes.swept(sweep.condition)
        self._sweeps = [sweep for sweep in self._sweeps if sweep.revision > job.since]
        # Later walks that were asked for by then have nothing left to find.
        while self._jobs and self._jobs[0].counts is None and not self._sweeps:
            self._jobs.popleft()


def _nobody() -> None:
    """Nobody reclaims; whoever uses the memory tier alone calls `reclaim` by hand."""


class _Job:
    """A walk that has to be made: over all entries, or over those that one condition can match.

    Attributes:
        walk: The walk; None: over all, not begun.
        counts: The sweep whose count is final when the walk is done.
        since: The revision when it began.
    """

    __slots__ = ("counts", "since", "walk")

    def __init__(self, walk: Walk | None, *, counts: Sweep | None = None) -> None:
        self.walk = walk
        self.counts = counts
        self.since = 0
