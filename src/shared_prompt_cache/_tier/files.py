"""The baseline in the store: what watched files looked like when what they invalidate was last in force.

So a cache that starts finds out which of them were edited, created or deleted while nobody watched. A record is written
with the invalidations that the change raised, or after them: if that is cut short they are raised once more.

A change that several caches see is told by the one that replaces the records first. The others find the records
replaced, read in the journal what they have in force already, and tell nothing; who reads it before seeing the change
itself puts it in force then, and passes over the change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol, TypeVar

from shared_prompt_cache._core.filing import Target
from shared_prompt_cache._files.baseline import Baseline, Compared, Recorded, Seen
from shared_prompt_cache._files.watchers.choice import InThread
from shared_prompt_cache._tier.breaker import Ask
from shared_prompt_cache._tier.journal import Told, of_change
from shared_prompt_cache._tier.outbox import Change, Outbox
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache.events import Cause, FileChange
from shared_prompt_cache.stores import Notice, Store, Swap

T = TypeVar("T")

_MOST_KNOWN: Final = 100_000
_MOST_FILES: Final = 1000
"""Of more files that change at once each cache tells by itself."""


class Watch(Protocol):
    """The watch over files, as the tier needs it; `_files.FileWatch`."""

    baseline: Baseline
    recorded: Recorded | None

    async def raise_all(self, targets: Sequence[tuple[Target, Cause]]) -> None: ...


class _Known(NamedTuple):
    """What is in force here of a file.

    Attributes:
        seen: What became of it then.
        number: Since which own invalidation.
        told: Whether another cache has told of it.
    """

    seen: Seen
    number: int
    told: bool


class StoredFiles:
    """The records of one cache in its store.

    Attributes:
        compared: Whether the files have been compared with the records of the store.
        pending: What the records have to become, None if they are.

    Args:
        watch: The watch, which has been started.
        relative: How the store keeps paths.
        wake: Called when there is something to be saved.
        in_thread: Runs what takes longer the more files there are.
    """

    def __init__(
        self,
        watch: Watch,
        store: Store,
        relative: Relative,
        outbox: Outbox,
        ask: Ask,
        wake: Callable[[], None],
        in_thread: InThread,
    ) -> None:
        self.compared = False
        self._watch = watch
        self._baseline = watch.baseline
        self._store = store
        self._relative = relative
        self._outbox = outbox
        self._ask = ask
        self._wake = wake
        self._in_thread = in_thread
        self._rules = self._baseline.rules
        self._stored: dict[str, bytes] = {}
        self.pending: dict[str, bytes] | None = None
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._reading: tuple[str, int, dict[str, Seen], bool] | None = None
        self._heard = 0  # rises with each change that another cache has told of
        watch.recorded = self

    # What the watch tells: the methods of `Recorded`.

    async def targets(self, compared: Compared) -> Sequence[tuple[Target, Cause]]:
        """Return what those changes invalidate that no other cache has told of."""
        while True:
            heard = self._heard
            targets = await self._in_thread(lambda: self._baseline.targets(self._unknown(compared)))
            # No await from here on: what another tells of now finds this in force.
            if heard == self._heard:
                return targets

    def _unknown(self, compared: Compared) -> Sequence[FileChange]:
        told = {path for path, seen in compared.records.items() if self._is_known(path, seen)}
        if len(told) == len(compared.records):
            return ()
        # What imports a file has the content that it had; it is passed over with all that was told, or not at all.
        return [change for change in compared.changes if str(change.path) not in told]

    @contextmanager
    def raising(self, records: Mapping[str, Seen]) -> Iterator[None]:
        """Have what is invalidated in this block journalled together, by whoever of all caches comes first."""
        with self._outbox.changing(records) as change:
            try:
                yield
            finally:
                number = change.numbers[-1] if change.numbers else 0
                for path, seen in records.items():
                    if not self._is_known(path, seen):
                        self._know(path, _Known(seen, number, told=False))
        self._wake()

    async def note(self) -> None:
        """Have the records written when all that was raised is durable."""
        # As it is now: what a later comparison finds, which waits for this, has not been raised yet.
        self.pending = await self._in_thread(self._baseline.digests)
        self._wake()

    async def compare(self) -> None:
        """Raise what files invalidate that changed since they were last recorded."""
        if self._baseline.roots:
            stored = await self._load()
            now = await self._in_thread(self._baseline.digests)
            # Nothing was ever kept: there is nothing that could be old.
            new = not stored and not await self._ask("keys", lambda: self._store.keys(most=1))
            if not new:
                changed, targets = await self._in_thread(self._changed, stored, now)
                with self.raising(changed):
                    await self._watch.raise_all(targets)
            self.pending = now
            self._wake()
        self.compared = True

    def _changed(
        self, before: Mapping[str, bytes], now: Mapping[str, bytes]
    ) -> tuple[dict[str, Seen], Sequence[tuple[Target, Cause]]]:
        changes = self._baseline.between(before, now)
        kinds = {str(change.path): change.kind for change in changes}
        changed = {swap.path: Seen(kinds.get(swap.path, "modified"), swap.new) for swap in self._swaps(now)}
        return changed, self._baseline.targets(changes)

    async def _load(self) -> dict[str, bytes]:
        self._stored = {}
        for root in self._relative.bases(self._baseline.roots):
            kept = await self._ask("baseline", lambda root=root: self._store.baseline(root))  # type: ignore[misc]
            self._stored |= await self._in_thread(self._relative.records, kept)
        return self._stored

    # Of what was changed, each is told by one of the caches that share the store.

    def told(self, change: Change) -> bool:
        """Return whether another cache has told of a change."""
        known = [self._known.get(path) for path in change.files]
        return all(
            one is not None and one.told and one.seen == seen
            for one, seen in zip(known, change.files.values(), strict=True)
        )

    def known(self, origin: str, told: Told) -> int | None:
        """Return since which own invalidation that is in force here which another cache tells of, None if it is not.

        What a change of files has raised comes one after the other, the files with the first.
        """
        if told.rules != self._rules:
            return None
        if told.files:
            files = {self._relative.absolute(path): seen for path, seen in told.files.items()}
            self._reading = origin, told.change, files, all(self._is_known(*file) for file in files.items())
        if self._reading is None or self._reading[:2] != (origin, told.change):
            return None
        *_, files, in_force = self._reading
        number = max([self._known[path].number for path in files]) if in_force else 0
        if told.last:
            self._reading = None
            self._heard += 1
            for path, seen in files.items():
                self._know(path, _Known(seen, number, told=True))
                self._record(path, seen.digest)
        return number if in_force else None

    def _is_known(self, path: str, seen: Seen) -> bool:
        known = self._known.get(path)
        return known is not None and known.seen == seen

    def _know(self, path: str, known: _Known) -> None:
        self._known[path] = known
        self._known.move_to_end(path)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def _record(self, path: str, digest: bytes | None) -> None:
        if digest is None:
            self._stored.pop(path, None)
        else:
            self._stored[path] = digest

    async def journal(self, change: Change, notices: Sequence[Notice]) -> list[int] | None:
        """Enter what a change has raised in the journal, with the new records, unless another cache was faster.

        Returns the sequences; None: the records are others than was thought, and have been read anew.
        """
        files = dict(change.files) if len(change.files) <= _MOST_FILES else {}
        marked = of_change(notices, self._rules, {self._relative.kept(path): seen for path, seen in files.items()})
        swaps = [Swap(path, self._stored.get(path), seen.digest) for path, seen in change.files.items()]
        swaps = self._relative.swaps([swap for swap in swaps if swap.old != swap.new])
        sequences = await self._ask("swap", lambda: self._store.swap(swaps, marked))
        if sequences is None:
            await self._load()
        else:
            for path, seen in change.files.items():
                self._record(path, seen.digest)
        return sequences

    async def save(self) -> None:
        """Write the records of what has changed; the invalidations that it raised have to be durable."""
        now = self.pending
        for _ in range(2):
            swaps = await self._in_thread(self._swaps, now or {})
            kept = await self._in_thread(self._relative.swaps, swaps)
            if not swaps or await self._ask("swap", lambda kept=kept: self._store.swap(kept, ())) is not None:  # type: ignore[misc]
                for swap in swaps:
                    self._record(swap.path, swap.new)
                break
            await self._load()  # another cache has recorded some of it first
        if self.pending is now:  # else more has changed meanwhile
            self.pending = None

    def _swaps(self, now: Mapping[str, bytes]) -> list[Swap]:
        """Return what turns the records into `now`; those of other caches, with other rules, are left alone."""
        gone = [path for path in self._stored if path not in now and self._baseline.concerns(path)]
        return [
            Swap(path, self._stored.get(path), now.get(path))
            for path in (*now, *gone)
            if self._stored.get(path) != now.get(path)
        ]
