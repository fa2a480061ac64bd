"""One invalidation: methods, changes of files and other causes take this one road.

Numbers move, the flight of a key is detached and the entries that went are known to be gone, all in one synchronous
stretch (`apply`). Subscribers are told when it has been counted what went, in the order of the invalidations; memory is
reclaimed behind it, in slices between other work of the loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from shared_prompt_cache._bus import Bus
from shared_prompt_cache._computation import Computations
from shared_prompt_cache._core.conditions import Condition, file_condition, glob_condition, shapes_condition
from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache._core.filing import Target, agent_ids, project_ids
from shared_prompt_cache._core.history import History
from shared_prompt_cache._core.memory import Memory
from shared_prompt_cache._core.scopes import ALL, ScopeId, Scopes, Sweep, Verdict
from shared_prompt_cache._files.projects import Labelling
from shared_prompt_cache.clock import Clock
from shared_prompt_cache.events import Cause, Invalidation, Removal, RemovalReason, ScopeKind

if TYPE_CHECKING:
    from shared_prompt_cache._tier.tier import Tier
    from shared_prompt_cache.stores import Selection


class Announcement:
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


class Invalidations:
    """The invalidations of one cache.

    Attributes:
        counts: How many there were, by scope.
    """

    def __init__(
        self,
        name: str,
        scopes: Scopes,
        memory: Memory,
        computations: Computations,
        labelling: Labelling,
        events: Bus,
        clock: Clock,
        tier: Tier | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._scopes = scopes
        self._memory = memory
        memory.wake = self._wake
        self._computations = computations
        self._flights = computations.flights
        self._labelling = labelling
        self._events = events
        self._clock = clock
        self._tier = tier
        if tier is not None:
            tier.follows(self.apply)
        self._now = clock.monotonic
        self._origin = f"{socket.gethostname()}:{os.getpid()}:{name}:{id(self):x}"
        self._sequence = 0
        self._announcements: deque[Announcement] = deque()
        self._reclaiming: asyncio.Handle | None = None

    def apply(
        self,
        scope: ScopeKind,
        name: str | None,
        *,
        project: str | None = None,
        cause: Cause,
        soft: bool = False,
        journalled: Selection | None = None,
    ) -> Announcement:
        """Put an invalidation in force. It is final when this returns; telling and reclaiming follow behind.

        Args:
            scope: What is invalidated.
            name: Which one.
            project: The project that an agent's invalidation is limited to.
            cause: Why.
            soft: Whether entries expire instead.
            journalled: What the store was told that it selects, if others have invalidated.
        """
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
        if condition is not None:
            self._computations.forget_failures(condition)  # once the entries are swept the condition is forgotten
        sweep = self._memory.invalidate(ids, condition, told, soft_at=soft_at)
        if self._tier is not None:
            self._tier.announce(told, self._selection(scope, name, project), journalled)
        self.counts[scope] += 1
        announcement = Announcement(told, sweep, found=found)
        self._announcements.append(announcement)
        self.announce()
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

    def _selection(self, scope: ScopeKind, name: str | None, project: str | None) -> Selection:
        """Return what an invalidation selects in a store: the same that `_select` does here."""
        from shared_prompt_cache.stores import _selection as selections  # noqa: PLC0415 - loaded where there is a store

        if scope == "agent" and name is not None:
            names = None if project is None else self._labelling.of_target(project)
            return selections.select_agent(agent_ids(name, names), name, names)
        if scope == "pattern" and name is not None:
            return selections.select_pattern(name)
        if scope == "file" and name is not None:
            return selections.select_file(name)
        return selections.select_scopes(self._select(scope, name, project)[0])

    async def durable(self) -> None:
        """Return when what was invalidated is journalled by the store, if there is one that is in use."""
        if self._tier is not None:
            await self._tier.durable()

    def select_target(self, target: Target) -> tuple[tuple[ScopeId, ...], Condition | None]:
        return self._select(target.scope, target.name, target.project)

    def _remove_key(self, key: str, told: Invalidation, soft_at: float | None) -> bool:
        """Remove, or expire, the entry and the flight of one key; return whether there was an entry."""
        flight = self._flights.table.get(key)
        entry = self._memory.entries.get(key)
        found = entry is not None and self._scopes.judge(entry) is not Verdict.FALLEN and self._now() < entry.expires
        self._computations.forget_failure(key)
        if soft_at is not None:
            if flight is not None:
                flight.soften(soft_at)
            if found and entry is not None:
                entry.soften(soft_at)
                self._memory.expire(entry)
            return found
        if flight is not None and flight.task is not None:
            self._flights.detach(flight, "it was invalidated while it was computed")
        if entry is not None:
            self._memory.remove(entry, "invalidated", told)
        self._memory.unshelve(key)
        return found

    def raise_targets(self, targets: Sequence[tuple[Target, Cause]]) -> None:
        """Put in force what changes of files invalidate, all of it in one stretch."""
        for target, cause in targets:
            self.apply(target.scope, target.name, project=target.project, cause=cause)

    async def counted(self, announcement: Announcement) -> int:
        while not announcement.sweep.counted:  # noqa: ASYNC110 - each pass of the loop reclaims a slice
            # The invalidation is in force. Only the count is waited for: a cancelled caller changes nothing.
            await asyncio.sleep(0)
        return announcement.dropped

    def _wake(self) -> None:
        """See to it that what is left to reclaim is reclaimed between other work of the loop."""
        if self._reclaiming is None and self._memory.has_work:
            self._reclaiming = asyncio.get_running_loop().call_soon(self._reclaim)

    def _reclaim(self) -> None:
        self._reclaiming = None
        self._memory.reclaim()
        self.announce()
        self._wake()

    def announce(self) -> None:
        """Tell subscribers of what has been counted, in the order in which it was applied."""
        while self._announcements and self._announcements[0].sweep.counted:
            announcement = self._announcements.popleft()
            self._events.publish(replace(announcement.told, dropped=announcement.dropped))

    async def drain(self) -> None:
        """Forget all entries, tell what is left to tell, and stop."""
        self._memory.invalidate((ALL,))
        while self._memory.reclaim():  # noqa: ASYNC110 - a slice in each pass of the loop
            await asyncio.sleep(0)
        self.announce()
        if self._reclaiming is not None:
            self._reclaiming.cancel()
            self._reclaiming = None


def note_removal(history: History, events: Bus, entry: Entry, reason: RemovalReason, told: Invalidation | None) -> None:
    """Remember that an entry left the memory, and tell subscribers who want to know of each."""
    history.removed(entry, reason, told)
    if events.wants_removals:
        events.publish(Removal(key=entry.key, reason=reason))


def note_corrupt(events: Bus, key: str) -> None:
    """Tell subscribers who want to know of each removal that the store had a row that cannot be read."""
    if events.wants_removals:
        events.publish(Removal(key=key, reason="corrupt"))
