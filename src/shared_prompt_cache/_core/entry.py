"""Entries: a value with all that is needed to judge it, and the public face of it.

Two rules:

1. An entry never changes what it says: value, metadata, labels and origin are fixed when it is made. What moves is
   what the cache has found out about it: the revision at which it was last judged, and its deadlines.
2. A hit hands out the entry itself, so a hit allocates nothing. `CachedPrompt` is what callers may see of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from copy import deepcopy
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from shared_prompt_cache.clock import Clock

if TYPE_CHECKING:
    from shared_prompt_cache._core.scopes import Pairs, Scope

_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
_ATOMS: Final = frozenset({str, int, float, bool, bytes, type(None)})
UNJUDGED: Final = -1
"""A revision that is never the current one: the entry has files, so no hit may go by the revision alone."""


class CachedPrompt(Mapping[str, Any]):
    """A cached value as callers see it: an immutable mapping with the keys `"prompt"` and `"metadata"`.

    It is handed out as it lies in the cache, so the value is shared: never mutate it.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def key(self) -> str:
        """The key."""

    @property
    @abstractmethod
    def prompt(self) -> Any:
        """The value."""

    @property
    @abstractmethod
    def metadata(self) -> Mapping[str, Any]:
        """The metadata, a frozen copy of what was given."""

    @property
    @abstractmethod
    def agent(self) -> str | None:
        """The agent as it was given, or None."""

    @property
    @abstractmethod
    def project(self) -> str | None:
        """The project as it was given, a relative path made absolute; or None."""

    @property
    @abstractmethod
    def tags(self) -> frozenset[str]:
        """The tags."""

    @property
    @abstractmethod
    def created_at(self) -> float:
        """When the value was stored, in seconds since the epoch."""

    @property
    @abstractmethod
    def expires_at(self) -> float:
        """When it expires, in seconds since the epoch; `math.inf` for never."""

    @property
    @abstractmethod
    def age(self) -> float:
        """Seconds since the value was stored, by the wall clock; never negative."""

    @property
    @abstractmethod
    def stale(self) -> bool:
        """Whether it has expired."""

    @property
    @abstractmethod
    def dependencies(self) -> tuple[str, ...]:
        """The absolute paths of the files and folders that the value was made from, sorted."""

    @overload
    def __getitem__(self, name: Literal["prompt"]) -> Any: ...
    @overload
    def __getitem__(self, name: Literal["metadata"]) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, name: str) -> Any: ...
    def __getitem__(self, name: str) -> Any:
        if name == "prompt":
            return self.prompt
        if name == "metadata":
            return self.metadata
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(("prompt", "metadata"))

    def __len__(self) -> int:
        return 2

    def __repr__(self) -> str:
        return f"<CachedPrompt {self.key!r} agent={self.agent!r} project={self.project!r}>"


class Labels:
    """What a value is filed under; shared by all entries with the same agent, project and tags.

    Attributes:
        agent: As given.
        project: As given.
        tags: All of them.
        projects: The names under which the project's scopes are known, `("",)` for none.
        scopes: The scopes these labels put an entry in.
        clock: The clock of the cache.
    """

    __slots__ = ("_noted", "_noted_at", "agent", "clock", "project", "projects", "scopes", "tags")

    def __init__(
        self,
        agent: str | None,
        project: str | None,
        tags: frozenset[str],
        *,
        projects: tuple[str, ...],
        scopes: tuple[Scope, ...],
        clock: Clock,
    ) -> None:
        self.agent = agent
        self.project = project
        self.tags = tags
        self.projects = projects
        self.scopes = scopes
        self.clock = clock
        self._noted: Pairs = ()
        self._noted_at = UNJUDGED

    def note(self, revision: int) -> Pairs:
        """Return the scopes with their numbers, the same tuple as long as no number moved."""
        if self._noted_at != revision:
            pairs = tuple([(scope, scope.number) for scope in self.scopes])
            if pairs != self._noted:
                self._noted = pairs
            self._noted_at = revision
        return self._noted


class Origin:
    """What a value was made from besides its arguments; only values made from something have one.

    Attributes:
        dependencies: Records of the files (`_files.Dependency`), as the value saw them.
        consumed: Keys of cached values that went into it, each with whether that value had no agent.
        checked: The revision at which files and scopes were last found right.
        followed: The revision from which on every event on the ways to the files has to be heeded.
        trusted: The state of the watch in which all of the files were found to be watched.
        held: Whether a kept value has it, so that changes of the files are marked.
        local: Whether the files may be looked at on the loop: few, and on local file systems.
        comparing: Set when the comparison of contents that is under way is over; None if none is.
        changed: The path whose content was found to be another; None as long as none was.
    """

    __slots__ = ("changed", "checked", "comparing", "consumed", "dependencies", "followed", "held", "local", "trusted")

    def __init__(self, dependencies: tuple[Any, ...], consumed: tuple[tuple[str, bool], ...]) -> None:
        self.dependencies = dependencies
        self.consumed = consumed
        self.checked = UNJUDGED
        self.followed = UNJUDGED
        self.trusted = UNJUDGED
        self.held = False
        self.local = False
        self.comparing: Any = None
        self.changed: str | None = None


class Entry(CachedPrompt):
    """An entry of the memory tier, a node in the list of its bucket at the same time.

    Attributes:
        value: The value.
        labels: What it is filed under.
        pairs: The scopes it is in, with the numbers they had when its computation began.
        origin: What it was made from, None if from nothing but arguments.
        revision: The revision at which it was last judged; `UNJUDGED` if it depends on files.
        expires: When it expires, by the monotonic clock.
        deadline: When a hit has to look closer: then, or earlier.
        ttl: Its time to live in seconds.
        size: What it counts for in bytes.
        before: The node before it in its bucket, None if it is in none.
        after: The node after it.
    """

    key: str  # a slot in place of the property
    __slots__ = (
        "_created_at",
        "_metadata",
        "after",
        "before",
        "deadline",
        "expires",
        "key",
        "labels",
        "origin",
        "pairs",
        "revision",
        "size",
        "ttl",
        "value",
    )

    def __init__(
        self,
        key: str,
        value: Any,
        metadata: Mapping[str, Any],
        labels: Labels,
        pairs: Pairs,
        origin: Origin | None,
        ttl: float,
        revision: int,
        size: int,
    ) -> None:
        clock = labels.clock
        self.key = key
        self.value = value
        self._metadata = metadata
        self.labels = labels
        self.pairs = pairs
        self.origin = origin
        self.ttl = ttl
        self.expires = self.deadline = clock.monotonic() + ttl if ttl != inf else inf
        self._created_at = clock.wall()
        self.size = size
        self.before: Any = None
        self.after: Any = None
        if origin is None or not origin.dependencies:
            self.revision = revision
        else:
            self.revision = UNJUDGED
        if origin is not None:
            origin.checked = origin.followed = revision

    @property
    def checked(self) -> int:
        """The revision at which the entry was last judged and found standing."""
        return self.revision if self.origin is None else self.origin.checked

    def judged(self, revision: int) -> None:
        """Note that it stands at `revision`."""
        if self.origin is None:
            self.revision = revision
        else:
            self.origin.checked = revision
            if not self.origin.dependencies:
                self.revision = revision

    def promoted(self, created_at: float, expires: float) -> None:
        """Take over the times that it has in the store it comes from.

        Nobody watched its files before now, so the first read that goes by events has to prove them.
        """
        self._created_at = created_at
        self.expires = self.deadline = expires
        if self.origin is not None and self.origin.dependencies:
            self.origin.followed = UNJUDGED

    def soften(self, at: float) -> None:
        """Let it expire at `at`, unless it expires earlier."""
        self.expires = min(self.expires, at)
        self.deadline = min(self.deadline, at)

    @property
    def consumed(self) -> tuple[tuple[str, bool], ...]:
        """The keys of the cached values it was made from."""
        return () if self.origin is None else self.origin.consumed

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths it was made from, in the order in which they were recorded."""
        return () if self.origin is None else tuple([dependency.path for dependency in self.origin.dependencies])

    @property
    def prompt(self) -> Any:
        """The value."""
        return self.value

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata."""
        return self._metadata

    @property
    def agent(self) -> str | None:
        """The agent."""
        return self.labels.agent

    @property
    def project(self) -> str | None:
        """The project."""
        return self.labels.project

    @property
    def tags(self) -> frozenset[str]:
        """The tags."""
        return self.labels.tags

    @property
    def created_at(self) -> float:
        """When it was stored."""
        return self._created_at

    @property
    def expires_at(self) -> float:
        """When it expires."""
        clock = self.labels.clock
        return clock.wall() + (self.expires - clock.monotonic())

    @property
    def age(self) -> float:
        """Seconds since it was stored."""
        return max(0.0, self.labels.clock.wall() - self._created_at)

    @property
    def stale(self) -> bool:
        """Whether it has expired."""
        return self.labels.clock.monotonic() >= self.expires

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The paths it was made from."""
        return tuple(sorted(set(self.paths)))


def freeze(metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a copy of `metadata` that later changes of the original do not reach.

    Values that are immutable by type are kept, others are deep-copied; what cannot be copied is shared.
    """
    if not metadata:
        return _EMPTY
    if _ATOMS.issuperset(map(type, metadata.values())):
        return MappingProxyType(dict(metadata))
    try:
        copied = deepcopy(dict(metadata))
    except Exception:  # noqa: BLE001 - __deepcopy__ and __reduce_ex__ belong to the caller's types
        copied = dict(metadata)
    return MappingProxyType(copied)
