"""The baseline: what the files that rules match looked like when they were last compared.

A comparison tells which of them have another content than then, are new, or are gone; only those are changes. An
event says no more than where to look. All of it runs in a worker thread, one comparison at a time.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from shared_prompt_cache._core.filing import Target
from shared_prompt_cache._files.fingerprint import Dependency
from shared_prompt_cache._files.imports import follow, import_roots
from shared_prompt_cache._files.matching import RuleTable, walk
from shared_prompt_cache._files.places import way
from shared_prompt_cache._files.reading import compare, read_file
from shared_prompt_cache.errors import CacheError
from shared_prompt_cache.events import Cause, ChangeKind, FileChange


class Seen(NamedTuple):
    """What became of a file.

    Attributes:
        kind: How it changed; rules may ask for that.
        digest: Of the content that it has now; None: it is gone.
    """

    kind: ChangeKind
    digest: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a comparison found.

    Attributes:
        changes: The files whose content is another, that are new, or gone; and those that import one of these.
        records: What became of each of them, imported ones too.
        folders: All folders that have to be watched, None if they are the same as before.
        troubles: Folders that could not be looked into, and why.
    """

    changes: tuple[FileChange, ...]
    records: Mapping[str, Seen] = field(default_factory=dict)
    folders: frozenset[str] | None = None
    troubles: tuple[tuple[str, str], ...] = ()


class Recorded(Protocol):
    """Keeps records of watched files in a store that other caches share."""

    async def targets(self, compared: Compared) -> Sequence[tuple[Target, Cause]]:
        """Return what those changes invalidate that nobody has told of by the time this returns."""

    def raising(self, records: Mapping[str, Seen]) -> AbstractContextManager[None]:
        """Return a block in which what a change of these files invalidates is put in force."""

    async def note(self) -> None:
        """Note that all of it is in force; awaited before the next comparison."""


class Baseline:
    """The files that the rules of one cache match.

    Attributes:
        files: The state of each, by path as the rules spell it.
        links: For paths outside of what rules match: the files that lead there, or would, by a symlink or an import.
    """

    def __init__(self, table: RuleTable) -> None:
        self.files: dict[str, Dependency] = {}
        self.links: dict[str, frozenset[str]] = {}
        self._table = table
        self._imported: dict[str, Dependency] = {}
        self._leads: dict[str, frozenset[str]] = {}  # where the symlinks and imports of a file lead
        self._walked: frozenset[str] = frozenset()  # the folders that the last walk looked into
        self._linked: frozenset[str] = frozenset()  # and those in which the links are seen to change
        self._unwalked: tuple[tuple[str, str], ...] = ()
        self._roots = [root for rule in table.rules for root in import_roots(rule.project_root or rule.root)]

    def digests(self) -> dict[str, bytes]:
        """Return the digest of each file that is there, and of each that one of them imports."""
        known = [*self._imported.items(), *self.files.items()]  # at one moment: another thread may compare
        return {path: seen.digest for path, seen in known if seen.digest}

    @property
    def rules(self) -> bytes:
        """The same for baselines with equal rules only."""
        return self._table.digest

    @property
    def roots(self) -> tuple[str, ...]:
        """The roots of the rules."""
        return self._table.roots

    def concerns(self, path: str) -> bool:
        """Return whether rules match a path."""
        return bool(self._table.match(path))

    def targets(self, changes: Sequence[FileChange]) -> Sequence[tuple[Target, Cause]]:
        """Return what changes of files invalidate."""
        return self._table.targets(changes, known=list(self.files))

    def between(self, before: Mapping[str, bytes], now: Mapping[str, bytes]) -> list[FileChange]:
        """Return what changed from one state of `digests` to another; of an import, the files that import it."""
        kinds: dict[str, ChangeKind] = {}
        for path in sorted(before.keys() | now.keys()):
            if before.get(path) == now.get(path):
                continue
            for importer in self.links.get(path, ()):
                kinds.setdefault(importer, "modified")
            if self._table.match(path):
                kinds[path] = "added" if path not in before else "deleted" if path not in now else "modified"
        return [FileChange(path=Path(path), kind=kind) for path, kind in kinds.items()]

    def compare(self, paths: Collection[str] | None, *, initial: bool = False) -> Compared:
        """Look at files and take what is there for the new state.

        Args:
            paths: Which; None: walk everywhere.
            initial: What is new is no change: nothing was known.
        """
        led: set[str] = set()
        folders_before = self._walked | self._linked
        if paths is None:
            files, self._walked, self._unwalked = self._walk()
            looked_at = files | self.files.keys()
        else:
            led = {name for path in paths for name in self.links.get(path, ())}
            looked_at = {*paths, *led}
        kinds: dict[str, ChangeKind] = {}
        for path in sorted(looked_at):
            kind = self._look(path)
            if kind is not None:
                kinds[path] = kind
        importers, records = self._importers_of_changed()
        records |= {path: Seen(kind, self._digest(path)) for path, kind in kinds.items()}
        for importer in importers:
            kinds.setdefault(importer, "modified")
        # What a link led over has changed, so it may lead elsewhere now; so may what leads nowhere yet.
        self._link(looked_at if paths is None else kinds.keys() | led | (looked_at - self.files.keys()))
        folders = self._walked | self._linked
        changes = () if initial else [FileChange(path=Path(path), kind=kind) for path, kind in kinds.items()]
        return Compared(
            changes=tuple(changes),
            records=records,
            folders=folders if paths is None or folders != folders_before else None,
            troubles=self._unwalked,
        )

    def _walk(self) -> tuple[set[str], frozenset[str], tuple[tuple[str, str], ...]]:
        files: set[str] = set()
        watched: set[str] = set()
        troubles: list[tuple[str, str]] = []
        for root in self._table.roots:
            for found in walk(self._table, root):
                files.update(found.files)
                watched.update(found.folders)
                troubles += [(folder, "it cannot be read") for folder in found.unreadable]
                if found.limit_hit:
                    troubles.append((root, "it has more folders than are looked into; narrow the patterns"))
        return files, frozenset(watched), tuple(troubles)

    def _look(self, path: str) -> ChangeKind | None:
        """Compare one file with its record, and renew that."""
        known = self.files.get(path)
        if known is not None:
            now = compare(known)
            if now is not None:
                self.files[path] = now
                return None
        seen = _fingerprint(path)
        if seen is None:
            if known is not None:
                del self.files[path]
                return "deleted"
            return None
        if known is None and not self._table.match(path):
            return None
        self.files[path] = seen
        return "added" if known is None else "modified"

    def _digest(self, path: str) -> bytes | None:
        seen = self.files.get(path)
        return None if seen is None else seen.digest

    def _importers_of_changed(self) -> tuple[set[str], dict[str, Seen]]:
        """Compare the imported files; return the files that import one that has changed, and what became of these."""
        importers: set[str] = set()
        changed: dict[str, Seen] = {}
        for path, known in self._imported.items():
            now = compare(known)
            if now is None:
                importers |= self.links.get(path, frozenset())
                now = _fingerprint(path, absent=True)
                changed[path] = Seen("modified", None if now is None else now.digest)
            if now is not None:
                self._imported[path] = now
        return importers & self.files.keys(), changed

    def _link(self, changed: Collection[str]) -> None:
        """Find out where the symlinks and imports of these files lead now."""
        if not changed:
            return
        imported: set[str] = set()
        # Where the roots lie is looked at apart; everything below one lies on a way over the links above it.
        above = {place for root in self._table.roots for place in way(root).places}
        for path in changed:
            self._leads.pop(path, None)
            here = path in self.files
            if not here and not (os.path.islink(path) and self._table.match(path)):
                continue
            leads = {place for place in _turns(path) if place != path and place not in above}
            if here and any(match.rule.imports for match in self._table.match(path)):
                found = {str(target) for target in follow(Path(path), _text, allowed_roots=self._roots)}
                imported |= found
                leads |= found.union(*map(_turns, found))
            if leads:
                self._leads[path] = frozenset(leads)
        links: dict[str, set[str]] = {}
        for path, places in self._leads.items():
            for place in places:
                links.setdefault(place, set()).add(path)
        self.links = {place: frozenset(by) for place, by in links.items()}
        ways = (way(place).folders for place in links)
        self._linked = frozenset({folder for folders in ways for folder in folders if os.path.isdir(folder)})
        self._imported = {path: state for path, state in self._imported.items() if path in links}
        for path in imported - self._imported.keys():
            state = _fingerprint(path, absent=True)
            if state is not None:
                self._imported[path] = state


def _turns(path: str) -> set[str]:
    """Return the places on the way of a path that are no folders: links, what is missing, and the file."""
    return {place for place in way(path).places if os.path.islink(place) or not os.path.isdir(place)}


def _fingerprint(path: str, *, absent: bool = False) -> Dependency | None:
    """Return the record of a file as it is now, None if it cannot be read or, unless `absent`, is not there."""
    try:
        seen = read_file(path)[1]
    except (OSError, CacheError):
        return None
    return seen if absent or seen.kind == "file" else None


def _text(path: Path) -> str | None:
    try:
        content, _ = read_file(str(path))
    except (OSError, CacheError):
        return None
    return None if content is None else content.decode("utf-8", "replace")
