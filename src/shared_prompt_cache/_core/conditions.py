"""Conditions: what an invalidation selects by key or by file, where the number of a scope cannot say it.

A key is filed under its head, the first word of it, so that a condition that begins with a plain word looks at the
entries of that head alone.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Collection, Iterable
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final, Protocol

from shared_prompt_cache.events import Invalidation
from shared_prompt_cache.keys import glob_matcher, literal_prefix

if TYPE_CHECKING:
    from shared_prompt_cache._core.scopes import Scope


class Subject(Protocol):
    """What is judged: an entry, or a computation before its value is published."""

    @property
    def key(self) -> str: ...
    @property
    def agent(self) -> str | None: ...
    @property
    def pairs(self) -> Iterable[tuple[Scope, int]]: ...
    @property
    def checked(self) -> int: ...
    @property
    def consumed(self) -> Iterable[tuple[str, bool]]: ...
    @property
    def paths(self) -> Iterable[str]: ...
    @property
    def labels(self) -> Any: ...
    def soften(self, at: float) -> None: ...


class Condition:
    """An invalidation that numbers cannot express: it selects by key or by file.

    Attributes:
        matches: Whether a subject is selected.
        match_key: Whether a key selects a subject that consumed nothing; None where the key alone does not tell.
        heads: The heads (`head`) that the key of a selected entry can have; None if any.
        unowned_only: Whether it takes no entry that has an agent, unless that was made from others.
        number: The revision at which it was raised.
        soft_at: The moment, if it is soft.
        swept: Whether every entry has been judged by it.
        last: The invalidation, for explanations.
    """

    __slots__ = ("heads", "last", "match_key", "matches", "number", "soft_at", "swept", "unowned_only")

    def __init__(
        self,
        matches: Callable[[Subject], bool],
        heads: Collection[str] | None,
        *,
        match_key: Callable[[str], object] | None = None,
        unowned_only: bool = False,
    ) -> None:
        self.matches = matches
        self.match_key = match_key
        self.heads = heads
        self.unowned_only = unowned_only
        self.number = 0
        self.soft_at: float | None = None
        self.swept = False
        self.last: Invalidation | None = None


def glob_condition(pattern: str) -> Condition:
    """Select what has, or was made from, a key that matches `pattern`."""
    prefix = literal_prefix(pattern)
    match = methodcaller("startswith", prefix) if pattern == prefix + "*" else glob_matcher(pattern)

    def matches(subject: Subject) -> bool:
        return bool(match(subject.key)) or any(match(key) for key, _ in subject.consumed)

    return Condition(matches, heads_of_prefix(prefix), match_key=match)


def shapes_condition(agent: str, projects: Collection[str] | None) -> Condition:
    """Select what has no agent but a key of the shapes that name one: `{agent}_…`, `{agent}:…`, `memory_{agent}_…`.

    `_` and `-` are alike, and so are upper and lower case, as in every comparison of agents.

    Args:
        agent: The normalised id.
        projects: The names of the project it is limited to; None: every project.
    """
    starts = (agent + "-", agent + ":", f"memory-{agent}-")

    def named(key: str) -> bool:
        return key.lower().replace("_", "-").startswith(starts)

    def matches(subject: Subject) -> bool:
        if (
            subject.agent is None
            and named(subject.key)
            and (projects is None or any(name in projects for name in subject.labels.projects))
        ):
            return True
        # The pairs name the projects of all that was consumed; which of them is that of the key, they do not say.
        return any(unowned and named(key) for key, unowned in subject.consumed) and (
            projects is None or any(s.id[0] == "project" and s.id[1] in projects for s, _ in subject.pairs)
        )

    # What lies under another spelling of a letter outside ASCII is found by looking everywhere.
    return Condition(matches, (head(agent + "-"), "memory") if agent.isascii() else None, unowned_only=True)


def file_condition(path: str) -> Condition:
    """Select what was made from the file `path`, or from anything below the folder `path`."""
    below = path.rstrip("/") + "/"

    def matches(subject: Subject) -> bool:
        return any(name == path or name.startswith(below) for name in subject.paths)

    return Condition(matches, None)


_LONGEST_HEAD: Final = 32
_FIRST_WORD: Final = re.compile("[^-_:./ ]*")
# Letter by letter, unlike str.lower(): the head of a prefix must be the head of every key that begins with it.
_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def head(key: str) -> str:
    """Return the first word of a key, by which entries are filed: all up to the first of `_ - : . /` and space."""
    word = key[: _FIRST_WORD.match(key, 0, _LONGEST_HEAD).end()]  # type: ignore[union-attr] # it matches nothing, too
    return word.lower() if word.isascii() else word.translate(_LOWER)


def heads_of_prefix(prefix: str) -> tuple[str, ...] | None:
    """Return the one head that keys beginning with `prefix` can have, or None if they can have many."""
    word = head(prefix)
    return (word,) if len(word) < len(prefix) or len(word) == _LONGEST_HEAD else None
