"""The second tier of one cache: reads that prove what they find (`reader.py`), and one writer behind the callers.

`write` and `announce` queue and never wait. One task hands what waits to the store, invalidations first; another
follows what other caches enter in the journal (`follower.py`). An entry is stamped when it is kept: at that moment it
has been judged by all that is in force here.

While the store is out of use the cache goes on in memory: reads find nothing, entries are not written (their keys are
noted, since the rows they would have replaced are old now), and invalidations wait.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Final, TypeVar

from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache._core.scopes import ALL, Scopes
from shared_prompt_cache._core.stats import PartHealth
from shared_prompt_cache._files.projects import Labelling
from shared_prompt_cache._files.proof import Proofs
from shared_prompt_cache._flights import Flight
from shared_prompt_cache._tier.breaker import Away, Breaker
from shared_prompt_cache._tier.files import StoredFiles, Watch
from shared_prompt_cache._tier.follower import Apply, Follower
from shared_prompt_cache._tier.journal import EVERYTHING, kept, written
from shared_prompt_cache._tier.leases import Claim, Leases
from shared_prompt_cache._tier.outbox import MOST_NOTICES, MOST_OUTDATED, Outbox
from shared_prompt_cache._tier.reader import Found, Reader
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache._tier.writer import Writer
from shared_prompt_cache.clock import Clock
from shared_prompt_cache.events import FileChange, Invalidation
from shared_prompt_cache.stores import Notice, Selection, Stamp, Store
from shared_prompt_cache.stores._seal import Sealer
from shared_prompt_cache.stores._secret import load_secret
from shared_prompt_cache.stores._selection import select_scopes

T = TypeVar("T")
_ENDING: Final = 5.0  # seconds that a closing waits for what is queued
_LAST_PAUSES: Final = (0.0, 0.05, 0.2)  # before each of the last tries, if that is not possible


class Tier:
    """Stands between one cache and its store.

    Attributes:
        corrupt: Called with the key of a row that cannot be read.
        reasons: Why values are in memory alone.
    """

    corrupt: Callable[[str], None]

    def __init__(
        self,
        store: Store,
        name: str,
        scopes: Scopes,
        labelling: Labelling,
        proofs: Proofs,
        clock: Clock,
        *,
        shares: bool,
    ) -> None:
        self._store = store
        self._shares = shares
        self._name = name
        self._proofs = proofs
        self._clock = clock
        self._relative = Relative()
        self._outbox = Outbox()
        self._follower = Follower(store, self._ask, self._relative, self._outbox)
        self._leases = Leases(store, partial(self._ask, reading=True), scopes, self._relative)
        self._breaker = Breaker(name, clock.wall, self._broken)
        self._opened = False
        self._following = False  # whether the journal has been read, so that what others add is known
        self._reads = False  # whether rows may be read: only once the watched files have been compared
        self._number = 0  # the last invalidation that began here
        self._missed = False  # something was kept before the store was open, so before the journal was followed
        self._news = asyncio.Event()
        self._writer = Writer(
            store, name, self._outbox, self._follower, self._relative, self._ask, proofs.in_thread, self._changed
        )
        self.reasons = self._writer.reasons
        self._reader = Reader(
            store,
            name,
            scopes,
            labelling,
            proofs,
            clock,
            self._outbox,
            self._follower.remembered,
            self._relative,
            partial(self._ask, reading=True),
            self._unreadable,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def follows(self, apply: Apply) -> None:
        """Let `apply` put in force what others have invalidated."""
        self._follower.apply = apply

    # Life.

    async def open(self) -> None:
        """Open the store and begin to follow it; if that cannot be done now it is tried again later.

        Raises:
            ConfigError: If it never can be, as it is set up.
            StoreError: If somebody has to change something in the place of the store first.
        """
        self._outbox.clear()
        self._writer.clear()
        self._number = 0
        self._missed = self._following = self._reads = False
        self._relative.settle(None)
        self._follower.clear(f"{self._name}:{secrets.token_hex(8)}")  # what an earlier life wrote is that of another
        self._leases.clear(self._follower.origin)
        self._news = asyncio.Event()
        with suppress(Away):
            await self._recover()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(work, name=f"shared-prompt-cache store {name}")
            for name, work in (
                ("writer", self._work()),
                ("follower", self._attend(self._news, self._follower.catch_up)),
                ("leases", self._attend(self._leases.due, self._leases.deliver)),
            )
        ]

    async def follow(self, watch: Watch) -> None:
        """Compare the files of `watch`, which has been started, with what the store knows of them; then allow reads."""
        self._writer.files = StoredFiles(
            watch, self._store, self._relative, self._outbox, self._ask, self._writer.wake.set, self._proofs.in_thread
        )
        self._follower.known = self._writer.files.known
        with suppress(Away):
            if self._ready:  # or it is done when the store recovers
                await self._writer.files.compare()
        self._reads = True

    async def aclose(self) -> None:
        """Write what waits, as far as the store takes it, and close it; nothing is left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDING):
                if self._tasks and self._opened:
                    await self.flush()
                await self._end_tasks()
                await self._try_at_last()
        await self._end_tasks()
        self._leases.clear("")
        self._breaker.reason = "it is closed"
        self._writer.tell()
        if self._opened:
            self._opened = False
            with suppress(Away):
                await self._ask("aclose", self._store.aclose)
        self._breaker.reason, self._breaker.since = "it is not open", None

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _try_at_last(self) -> None:
        """Take from a store that is out of use what the next who opens it must not find; it may have been a moment."""
        for pause in _LAST_PAUSES:
            if not self._opened or not (self._outbox.notices or self._outbox.outdated):
                return
            await asyncio.sleep(pause)
            with suppress(Away):
                await self._writer.withdraw()

    @property
    def _ready(self) -> bool:
        return self._breaker.reason is None

    async def _ask(self, operation: str, call: Callable[[], Awaitable[T]], *, reading: bool = False) -> T:
        patience = self._breaker.reading if reading else self._breaker.writing
        return await self._breaker.run(operation, call, patience)

    # Reading.

    async def find(self, blocks: Sequence[Flight]) -> list[Found | None]:
        """Return what the store has of the keys of `blocks`; see `Reader.find`."""
        if not (self._ready and self._reads):
            return [None] * len(blocks)
        return await self._reader.find(blocks)

    def count(self, found: Sequence[Found | None]) -> None:
        """Count what came of a look, however often it was repeated."""
        hits = sum(one is not None for one in found)
        self._reader.hits += hits
        self._reader.misses += len(found) - hits

    async def most_used(self, most: int) -> list[str]:
        """Return the keys whose entries were read last, latest first."""
        if not self._ready:
            return []
        try:
            return await self._ask("most_used", lambda: self._store.most_used(most), reading=True)
        except Away:
            return []

    async def may_compute(self, flight: Flight) -> bool:
        """Return whether `flight`, which found nothing here, may compute; False: it has to look again.

        Of all caches that share the store one computes a key. Where that cannot be told, each may.
        """
        if not self._shares:
            return True
        outbox = self._outbox
        if outbox.notices or outbox.knows(flight.key):
            # The answer may be about to be written; and an invalidation would end a lease from before it.
            try:
                async with asyncio.timeout(self._breaker.reading):
                    await self.durable()
                    while self._ready and outbox.knows(flight.key):
                        await self._writer.step()
            except TimeoutError:
                return True
        if not (self._ready and self._reads) or flight.detached is not None:
            return True
        return await self._leases.claim(flight)

    def _unreadable(self, key: str) -> None:
        self._writer.wake.set()  # the row is to be deleted
        self.corrupt(key)

    # What is to be written.

    def write(self, entry: Entry, claim: Claim | None) -> None:
        """Have an entry written that has just been judged and kept, under the lease of `claim`; never waits."""
        self.reasons.forget(entry.key)
        if self._ready:
            self._outbox.put(entry, Stamp(self._follower.applied, self._follower.origin, self._number), claim)
        else:
            self._missed = self._missed or not self._following
            self._outbox.dropped += 1
            self.outdate(entry.key)
            if claim is not None:
                claim.end()
        self._writer.wake.set()

    def outdate(self, key: str) -> None:
        """Note that the cache has had a newer value of `key`, which is not written."""
        self._writer.wake.set()
        self._outbox.outdate(key)
        if len(self._outbox.outdated) > MOST_OUTDATED:
            # More rows than are counted one by one: all of them go.
            self._outbox.outdated.clear()
            self._everything(self._number + 1)

    def announce(self, told: Invalidation, selection: Selection, journalled: Selection | None) -> None:
        """Have an invalidation journalled that is in force here; never waits.

        One that others have journalled is journalled again only if it selects more here, where a project has names
        that they do not know.
        """
        self._leases.invalidated()
        if journalled is not None and journalled.covers(self._relative.selection(selection)):
            return
        self._number = max(self._number + 1, told.sequence)
        if len(self._outbox.notices) >= MOST_NOTICES:
            self._everything(self._number)
        else:
            body = written(told, again=journalled is not None)
            notice = kept(Notice(self._follower.origin, self._number, selection, body), self._relative)
            self._outbox.add(notice, by_change=isinstance(told.cause, FileChange))
        self._writer.wake.set()

    def _everything(self, number: int) -> None:
        """Let one invalidation of everything stand for all that wait."""
        self._number = max(self._number, number)
        self._outbox.notices.clear()
        self._outbox.changes.clear()
        self._outbox.notices.append(Notice(self._follower.origin, self._number, select_scopes((ALL,)), EVERYTHING))

    def together(self) -> AbstractContextManager[None]:
        """Return a block; what is queued in it is written in one transaction."""
        return self._outbox.grouped()

    async def durable(self) -> None:
        """Return when the invalidations announced so far are in the journal, or the store is out of use."""
        number = self._number
        # Cancelled here, the invalidation is in force and goes its way.
        while self._ready and self._outbox.notices and self._outbox.notices[0].number <= number:
            await self._writer.step()

    async def flush(self) -> None:
        """Return when what was queued before is in the store, or given up."""
        number, serial = self._number, self._outbox.serial
        records = None if self._writer.files is None else self._writer.files.pending
        while self._ready and not (
            self._outbox.is_past(serial)
            and not self._leases
            and (not self._outbox.notices or self._outbox.notices[0].number > number)
            and (self._writer.files is None or records is None or self._writer.files.pending is not records)
        ):
            await self._writer.step()

    # The writer.

    async def _work(self) -> None:
        while True:
            try:
                if not self._ready:
                    await asyncio.sleep(self._breaker.delay)
                    await self._recover()
                await self._writer.deliver(lambda: self._ready)
            except Away:
                continue
            except Exception as error:  # noqa: BLE001 - who waits for what is queued must not wait for ever
                # It was opened late, so there is nobody else to be told; or the store answered what no store answers.
                self._breaker.trip(str(error) or type(error).__name__, error)

    async def _attend(self, due: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await due.wait()
            due.clear()
            if self._ready:
                try:
                    await work()
                except Away:
                    continue  # recovery reads the journal anyway, and who waits for a lease has been answered
                except Exception as error:  # noqa: BLE001 - as above
                    self._breaker.trip(str(error) or type(error).__name__, error)
                self._writer.tell()

    # Trouble.

    def _broken(self) -> None:
        """Go on without the store."""
        self._outbox.drop()
        self._leases.let_all_compute()
        self._writer.wake.set()
        self._writer.tell()

    async def _recover(self) -> None:
        """Open the store if it is not, and bring both sides up to date; reads come last."""
        if not self._opened:
            await self._ask("open", self._open)
        await self._writer.withdraw()
        if not self._following:
            journal = await self._ask("journal", lambda: self._store.journal(0))
            late = "the store was not open before, and other caches may have invalidated meanwhile"
            self._follower.start_over(journal, late if self._missed else None)
            self._missed, self._following = False, True
        else:
            await self._follower.catch_up()
        if self._writer.files is not None and not self._writer.files.compared:
            await self._writer.files.compare()
        while await self._writer.journal_notices():
            pass
        self._breaker.restore()
        self._writer.tell()

    async def _open(self) -> None:
        self._reader.sealer = self._writer.sealer = Sealer(await self._proofs.in_thread(load_secret))
        await self._store.open(self._clock, self._changed)
        # No await from here on: what has waited for this is not sent as it is.
        self._opened = True
        self._relative.settle(self._store.root)
        self._outbox.notices = deque([kept(notice, self._relative) for notice in self._outbox.notices])

    def _changed(self) -> None:
        self._news.set()
        self._leases.changed()

    def health(self) -> PartHealth:
        """Return its state."""
        if self._ready:
            return PartHealth(status="ok")
        waiting = len(self._outbox.notices)
        many = f"{waiting} invalidations are" if waiting > 1 else "1 invalidation is"
        more = f"; {many} not durable yet" if waiting else ""
        return PartHealth(status="degraded", reason=f"{self._breaker.reason}{more}", since=self._breaker.since)

    @property
    def figures(self) -> dict[str, int]:
        """Figures for `get_stats()`."""
        return {
            "hits": self._reader.hits,
            "misses": self._reader.misses,
            "written": self._writer.written,
            "refused": self._writer.refused,
            "dropped": self._outbox.dropped,
            "corrupt": self._reader.corrupt,
            "queued": len(self._outbox),
            "pending_invalidations": len(self._outbox.notices),
        }
