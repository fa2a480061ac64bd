"""One lookup: what `get_prompt` and `get_or_compute` do where a glance at the entry does not answer the call.

The order is: an entry that stands and is proved; a failure that was kept, unless the caller accepts a stale entry and
there is one; that stale entry, if the caller does not wait; the flight of the key, if what that has read so far still
holds; a new flight. Between the last look at any of these and the use of it there is no await, so what was found is
true when it is used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, MutableMapping
from math import inf
from os import PathLike
from typing import Any, Final

from shared_prompt_cache._computation import Computations, is_failure
from shared_prompt_cache._core.conditions import Subject
from shared_prompt_cache._core.entry import CachedPrompt, Entry
from shared_prompt_cache._core.memory import SLICE, Memory
from shared_prompt_cache._core.scopes import Scopes, Verdict
from shared_prompt_cache._files.fingerprint import unchanged
from shared_prompt_cache._files.projects import Labelling
from shared_prompt_cache._files.proof import Proofs
from shared_prompt_cache._files.recorder import ACTIVE, Recorder, current, looking
from shared_prompt_cache._flights import Flight
from shared_prompt_cache._logging import log
from shared_prompt_cache._options import Call
from shared_prompt_cache.clock import Clock
from shared_prompt_cache.keys import check_key

_MOST_WARNED: Final = 1000
_PROMOTED_AT_ONCE: Final = 32  # keys that are judged in one stretch, at up to 0.1 ms each


class Lookups:
    """The lookups of one cache.

    Attributes:
        hits: Those answered here from what is kept.
        misses: Those that began a computation, or found nothing.
        shared: Callers who joined a computation that another had begun.
        stale_served: Callers who were given an expired value.
    """

    def __init__(
        self,
        name: str,
        scopes: Scopes,
        memory: Memory,
        computations: Computations,
        proofs: Proofs,
        labelling: Labelling,
        clock: Clock,
    ) -> None:
        self.hits = self.misses = self.shared = self.stale_served = 0
        self._name = name
        self._scopes = scopes
        self._memory = memory
        self._get = memory.entries.get
        self._touch = memory.touch
        self._computations = computations
        self._flights = computations.flights
        self._proofs = proofs
        self._labelling = labelling
        self._now = clock.monotonic
        self._warned: set[str] = set()

    async def serve(self, call: Call) -> Any:  # noqa: C901, PLR0912 - one lookup, to be read from top to bottom
        """Return the value for a call that the fast path could not answer."""
        if not self._computations.enabled:
            return await self._serve_alone(call)
        key, strict = call.key, call.strict
        recorder = current()
        compared: Flight | None = None
        while True:
            if self._get(key) is not None and (entry := await self.find(key, strict)) is not None:
                self.hit(entry)
                if call.refresh_ahead is not None:
                    self._refresh(entry, call)
                self.compare_labels(entry, call.labels.agent, call.labels.project, call.labels.tags)
                return entry.value
            if (
                self._computations.failures
                and (failure := await self._find_in(self._computations.failures, key, strict)) is not None
            ):
                if call.stale_for:
                    if (stale := await self._find_stale(call)) is not None:
                        return self._serve_stale(stale)
                    call.stale_for = 0.0  # there is none; the failure is looked at again after that await
                    continue
                self.hit(failure)
                raise failure.value[0].with_traceback(failure.value[1])
            stale = await self._find_stale(call) if call.stale_for else None
            flight = self._flights.table.get(key)
            if flight is not None and flight is not compared and flight.task is not None:
                if not await self._still_holds(flight, call):
                    self._flights.detach(flight, "what it was made from changed while it ran")
                compared = flight
                continue
            # No await from here to the start of the flight, or to the queue of those who wait for it.
            if self._get(key) is not None:
                continue
            if stale is not None and call.soft_timeout is None and (flight is None or flight.task is not None):
                if self._flights.may_leave_behind():
                    self._flights.leave_behind(self._launch(call) if flight is None else flight)
                return self._serve_stale(stale)
            began = flight is None
            if flight is None:
                self.misses += self._computations.promotions is None
                flight = self._launch(call)
            elif flight.task is not None:
                self.shared += 1
            in_time = await self._flights.wait(
                flight,
                caller=None if recorder is None else recorder.owner,
                timeout=None if stale is None else call.soft_timeout,
                background=True,
            )
            if began and self._computations.promotions is not None:  # only now it is known what it was
                self.hits += flight.found
                self.misses += not flight.found
            failed = not in_time or is_failure(flight.error)
            if call.stale_for and failed and (stale := await self._find_stale(call)) is not None:
                return self._serve_stale(stale)
            if flight.task is None:
                flight.result()  # a lock has none, but the cache may have been closed
            elif in_time:
                if recorder is not None:
                    self._delivered(flight, recorder)
                return flight.result()
            call.soft_timeout = call.soft_timeout if flight.task is None else None

    async def _serve_alone(self, call: Call) -> Any:
        """Return a value that is computed for this caller alone, and kept nowhere."""
        self.misses += 1
        flight = self._launch(call)
        self._flights.detach(flight, "the cache is not enabled")
        recorder = current()
        await self._flights.wait(flight, caller=None if recorder is None else recorder.owner)
        return flight.result()

    def proved(self, entry: Entry, strict: bool) -> bool:  # noqa: FBT001 - on the path of a hit
        """Return whether an entry made from files is a hit, as far as that can be told at once; False: look closer."""
        origin = entry.origin
        revision = self._scopes.revision
        if (
            origin is None
            or (origin.checked if strict else origin.followed) != revision
            or self._now() >= entry.deadline
        ):
            return False
        if not ((origin.local and unchanged(origin.dependencies)) if strict else self._proofs.trusted(origin)):
            return False
        self.hits += 1
        self._touch(entry.key)
        if ACTIVE:
            self.consumed(entry)
        return True

    async def join(self, flight: Flight, recorder: Recorder) -> Any:
        """Return the value of a flight that a computation may join as it is; `recorder` is that of the computation."""
        await self._flights.wait(flight, caller=recorder.owner)
        self._delivered(flight, recorder)
        return flight.result()

    async def find(self, key: str, strict: bool) -> Entry | None:  # noqa: FBT001 - an option read at the edge
        """Return the entry of `key` if it stands, is proved and has not expired; valid when this returns."""
        while (entry := self._get(key)) is not None:
            holds = await self._holds(entry, strict)
            # No await from here on.
            if self._get(key) is not entry:
                continue
            if not holds:
                self._memory.fall(entry)
            elif self._now() >= entry.expires:
                self._memory.expire(entry)
            else:
                if self._proofs.lease is not None:
                    entry.deadline = min(entry.expires, self._now() + self._proofs.lease)
                return entry
        return None

    async def promote(self, key: str, strict: bool) -> Entry | None:  # noqa: FBT001
        """Return what the store has of `key`, valid when this returns; put it into memory."""
        assert self._computations.promotions is not None  # noqa: S101 - who calls has looked
        promoted = await self._computations.promotions.promote(key)
        return await self.find(key, strict) if promoted is None else promoted[1]

    async def find_many(self, keys: Iterable[str], strict: bool) -> dict[str, CachedPrompt]:  # noqa: FBT001
        """Return the entries of those of `keys` that are in memory or in the store."""
        found: dict[str, CachedPrompt | None] = {}
        for count, key in enumerate(keys, 1):
            found[check_key(key)] = entry = await self.find(key, strict)
            if entry is not None:
                self.hit(entry)
            if count % SLICE == 0:
                await asyncio.sleep(0)
        promotions = self._computations.promotions
        assert promotions is not None  # noqa: S101 - as above
        missing = [key for key, entry in found.items() if entry is None]
        for start in range(0, len(missing), _PROMOTED_AT_ONCE):
            keys = missing[start : start + _PROMOTED_AT_ONCE]
            for key, promoted in zip(keys, await promotions.promote_many(keys), strict=True):
                if promoted is None:
                    self.misses += 1
                else:
                    found[key] = promoted[1]
                    self.hit(promoted[1])
        return {key: entry for key, entry in found.items() if entry is not None}

    async def load(self, most: int) -> int:
        """Put into memory what the store has of the keys that were read last, at most `most`; return how many."""
        promotions = self._computations.promotions
        if promotions is None or not most:
            return 0
        # The latest comes last, so that it is the last to be evicted.
        keys = [key for key in reversed(await promotions.most_used(most)) if self._get(key) is None]
        loaded = 0
        for start in range(0, len(keys), SLICE):
            loaded += sum(one is not None for one in await promotions.promote_many(keys[start : start + SLICE]))
        return loaded

    async def _find_in(self, table: MutableMapping[str, Entry], key: str, strict: bool) -> Entry | None:  # noqa: FBT001
        """Return what lies under `key` in the shelf or among the failures, if it stands and is proved."""
        while (entry := table.get(key)) is not None:
            holds = await self._holds(entry, strict)
            if table.get(key) is not entry:
                continue
            if holds and (table is self._memory.shelf or self._now() < entry.expires):
                return entry
            if table is self._memory.shelf:
                self._memory.unshelve(key)
            else:
                self._computations.forget_failure(key)
        return None

    async def _find_stale(self, call: Call) -> Entry | None:
        entry = await self._find_in(self._memory.shelf, call.key, call.strict)
        return entry if entry is not None and self._now() < entry.expires + call.stale_for else None

    async def _holds(self, entry: Entry, strict: bool) -> bool:  # noqa: FBT001
        """Return whether scopes and files of `entry` stand; True is true when this returns."""
        compared = False
        proofs = self._proofs
        while True:
            proofs.pulse()
            revision = self._scopes.revision
            if entry.checked != revision:
                verdict = self._scopes.judge(entry)
                if verdict is Verdict.FALLEN:
                    return False
                if verdict is Verdict.DOUBTED:
                    await self._answered(entry)
                    continue
            origin = entry.origin
            if origin is None or not origin.dependencies:
                entry.judged(revision)
            elif not compared and not proofs.proved(origin, revision, strict=strict):
                with looking():
                    if not await proofs.compare(origin):
                        return False
                compared = True
                continue
            return True

    async def _still_holds(self, flight: Flight, call: Call) -> bool:
        """Return whether a caller who arrives now may take the value of `flight`: nothing it read has changed.

        What it waits for counts as read: it will be made from that, however old it is. A value that will be born
        expired is for those who take a stale one.
        """
        for part in flight.sources():
            if part.task is not None:
                if not await self._stands(part):
                    return False
                if part.expired_at is not None and self._now() >= part.expired_at + call.stale_for:
                    return False
        return True

    async def _stands(self, flight: Flight) -> bool:
        while True:
            if flight.detached is not None or flight.recorder.spoiled is not None:
                return False
            if flight.revision != self._scopes.revision:
                verdict = self._scopes.judge(flight)
                if verdict is Verdict.FALLEN or self._scopes.touched_since(("key", flight.key), flight.revision):
                    return False
                if verdict is Verdict.DOUBTED:
                    await self._answered(flight)
                    continue
            if flight.recorder.looks:
                await flight.recorder.looked()
                continue
            if not flight.recorder.reads:
                return True
            with looking():
                return await self._proofs.unmoved(flight.recorder.dependencies)

    async def _answered(self, subject: Subject) -> None:
        """Wait until the oldest question about an entry or a flight is answered."""
        doubt = self._scopes.doubts_about(subject)
        if doubt is not None:
            await doubt.settled.wait()

    def hit(self, entry: Entry) -> None:
        """Count a hit of an entry, or of a kept failure."""
        self.hits += 1
        if self._get(entry.key) is entry:
            self._touch(entry.key)
        if ACTIVE:
            self.consumed(entry)

    def _serve_stale(self, entry: Entry) -> Any:
        self.hits += 1
        self.stale_served += 1
        if ACTIVE:
            self.consumed(entry)
        return entry.value

    def consumed(self, entry: Entry) -> None:
        """Tell the computation that runs here what it has been given."""
        recorder = current()
        if recorder is not None:
            scope = self._scopes.scope(("key", entry.key))
            pairs = (*entry.pairs, (scope, scope.number))
            recorder.consume(self._scopes, entry.key, entry.agent, pairs, entry.origin)

    def _delivered(self, flight: Flight, recorder: Recorder) -> None:
        """Tell the computation that waited for `flight` what the value was made from."""
        late = self._scopes.note_late((("key", flight.key),), flight.revision)
        if flight.detached is not None or flight.recorder.spoiled is not None or late is None:
            recorder.spoil(f"it was made from {flight.key!r}, which changed meanwhile")
        pairs = (*flight.pairs, *(late or ()))
        recorder.consume(self._scopes, flight.key, flight.agent, pairs, flight.recorder.origin())

    def _refresh(self, entry: Entry, call: Call) -> None:
        """Start a computation behind a hit, if the entry is old enough for it."""
        assert call.refresh_ahead is not None  # noqa: S101 - the caller looked
        left = entry.expires - self._now()
        if (
            left < (1 - call.refresh_ahead) * entry.ttl
            and call.key not in self._flights.table
            and self._flights.may_leave_behind()
        ):
            # The store has that entry too, or what another cache has made of it meanwhile.
            self._flights.leave_behind(self._launch(call, newer_than=entry.created_at))

    def _launch(self, call: Call, *, newer_than: float = -inf) -> Flight:
        loop = asyncio.get_running_loop()
        making = call.making
        return self._computations.launch(loop, call.key, call.compute, call.labels, making, newer_than=newer_than)

    def compare_labels(
        self, entry: Entry, agent: str | None, project: str | PathLike[str] | None, tags: Iterable[str]
    ) -> None:
        """Log, once for a key, that a hit names other scopes than its entry has."""
        labels = entry.labels
        if (agent is None or agent == labels.agent) and project is None and not tags:
            return
        asked = self._labelling.labels(agent, labels.project if project is None else project, tags, None)
        same = asked.tags <= labels.tags and {scope.id for scope in asked.scopes} <= {s.id for s in labels.scopes}
        if same or entry.key in self._warned or len(self._warned) >= _MOST_WARNED:
            return
        if agent is not None or project is not None or asked.tags:
            self._warned.add(entry.key)
            log(logging.WARNING, "entry.scopes_differ", cache=self._name, key=entry.key)
