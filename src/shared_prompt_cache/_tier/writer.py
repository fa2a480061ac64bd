"""The writer: one task that hands what waits to the store.

Invalidations go first, then rows to be deleted, the records of watched files, and entries last: whatever is broken off
in the middle, a row that is there may be read, or is known to be old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from shared_prompt_cache._files.watchers.choice import InThread
from shared_prompt_cache._tier.breaker import Ask, Away
from shared_prompt_cache._tier.files import StoredFiles
from shared_prompt_cache._tier.follower import Follower
from shared_prompt_cache._tier.outbox import Outbox
from shared_prompt_cache._tier.reasons import Reasons
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache._tier.rows import pack_all
from shared_prompt_cache._tier.upkeep import Upkeep
from shared_prompt_cache.errors import SerializationError
from shared_prompt_cache.stores import Store, Write
from shared_prompt_cache.stores._seal import Sealer

_MOST_CONTESTS: Final = 3
"""How often a change of files is offered to be told; then it is told by itself, without the records."""


class Writer:
    """Writes to the store of one cache.

    Attributes:
        wake: Set when there is something to write.
        files: The records of watched files, once these are watched.
        sealer: Seals entries; there is one once the store has been open.
        written: How many entries were put.
        refused: How many the store has refused.
        reasons: Why some are in memory alone.

    Args:
        others: Called when the journal turns out to have entries of others.
    """

    sealer: Sealer

    def __init__(
        self,
        store: Store,
        name: str,
        outbox: Outbox,
        follower: Follower,
        relative: Relative,
        ask: Ask,
        in_thread: InThread,
        others: Callable[[], None],
    ) -> None:
        self.wake = asyncio.Event()
        self.files: StoredFiles | None = None
        self.written = self.refused = 0
        self.reasons = Reasons(name)
        self._store = store
        self._outbox = outbox
        self._follower = follower
        self._relative = relative
        self._ask = ask
        self._in_thread = in_thread
        self._others = others
        self._upkeep = Upkeep(store, ask)
        self._progress: list[asyncio.Future[None]] = []

    def clear(self) -> None:
        """Begin another life of the cache."""
        self.wake = asyncio.Event()
        self.files = None
        self.reasons.clear()
        self._upkeep.clear()

    async def step(self) -> None:
        """Return when something has been written, or the store went out of use."""
        step = asyncio.get_running_loop().create_future()
        self._progress.append(step)
        await step

    def tell(self) -> None:
        """Let those look who wait for a step."""
        steps, self._progress = self._progress, []
        for step in steps:
            if not step.done():
                step.set_result(None)

    async def deliver(self, is_ready: Callable[[], bool]) -> None:
        """Hand what waits to the store; return when there is more.

        Raises:
            Away: If the store is out of use.
        """
        while await self._deliver_next(is_ready):
            self.tell()
        await self._upkeep.rest(self.wake)
        self.wake.clear()

    async def _deliver_next(self, is_ready: Callable[[], bool]) -> bool:
        outbox, files = self._outbox, self.files
        unrecorded = files is not None and files.pending is not None
        if (outbox or unrecorded) and not is_ready():
            raise Away  # a read has met trouble
        if outbox.notices:
            return await self.journal_notices()
        if outbox.outdated:
            await self._delete_outdated()
        elif files is not None and unrecorded:
            await files.save()
        elif outbox:
            await self._put()
        else:
            return False
        return True

    async def withdraw(self) -> None:
        """Take from the store what is not to be read any more."""
        while await self.journal_notices():
            pass
        while self._outbox.outdated:
            await self._delete_outdated()

    async def journal_notices(self) -> bool:
        """Enter what is next in the journal; return whether there was anything."""
        change, notices = self._outbox.take_notices()
        if not notices:
            return False  # what changes is not told before all of it is in force here
        sequences = None
        if change is not None and self.files is not None:
            for _ in range(_MOST_CONTESTS):
                if self.files.told(change):
                    self._outbox.told(change)
                    return True
                sequences = await self.files.journal(change, notices)
                if sequences is not None:
                    break
                await self._follower.catch_up()
        if sequences is None:
            sequences = await self._ask("invalidate", lambda: self._store.invalidate(notices))
        # No await from here on: nobody reads a row that one of them took before they are remembered.
        if not self._follower.journalled(notices, sequences):
            self._others()
        self._outbox.durable(notices[-1].number)
        return True

    async def _delete_outdated(self) -> None:
        outdated = self._outbox.take_outdated()
        keys = [key for key, checksum in outdated.items() if checksum is None]
        bad = {key: checksum for key, checksum in outdated.items() if checksum is not None}
        if keys:
            await self._ask("delete", lambda: self._store.delete(keys))
        if bad:
            await self._ask("delete", lambda: self._store.delete(list(bad), checksums=bad))
        self._outbox.deleted(outdated)

    async def _put(self) -> None:
        taken = self._outbox.take_writes()
        done: list[str] = []
        refused: list[str] = []
        try:
            packed = await self._in_thread(pack_all, self.sealer, self._relative, taken)
            writes = [one for one in packed if isinstance(one, Write)]
            put = await self._ask("put_many", lambda: self._store.put_many(writes)) if writes else []
            for write, stands in zip(writes, put, strict=True):
                (done if stands else refused).append(write.entry.key)
            self.refused += len(refused)
            for waiting, one in zip(taken, packed, strict=True):
                if isinstance(one, SerializationError):
                    self.reasons.note(waiting.entry, one)
        finally:
            # Failed or cancelled: it may have been put or not, so what the store has of these keys is not to be read.
            self._outbox.written(done, refused=refused)
        self.written += len(done)
        await self._upkeep.wrote(len(done))
