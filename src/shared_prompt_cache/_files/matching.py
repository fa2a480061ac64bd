"""From files to what they invalidate: the table of all rules, and the walk that finds the files they name.

`RuleTable` decides and touches no disk; `walk` looks and decides nothing. Both agree on what is left out: what a rule
excludes, folders that are pruned (unless the plain leading folders of a pattern name them), and paths that are ignored
for the cache's own sake. All of that looks at the path below a root, never at where the root lies.
"""
# Paths are text here: a Path for each name that a walk looks at would cost more than the look.

import os
import stat
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

from shared_prompt_cache._core.filing import Target
from shared_prompt_cache._mounts import real
from shared_prompt_cache.events import FileChange
from shared_prompt_cache.rules import Match, WatchRule

PRUNED: Final = frozenset({".git", ".venv", "node_modules"})
MAX_FOLDERS: Final = 10_000
_DATABASE_COMPANIONS: Final = ("-wal", "-shm", "-journal")


class RuleTable:
    """All rules of a cache, by root.

    Args:
        rules: The rules; of equal ones the first counts.
        prune: Names of folders that wildcards do not enter.
        ignored: Absolute paths of the cache's own: never a cause, nor what lies below them, nor the companions of
            a database file.
    """

    def __init__(
        self, rules: Iterable[WatchRule], *, prune: Collection[str] = PRUNED, ignored: Iterable[str] = ()
    ) -> None:
        self.rules = tuple(dict.fromkeys(rules))
        self._prune = frozenset(prune)
        paths = [os.path.abspath(path) for path in ignored]
        self._ignored = frozenset(path + end for path in paths for end in ("", *_DATABASE_COMPANIONS))
        self._ignored_folders = tuple(map(_with_separator, paths))
        self._by_root: dict[str, list[WatchRule]] = {}
        names: dict[Path, dict[str, None]] = {}
        for rule in self.rules:
            self._by_root.setdefault(str(rule.root), []).append(rule)
            if rule.project_root is not None and rule.project is not None:
                names.setdefault(rule.project_root, {})[rule.project] = None
        self._aliases = {root: tuple(given) for root, given in names.items()}

    @property
    def digest(self) -> bytes:
        """The same for equal rules only, and in every process."""
        settings = (sorted(self._prune), sorted(self._ignored), [_spelled(rule) for rule in self.rules])
        return blake2b(repr(settings).encode("utf-8", "surrogateescape"), digest_size=16).digest()

    @property
    def roots(self) -> tuple[str, ...]:
        """The roots of the rules, absolute, in the order of the rules."""
        return tuple(self._by_root)

    def match(self, path: str) -> list[Match]:
        """Return what the rules say of a file, whether it exists or not; empty: it is nobody's concern.

        Args:
            path: Absolute and normalised, spelled from the root as the rule spells it.
        """
        matches: list[Match] = []
        if self.ignores(path):
            return matches
        for root, rules in self._by_root.items():
            relative = _below(path, root)
            if relative is None:
                continue
            pruned = self._pruned_levels(relative.split("/")[:-1])
            for rule in rules:
                match = rule.match(relative)
                if match is not None and pruned <= len(rule.prefix):
                    matches.append(match)
        return matches

    def concerns_many(self, paths: Iterable[str]) -> bool:
        """Return whether a change of one of these takes a look at all known files, to find out whom it concerns."""
        return any(match.rule.scope == "agents" for path in paths for match in self.match(path))

    def visits(self, root: str, folder: str) -> bool:
        """Return whether a folder can hold a file that a rule of `root` names, or lies on the way to one.

        Args:
            root: One of `roots`.
            folder: The path below it, with `/`; `""` is the root itself.
        """
        return bool(self.leading(root, folder))

    def leading(self, root: str, folder: str, among: Iterable[WatchRule] | None = None) -> list[WatchRule]:
        """Return the rules of `root` for which `visits` is so.

        Args:
            root: One of `roots`.
            folder: The path below it.
            among: What was returned for the folder above; saves asking the others.
        """
        if self.ignores(os.path.join(root, folder) if folder else root):
            return []
        pruned = self._pruned_levels(folder.split("/"))
        rules = self._by_root[root] if among is None else among
        return [rule for rule in rules if pruned <= len(rule.prefix) and rule.leads(folder)]

    def ignores(self, path: str) -> bool:
        """Return whether a path is the cache's own."""
        return path in self._ignored or path.startswith(self._ignored_folders)

    def targets(self, changes: Iterable[FileChange], known: Iterable[str] = ()) -> list[tuple[Target, FileChange]]:
        """Return the smallest set of targets that covers the changes, each with the first change that caused it.

        `"all"` covers everything, a project the agents in it, an agent of all projects the same agent of one.

        Args:
            changes: What changed; the kinds that rules are limited to are respected.
            known: The files known to exist that rules match, from which the agents below a folder are found.
                Iterated at most once, and only if a rule of scope `"agents"` asks.
        """
        found: dict[Target, FileChange] = {}
        agents: list[tuple[str, Match]] | None = None
        for change in changes:
            path = str(change.path)
            for match in self.match(path):
                rule = match.rule
                if not rule.concerns(change.kind):
                    continue
                if rule.scope == "all":
                    return [(Target("all"), change)]
                if rule.scope == "agents":
                    agents = self._agent_files(known) if agents is None else agents
                    names = _agents_near(path, rule, agents)
                    targets = [self._target(rule, "agent", name) for name in names]
                elif rule.scope == "files":
                    targets = [Target("file", path)]
                else:
                    targets = [self._target(rule, rule.scope, match.agent)]
                for target in targets:
                    found.setdefault(target, change)
        return _smallest(found)

    def _target(self, rule: WatchRule, scope: Literal["agent", "project"], agent: str | None) -> Target:
        root = rule.project_root
        if root is None:
            return Target(scope, agent)
        return Target(scope, str(root) if scope == "project" else agent, str(root), self._aliases.get(root, ()))

    def _agent_files(self, known: Iterable[str]) -> list[tuple[str, Match]]:
        return [
            (path, match)
            for path in known
            for match in self.match(path)
            if match.rule.scope == "agent" and match.rule.captures
        ]

    def _pruned_levels(self, folders: list[str]) -> int:
        """Return how many plain leading segments a pattern needs to name the innermost pruned folder."""
        return max((level for level, name in enumerate(folders, 1) if name in self._prune), default=0)


def _smallest(found: dict[Target, FileChange]) -> list[tuple[Target, FileChange]]:
    projects = {target.project for target in found if target.scope == "project"}
    everywhere = {target.name for target in found if target.scope == "agent" and target.project is None}
    return [
        (target, change)
        for target, change in found.items()
        if target.scope != "agent"
        or target.project is None
        or (target.project not in projects and target.name not in everywhere)
    ]


def _agents_near(path: str, rule: WatchRule, agents: list[tuple[str, Match]]) -> list[str | None]:
    """Return the agents of the rule's project with a file in or below the folder of `path`."""
    folder = os.path.dirname(path)
    topmost = folder == str(rule.root.joinpath(*rule.prefix))
    return [
        match.agent
        for file, match in agents
        if match.rule.project_root == rule.project_root and (topmost or _below(file, folder) is not None)
    ]


def _spelled(rule: WatchRule) -> list[object]:
    """Return the settings of a rule; a set comes in another order in each process, so it is sorted."""
    settings = [getattr(rule, field.name) for field in fields(rule) if field.compare]
    return [sorted(value) if isinstance(value, frozenset) else value for value in settings]


def _with_separator(folder: str) -> str:
    return folder if folder.endswith(os.sep) else folder + os.sep


def _below(path: str, root: str) -> str | None:
    """Return the path below `root`, with `/`; None if it does not lie there."""
    start = _with_separator(root)
    if not path.startswith(start) or path == start:
        return None
    relative = path[len(start) :]
    return relative if os.sep == "/" else relative.replace(os.sep, "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A slice of a walk.

    Attributes:
        folders: The folders that were looked into, absolute: each can hold a match or a folder on the way to one.
        files: The files in them that rules of the root name; a link counts as a file also if it leads nowhere.
        unreadable: Folders that could not be looked into, for other reasons than being absent.
        limit_hit: The walk ended early because the limit of folders was reached.
    """

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    limit_hit: bool = False


def walk(table: RuleTable, root: str, *, limit: int = MAX_FOLDERS, size: int = 256) -> Iterator[Found]:
    """Find the folders and files below a root that its rules are about, slice by slice.

    Only folders that can matter are entered, outer ones first; where rules name all that can matter in a folder, it is
    not even listed. A linked folder is entered where rules name it in plain words; under a wildcard each linked
    folder once, and not if it encloses the link. A root that does not exist yields nothing.

    Args:
        table: The rules.
        root: One of `table.roots`.
        limit: How many folders are entered at most.
        size: How many names are looked at for each slice.
    """
    walked = _Walk(table, root, limit)
    for count, _ in enumerate(walked.steps(), 1):
        if count % size == 0:
            yield walked.take()
    last = walked.take()
    if last != Found():
        yield last


def lead_to_files(table: RuleTable, paths: Iterable[str]) -> bool:
    """Return whether one of `paths` is a folder in or below which there may be files that rules name."""
    return any(
        (folder := _below(path, root)) is not None and table.visits(root, folder) and os.path.isdir(path)
        for path in paths
        for root in table.roots
    )


class _Walk:
    """The state of one walk: what waits, and what was found since the last slice."""

    def __init__(self, table: RuleTable, root: str, limit: int) -> None:
        self._table = table
        self._root = root
        self._limit = limit
        self._waiting: deque[_Folder] = deque()
        self._links: deque[_Folder] = deque()  # entered last, so that the limit cuts them before real folders
        self._followed: set[tuple[int, int]] = set()
        self._folders: list[str] = []
        self._files: list[str] = []
        self._unreadable: list[str] = []
        self._limit_hit = False

    def take(self) -> Found:
        """Return what was found since the last call."""
        found = Found(
            folders=tuple(self._folders),
            files=tuple(self._files),
            unreadable=tuple(self._unreadable),
            limit_hit=self._limit_hit,
        )
        self._folders, self._files, self._unreadable = [], [], []
        return found

    def steps(self) -> Iterator[None]:
        """Walk; yields after each name that was looked at."""
        rules = self._table.leading(self._root, "")
        if rules and os.path.isdir(self._root):
            self._waiting.append(_Folder(self._root, "", rules))
        entered = 0
        while self._waiting or self._links:
            folder = self._waiting.popleft() if self._waiting else self._links.popleft()
            if entered == self._limit:
                self._limit_hit = True
                return
            entered += 1
            try:
                for name, is_folder, is_link in folder.entries():
                    if is_folder:
                        self._queue(folder, name, is_link=is_link)
                    elif folder.holds(name) and not self._table.ignores(path := os.path.join(folder.path, name)):
                        self._files.append(path)
                    yield
            except (FileNotFoundError, NotADirectoryError):  # gone since it was listed
                continue
            except OSError:
                self._unreadable.append(folder.path)
                continue
            self._folders.append(folder.path)
            yield

    def _queue(self, parent: "_Folder", name: str, *, is_link: bool) -> None:
        relative = parent.below(name)
        rules = self._table.leading(self._root, relative, among=parent.rules)
        if not rules:
            return
        folder = _Folder(os.path.join(parent.path, name), relative, rules)
        if not is_link:
            self._waiting.append(folder)
        elif folder.is_spelled_out() or self._first_time(folder.path):
            self._links.append(folder)

    def _first_time(self, link: str) -> bool:
        """Return whether a linked folder is to be entered under a wildcard."""
        try:
            status = os.stat(link)
        except OSError:  # it led to a folder a moment ago
            return False
        target = real(link)
        here = real(os.path.dirname(link))
        identity = (status.st_dev, status.st_ino)
        if identity in self._followed or here == target or _below(here, target) is not None:
            return False
        self._followed.add(identity)
        return True


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder on a walk, and the rules that lead there."""

    path: str
    relative: str
    rules: list[WatchRule]

    def below(self, name: str) -> str:
        return f"{self.relative}/{name}" if self.relative else name

    def holds(self, name: str) -> bool:
        relative = self.below(name)
        return any(rule.match(relative) is not None for rule in self.rules)

    def is_spelled_out(self) -> bool:
        """Return whether a rule names the folder by plain leading segments."""
        parts = tuple(self.relative.split("/"))
        return any(rule.prefix[: len(parts)] == parts for rule in self.rules)

    def entries(self) -> Iterator[tuple[str, bool, bool]]:
        """Yield the name of each entry that can matter, whether it is a folder, and whether it is a link."""
        names = {rule.only_name(self.relative) for rule in self.rules}
        if None in names:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    is_link = entry.is_symlink()
                    yield entry.name, os.path.isdir(entry.path) if is_link else entry.is_dir(), is_link
            return
        for name in sorted(name for name in names if name is not None):
            child = os.path.join(self.path, name)
            try:
                is_link = stat.S_ISLNK(os.lstat(child).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                continue
            yield name, os.path.isdir(child), is_link
