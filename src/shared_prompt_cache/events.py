"""What subscribers of a cache are told: invalidations with their cause, and removals of single entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

ScopeKind = Literal["key", "pattern", "tag", "agent", "project", "all", "file"]
ChangeKind = Literal["added", "modified", "deleted"]
RemovalReason = Literal["expired", "evicted", "replaced", "invalidated", "corrupt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A file changed on disk.

    Attributes:
        path: The file, absolute.
        kind: `"added"`, `"modified"` or `"deleted"`, as a comparison with what was known of the file shows.
    """

    path: Path
    kind: ChangeKind

    def __str__(self) -> str:
        return f"the file {self.path} was {self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCall:
    """A method of the cache was called.

    Attributes:
        verb: Its name.
    """

    verb: str

    def __str__(self) -> str:
        return f"{self.verb}() was called"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """The configuration of the cache itself changed.

    Attributes:
        field: The dotted path of the field.
    """

    field: str

    def __str__(self) -> str:
        return f"the setting {self.field} changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEvent:
    """Another process or host invalidated.

    Attributes:
        origin: The cache there, as its own events name it.
    """

    origin: str

    def __str__(self) -> str:
        return f"{self.origin} invalidated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Something may have been missed, so what it could have touched was invalidated.

    Attributes:
        reason: What happened.
    """

    reason: str

    def __str__(self) -> str:
        return self.reason


Cause = FileChange | ApiCall | ConfigChange | PeerEvent | Recovery


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalidation:
    """Entries were invalidated. When a subscriber has this in hand, no call returns any of them.

    Attributes:
        scope: What was invalidated: `"key"`, `"pattern"`, `"tag"`, `"agent"`, `"project"`, `"all"` or `"file"`.
        name: Which one: the key, the pattern, the tag, the normalised agent id, the project, the path;
            None for `"all"`.
        project: The project that an agent's invalidation is limited to; None: every project.
        cause: Why; `str()` of it is for people.
        origin: The cache in which it began.
        sequence: Counts the invalidations of the cache that publishes this, from 1, without a gap.
        at: When, in seconds since the epoch.
        dropped: How many entries left the memory of this cache by it.
        soft: Whether the entries were expired instead of removed.
    """

    scope: ScopeKind
    name: str | None
    project: str | None = None
    cause: Cause
    origin: str
    sequence: int
    at: float
    dropped: int
    soft: bool = False

    def __str__(self) -> str:
        what = "everything" if self.scope == "all" else f"the {self.scope} {self.name!r}"
        where = f" in the project {self.project!r}" if self.scope == "agent" and self.project else ""
        return f"{'expired' if self.soft else 'invalidated'} {what}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One entry left the memory of the cache.

    Attributes:
        key: The key of the entry.
        reason: `"expired"`, `"evicted"`, `"replaced"`, `"invalidated"` or `"corrupt"`.
    """

    key: str
    reason: RemovalReason


Event = Invalidation | Removal
