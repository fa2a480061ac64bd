"""The memory tier: entries within limits, and the reclaiming of what invalidations took.

Two rules:

1. Nothing here decides by itself what is valid: `Scopes` does. An entry that has fallen is never served, whether it
   has been reclaimed or not.
2. No call does work that grows with the number of entries beyond `SLICE`: more is left for `reclaim`, which the
   cache calls between other work of the loop until it returns False.

An entry that has expired leaves the table for the shelf, where only callers who accept a stale value look.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, MutableMapping
from math import inf
from typing import Final, NamedTuple

from shared_prompt_cache._core.conditions import Condition
from shared_prompt_cache._core.entry import Entry, Origin
from shared_prompt_cache._core.index import Index, Walk
from shared_prompt_cache._core.policies import POLICIES
from shared_prompt_cache._core.scopes import ScopeId, Scopes, Sweep, Verdict
from shared_prompt_cache.events import Invalidation, RemovalReason

SLICE: Final = 128
_AT_ONCE: Final = 512
_MARK_SLICE: Final = 1024  # to count is less work than to reclaim
_DEAD: Final = -inf  # the deadline, which no clock can give, of an entry that has been counted as dropped
_SHELVED: Final = -1.0  # the same of one that has expired
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
        released: Called with the origin of each entry made from files that is not kept any more.
    """

    def __init__(
        self,
        scopes: Scopes,
        policy: str,
        *,
        max_size: int,
        max_bytes: int,
        removed: Callable[[Entry, RemovalReason, Invalidation | None], None],
        released: Callable[[Origin], None],
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
        self._derived = 0  # entries made from other values: they fall by keys and agents that are not their own
        self._sweeps: list[Sweep] = []  # applied, not reclaimed in full, oldest first
        self._jobs: deque[_Job] = deque()
        self._full: Walk | None = None  # a walk over everything, under way
        self._full_since = 0  # the revision when it began
        self._full_wanted = False  # another one has to follow
        self._unowned = 0  # entries without an agent: only those can be taken by the shape of their keys
        self._dying = 0  # counted as dropped, not reclaimed yet

    def __len__(self) -> int:
        return max(0, len(self.entries) - self._dying)

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
        self._unowned += entry.labels.agent is None
        self._derived += _is_derived(entry)
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
        if entry.deadline == _DEAD:
            return  # done when it was counted
        for scope, number in entry.pairs:
            if scope.number == number:
                scope.live -= 1

    def _drop(self, entry: Entry) -> None:
        self.bytes -= entry.size
        self._index.remove(entry)
        self._unowned -= entry.labels.agent is None
        self._derived -= _is_derived(entry)
        if entry.origin is not None and entry.origin.dependencies:
            self._released(entry.origin)

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
        sweep = self._scopes.apply(ids, condition, told, soft_at=soft_at)
        if not sweep.scopes and condition is None:  # nobody stands in a scope that nobody knows
            sweep.counted = True
            return sweep
        live = sum(scope.live for scope in sweep.scopes)
        # Exact if no entry is counted in two scopes of this invalidation, or is dead already by another.
        alone = condition is None and len(sweep.scopes) == 1 and not self._sweeps
        sweep.by_number = alone or (not self._derived and all(other.is_disjoint(sweep) for other in self._sweeps))
        if sweep.by_number:
            sweep.dropped = live
            self._dying += 0 if sweep.soft else live
        if not sweep.soft:
            for scope in sweep.scopes:
                scope.live = 0
        self._sweeps.append(sweep)
        self._plan(sweep, live)
        if len(self.entries) + len(self.shelf) <= _AT_ONCE:
            while self.reclaim():
                pass
        else:
            for _ in range(_AT_ONCE // SLICE):
                if sweep.counted or not self._jobs:
                    break
                self.reclaim()
        if self.has_work:
            self.wake()
        return sweep

    def _plan(self, sweep: Sweep, live: int) -> None:
        """Note which walks are needed to count and to reclaim what an invalidation took."""
        condition = sweep.condition
        if condition is not None and condition.unowned_only and not self._unowned and not self._derived:
            self._scopes.swept(condition)  # there is no entry that it could take
            condition = None
        if not sweep.by_number or (condition is not None and condition.heads is None):
            self._full_wanted = True
            return
        if condition is not None and condition.heads is not None:
            if not sweep.soft:
                self._jobs.append(_Job(sweep, self._index.walk(condition.heads), last=False))
            self._jobs.append(_Job(sweep, self._index.walk(condition.heads), last=True))
        else:
            sweep.counted = True
        if live or self.shelf:
            self._full_wanted = True
        elif condition is None:
            self._sweeps.remove(sweep)

    def fall(self, entry: Entry) -> None:
        """Take out an entry of the table that has been judged fallen, or whose files changed."""
        self.remove(entry, "invalidated", self._credit(entry))

    def expire(self, entry: Entry) -> None:
        """Put `entry`, which has expired, on the shelf."""
        self._credit(entry)
        self.expirations += 1
        del self.entries[entry.key]
        self._uncount(entry)
        entry.deadline = _SHELVED
        self.shelf[entry.key] = entry
        self._removed(entry, "expired", None)

    def _credit(self, entry: Entry) -> Invalidation | None:
        """Count `entry`, which goes, for the first invalidation that took it; return what is told of that."""
        counted = entry.deadline == _DEAD
        self._dying -= counted
        for sweep in self._sweeps:
            if entry.checked < sweep.revision and sweep.took(entry):
                if counted:
                    pass
                elif not sweep.by_number or not sweep.numbered(entry):
                    sweep.dropped += 1
                elif not sweep.soft:
                    self._dying -= 1
                return sweep.told
        return None

    def _mark(self, job: _Job) -> None:
        """Count what the condition of an invalidation takes, and leave it to be reclaimed later.

        The call that invalidates waits for this, so it is written out where a method for each entry would read better.
        """
        sweep, dropped = job.sweep, 0
        assert sweep.condition is not None  # noqa: S101 - as planned
        match_key, matches, revision = sweep.condition.match_key, sweep.condition.matches, sweep.revision
        for entry in job.walk.take(_MARK_SLICE):
            if entry.deadline < 0:
                continue
            if entry.origin is None and match_key is not None:
                if entry.revision >= revision or not match_key(entry.key):
                    continue
            elif entry.checked >= revision or not matches(entry):
                continue
            for scope, number in entry.pairs:
                if scope.number != number:
                    break  # counted by an earlier invalidation
            else:
                for scope, _ in entry.pairs:
                    scope.live -= 1
                entry.deadline = _DEAD
                dropped += 1
        sweep.dropped += dropped
        self._dying += dropped

    def _bury(self, job: _Job) -> None:
        """Reclaim what has been counted for an invalidation."""
        sweep = job.sweep
        for entry in job.walk.take(SLICE):
            if entry.deadline == _DEAD and sweep.took(entry):
                self._dying -= 1
                self.remove(entry, "invalidated", sweep.told)
            else:
                self._visit(entry)

    def _visit(self, entry: Entry) -> None:
        """Reclaim `entry` if an invalidation took it."""
        revision = self._scopes.revision
        if entry.checked == revision:
            return
        verdict = self._scopes.judge(entry)
        shelved = entry.deadline == _SHELVED
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
        return bool(self._jobs) or self._full is not None or self._full_wanted or self._over()

    def reclaim(self) -> bool:
        """Do a slice of what is left to do; return whether more is left."""
        if self._jobs:
            job = self._jobs[0]
            if job.last:
                self._bury(job)
            else:
                self._mark(job)
            if job.walk.over:
                self._jobs.popleft()
                self._job_done(job)
        elif self._full is not None or self._full_wanted:
            if self._full is None:
                self._full, self._full_since, self._full_wanted = self._index.walk(), self._scopes.revision, False
            for entry in self._full.take(SLICE):
                self._visit(entry)
            if self._full.over:
                self._full = None
                self._full_done()
        elif self._over():
            self._make_room()
        return self.has_work

    def _job_done(self, job: _Job) -> None:
        sweep = job.sweep
        # What a later invalidation took first, of those that only a walk can count, is counted by that walk.
        if all(later.by_number or later.revision < sweep.revision for later in self._sweeps):
            sweep.counted = True
        if job.last:
            if sweep.condition is not None:
                self._scopes.swept(sweep.condition)
            walked = self._full_wanted or (self._full is not None and self._full_since >= sweep.revision)
            if not walked and sweep in self._sweeps:
                self._sweeps.remove(sweep)

    def _full_done(self) -> None:
        for sweep in self._sweeps:
            if sweep.revision <= self._full_since:
                sweep.counted = True
                if sweep.condition is not None:
                    self._scopes.swept(sweep.condition)
        self._sweeps = [sweep for sweep in self._sweeps if sweep.revision > self._full_since]
        if not self.entries:
            self.entries.clear()  # the table of an empty dict stays as large as it was, unless this gives it back


def _is_derived(entry: Entry) -> bool:
    """Return whether `entry` was made from other cached values, so that it is in more scopes than its labels say."""
    return len(entry.pairs) > len(entry.labels.scopes)


def _nobody() -> None:
    """Nobody reclaims; whoever uses the memory tier alone calls `reclaim` by hand."""


class _Job(NamedTuple):
    """A walk over the entries that the condition of one invalidation can match.

    Attributes:
        sweep: The invalidation.
        walk: The walk.
        last: Whether it reclaims; else it only counts.
    """

    sweep: Sweep
    walk: Walk
    last: bool
