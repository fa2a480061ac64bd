"""Whether what was read still is what is there: the files of entries and of running computations.

Two ways, and the strict one never relies on the other:

- by fingerprint: every dependency's stat tuple is compared at the read; where that proves nothing, its content is.
- by events (`freshness="events"`): a dependency in watched folders is trusted until a path on its way is marked.

A mark is a number: the revision at which something happened to a path, or below it. It costs no walk over entries;
an entry compares the marks on the ways of its dependencies with the revision at which it was last proved. Paths that
nothing depends on are not marked at all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Thread
from typing import Any, Final, TypeVar

from shared_prompt_cache._core.entry import UNJUDGED, Origin
from shared_prompt_cache._core.scopes import Scopes
from shared_prompt_cache._files.fingerprint import Dependency, unchanged
from shared_prompt_cache._files.places import Way, absolute
from shared_prompt_cache._files.reading import compare, declared, led_now
from shared_prompt_cache._files.recorder import Recorder

T = TypeVar("T")
K = TypeVar("K")
_MOST_ON_LOOP: Final = 64
_MOST_MARKS: Final = 10_000
_MOMENT: Final = 0.001
_Look = tuple[str, str | None, Way]
"""What was looked at: a path, the pattern of a listing, and where the path led."""


class _Comparison(asyncio.Event):
    """A comparison of contents that is under way; set when it is over.

    Attributes:
        holds: What it came to, None if to nothing.
    """

    holds: bool | None = None


class Proofs:
    """Proves the dependencies of one cache.

    Attributes:
        armed: The folders that are watched now.
        folders: The folders that dependencies want watched, with how many paths want each.
        wanted: Called when `folders` has grown, once somebody watches.
        pulse: Called when a read looks closer: a watch notices there that the loop was held up and events may wait.
        lease: For how many seconds a read may go by the entry alone until it has to look closer; None: for ever.
    """

    def __init__(self, scopes: Scopes) -> None:
        self.armed: frozenset[str] = frozenset()
        self.folders: dict[str, int] = {}
        self.wanted: Callable[[], None] = nobody
        self.pulse: Callable[[], None] = nobody
        self.lease: float | None = None
        self._scopes = scopes
        self._held: dict[_Look, int] = {}  # with how many kept values depend on it
        self._ways: dict[str, int] = {}  # every place on the way of what is held, with how many ways lead over it
        # The folders that a way needs, with how many of what is held need just those.
        self._areas: dict[tuple[str, ...], int] = {}
        self._listings: dict[str, int] = {}
        self._marks: dict[str, int] = {}
        self._floor = 0  # at this revision everything was in doubt
        self._generation = 0  # counts the changes of `armed`
        self._executor: ThreadPoolExecutor | None = None

    # At a read.

    def proved(self, origin: Origin, revision: int, *, strict: bool) -> bool:
        """Return whether the files of an entry are proved without reading them, and note that at `revision` they are.

        On the loop, and quick: up to 64 stat calls. False means that `compare` has to tell.
        """
        dependencies = origin.dependencies
        if not strict:
            if not self._undisturbed(dependencies, origin.followed):
                return False  # the ways may lead elsewhere now, where nobody watches yet
            if self.trusted(origin):
                origin.checked = origin.followed = revision
                return True
        if origin.local and unchanged(dependencies):
            origin.checked = revision
            return True
        return False

    async def compare(self, origin: Origin) -> bool:
        """Return whether the files of an entry have the content they had, looked at after this was called."""
        earlier = origin.comparing  # it began before this call, so it proves nothing; but it may settle what it saw
        while (comparison := origin.comparing) is not None:
            await comparison.wait()
            if comparison is not earlier and comparison.holds is not None:
                return bool(comparison.holds)
            if self.proved(origin, origin.checked, strict=True):
                return True
        revision = self._scopes.revision
        comparison = origin.comparing = _Comparison()
        try:
            found = await self.in_thread(refreshed, origin.dependencies)
            comparison.holds = not isinstance(found, str)
        finally:
            comparison.set()
            origin.comparing = None
        if isinstance(found, str):
            origin.changed = found
            return False
        self._renew(origin, found)
        origin.checked = origin.followed = revision
        return True

    def _renew(self, origin: Origin, dependencies: tuple[Dependency, ...]) -> None:
        """Put records as of now in the place of older ones."""
        held = origin.held
        if held:
            self.release(origin)
        origin.dependencies = dependencies
        origin.trusted = UNJUDGED  # they may lie in other folders
        if held:
            self.hold(origin)

    async def unmoved(self, dependencies: tuple[Dependency, ...]) -> bool:
        """Return whether what a running computation has read is unchanged at the moment of the call.

        No event can prove that: it may have come before anything kept depended on the file, and marked nothing.
        """
        if _on_loop(dependencies) and unchanged(dependencies):
            return True
        return not isinstance(await self.in_thread(refreshed, dependencies), str)

    async def moved(self, dependencies: tuple[Dependency, ...]) -> str | None:
        """Return a path whose content is no longer what the record says, None if all were current at one moment.

        Two looks at all of them: if both find everything as recorded, it was so at every moment between.
        """
        if _on_loop(dependencies) and unchanged(dependencies) and unchanged(dependencies):
            return None
        looked_at = Origin(dependencies, ())
        self.hold(looked_at)  # so that an event which comes behind the look, and before this returns, is heeded
        try:
            while True:
                since = self._scopes.revision
                moved = await self.in_thread(_first_moved, dependencies)
                if moved is not None or self._undisturbed(dependencies, since):
                    return moved
        finally:
            self.release(looked_at)

    async def declare(self, recorder: Recorder, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Record files, and the names of the children of folders, as read."""
        with recorder.looking():
            for dependency in await self.in_thread(_declared, [absolute(path) for path in paths]):
                recorder.read(dependency)

    # What is depended on.

    def hold(self, origin: Origin) -> None:
        """Note that a kept value depends on the files of `origin`."""
        grown = False
        origin.held = True
        origin.local = _on_loop(origin.dependencies)
        for dependency in origin.dependencies:
            look = _look(dependency)
            count = self._held.get(look, 0)
            self._held[look] = count + 1
            if not count:
                _count_up(self._ways, dependency.way.places)
                _count_up(self._areas, (dependency.way.folders,))
                _count_up(self._listings, _listed(dependency))
                grown = _count_up(self.folders, dependency.way.folders) or grown
        if grown:
            self.wanted()

    def release(self, origin: Origin) -> None:
        """Note that a value which was held is gone."""
        origin.held = False
        for dependency in origin.dependencies:
            look = _look(dependency)
            if self._held[look] > 1:
                self._held[look] -= 1
                continue
            del self._held[look]
            _count_down(self._ways, dependency.way.places)
            _count_down(self._areas, (dependency.way.folders,))
            _count_down(self._listings, _listed(dependency))
            _count_down(self.folders, dependency.way.folders)

    # What happens to files.

    def mark(self, paths: Iterable[str]) -> bool:
        """Put what depends on these paths, or on anything below them, in doubt; return whether anything does."""
        touched: set[str] = set()
        for path in paths:
            if path in self._ways:
                touched.add(path)
            parent = os.path.dirname(path)
            if parent in self._listings:
                touched.add(parent)
        if touched:
            revision = self._scopes.move()
            for path in touched:
                self._marks[path] = revision
            if len(self._marks) > _MOST_MARKS:
                self.doubt_all()
        return bool(touched)

    def doubt_all(self) -> None:
        """Put everything that depends on files in doubt."""
        self._floor = self._scopes.move()
        self._marks.clear()

    def arm(self, armed: Collection[str]) -> None:
        """Note which folders are watched now. What lies in new ones may have changed before they were."""
        now = frozenset(armed)
        if now != self.armed:
            new = now - self.armed
            self.armed = now
            self._generation += 1
            self.mark(new)

    @property
    def unwatched(self) -> int:
        """How many files and listings are depended on whose folders are not all watched."""
        return sum(count for folders, count in self._areas.items() if not self.armed.issuperset(folders))

    def trusted(self, origin: Origin) -> bool:
        """Return whether all files of an entry lie in watched folders, so that a change of one would be marked."""
        if origin.trusted == self._generation:
            return True
        if not all(self.armed.issuperset(dependency.way.folders) for dependency in origin.dependencies):
            return False
        origin.trusted = self._generation
        return True

    def _undisturbed(self, dependencies: Iterable[Dependency], since: int) -> bool:
        if since < self._floor or since == UNJUDGED:
            return False
        marks = self._marks
        return not marks or not any(
            marks.get(place, UNJUDGED) > since for dependency in dependencies for place in dependency.way.places
        )

    # Threads.

    async def in_thread(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Run a function in a thread of the cache's own."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="shared-prompt-cache")
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *args, **options))

    async def aclose(self) -> None:
        """End the threads, and wait until they are gone."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        # A thread of its own waits for the others: `shutdown` blocks, and the loop's own threads outlive the cache.
        thread = Thread(target=executor.shutdown, kwargs={"wait": True, "cancel_futures": True}, daemon=True)
        thread.start()
        while thread.is_alive():  # noqa: ASYNC110 - threads tell nobody of their end
            await asyncio.sleep(_MOMENT)


def nobody() -> None:
    """Nobody watches."""


def _on_loop(dependencies: tuple[Dependency, ...]) -> bool:
    """Return whether looking at these by stat is little enough for the loop: few, and on local file systems."""
    return len(dependencies) <= _MOST_ON_LOOP and not any(dependency.remote for dependency in dependencies)


def _look(dependency: Dependency) -> _Look:
    return (dependency.path, dependency.pattern, dependency.way)


def _listed(dependency: Dependency) -> list[str]:
    return [name for name, _ in dependency.folders]


def _declared(paths: list[str]) -> list[Dependency]:
    return [declared(path) for path in paths]


def refreshed(dependencies: tuple[Dependency, ...]) -> tuple[Dependency, ...] | str:
    """Return the records as of now, or the path of one whose content differs. It blocks: for a thread."""
    found = []
    for dependency in dependencies:
        now = compare(dependency)
        if now is None:
            return dependency.path
        found.append(led_now(now) if now is dependency else now)
    return tuple(found)


def _first_moved(dependencies: tuple[Dependency, ...]) -> str | None:
    for _ in range(2):
        for dependency in dependencies:
            if compare(dependency) is None:
                return dependency.path
    return None


def _count_up(table: dict[K, int], names: Iterable[K]) -> bool:
    grown = False
    for name in names:
        count = table.get(name, 0)
        grown = grown or not count
        table[name] = count + 1
    return grown


def _count_down(table: dict[K, int], names: Iterable[K]) -> None:
    for name in names:
        if table[name] == 1:
            del table[name]
        else:
            table[name] -= 1
