"""Scopes with numbers: the one idea that decides what is valid.

A scope (all, a project, an agent, an agent in a project, a tag, a key that something was made from) is an object
with one integer, alive while somebody uses it. A computation notes its scopes with their numbers before it begins;
flight and entry keep the pairs. To invalidate is to give the scope a new number. A value stands while every pair
still matches, and no condition (a glob, an agent's key shapes, a file) younger than its last judgement matches it.

Numbers come from one counter, the revision, that moves with every invalidation and every doubt. So a number also
tells when the scope was last invalidated, and "nothing happened since" is one comparison.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from enum import Enum, auto
from typing import Any, Final
from weakref import WeakValueDictionary

from shared_prompt_cache._core.conditions import Condition, Subject
from shared_prompt_cache.events import Invalidation

ScopeId = tuple[str, ...]
ALL: Final[ScopeId] = ("all",)
_MOST_REMEMBERED: Final = 10_000


class Scope:
    """One thing that can be invalidated.

    Attributes:
        id: What it is: kind and names.
        number: The revision of its last invalidation, 0 before the first.
        softened: The revision of its last soft invalidation.
        soft_at: The moment of that one, by the monotonic clock.
        live: How many entries in memory stand in it.
        last: The last invalidation, for explanations.
    """

    __slots__ = ("__weakref__", "id", "last", "live", "number", "soft_at", "softened")

    def __init__(self, scope_id: ScopeId) -> None:
        self.id = scope_id
        self.number = 0
        self.softened = 0
        self.soft_at = 0.0
        self.live = 0
        self.last: Invalidation | None = None


Pairs = tuple[tuple[Scope, int], ...]


class Verdict(Enum):
    """What `Scopes.judge` finds."""

    STANDS = auto()
    FALLEN = auto()
    DOUBTED = auto()


class Doubt:
    """A question that is being answered: entries it touches may not be served until it is settled.

    Attributes:
        ids: The scopes in question.
        conditions: What else is.
        settled: An awaitable of the caller's making, never looked at here.
    """

    __slots__ = ("conditions", "ids", "settled")

    def __init__(self, ids: Collection[ScopeId], conditions: Collection[Condition], settled: Any) -> None:
        self.ids = frozenset(ids)
        self.conditions = conditions
        self.settled = settled

    def touches(self, subject: Subject) -> bool:
        """Return whether `subject` is in question."""
        return any(scope.id in self.ids for scope, _ in subject.pairs) or any(
            condition.matches(subject) for condition in self.conditions
        )


class Sweep:
    """One applied invalidation, until what it took is reclaimed.

    Attributes:
        revision: When it was applied.
        scopes: The scopes that got a new number.
        condition: What it selects besides.
        told: What explanations say of it.
        soft: Whether it expires instead of removing.
        dropped: How many entries it took, as far as counted.
        by_number: Whether what its scopes took was counted when it was applied, by the figures of the scopes.
        counted: Whether `dropped` is final.
    """

    __slots__ = ("by_number", "condition", "counted", "dropped", "revision", "scopes", "soft", "told")

    def __init__(
        self,
        revision: int,
        scopes: frozenset[Scope],
        condition: Condition | None,
        told: Invalidation | None,
        *,
        soft: bool,
    ) -> None:
        self.revision = revision
        self.told = told
        self.scopes = scopes
        self.condition = condition
        self.soft = soft
        self.dropped = 0
        self.by_number = False
        self.counted = False

    def is_disjoint(self, later: Sweep) -> bool:
        """Return whether it is certain that the figures of the scopes of `later` hold nothing which this one takes.

        Agents are such scopes, each by itself; whether an entry is in two others, only a look at it can tell.
        """
        if self.soft or later.soft or not self.by_number:
            return False
        pending = self.condition is not None and not self.counted
        if pending and self.condition is not None and self.condition.heads is None:
            return False
        if not later.scopes or not (self.scopes or pending):
            return True
        return all(
            len(scope.id) == 2 and scope.id[0] == "agent"  # noqa: PLR2004 - ("agent", id)
            for scope in self.scopes | later.scopes
        ) and bool(self.scopes)

    def numbered(self, subject: Subject) -> bool:
        """Return whether `subject` is in one of its scopes."""
        return any(scope in self.scopes for scope, _ in subject.pairs)

    def took(self, subject: Subject) -> bool:
        """Return whether it selects `subject`, which was last judged before it."""
        return self.numbered(subject) or (self.condition is not None and self.condition.matches(subject))


class Scopes:
    """All scopes of one cache, and the revision.

    Attributes:
        revision: Moves with every invalidation and every doubt.
        floor: Computations that began before this revision are not published: what came after them is forgotten.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.floor = 0
        self._alive: WeakValueDictionary[ScopeId, Scope] = WeakValueDictionary()
        self._conditions: list[Condition] = []  # oldest first
        self._doubts: list[Doubt] = []
        self._open: dict[object, int] = {}  # computations under way, oldest first
        # What a computation under way may learn at its end that it had to know, oldest first, kept alive here.
        self._remembered: deque[tuple[int, Scope | Condition]] = deque()

    def scope(self, scope_id: ScopeId) -> Scope:
        """Return the scope with this id, made now if nobody uses it."""
        found = self._alive.get(scope_id)
        if found is None:
            self._alive[scope_id] = found = Scope(scope_id)
        return found

    def begin(self, computation: object) -> int:
        """Note that a computation begins; return the revision that it may count on."""
        self._open[computation] = revision = self.revision
        return revision

    def end(self, computation: object) -> None:
        """Note that a computation is over; forget what only it had to know."""
        self._open.pop(computation, None)
        if self._remembered:
            self._forget()

    def _forget(self) -> None:
        remembered = self._remembered
        oldest = next(iter(self._open.values()), self.revision)
        if len(remembered) > _MOST_REMEMBERED:
            oldest = self.floor = self.revision
        while remembered and remembered[0][0] <= oldest:
            remembered.popleft()
        self._drop_conditions(oldest)

    def _drop_conditions(self, oldest: int) -> None:
        if self._conditions:
            self._conditions = [c for c in self._conditions if not c.swept or c.number > oldest]

    def apply(
        self,
        ids: Iterable[ScopeId],
        condition: Condition | None = None,
        told: Invalidation | None = None,
        *,
        soft_at: float | None = None,
    ) -> Sweep:
        """Invalidate scopes and what a condition selects, in one step.

        Args:
            ids: The scopes.
            condition: What else.
            told: What explanations say of it.
            soft_at: The moment to expire at, for a soft invalidation; None: remove.
        """
        self.revision = revision = self.revision + 1
        remember = bool(self._open)
        scopes = []
        for scope_id in ids:
            scope = self.scope(scope_id) if remember else self._alive.get(scope_id)
            if scope is None:
                continue
            if soft_at is None:
                scope.number = revision
            else:
                scope.softened, scope.soft_at = revision, soft_at
            scope.last = told
            scopes.append(scope)
            if remember:
                self._remembered.append((revision, scope))
        if condition is not None:
            condition.number, condition.soft_at, condition.last = revision, soft_at, told
            self._conditions.append(condition)
            if remember:
                self._remembered.append((revision, condition))
        if len(self._remembered) > _MOST_REMEMBERED:
            self._forget()
        return Sweep(revision, frozenset(scopes), condition, told, soft=soft_at is not None)

    def swept(self, condition: Condition) -> None:
        """Note that no entry is left which `condition` could still take."""
        condition.swept = True
        self._drop_conditions(next(iter(self._open.values()), self.revision))

    def move(self) -> int:
        """Move the revision because files are in doubt: whatever depends on some is looked at again."""
        self.revision += 1
        return self.revision

    def doubt(self, doubt: Doubt) -> None:
        """Put what `doubt` touches in question."""
        self.revision += 1
        self._doubts.append(doubt)

    def settle(self, doubt: Doubt) -> None:
        """Answer it; what it raised has been applied before."""
        if doubt in self._doubts:
            self._doubts.remove(doubt)

    def doubts_about(self, subject: Subject) -> Doubt | None:
        """Return the oldest question about `subject`."""
        return next((doubt for doubt in self._doubts if doubt.touches(subject)), None)

    def judge(self, subject: Subject) -> Verdict:
        """Tell whether `subject` stands at the current revision; carry soft invalidations out on it."""
        checked = subject.checked
        for scope, number in subject.pairs:
            if scope.number != number:
                return Verdict.FALLEN
            if scope.softened > checked:
                subject.soften(scope.soft_at)
        for condition in reversed(self._conditions):
            if condition.number <= checked:
                break
            if condition.matches(subject):
                if condition.soft_at is None:
                    return Verdict.FALLEN
                subject.soften(condition.soft_at)
        if self._doubts and self.doubts_about(subject) is not None:
            return Verdict.DOUBTED
        return Verdict.STANDS

    def touched_since(self, scope_id: ScopeId, since: int) -> bool:
        """Return whether a scope was invalidated after the revision `since`, at which a computation began."""
        scope = self._alive.get(scope_id)
        return scope is not None and scope.number > since

    def softened_since(self, scope_id: ScopeId, since: int) -> float | None:
        """Return the moment at which a scope was invalidated softly after the revision `since`, None if it was not."""
        scope = self._alive.get(scope_id)
        return scope.soft_at if scope is not None and scope.softened > since else None

    def note_late(self, ids: Iterable[ScopeId], since: int) -> Pairs | None:
        """Return scopes that a computation learns of at its end, with the numbers it would have noted.

        None if one of them was invalidated since the revision `since`, or if that can no longer be told.
        """
        if since < self.floor:
            return None
        pairs = []
        for scope_id in ids:
            scope = self.scope(scope_id)
            if scope.number > since:
                return None
            pairs.append((scope, scope.number))
        return tuple(pairs)

    def why(self, subject: Subject) -> Invalidation | None:
        """Return the invalidation that made `subject` fall, None if it stands."""
        for scope, number in subject.pairs:
            if scope.number != number:
                return scope.last
        for condition in self._conditions:
            if condition.number > subject.checked and condition.soft_at is None and condition.matches(subject):
                return condition.last
        return None

    @property
    def figures(self) -> dict[str, int]:
        """Sizes of what is kept, for `health()` and tests of bounds."""
        return {
            "scopes": len(self._alive),
            "conditions": len(self._conditions),
            "doubts": len(self._doubts),
            "open": len(self._open),
            "remembered": len(self._remembered),
        }
