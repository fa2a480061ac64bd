"""Following: what other caches enter in the journal is put in force here, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from shared_prompt_cache._tier.breaker import Ask
from shared_prompt_cache._tier.journal import Remembered, Told, read
from shared_prompt_cache._tier.outbox import Outbox
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache.events import Cause, PeerEvent, Recovery, ScopeKind
from shared_prompt_cache.stores import Journal, JournalEntry, Notice, Store

_PORTION: Final = 64


class Apply(Protocol):
    """Puts an invalidation that others began in force; as `Invalidations.apply`."""

    def __call__(
        self, scope: ScopeKind, name: str | None, *, project: str | None, cause: Cause, soft: bool, journalled: bool
    ) -> object: ...


class Follower:
    """Follows the journal of one store.

    Attributes:
        apply: Puts in force what others have invalidated.
        known: Tells since which own invalidation what a notice tells is in force, None if it is not.
        origin: What the own entries of the journal are known by.
        applied: All of the journal up to this sequence is in force here.
        remembered: What of it was read last.
    """

    apply: Apply

    def __init__(self, store: Store, ask: Ask, relative: Relative, outbox: Outbox) -> None:
        self.known: Callable[[str, Told], int | None] = lambda *_: None
        self.origin = ""
        self.applied = 0
        self.remembered = Remembered()
        self._store = store
        self._ask = ask
        self._relative = relative
        self._outbox = outbox

    def clear(self, origin: str) -> None:
        """Begin another life of the cache."""
        self.known = lambda *_: None
        self.origin = origin
        self.applied = 0
        self.remembered.clear()

    async def catch_up(self) -> None:
        """Put in force what others have entered in the journal since it was read last."""
        after = self.applied
        journal = await self._ask("journal", lambda: self._store.journal(after))
        if not journal.complete:
            if after == self.applied:
                self.start_over(journal, "what other caches of the store invalidated is not known any more")
            return
        for count, entry in enumerate(journal.entries, 1):
            if entry.sequence == self.applied + 1:  # or it was read by a recovery meanwhile
                self._take(entry)
            if count % _PORTION == 0:
                await asyncio.sleep(0)

    def _take(self, entry: JournalEntry) -> None:
        if entry.origin != self.origin:
            told = read(entry.body, self._relative)
            if told is None:
                self._apply_all("another cache of the store invalidated something in words that cannot be read")
            elif (number := self.known(entry.origin, told)) is not None:
                self._outbox.lift(entry.sequence, number)
            else:
                cause = PeerEvent(origin=told.origin)
                self.apply(told.scope, told.name, project=told.project, cause=cause, soft=told.soft, journalled=True)
        self.remember(entry)

    def journalled(self, notices: Sequence[Notice], sequences: Sequence[int]) -> bool:
        """Note where in the journal own invalidations are; return whether nothing of others lies before them."""
        for notice, sequence in zip(notices, sequences, strict=True):
            if sequence == self.applied + 1:
                self.remember(JournalEntry(sequence, notice.origin, notice.number, notice.selection, notice.body))
        return self.applied >= sequences[-1]

    def remember(self, entry: JournalEntry) -> None:
        """Note that an entry of the journal is in force here."""
        self.remembered.add(entry)
        self.applied = entry.sequence

    def start_over(self, journal: Journal, reason: str | None) -> None:
        """Take the journal for a new one; what was kept before may have missed something, if there is a reason."""
        if reason is not None:
            self._apply_all(reason)
        self.remembered.clear()
        for entry in journal.entries:
            self.remembered.add(entry)
        self.applied = journal.last

    def _apply_all(self, reason: str) -> None:
        self.apply("all", None, project=None, cause=Recovery(reason=reason), soft=False, journalled=True)
