"""Leases: of all caches that share a store, one computes a key.

A flight that has found nothing of use in the store asks for the lease of its key, and names the entry that it has seen
there. It computes once it has the lease, and looks again once there is another entry. Until then it waits for the store
to tell of a change; who dies with a lease tells nobody, so now and then it asks without being told.

What is asked for, to be renewed, and given up waits here until it is handed to the store, many at once.
"""

from __future__ import annotations

import asyncio
from typing import Final

from shared_prompt_cache._core.scopes import Scopes, Verdict
from shared_prompt_cache._flights import Flight
from shared_prompt_cache._tier.breaker import Ask
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache.stores import Lease, LeaseRequest, Store
from shared_prompt_cache.stores._selection import names_of

_TTL: Final = 5.0
"""Seconds until the lease of somebody who has died is taken over; a loop that is held for longer loses its own."""
_TICK: Final = 0.5
"""Seconds after which leases are renewed, and asked for again."""


class Claim:
    """What one computation has, or waits for, of the right to compute its key.

    Attributes:
        flight: The computation.
        request: What is asked for.
        lease: What was given; None: nothing yet.
        answer: Whether to compute; False: to look at the store again.
    """

    __slots__ = ("_leases", "answer", "flight", "lease", "request")

    def __init__(self, flight: Flight, request: LeaseRequest, leases: Leases) -> None:
        self.flight = flight
        self.request = request
        self.lease: Lease | None = None
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._leases = leases

    def end(self) -> None:
        """Give up what it has or waits for: what is computed will not be published."""
        self._leases.end(self)

    def used(self) -> None:
        """Note that the value was published, which has ended the lease."""
        self._leases.held.pop(self, None)


class Leases:
    """The leases of one cache.

    Attributes:
        holder: What they are held by.
        held: The claims that have one, which is renewed.
        due: Set when there is something to deliver.
    """

    def __init__(self, store: Store, ask: Ask, scopes: Scopes, relative: Relative) -> None:
        self.holder = ""
        self.held: dict[Claim, None] = {}
        self.due = asyncio.Event()
        self._waiting: dict[Claim, None] = {}
        self._ended: list[Lease] = []
        self._store = store
        self._ask = ask
        self._scopes = scopes
        self._relative = relative
        self._asks = self._renews = self._judges = False
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Return whether there is something to deliver."""
        return bool(self._ended or ((self._renews or self._judges) and self.held) or (self._asks and self._waiting))

    def clear(self, holder: str) -> None:
        """Begin another life of the cache, or end the last one."""
        self.holder = holder
        self.due = asyncio.Event()
        self.held.clear()
        self._ended.clear()
        self.let_all_compute()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def claim(self, flight: Flight) -> bool:
        """Return whether `flight` may compute; False: there is another entry in the store than it has seen."""
        labels = flight.labels
        ids = () if labels is None else [scope.id for scope in labels.scopes]
        names = self._relative.names(names_of(flight.key, ids, (), (), unowned=flight.agent is None))
        flight.claim = claim = Claim(flight, LeaseRequest(flight.key, names, flight.seen), self)
        self._waiting[claim] = None
        self._ask_again()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)
        # Cancelled here, the flight is over, and ends its claim.
        return await claim.answer

    def end(self, claim: Claim) -> None:
        """Give a claim up; while the store is being asked for it, what comes is given back."""
        self._answer(claim, compute=True)  # for those who wait for the value, which nobody else will get
        if claim in self.held:
            del self.held[claim]
            self._give_back(claim)

    def let_all_compute(self) -> None:
        """Answer those who wait, since the store does not."""
        for claim in list(self._waiting):
            self._answer(claim, compute=True)

    def changed(self) -> None:
        """Note that the store has changed, so that a lease may be free now."""
        if self._waiting:
            self._ask_again()

    def invalidated(self) -> None:
        """Note that something has been invalidated, so that who has a lease may compute for nothing."""
        if self.held:
            self._judges = True
            self.due.set()

    def _ask_again(self) -> None:
        self._asks = True
        self.due.set()

    def _tick(self) -> None:
        self._timer = None
        if self.held or self._waiting or self._ended:
            self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)
            self._renews = self._judges = True  # it may have read only now what was invalidated before
            self._ask_again()

    def _answer(self, claim: Claim, *, compute: bool) -> None:
        self._waiting.pop(claim, None)
        if not claim.answer.done():
            claim.answer.set_result(compute)

    def _give_back(self, claim: Claim) -> None:
        if claim.lease is not None:
            self._ended.append(claim.lease)
            self.due.set()

    async def deliver(self) -> None:
        """Hand to the store what waits for it."""
        # Away or cancelled at any of these, leases end by themselves, and who waits is answered by `let_all_compute`.
        self._judge()
        await self._release()
        await self._renew()
        await self._acquire()

    def _judge(self) -> None:
        if self._judges:
            self._judges = False
            for claim in list(self.held):
                if self._scopes.judge(claim.flight) is Verdict.FALLEN:
                    self.end(claim)

    async def _release(self) -> None:
        if ended := list(self._ended):
            await self._ask("release", lambda: self._store.release(ended))
            del self._ended[: len(ended)]

    async def _renew(self) -> None:
        held = {claim: claim.lease for claim in self.held if claim.lease is not None}
        if self._renews and held:
            self._renews = False
            stand = await self._ask("renew", lambda: self._store.renew(list(held.values()), _TTL))
            for claim, stands in zip(held, stand, strict=True):
                if not stands:
                    self.held.pop(claim, None)  # the store will refuse what is computed

    async def _acquire(self) -> None:
        waiting = list(self._waiting)
        if not (self._asks and waiting):
            return
        self._asks = False
        requests = [claim.request for claim in waiting]
        answers = await self._ask("acquire", lambda: self._store.acquire(requests, self.holder, _TTL))
        for claim, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, Lease):
                claim.lease = answer
                if claim in self._waiting:
                    self.held[claim] = None
                    self._answer(claim, compute=True)
                else:
                    self._give_back(claim)  # it was given up meanwhile
            elif answer == "changed" and claim in self._waiting:
                self._answer(claim, compute=False)
