"""Entries as rows and back. All of it computes, or looks at files, so it runs in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache._files.fingerprint import Dependency
from shared_prompt_cache._files.places import Way
from shared_prompt_cache._files.proof import refreshed
from shared_prompt_cache._tier.outbox import Waiting
from shared_prompt_cache.errors import SerializationError
from shared_prompt_cache.stores import StoredEntry, Write
from shared_prompt_cache.stores._codec import Unreadable
from shared_prompt_cache.stores._seal import Head, Sealer, StoredDependency, pack, unpack
from shared_prompt_cache.stores._selection import name_of, names_of, scope_of


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


def examine(sealer: Sealer, rows: Sequence[StoredEntry]) -> list[Examined | Unreadable]:
    """Return what rows hold, with the proof of the files that it was made from."""
    return [_examine(sealer, row) for row in rows]


def _examine(sealer: Sealer, row: StoredEntry) -> Examined | Unreadable:
    try:
        unpacked = unpack(sealer, row)
    except Unreadable as error:
        return error
    now = refreshed(tuple([_dependency(stored) for stored in unpacked.head.dependencies]))
    return Examined(unpacked.value, unpacked.metadata, unpacked.head, None if isinstance(now, str) else now)


def _dependency(stored: StoredDependency) -> Dependency:
    return Dependency(
        stored.path,
        stored.kind,
        Way(stored.places, stored.watched),
        digest=stored.digest,
        status=stored.status,
        settled=stored.settled,
        pattern=stored.pattern,
        folders=stored.folders,
        remote=stored.remote,
    )


def pack_all(sealer: Sealer, waiting: Sequence[Waiting]) -> list[Write | SerializationError]:
    """Return entries as they are to be put, or why one cannot be."""
    return [_pack(sealer, one) for one in waiting]


def _pack(sealer: Sealer, waiting: Waiting) -> Write | SerializationError:
    entry = waiting.entry
    try:
        names = _names(entry)
        expires_at = entry.expires_at
        row = pack(
            sealer,
            entry.key,
            entry.value,
            metadata=entry.metadata,
            agent=entry.agent,
            project=entry.project,
            tags=entry.tags,
            created_at=entry.created_at,
            expires_at=expires_at,
            ttl=entry.ttl,
            names=names,
            consumed=entry.consumed,
            stamp=waiting.stamp,
            dependencies=_stored(entry),
        )
    except SerializationError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever the types of the caller do; one value hurts no other
        return SerializationError(f"the value cannot be encoded ({type(error).__name__}: {error})")
    return Write(row, names, waiting.stamp, expires_at, None if waiting.claim is None else waiting.claim.lease)


def _names(entry: Entry) -> tuple[str, ...]:
    ids = {scope.id for scope in entry.labels.scopes} | {scope.id for scope, _ in entry.pairs}
    for scope_id in ids:
        if scope_of(name_of(scope_id)) != scope_id:
            raise SerializationError(
                f"the {scope_id[0]} {scope_id[1:]!r} holds the character U+001F, which no store can look for; "
                "use another name, or the value stays in memory alone"
            )
    return names_of(entry.key, ids, entry.consumed, entry.paths, unowned=entry.agent is None)


def _stored(entry: Entry) -> tuple[StoredDependency, ...]:
    dependencies = () if entry.origin is None else entry.origin.dependencies
    return tuple([_stored_dependency(dependency) for dependency in dependencies])


def _stored_dependency(dependency: Dependency) -> StoredDependency:
    if dependency.digest is None:
        raise SerializationError(
            f"{dependency.path} was written all the time while it was read, so nothing can prove it later"
        )
    return StoredDependency(
        path=dependency.path,
        kind=dependency.kind,
        digest=dependency.digest,
        status=(dependency.device, dependency.inode, dependency.size, dependency.mtime, dependency.ctime),
        settled=dependency.settled,
        pattern=dependency.pattern,
        folders=dependency.folders,
        places=dependency.way.places,
        watched=dependency.way.folders,
        remote=dependency.remote,
    )
