"""Which folders are watched: what the watcher was asked for, what it said, and what has become doubtful since."""

import logging
import os
from collections.abc import Collection, Iterable

from shared_prompt_cache._files.places import nearest, spellings
from shared_prompt_cache._files.proof import Proofs
from shared_prompt_cache._files.watchers import Sink, Watcher
from shared_prompt_cache._logging import log


class Arming:
    """Keeps one watcher at the folders that have to be watched.

    Args:
        watcher: The watcher, not started.
        sink: Who it tells.
        proofs: The proofs that go by what is watched.
        roots: The roots of the rules.
        follow: Whether the folders of dependencies are watched, too.

    Attributes:
        watcher: As given.
    """

    def __init__(self, watcher: Watcher, sink: Sink, proofs: Proofs, roots: Iterable[str], *, follow: bool) -> None:
        self.watcher = watcher
        self._sink = sink
        self._proofs = proofs
        self._roots = tuple(roots)
        self._follow = follow
        self._started = False
        self._wanted: frozenset[str] = frozenset()
        self._lost: set[str] = set()  # those of them that may be other folders since the watcher was asked
        self._spellings: dict[str, tuple[str, ...]] = {}

    async def arm(self, rule_folders: frozenset[str]) -> bool:
        """Watch these folders, and all others that have to be; return whether some of these were armed only now."""
        wanted = set(rule_folders)
        if absent := [root for root in self._roots if root not in rule_folders]:
            wanted |= await self._proofs.in_thread(nearest, absent)
        if self._follow:
            wanted.update(self._proofs.folders)
        self._wanted = frozenset(wanted)
        self._lost = set()
        before = self._proofs.armed
        try:
            armed = await self._watch()
        except BaseException:
            self._proofs.arm(())  # what a broken watcher still watches, nobody knows
            raise
        armed -= self._lost
        self._proofs.arm(armed)
        return bool((armed - before) & rule_folders)

    async def _watch(self) -> frozenset[str]:
        if not self._started:
            await self.watcher.start(self._sink)
            self._started = True
        armed = frozenset(await self.watcher.watch(self._wanted))
        self._spellings = await self._proofs.in_thread(spellings, armed)
        return armed

    def lose(self, paths: Collection[str]) -> bool:
        """Count none of these as watched: a folder may be another one now, under its name and even with its inode.

        Returns:
            Whether there are folders among them that have to be watched.
        """
        lost = self._wanted.intersection(paths)
        self._lost.update(lost)
        if not lost.isdisjoint(self._proofs.armed):
            self._proofs.arm(self._proofs.armed - lost)
        return bool(lost)

    def spell(self, paths: Collection[str]) -> list[str]:
        """Return the paths in every spelling that rules and dependencies have for their folders."""
        found = list(paths)
        if self._spellings:
            for path in paths:
                folder, _, name = path.rpartition(os.sep)
                found.extend(f"{other}{os.sep}{name}" for other in self._spellings.get(folder, ()))
        return found

    async def aclose(self) -> None:
        """End the watcher, as far as that can be done."""
        try:
            await self.watcher.aclose()
        except Exception as error:  # noqa: BLE001 - the rest of the cache is to be closed all the same
            log(logging.ERROR, "watcher.failed", exc_info=error, watcher=self.watcher.name)
        self._proofs.arm(())
