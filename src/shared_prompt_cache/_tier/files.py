"""The baseline in the store: what watched files looked like when what they invalidate was last in force.

So a cache that starts finds out which of them were edited, created or deleted while nobody watched. A record is written
only after the invalidations that the change raised are durable: if that is cut short they are raised once more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from shared_prompt_cache._core.filing import Target
from shared_prompt_cache._files.baseline import Baseline
from shared_prompt_cache._files.watchers.choice import InThread
from shared_prompt_cache._tier.breaker import Ask
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache.events import Cause
from shared_prompt_cache.stores import Store, Swap

T = TypeVar("T")


class Watch(Protocol):
    """The watch over files, as the tier needs it; `_files.FileWatch`."""

    baseline: Baseline
    compared: Callable[[], Awaitable[None]] | None

    async def raise_all(self, targets: Sequence[tuple[Target, Cause]]) -> None: ...


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
        ask: Ask,
        wake: Callable[[], None],
        in_thread: InThread,
    ) -> None:
        self.compared = False
        self._watch = watch
        self._baseline = watch.baseline
        self._store = store
        self._relative = relative
        self._ask = ask
        self._wake = wake
        self._in_thread = in_thread
        self._stored: dict[str, bytes] = {}
        self.pending: dict[str, bytes] | None = None
        watch.compared = self._note

    async def _note(self) -> None:
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
                await self._watch.raise_all(await self._in_thread(self._targets, stored, now))
            self.pending = now
            self._wake()
        self.compared = True

    def _targets(self, before: Mapping[str, bytes], now: Mapping[str, bytes]) -> Sequence[tuple[Target, Cause]]:
        return self._baseline.targets(self._baseline.between(before, now))

    async def _load(self) -> dict[str, bytes]:
        self._stored = {}
        for root in self._relative.bases(self._baseline.roots):
            kept = await self._ask("baseline", lambda root=root: self._store.baseline(root))  # type: ignore[misc]
            self._stored |= await self._in_thread(self._relative.records, kept)
        return self._stored

    async def save(self) -> None:
        """Write the records of what has changed; the invalidations that it raised have to be durable."""
        now = self.pending
        for _ in range(2):
            swaps = await self._in_thread(self._swaps, now or {})
            kept = await self._in_thread(self._relative.swaps, swaps)
            if not swaps or await self._ask("swap", lambda kept=kept: self._store.swap(kept, ())) is not None:  # type: ignore[misc]
                self._stored |= {swap.path: swap.new for swap in swaps if swap.new is not None}
                for swap in swaps:
                    if swap.new is None:
                        self._stored.pop(swap.path, None)
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
