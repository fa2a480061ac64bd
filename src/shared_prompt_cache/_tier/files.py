"""The baseline in the store: what watched files looked like when what they invalidate was last in force.

So a cache that starts finds out which of them were edited, created or deleted while nobody watched. A record is written
only after the invalidations that the change raised are durable: if that is cut short they are raised once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from shared_prompt_cache._tier.breaker import Ask
from shared_prompt_cache.stores import Store, Swap

T = TypeVar("T")


class Watch(Protocol):
    """The watch over files, as the tier needs it; `_files.FileWatch`."""

    compared: Callable[[], None]

    @property
    def roots(self) -> tuple[str, ...]: ...
    @property
    def contents(self) -> dict[str, bytes]: ...
    def concerns(self, path: str) -> bool: ...
    async def differ(self, before: Mapping[str, bytes], now: Mapping[str, bytes]) -> None: ...


class StoredFiles:
    """The records of one cache in its store.

    Attributes:
        compared: Whether the files have been compared with the records of the store.

    Args:
        watch: The watch, which has been started.
        wake: Called when there is something to be saved.
    """

    def __init__(self, watch: Watch, store: Store, ask: Ask, wake: Callable[[], None]) -> None:
        self.compared = False
        self._watch = watch
        self._store = store
        self._ask = ask
        self._wake = wake
        self._stored: dict[str, bytes] = {}
        self._unsaved: dict[str, bytes] | None = None
        watch.compared = self._note

    def _note(self) -> None:
        # As it is now: what a later comparison finds has not been raised yet.
        self._unsaved = self._watch.contents
        self._wake()

    async def compare(self) -> None:
        """Raise what files invalidate that changed since they were last recorded."""
        if self._watch.roots:
            stored = await self._load()
            now = self._watch.contents
            # Nothing was ever kept: there is nothing that could be old.
            new = not stored and not await self._ask("keys", lambda: self._store.keys(most=1))
            if not new:
                await self._watch.differ(stored, now)
            self._unsaved = now
            self._wake()
        self.compared = True

    async def _load(self) -> dict[str, bytes]:
        self._stored = {}
        for root in self._watch.roots:
            self._stored |= await self._ask("baseline", lambda root=root: self._store.baseline(root))  # type: ignore[misc]
        return self._stored

    @property
    def unsaved(self) -> bool:
        """Whether records have to be written."""
        return self._unsaved is not None

    async def save(self) -> None:
        """Write the records of what has changed; the invalidations that it raised have to be durable."""
        now, self._unsaved = self._unsaved, None
        for _ in range(2):
            swaps = self._swaps(now or {})
            if not swaps or await self._ask("swap", lambda swaps=swaps: self._store.swap(swaps, ())) is not None:  # type: ignore[misc]
                self._stored |= {swap.path: swap.new for swap in swaps if swap.new is not None}
                for swap in swaps:
                    if swap.new is None:
                        self._stored.pop(swap.path, None)
                return
            await self._load()  # another cache has recorded some of it first

    def _swaps(self, now: Mapping[str, bytes]) -> list[Swap]:
        """Return what turns the records into `now`; those of other caches, with other rules, are left alone."""
        gone = [path for path in self._stored if path not in now and self._watch.concerns(path)]
        return [
            Swap(path, self._stored.get(path), now.get(path))
            for path in (*now, *gone)
            if self._stored.get(path) != now.get(path)
        ]
