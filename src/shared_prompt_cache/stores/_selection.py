"""What an invalidation selects in a store: names, and what names begin with.

Every stored entry has names, one for each thing by which it can be selected:

| name                | of an entry                                                                      |
|---------------------|----------------------------------------------------------------------------------|
| `all`               | each                                                                             |
| `agent␟a`           | in the scope of agent a; `agent␟a␟p` in that of a in the project p               |
| `project␟p`         | in the scope of the project p                                                    |
| `tag␟t`             | with the tag t                                                                   |
| `key␟k`             | with the key k, or made from the value of k                                      |
| `shape␟k`           | without an agent and with the key k, or made from such a one; `_` as `-`, lower  |
| `file␟/a/b`         | made from this file, folder, or absence                                          |

(␟ is the unit separator, U+001F.) So all that an invalidation can mean is a set of names and a set of beginnings of
names, which any store with an ordered index finds without a look at each entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shared_prompt_cache._core.scopes import ScopeId
from shared_prompt_cache.keys import glob_matcher, literal_prefix

SEPARATOR: Final = "\x1f"
_MOST_KNOWN: Final = 256  # sets of scopes: most entries are in one of a few


@dataclass(frozen=True, slots=True)
class Selection:
    """A set of entries, told by their names.

    Attributes:
        names: It holds each entry that has one of these,
        prefixes: or a name that begins with one of these,
        pattern: and, if this is not None, goes on so that the key in it matches this glob,
        projects: and, if this is not None, is in the scope of one of these projects.
    """

    names: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    pattern: str | None = None
    projects: tuple[str, ...] | None = None

    def covers(self, other: Selection) -> bool:
        """Return whether it surely holds all that `other` does."""
        if "all" in self.names:
            return True
        within = self.projects is None or (other.projects is not None and set(other.projects) <= set(self.projects))
        return (
            set(other.names) <= set(self.names)
            and set(other.prefixes) <= set(self.prefixes)
            and self.pattern in (None, other.pattern)
            and (within or not other.prefixes)
        )

    def selects(self, names: Collection[str]) -> bool:
        """Return whether it holds an entry with these names."""
        if any(name in names for name in self.names):
            return True
        if not self.prefixes:
            return False
        found = [name for name in names if name.startswith(self.prefixes)]
        if found and self.pattern is not None:
            match = glob_matcher(self.pattern)
            found = [name for name in found if match(name.partition(SEPARATOR)[2])]
        return bool(found) and (
            self.projects is None or any(name_of(("project", project)) in names for project in self.projects)
        )


def name_of(scope: ScopeId) -> str:
    """Return the name of a scope."""
    return SEPARATOR.join(scope)


def scope_of(name: str) -> ScopeId:
    """Return the scope that has a name; of one whose parts hold the separator it is another."""
    kind, *rest = name.split(SEPARATOR, 2 if name.startswith("agent" + SEPARATOR) else 1)
    return (kind, *rest)


def names_of(
    key: str,
    scopes: Iterable[ScopeId],
    consumed: Iterable[tuple[str, bool]],
    paths: Iterable[str],
    *,
    unowned: bool,
) -> tuple[str, ...]:
    """Return the names of an entry, sorted.

    Args:
        key: Its key.
        scopes: The scopes it is in, the keys it was made from among them.
        consumed: The keys of cached values it was made from, with whether those had no agent.
        paths: The files it was made from.
        unowned: Whether it has no agent.
    """
    names = set(_names_of_scopes(frozenset(scopes)))
    for name, bare in ((key, unowned), *consumed):
        names.add(f"key{SEPARATOR}{name}")
        if bare:
            names.add(f"shape{SEPARATOR}{_shape(name)}")
    names.update([f"file{SEPARATOR}{path}" for path in paths])
    return tuple(sorted(names))


@lru_cache(maxsize=_MOST_KNOWN)
def _names_of_scopes(scopes: frozenset[ScopeId]) -> tuple[str, ...]:
    return tuple([name_of(scope) for scope in scopes])


def select_scopes(scopes: Iterable[ScopeId]) -> Selection:
    """Select what is in one of these scopes."""
    return Selection(names=tuple([name_of(scope) for scope in scopes]))


def select_pattern(pattern: str) -> Selection:
    """Select what has, or was made from, a key that matches the glob `pattern`."""
    return Selection(prefixes=(name_of(("key", literal_prefix(pattern))),), pattern=pattern)


def select_file(path: str) -> Selection:
    """Select what was made from the file `path`, or from anything below the folder `path`."""
    return Selection(
        names=(name_of(("file", path)),),
        prefixes=(name_of(("file", path.rstrip("/") + "/")),),
    )


def select_agent(scopes: Iterable[ScopeId], agent: str, projects: Collection[str] | None) -> Selection:
    """Select the entries of an agent, and those without one whose keys have a shape that names it.

    Args:
        scopes: The scopes of the agent.
        agent: Its normalised id.
        projects: The names of the project that the shapes are limited to; None: every project.
    """
    starts = (agent + "-", agent + ":", f"memory-{agent}-")
    return Selection(
        names=tuple([name_of(scope) for scope in scopes]),
        prefixes=tuple([name_of(("shape", start)) for start in starts]),
        projects=None if projects is None else tuple(projects),
    )


def _shape(key: str) -> str:
    return key.lower().replace("_", "-")
