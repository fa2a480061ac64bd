"""Entries as rows and back. All of it computes, or looks at files, so it runs in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache._core.scopes import ScopeId
from shared_prompt_cache._files.fingerprint import Dependency
from shared_prompt_cache._files.places import Way
from shared_prompt_cache._files.proof import refreshed
from shared_prompt_cache._tier.outbox import Waiting
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache.errors import SerializationError
from shared_prompt_cache.stores import StoredEntry, Write
from shared_prompt_cache.stores._codec import Unreadable
from shared_prompt_cache.stores._seal import Head, Sealer, StoredDependency, pack, unpack
from shared_prompt_cache.stores._selection import name_of, names_of, scope_of

_UNKNOWN: Final = Way((), ())
"""Where a path led is not kept: it is looked at anew with the proof."""
_MOST_KNOWN: Final = 256  # sets of scopes: most entries are in one of a few


@dataclass(frozen=True, slots=True)
class Examined:
    """A row that is what it was when it was sealed.

    Attributes:
        value: The value.
        metadata: Its metadata.
        head: All else.
        dependencies: What it was made from, proved; None: some of that has changed.
    """

    value: Any
    metadata: dict[str, Any]
    head: Head
    dependencies: tuple[Dependency, ...] | None


def examine(sealer: Sealer, relative: Relative, rows: Sequence[StoredEntry]) -> list[Examined | Unreadable]:
    """Return what rows hold, with the proof of the files that it was made from."""
    return [_examine(sealer, relative, row) for row in rows]


def _examine(sealer: Sealer, relative: Relative, row: StoredEntry) -> Examined | Unreadable:
    try:
        unpacked = unpack(sealer, row)
    except Unreadable as error:
        return error
    return Examined(unpacked.value, unpacked.metadata, unpacked.head, proved(unpacked.head, relative))


def proved(head: Head, relative: Relative) -> tuple[Dependency, ...] | None:
    """Return what a value was made from as it is now, None if some of that is not what it was."""
    now = refreshed(tuple([dependency_of(stored, relative) for stored in head.dependencies]))
    if isinstance(now, str) or not (head.root == relative.mark or _came_along(head, now, relative)):
        return None
    return now


def _came_along(head: Head, now: Sequence[Dependency], relative: Relative) -> bool:
    """Return whether what a value was made from is at the root of today what it was at that of then.

    A file that was absent is absent wherever a store is put without its project, so something else has to be there.
    And what was reached by a link from outside may be what has been left behind.
    """
    own = [one for one in now if relative.holds(one.path)]
    return (
        relative.are_kept(head.names)
        and (not own or any(map(relative.holds, _found(own))))
        and all(
            any(map(relative.holds, one.way.places))
            for then, one in zip(head.dependencies, now, strict=True)
            if then.linked
        )
    )


def _found(dependencies: Iterable[Dependency]) -> Iterable[str]:
    """Return the places on the way to these that exist."""
    for one in dependencies:
        yield from one.way.places if one.digest else one.way.places[:-1]


def dependency_of(stored: StoredDependency, relative: Relative) -> Dependency:
    """Return the record of something that a value was made from."""
    return Dependency(
        relative.absolute(stored.path),
        stored.kind,
        _UNKNOWN,
        digest=stored.digest,
        status=stored.status,
        settled=stored.settled,
        pattern=stored.pattern,
        folders=stored.folders and tuple([(relative.absolute(name), status) for name, status in stored.folders]),
        remote=stored.remote,
    )


def pack_all(sealer: Sealer, relative: Relative, waiting: Sequence[Waiting]) -> list[Write | SerializationError]:
    """Return entries as they are to be put, or why one cannot be."""
    return [_pack(sealer, relative, one) for one in waiting]


def _pack(sealer: Sealer, relative: Relative, waiting: Waiting) -> Write | SerializationError:
    entry = waiting.entry
    try:
        names = relative.names(_names(entry))
        expires_at = entry.expires_at
        row = pack(
            sealer,
            entry.key,
            entry.value,
            metadata=entry.metadata,
            agent=entry.agent,
            project=relative.kept(entry.project),
            tags=entry.tags,
            created_at=entry.created_at,
            expires_at=expires_at,
            ttl=entry.ttl,
            names=names,
            consumed=entry.consumed,
            stamp=waiting.stamp,
            root=relative.mark,
            dependencies=_stored(entry, relative),
        )
    except SerializationError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever the types of the caller do; one value hurts no other
        return SerializationError(f"the value cannot be encoded ({type(error).__name__}: {error})")
    return Write(row, names, waiting.stamp, expires_at, None if waiting.claim is None else waiting.claim.lease)


def _names(entry: Entry) -> tuple[str, ...]:
    ids = frozenset([scope.id for scope in (*entry.labels.scopes, *dict(entry.pairs))])
    unspeakable = _unspeakable(ids)
    if unspeakable is not None:
        raise SerializationError(
            f"the {unspeakable[0]} {unspeakable[1:]!r} holds the character U+001F, which no store can look for; "
            "use another name, or the value stays in memory alone"
        )
    return names_of(entry.key, ids, entry.consumed, entry.paths, unowned=entry.agent is None)


@lru_cache(maxsize=_MOST_KNOWN)
def _unspeakable(ids: frozenset[ScopeId]) -> ScopeId | None:
    """Return one of the scopes whose name would be that of another, None if there is none."""
    return next((scope_id for scope_id in ids if scope_of(name_of(scope_id)) != scope_id), None)


def _stored(entry: Entry, relative: Relative) -> tuple[StoredDependency, ...]:
    dependencies = () if entry.origin is None else entry.origin.dependencies
    return tuple([_stored_dependency(dependency, relative) for dependency in dependencies])


def _stored_dependency(dependency: Dependency, relative: Relative) -> StoredDependency:
    if dependency.digest is None:
        raise SerializationError(
            f"{dependency.path} was written all the time while it was read, so nothing can prove it later"
        )
    path = relative.kept(dependency.path)
    return StoredDependency(
        path=path,
        kind=dependency.kind,
        digest=dependency.digest,
        status=(dependency.device, dependency.inode, dependency.size, dependency.mtime, dependency.ctime),
        settled=dependency.settled,
        pattern=dependency.pattern,
        folders=dependency.folders and tuple([(relative.kept(name), status) for name, status in dependency.folders]),
        linked=path == dependency.path and any(map(relative.holds, dependency.way.places)),
        remote=dependency.remote,
    )
