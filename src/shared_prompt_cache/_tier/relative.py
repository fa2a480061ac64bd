"""Paths as the cache has them, absolute, and as a store keeps them: relative to its root if they lie there.

What lies there is kept as `./` and what the path says behind the root: `.//memories/qa.md`, and `./` for the root
itself. Nothing else looks like that: paths are absolute, and the name of a project has no slash. Which root it is, the
store says; so all caches that share it, whatever their rules, spell a path alike.

The one thing else that a moved project changes is the name of its folder. What is filed under that name is filed under
`./.` as well, and what selects that name selects both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Final, overload

from shared_prompt_cache._core.scopes import ScopeId
from shared_prompt_cache.stores import Selection, Swap
from shared_prompt_cache.stores._selection import SEPARATOR, scope_of

_HERE: Final = "./"
_FOLDER: Final = "./."
_WITH_PROJECT: Final = 3
_MOST_KNOWN: Final = 4096
_SPELLED: Final = tuple([kind + SEPARATOR for kind in ("file", "project", "agent")])
"""What names begin with that may hold a path, or the name of a folder."""
_ANY: Final = "*/"  # stands before the name of the folder of a project that was given as a path


class Relative:
    """Translates in both directions.

    Attributes:
        root: That of the store; None: it has none, or has not been open yet, and everything stays as it is.
        mark: Tells one root from another.
    """

    def __init__(self, root: str | None = None) -> None:
        self.settle(root)

    def settle(self, root: str | None) -> None:
        """Go by this root from now on."""
        self.mark = b"" if root is None else blake2b(root.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        self.root = root
        self._base = "" if root is None else root.rstrip("/")
        self._below = self._base + "/"
        self._folder = self._base.rpartition("/")[2]
        self._known: dict[str, tuple[str, ...]] = {}  # names, as they are kept: those of most entries are a few

    def holds(self, path: str) -> bool:
        """Return whether a path leads below the root, as far as its text tells."""
        return self.root is not None and path.startswith(self._below) and path != self._below

    @overload
    def kept(self, path: str) -> str: ...
    @overload
    def kept(self, path: None) -> None: ...
    def kept(self, path: str | None) -> str | None:
        """Return a path as it is kept; the plain name of a project, and None, as they are."""
        if path is None or self.root is None:
            return path
        if path == self.root:
            return _HERE
        return _HERE + path[len(self._base) :] if path.startswith(self._below) else path

    @overload
    def absolute(self, kept: str) -> str: ...
    @overload
    def absolute(self, kept: None) -> None: ...
    def absolute(self, kept: str | None) -> str | None:
        """Return what `kept` was made from, or what lies there now."""
        if kept is not None and kept.startswith(_HERE) and self.root is not None:
            return self._base + kept[len(_HERE) :] or "/"
        return kept

    def bases(self, roots: Collection[str]) -> tuple[str, ...]:
        """Return at or below which kept paths everything lies that is at or below one of these absolute ones."""
        above = any(self._is_above(root.rstrip("/") + "/") for root in roots)
        return (*(self.kept(root) for root in roots), *((_HERE,) if above else ()))

    def records(self, kept: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return records by absolute path."""
        return {self.absolute(path): record for path, record in kept.items()}

    def swaps(self, swaps: Iterable[Swap]) -> list[Swap]:
        """Return swaps of the records that are kept."""
        return [Swap(self.kept(swap.path), swap.old, swap.new) for swap in swaps]

    def _is_above(self, prefix: str) -> bool:
        return self.root is not None and self._base.startswith(prefix)

    def names(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return names that can be selected, as they are kept."""
        return tuple(names) if self.root is None else self._all(names)

    def are_kept(self, names: Iterable[str]) -> bool:
        """Return whether names are as this root has them kept: what lay outside of another may lie below this one."""
        return all(self._name(name)[0] == name for name in names)

    def selection(self, selection: Selection) -> Selection:
        """Return what selects, of names that are kept, what `selection` does of others."""
        if self.root is None:
            return selection
        projects = selection.projects
        return replace(
            selection,
            names=self._all(selection.names),
            prefixes=tuple([one for prefix in selection.prefixes for one in self._prefix(prefix)]),
            projects=None if projects is None else tuple([one for name in projects for one in self._project(name)]),
        )

    def _all(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple([one for name in names for one in self._name(name)])

    def _name(self, name: str) -> tuple[str, ...]:
        if not name.startswith(_SPELLED):
            return (name,)
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[name] = self._spelled(name)
        return known

    def _spelled(self, name: str) -> tuple[str, ...]:
        kind, mark, rest = name.partition(SEPARATOR)
        if kind == "file":
            return (kind + mark + self.kept(rest),)
        if kind == "project":
            return tuple([kind + mark + one for one in self._project(rest)])
        if kind == "agent":
            agent, second, project = rest.partition(SEPARATOR)
            if second:
                return tuple([kind + mark + agent + second + one for one in self._project(project)])
        return (name,)

    def _project(self, name: str) -> tuple[str, ...]:
        """Return what a project is called where it is kept; by the name of its folder it is called two names."""
        if self._folder and name in (self._folder, _ANY + self._folder):
            return name, name.removesuffix(self._folder) + _FOLDER
        return (self.kept(name),)

    def _prefix(self, prefix: str) -> tuple[str, ...]:
        kind, mark, path = prefix.partition(SEPARATOR)
        if kind != "file":
            return (prefix,)
        return (prefix, kind + mark + _HERE) if self._is_above(path) else (kind + mark + self.kept(path),)

    def scope_of(self, name: str) -> ScopeId:
        """Return the scope that is kept by a name."""
        scope_id = scope_of(name)
        if scope_id[0] == "project" or (scope_id[0] == "agent" and len(scope_id) == _WITH_PROJECT):
            return (*scope_id[:-1], self._project_of(scope_id[-1]))
        return scope_id

    def _project_of(self, kept: str) -> str:
        first = kept.removesuffix(_FOLDER)
        if first in ("", _ANY) and first != kept:
            return first + (self._folder or _FOLDER)
        return self.absolute(kept)
