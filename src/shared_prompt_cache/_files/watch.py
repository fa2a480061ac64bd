"""The watch over files: one watcher, one task; from an event to the invalidations that follow from it.

An event marks what depends on the path, at once (`Proofs.mark`). Where rules match the path, it also puts what they
would invalidate in doubt, at once, and the task compares the file with the baseline in a thread: another content
raises the invalidation, the same raises nothing; then the doubt is settled and who waited for it goes on.

If events may have been missed (overflow, a pause of the loop, a watcher that had to be restarted, a root that is
another folder now), everything is in doubt and everything is compared.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from shared_prompt_cache._core.conditions import Condition
from shared_prompt_cache._core.filing import Target
from shared_prompt_cache._core.scopes import ALL, Doubt, ScopeId, Scopes
from shared_prompt_cache._core.stats import PartHealth
from shared_prompt_cache._files.arming import Arming
from shared_prompt_cache._files.baseline import Baseline, Compared, Recorded
from shared_prompt_cache._files.heartbeat import PAUSE, Heartbeat
from shared_prompt_cache._files.matching import RuleTable, lead_to_files
from shared_prompt_cache._files.places import Identity, identities, parents
from shared_prompt_cache._files.proof import Proofs, nobody
from shared_prompt_cache._files.troubles import Troubles
from shared_prompt_cache._files.watchers import Watcher
from shared_prompt_cache._files.watchers.choice import choose
from shared_prompt_cache.events import Cause, ChangeKind, FileChange, Recovery
from shared_prompt_cache.rules import WatchRule

Select = Callable[[Target], tuple[Iterable[ScopeId], Condition | None]]
Raise = Callable[[Sequence[tuple[Target, Cause]]], None]
_KINDS: Final[tuple[ChangeKind, ...]] = ("added", "modified", "deleted")
_BURST: Final = 4
_STORM: Final = 128
"""With more new paths at once it is less work to look everywhere than to ask the rules about each, on the loop."""
_PORTION: Final = 256
"""How many invalidations are put in force before others run."""
_QUIET: Final = 0.01
_LONGEST_BURST: Final = 0.1
_RETRY: Final = 1.0
"""How many seconds after a failure the watch begins anew."""


class FileWatch:
    """Watches the files that the rules of one cache match and, where events are trusted, all dependencies.

    Args:
        scopes: The scopes of the cache.
        proofs: Its proofs.
        rules: Its rules.
        watcher: Which watcher to use.
        select: Tells what an invalidation of a target would take.
        raised: Called with the targets to invalidate, in one synchronous stretch.
        follow_dependencies: Whether to watch the folders of dependencies, too.
        ignored: Folders of the cache's own, in which nothing is ever a cause.
        wall: The wall clock.
    """

    def __init__(
        self,
        scopes: Scopes,
        proofs: Proofs,
        rules: Iterable[WatchRule],
        *,
        watcher: Literal["auto", "watchfiles", "polling"] | Watcher,
        select: Select,
        raised: Raise,
        follow_dependencies: bool,
        wall: Callable[[], float],
        ignored: Iterable[str] = (),
    ) -> None:
        self.proofs = proofs
        self._scopes = scopes
        self._table = RuleTable(rules, ignored=ignored)
        self.baseline = Baseline(self._table)
        self._choice = watcher
        self._arming: Arming | None = None
        self._select = select
        self._raise = raised
        self._follow = follow_dependencies
        self._rule_folders: frozenset[str] = frozenset()
        self._asked_for = self._rule_folders  # those for which the watcher was last asked
        self._rule_places: frozenset[str] = frozenset()  # those, the roots and all above them
        self._dirty: set[str] = set()
        self._suspects: set[str] = set()  # what no rule matches; it may be a folder with files that rules match
        self._walk = False  # everything has to be compared
        self._rearm = False
        self._look_at_roots = False
        self._doubt: Doubt | None = None
        self._wake = asyncio.Event()
        self._waiting: list[asyncio.Event] = []  # who waits for a comparison that begins from now on
        self._task: asyncio.Task[None] | None = None
        self._heartbeat = Heartbeat(self._paused, self._look_at_roots_soon)
        self._identities: dict[str, Identity | None] = {}
        self._troubles = Troubles(wall)
        self._retry: asyncio.TimerHandle | None = None
        self._anew = False  # the next round tells whether a failure is over
        self.events = self.batches = 0
        self.recorded: Recorded | None = None
        """Who keeps records of what was found, if there is a store."""

    # Life.

    async def start(self) -> None:
        """Arm the watch and take the baseline; when this returns no change is missed, or `health()` says why."""
        if not self._table.roots and not self._follow:
            return
        self.proofs.wanted = self._want
        watcher = choose(self._choice, self.proofs.in_thread)
        self._arming = Arming(watcher, self, self.proofs, self._table.roots, follow=self._follow)
        try:
            await self._begin()
        except Exception as error:  # noqa: BLE001 - a cache whose watcher is broken goes on without it
            self._recover(error)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._work(), name="shared-prompt-cache watch")
        self._heartbeat.start()
        self.proofs.pulse, self.proofs.lease = self._heartbeat.pulse, PAUSE

    async def _begin(self) -> None:
        """Look, arm, look again: until no new folder turns up between looking and arming."""
        self._identities = await self.proofs.in_thread(identities, self._table.roots)
        while True:
            compared = await self.proofs.in_thread(self.baseline.compare, None, initial=True)
            self._note(compared)
            if not await self._arm():
                return

    async def aclose(self) -> None:
        """End task, watcher and threads."""
        self._heartbeat.stop()
        if self._retry is not None:
            self._retry.cancel()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._settle(self._doubt)
        for done in self._waiting:
            done.set()
        arming, self._arming = self._arming, None
        if arming is not None:
            await arming.aclose()
        self.proofs.wanted = self.proofs.pulse = nobody
        self.proofs.lease = None

    async def sync(self) -> None:
        """Return when every change made before the call has been applied."""
        self.proofs.doubt_all()
        if self._arming is None or not self._table.roots:
            return
        done = asyncio.Event()
        self._waiting.append(done)
        self._look_everywhere()
        await done.wait()

    # What the watcher tells: the methods of a `Sink`.

    def changed(self, paths: Collection[str]) -> None:
        """Mark what depends on these paths and question what rules say of them."""
        if self._arming is None:
            return
        self.events += len(paths)
        spelled = self._arming.spell(paths)
        self.proofs.mark(spelled)
        if self._arming.lose(spelled):
            self._want()
        known, links = self.baseline.files, self.baseline.links
        others = [path for path in spelled if path not in known and path not in links]
        if len(others) > _STORM or not self._rule_places.isdisjoint(spelled):
            self._look_everywhere()
            return
        new = {path for path in others if self._table.match(path)}
        files = [path for path in spelled if path in known or path in links or path in new]
        if files:
            self._question(files)
        if len(others) > len(new):
            self._suspects.update(path for path in others if path not in new)
            self._wake.set()

    def doubted(self, reason: str) -> None:
        """Take everything for changed until it has been compared."""
        if self._arming is None:
            return  # nobody would settle the doubt
        self._troubles.doubted(reason)
        self.proofs.doubt_all()
        self._look_everywhere()

    def degraded(self, folder: str, reason: str | None) -> None:
        """Note that a folder cannot be watched, or can again."""
        if reason is not None:
            self._troubles.refuse(folder, reason)
            self.proofs.arm(self.proofs.armed - {folder})
        elif self._troubles.refused.pop(folder, None) is not None:
            self._want()

    # From paths to questions.

    def _question(self, files: list[str]) -> None:
        self._dirty.update(files)
        ids: set[ScopeId] = set()
        conditions: list[Condition] = []
        few = () if len(files) > _BURST or self._walk else files
        asked = {importer for path in few for importer in (path, *self.baseline.links.get(path, ()))}
        if not asked or self._table.concerns_many(asked):
            ids.add(ALL)
        else:
            changes = [FileChange(path=Path(path), kind=kind) for path in asked for kind in _KINDS]
            for target, _ in self._table.targets(changes):
                selected, condition = self._select(target)
                ids.update(selected)
                if condition is not None:
                    conditions.append(condition)
        self._doubt_about(ids, conditions)

    def _look_everywhere(self) -> None:
        self._walk = True
        self._doubt_about({ALL}, [])

    def _doubt_about(self, ids: Collection[ScopeId], conditions: Collection[Condition]) -> None:
        """Let reads of what is selected wait until the next comparison is done."""
        if self._doubt is not None:
            # One question at a time: the new one asks for both, and is answered by the same comparison.
            self._scopes.settle(self._doubt)
            ids = {*ids, *self._doubt.ids}
            conditions = [*conditions, *self._doubt.conditions]
        settled = asyncio.Event() if self._doubt is None else self._doubt.settled
        self._doubt = Doubt(ids, conditions, settled)
        self._scopes.doubt(self._doubt)
        self._wake.set()

    # The task.

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            anew, self._anew = self._anew, False
            try:
                await self._go_round()
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing stale may be served after it
                self._recover(error)
            else:
                if anew:
                    self._troubles.recovered()

    async def _go_round(self) -> None:
        if self._dirty or self._walk:
            await self._compare()
        if self._suspects:
            await self._sift()
        if self._look_at_roots:
            await self._compare_roots()
        if self._rearm:
            self._rearm = False
            await self._arm()

    async def _compare(self) -> None:
        await self._gather_burst()
        # What comes from here on is another question, for the next round.
        paths = None if self._walk else frozenset(self._dirty)
        doubt, self._doubt = self._doubt, None
        waiting, self._waiting = self._waiting, []
        self._dirty, self._walk = set(), False
        try:
            compared = await self.proofs.in_thread(self.baseline.compare, paths)
            # The invalidations are in force before the question is settled, however many portions they come in.
            self._note(compared)
            self.batches += bool(compared.changes)
            if compared.changes and self.recorded is None:
                await self.raise_all(await self.proofs.in_thread(self.baseline.targets, compared.changes))
            elif compared.changes and self.recorded is not None:
                targets = await self.recorded.targets(compared)
                with self.recorded.raising(compared.records):
                    await self.raise_all(targets)
                await self.recorded.note()
        except asyncio.CancelledError:
            raise  # the cache is closed, and its entries are gone
        except BaseException:
            self._raise([(Target("all"), Recovery(reason="a comparison with the files could not be finished"))])
            raise
        finally:
            self._settle(doubt)
            for done in waiting:
                done.set()
        unwatched = self._rule_folders - self.proofs.armed - self._troubles.refused.keys()
        if unwatched or self._rule_folders != self._asked_for:
            self._want()

    async def raise_all(self, targets: Sequence[tuple[Target, Cause]]) -> None:
        """Put in force what changes of files invalidate, in portions; a single one without an await."""
        for start in range(0, len(targets), _PORTION):
            if start:
                await asyncio.sleep(0)
            self._raise(targets[start : start + _PORTION])

    async def _sift(self) -> None:
        """Look everywhere if something that no rule matches is a folder with files that rules match."""
        suspects, self._suspects = self._suspects, set()
        try:
            found = await self.proofs.in_thread(lead_to_files, self._table, suspects)
        except BaseException:
            self._look_everywhere()
            raise
        if found:
            self._look_everywhere()

    async def _gather_burst(self) -> None:
        """When many files change at once, wait until no more do, so that they become one batch."""
        waited = 0.0
        while len(self._dirty) > _BURST and waited < _LONGEST_BURST:
            before = len(self._dirty)
            await asyncio.sleep(_QUIET)
            waited += _QUIET
            if len(self._dirty) == before:
                return

    def _settle(self, doubt: Doubt | None) -> None:
        if doubt is not None:
            self._scopes.settle(doubt)
            doubt.settled.set()

    def _recover(self, error: Exception) -> None:
        self._troubles.failed(error)
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(_RETRY, self._begin_anew)

    def _begin_anew(self) -> None:
        self._retry = None
        self._anew = True
        self.proofs.doubt_all()
        self._look_everywhere()
        self._want()

    def _note(self, compared: Compared) -> None:
        if compared.folders is not None:
            self._rule_folders = compared.folders
            above = (place for root in self._table.roots for place in (root, *parents(root)))
            self._rule_places = compared.folders.union(above)
            self._troubles.unread(compared.troubles)

    # Arming.

    def _want(self) -> None:
        self._rearm = True
        self._wake.set()

    async def _arm(self) -> bool:
        """Watch what has to be watched; return whether folders that rules name were armed only now."""
        self._asked_for = self._rule_folders
        if self._arming is None or not await self._arming.arm(self._rule_folders):
            return False
        if self._task is not None:
            # What changed in them between the look that found them and now made no event.
            self._look_everywhere()
        return True

    def _paused(self, late: float) -> None:
        self.doubted(f"the loop did not run for {late:.1f} s, events may have been lost")

    def _look_at_roots_soon(self) -> None:
        self._look_at_roots = True
        self._wake.set()

    async def _compare_roots(self) -> None:
        """Notice that a root has become another folder; of some of that no event tells."""
        self._look_at_roots = False
        found = await self.proofs.in_thread(identities, self._table.roots)
        if found != self._identities:
            self._identities = found
            self.proofs.doubt_all()
            self._look_everywhere()
            self._want()
        elif not self._rule_folders <= self.proofs.armed:
            self._walk = True  # where no watcher looks, a comparison each second has to do
            self._wake.set()

    # What it tells of itself.

    def health(self) -> Mapping[str, PartHealth]:
        """Return the state of the watcher and of each root."""
        if self._arming is None:
            return {}
        return self._troubles.health({root: self._identities.get(root) for root in self._table.roots})

    @property
    def figures(self) -> dict[str, Any]:
        """Figures for `get_stats()`."""
        if self._arming is None:
            return {}
        return {
            "name": self._arming.watcher.name,
            "folders": len(self.proofs.armed),
            "files": len(self.baseline.files),
            "events": self.events,
            "batches": self.batches,
            "pauses": self._heartbeat.pauses,
        }
