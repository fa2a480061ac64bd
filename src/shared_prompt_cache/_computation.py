"""One computation, from its start to its value in memory.

A flight notes the numbers of its scopes before it calls `compute`, records what that reads, and when it is over keeps
the value only if the numbers and the files still stand. Blocks (`lock`, `batch`) and plain sets take the same road: a
`Flight` without a task stands for them when their values are judged and kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from inspect import isawaitable
from math import inf
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from shared_prompt_cache._core.conditions import Condition
from shared_prompt_cache._core.entry import Entry, Labels, freeze
from shared_prompt_cache._core.history import History
from shared_prompt_cache._core.memory import ENTRY_OVERHEAD, Memory
from shared_prompt_cache._core.scopes import Scopes, Verdict
from shared_prompt_cache._core.sizing import size_of
from shared_prompt_cache._files.projects import Labelling
from shared_prompt_cache._files.proof import Proofs
from shared_prompt_cache._files.recorder import ACTIVE, CURRENT, Recorder, current
from shared_prompt_cache._files.unrecorded import DEVELOPING, warn_of_unrecorded, watch_opens
from shared_prompt_cache._flights import Flight, Flights
from shared_prompt_cache._logging import log
from shared_prompt_cache._options import Computed, Making, sync_compute
from shared_prompt_cache._promotion import Promotions
from shared_prompt_cache.clock import Clock
from shared_prompt_cache.errors import ComputeCancelled, ComputeTimeout, ConfigTypeError
from shared_prompt_cache.events import Invalidation

if TYPE_CHECKING:
    from shared_prompt_cache._tier.tier import Tier

_MOST_FAILURES: Final = 1024
_MOST_LOOKS: Final = 16
"""How often the store may say that it has something new of a key before it is computed all the same."""


class Computations:
    """The computations of one cache, and what becomes of their values.

    Attributes:
        flights: Those under way.
        failures: Failures kept by `cache_errors_for`; the value of such an entry is (exception, traceback).
        enabled: Whether anything is kept at all.
        promotions: Those from the store, None without one.
        begun: How many were begun.
        sets: How many values were kept.
        refused: How many values were not.
    """

    def __init__(
        self,
        name: str,
        scopes: Scopes,
        memory: Memory,
        proofs: Proofs,
        labelling: Labelling,
        history: History,
        clock: Clock,
        tier: Tier | None = None,
    ) -> None:
        self.flights = Flights(scopes.end)
        self.failures: OrderedDict[str, Entry] = OrderedDict()
        self.enabled = True
        self.begun = self.sets = self.refused = 0
        self._name = name
        self._scopes = scopes
        self._memory = memory
        self._proofs = proofs
        self._labelling = labelling
        self._history = history
        self._clock = clock
        self._tier = tier
        self.promotions = None if tier is None else Promotions(self, tier, scopes, memory, proofs)
        if DEVELOPING:
            watch_opens()

    def launch(
        self,
        loop: asyncio.AbstractEventLoop,
        key: str,
        compute: Callable[[], Any],
        labels: Labels,
        making: Making,
        *,
        newer_than: float = -inf,
    ) -> Flight:
        """Start the computation of `key`, whose place must be free.

        Args:
            loop: The loop.
            key: The key.
            compute: Computes it.
            labels: What the value will be filed under.
            making: How it is to be kept.
            newer_than: What the store has may stand for it only if it was made later, by the wall clock.
        """
        scopes = self._scopes
        recorder = Recorder(scopes)
        # Numbers before compute: a later invalidation wins.
        flight = Flight(key, labels, labels.note(scopes.revision), scopes.revision, recorder)
        recorder.owner = flight
        scopes.begin(flight)
        self.flights.start(flight)
        looks = self._tier is not None and self.enabled
        self.begun += not looks
        older = newer_than if looks else None
        flight.task = loop.create_task(self._fly(flight, compute, making, older), name=key)
        return flight

    async def _fly(self, flight: Flight, compute: Callable[[], Any], making: Making, newer_than: float | None) -> None:
        recorder: Recorder = flight.recorder
        CURRENT.set(recorder)  # in the context of this task, a copy of the starter's
        ACTIVE.add(recorder)
        timer = None
        value: Any = None
        error: BaseException | None = None
        try:
            if making.hard_timeout is not None:
                loop = asyncio.get_running_loop()
                timer = loop.call_later(making.hard_timeout, self._time_out, flight, making.hard_timeout)
            if newer_than is not None and (found := await self._find(flight, newer_than)) is not None:
                value = found.value
                return
            try:
                if making.depends_on:
                    await self._proofs.declare(recorder, making.depends_on)
                awaitable = compute()
                value = await (awaitable if type(awaitable) is CoroutineType else _checked(awaitable, compute))
                if DEVELOPING:
                    warn_of_unrecorded(recorder, flight.key)
            except Exception as raised:  # noqa: BLE001 - it is handed to those who wait
                error = raised
            if recorder.reads and (moved := await self._proofs.moved(recorder.dependencies)) is not None:
                recorder.spoil(f"{moved} changed while it was computed")
        except asyncio.CancelledError:
            error = ComputeCancelled(f"the computation of {flight.key!r} was cancelled from inside", key=flight.key)
        except BaseException as raised:
            error = raised
            raise
        finally:
            # No await from here on: what was compared still holds when the value is published.
            ACTIVE.discard(recorder)
            if timer is not None:
                timer.cancel()
            self._end(flight, value, error, making)

    def _end(self, flight: Flight, value: Any, error: BaseException | None, making: Making) -> None:
        """Publish what a computation came to, and wake those who wait for it."""
        try:
            if flight.found:
                pass  # it was kept when it was promoted
            elif error is None:
                value = self._land(flight, value, making)
            else:
                self._crash(flight, error, making)
        except Exception as raised:  # noqa: BLE001 - a value that cannot even be measured; who waits must know
            error = raised
        finally:
            if flight.claim is not None:
                flight.claim.end()
            self.flights.finish(flight, value, error)
            self.flights.landed(flight)

    def _time_out(self, flight: Flight, limit: float) -> None:
        message = f"the computation of {flight.key!r} took longer than its hard_timeout of {limit} s"
        error = ComputeTimeout(message, key=flight.key, timeout=limit)
        self._tell_if_alone(flight, error)
        self.flights.detach(flight, f"it was ended after {limit} s")
        self.flights.finish(flight, None, error)
        self.flights.cancel(flight)

    def _land(self, flight: Flight, value: Any, making: Making) -> Any:
        """Keep the value of a computation, if it still stands; return the bare value."""
        ttl, metadata = making.ttl, making.metadata
        if isinstance(value, Computed):
            told, value = value, value.value
            if not told.keep:
                return value
            ttl = ttl if told.ttl is None else told.ttl
            metadata = metadata if told.metadata is None else told.metadata
            self._relabel(flight, told)
        self.keep(flight, value, metadata, ttl)
        return value

    def _relabel(self, flight: Flight, told: Computed[Any]) -> None:
        """File the value under tags, an agent and a project that became known only with it."""
        before = flight.labels
        assert before is not None  # noqa: S101 - only locks have none, and they never fly
        labels = self._labelling.with_more(before, told.tags, told.metadata)
        if labels is before:
            return
        noted = dict(flight.noted)
        late = self._scopes.note_late([s.id for s in labels.scopes if s not in noted], flight.revision)
        if late is None:
            flight.recorder.spoil("a scope of it was invalidated while it was computed")
        else:
            flight.labels = labels
            flight.noted = (*[(scope, noted[scope]) for scope in labels.scopes if scope in noted], *late)

    def _crash(self, flight: Flight, error: BaseException, making: Making) -> None:
        self._tell_if_alone(flight, error)
        if making.cache_errors_for and is_failure(error) and self.refusal(flight) is None:
            self.forget_failure(flight.key)
            failure = (error, error.__traceback__)
            self.failures[flight.key] = self.entry(flight, failure, None, making.cache_errors_for)
            if len(self.failures) > _MOST_FAILURES:
                self.forget_failure(next(iter(self.failures)))

    def _tell_if_alone(self, flight: Flight, error: BaseException) -> None:
        """Log a failure that reaches no caller."""
        if flight.background and not flight.waiters and flight.detached is None:
            log(logging.WARNING, "refresh.failed", exc_info=error, cache=self._name, key=flight.key)

    def refusal(self, computation: Flight) -> str | None:
        """Return why the value of a computation must not be kept, None if it may be."""
        if computation.detached is not None:
            return computation.detached
        if computation.recorder.spoiled is not None:
            return str(computation.recorder.spoiled)
        if computation.revision < self._scopes.floor:
            return "more was invalidated while it was computed than is remembered"
        if computation.revision != self._scopes.revision and self._scopes.judge(computation) is Verdict.FALLEN:
            return "it was invalidated while it was computed"
        return None

    async def _find(self, flight: Flight, newer_than: float) -> Entry | None:
        """Return the entry that the store has for a flight, which then stands for the computation of that.

        None: there is none, and it is for this cache to compute it.
        """
        assert self.promotions is not None  # noqa: S101 - it looks only where there is a store
        assert self._tier is not None  # noqa: S101 - as above
        promoted = None
        for _ in range(_MOST_LOOKS):
            promoted = await self.promotions.promote(flight.key, flight, newer_than=newer_than)
            if promoted is not None or await self._tier.may_compute(flight):
                break
        # No await from here on.
        if promoted is None:
            self.begun += 1
            if flight.detached is None and flight.labels is not None:
                # The computation begins only now, so what came meanwhile does not concern it.
                flight.revision = self._scopes.revision
                flight.noted = flight.labels.note(flight.revision)
            return None
        block, entry = promoted
        flight.found = True
        flight.labels, flight.noted, flight.revision = block.labels, block.noted, block.revision
        flight.recorder.take(block.recorder)
        return entry

    async def put(self, key: str, value: Any, labels: Labels, making: Making) -> None:
        """Put in a value that the caller has made, in the computation that the call is part of, or now."""
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
            self.begin_late(block)
            self.put_block(block, value, making)
        finally:
            self._scopes.end(block)

    def put_block(self, block: Flight, value: Any, making: Making) -> None:
        """Put in a value that a block has made; a running computation of its key is not kept."""
        flight = self.flights.table.get(block.key)
        if flight is not None and flight.task is not None:
            if flight.claim is not None and flight.claim.lease is not None:
                block.claim, flight.claim = flight.claim, None  # who waits for the lease gets this value
            self.flights.detach(flight, "set_prompt() gave the key another value")
        if self.enabled:
            self.keep(block, value, making.metadata, making.ttl)
        if block.claim is not None:
            block.claim.end()

    def begin_late(self, block: Flight) -> None:
        """Note the scopes of a value that a block puts in, as they were when the block began."""
        self._note(block)
        since, key = block.revision, ("key", block.key)
        if since == self._scopes.revision:
            return
        overtaken = [scope for scope, number in block.noted if number > since]
        if self._scopes.touched_since(key, since):
            overtaken.append(self._scopes.scope(key))
        soft_at = self._scopes.softened_since(key, since)
        if soft_at is not None:
            block.soften(soft_at)
        if overtaken:
            # The number they had then was `since` at most: another than now, so `why` finds what invalidated them.
            block.noted = tuple([(scope, since) for scope in overtaken])
            block.recorder.spoil("it was invalidated after what it was made from was read")

    def begin_anew(self, block: Flight) -> None:
        """Note the scopes of a value that was found to stand as they are now, so that what came since is passed over.

        That is what the batch itself has invalidated.
        """
        self._note(block)
        block.revision = self._scopes.revision
        block.recorder.pairs = {scope: scope.number for scope in block.recorder.pairs}

    def _note(self, block: Flight) -> None:
        assert block.labels is not None  # noqa: S101 - blocks are made with labels
        block.noted = block.labels.note(self._scopes.revision)

    def keep(self, computation: Flight, value: Any, metadata: Mapping[str, Any] | None, ttl: float) -> bool:
        """Put what a computation made into memory, unless that has lost its validity; return whether it did."""
        reason = self.refusal(computation)
        if reason is not None:
            self._refuse(computation.key, reason, self._scopes.why(computation))
            return False
        entry = self.entry(computation, value, metadata, ttl)
        kept = self.shelve(entry)
        self.sets += kept
        if not kept:
            self._refuse(entry.key, "it is larger than max_memory_mb")
        if self._tier is not None:
            if kept and computation.expired_at is None:
                claim, computation.claim = computation.claim, None
                self._tier.write(entry, claim)
            else:
                self._tier.outdate(entry.key)  # what the store has is older
        return kept

    def shelve(self, entry: Entry) -> bool:
        """Put an entry into memory; return whether there is room for it."""
        if self.failures:
            self.forget_failure(entry.key)
        if self._proofs.lease is not None:
            entry.deadline = min(entry.expires, self._clock.monotonic() + self._proofs.lease)
        if self._memory.put(entry):
            return True
        if entry.origin is not None:
            self._proofs.release(entry.origin)
        return False

    def _refuse(self, key: str, reason: str, invalidation: Invalidation | None = None) -> None:
        self.refused += 1
        self._history.refused(key, reason, invalidation)

    def entry(self, made_by: Flight, value: Any, metadata: Mapping[str, Any] | None, ttl: float) -> Entry:
        """Return the entry of what a computation made; its files are held from now on."""
        recorder: Recorder = made_by.recorder
        key, labels, pairs = made_by.key, made_by.labels, made_by.noted
        assert labels is not None  # noqa: S101 - as above
        origin = None
        if recorder.pairs:
            found = {**recorder.pairs, **dict(pairs)}
            found.pop(self._scopes.scope(("key", key)), None)  # a value is not made from its own key
            pairs = tuple(found.items())
        if recorder.reads or recorder.consumed:
            origin = recorder.origin(without=key)
            if origin is not None:
                self._proofs.hold(origin)
        frozen = freeze(metadata)
        size = ENTRY_OVERHEAD + size_of(key) + size_of(value) + (size_of(frozen) if frozen else 0)
        entry = Entry(key, value, frozen, labels, pairs, origin, ttl, made_by.revision, size)
        if made_by.expired_at is not None:
            entry.soften(made_by.expired_at)
        return entry

    def forget_failure(self, key: str) -> None:
        """Forget the kept failure of `key`, if there is one."""
        failure = self.failures.pop(key, None)
        if failure is not None and failure.origin is not None:
            self._proofs.release(failure.origin)

    def forget_failures(self, condition: Condition) -> None:
        """Forget the kept failures that `condition` selects; there are few, so all of them are looked at."""
        for key in [key for key, failure in self.failures.items() if condition.matches(failure)]:
            self.forget_failure(key)

    def clear_failures(self) -> None:
        """Forget all of them."""
        while self.failures:
            self.forget_failure(next(iter(self.failures)))


def is_failure(error: BaseException | None) -> bool:
    """Return whether a computation failed; to be cancelled is no failure."""
    return isinstance(error, Exception) and not isinstance(error, ComputeCancelled)


def _checked(awaitable: Any, compute: Callable[[], Any]) -> Any:
    """Return what a compute returned, if it can be awaited."""
    if not isawaitable(awaitable):
        raise ConfigTypeError(sync_compute(compute), field="compute")
    return awaitable
