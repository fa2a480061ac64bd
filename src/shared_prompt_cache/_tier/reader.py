"""Reading: rows that are checked and proved in a thread, and then judged by all that is known here.

What comes out stood when it was looked at. Whoever keeps it judges it once more, as any computation is judged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from shared_prompt_cache._core.scopes import Scopes
from shared_prompt_cache._files.projects import Labelling
from shared_prompt_cache._files.proof import Proofs
from shared_prompt_cache._files.recorder import Recorder
from shared_prompt_cache._flights import Flight
from shared_prompt_cache._logging import log
from shared_prompt_cache._tier.breaker import Ask, Away
from shared_prompt_cache._tier.journal import Remembered
from shared_prompt_cache._tier.outbox import Outbox
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache._tier.rows import Examined, examine
from shared_prompt_cache.clock import Clock
from shared_prompt_cache.stores import Store, StoredEntry
from shared_prompt_cache.stores._codec import Unreadable
from shared_prompt_cache.stores._seal import Sealer
from shared_prompt_cache.stores._selection import SEPARATOR

_TOLERANCE: Final = 1.0
"""How many seconds a row may come from the future: clocks of one host are set by small steps, too."""
_SCOPES: Final = frozenset({"all", "agent", "project", "tag", "key"})
"""The kinds of names that are those of scopes."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the store had, proved.

    Attributes:
        value: The value.
        metadata: Its metadata.
        ttl: Its time to live in seconds.
        created_at: When it was made, by the wall clock.
        expires: When it expires, by the monotonic clock.
    """

    value: Any
    metadata: dict[str, Any]
    ttl: float
    created_at: float
    expires: float


class Reader:
    """Reads the store of one cache.

    Attributes:
        sealer: Checks the seals.
        hits: Reads that found an entry that stands.
        misses: Reads that did not.
        corrupt: Rows that could not be read.

    Args:
        unreadable: Called with the key of each of those.
    """

    sealer: Sealer

    def __init__(
        self,
        store: Store,
        name: str,
        scopes: Scopes,
        labelling: Labelling,
        proofs: Proofs,
        clock: Clock,
        outbox: Outbox,
        remembered: Remembered,
        relative: Relative,
        ask: Ask,
        unreadable: Callable[[str], None],
    ) -> None:
        self.hits = self.misses = self.corrupt = 0
        self._store = store
        self._name = name
        self._scopes = scopes
        self._labelling = labelling
        self._proofs = proofs
        self._clock = clock
        self._outbox = outbox
        self._remembered = remembered
        self._relative = relative
        self._ask = ask
        self._unreadable = unreadable

    async def find(self, blocks: Sequence[Flight]) -> list[Found | None]:
        """Return what the store has of the keys of `blocks`, which have begun; a block is filled as if it had computed.

        Of what is returned no more is known than that it stood at the beginning: who keeps it has to judge the block.
        """
        found: list[Found | None] = [None] * len(blocks)
        by_key = {block.key: number for number, block in enumerate(blocks) if not self._outbox.knows(block.key)}
        if by_key:
            with self._outbox.reading(by_key) as overtaken:
                rows = await self._rows(list(by_key))
                if rows:
                    with ExitStack() as looks:
                        for row in rows:
                            looks.enter_context(blocks[by_key[row.key]].recorder.looking())
                        examined = await self._proofs.in_thread(examine, self.sealer, self._relative, rows)
                    # No await from here on.
                    for row, one in zip(rows, examined, strict=True):
                        if row.key not in overtaken:
                            number = by_key[row.key]
                            found[number] = self._accept(blocks[number], row, one)
        hits = sum(one is not None for one in found)
        self.hits += hits
        self.misses += len(found) - hits
        return found

    async def _rows(self, keys: list[str]) -> list[StoredEntry]:
        try:
            if len(keys) == 1:
                row = await self._ask("get", lambda: self._store.get(keys[0]))
                return [] if row is None else [row]
            rows = await self._ask("get_many", lambda: self._store.get_many(keys))
        except Away:
            return []
        return [row for row in rows.values() if row.key in keys]

    def _accept(self, block: Flight, row: StoredEntry, examined: Examined | Unreadable) -> Found | None:
        """Fill the block with what a row holds, unless something speaks against it."""
        block.seen = row.checksum
        if isinstance(examined, Unreadable):
            self._discard(row, examined.reason)
            return None
        head, now = examined.head, self._clock.wall()
        names = frozenset(head.names)
        if (
            head.created_at > now + _TOLERANCE
            or head.expires_at <= now
            or examined.dependencies is None
            or self._remembered.selects(names, head.stamp)
        ):
            return None
        # What follows may concern an older row, so it is to be looked at again before anybody computes.
        block.seen = None
        if self._outbox.selects(names):
            return None
        labels = self._labelling.labels(head.agent, self._relative.absolute(head.project), head.tags, None)
        own = [scope.id for scope in labels.scopes]
        kept = (name for name in names if name.partition(SEPARATOR)[0] in _SCOPES)
        others = {self._relative.scope_of(name) for name in kept}.difference(own)
        noted = self._scopes.note_late(own, block.revision)
        pairs = self._scopes.note_late(others, block.revision)
        if noted is None or pairs is None:
            return None  # it was invalidated since the look-up began
        if any(self._scopes.softened_since(scope_id, block.revision) is not None for scope_id in (*own, *others)):
            return None
        recorder: Recorder = block.recorder
        block.labels, block.noted = labels, noted
        recorder.pairs = {scope: number for scope, number in pairs if scope.id != ("key", block.key)}
        recorder.consumed = dict(head.consumed)
        for dependency in examined.dependencies:
            recorder.read(dependency)
        # Never longer than it was to live, whatever became of the wall clock; and no longer by being promoted.
        left = min(head.expires_at - now, head.ttl)
        expires = inf if left == inf else self._clock.monotonic() + left
        block.seen = row.checksum
        return Found(examined.value, examined.metadata, head.ttl, head.created_at, expires)

    def _discard(self, row: StoredEntry, reason: str) -> None:
        """Have a row deleted that cannot be read, or is not to be believed."""
        self.corrupt += 1
        self._outbox.outdate(row.key, row.checksum)
        if self.corrupt == 1:
            log(logging.WARNING, "store.entry_unreadable", cache=self._name, key=row.key, reason=reason)
        self._unreadable(row.key)
