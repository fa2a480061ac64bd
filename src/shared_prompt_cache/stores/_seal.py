"""Entries as a store keeps them: packed and sealed, and believed only if the seal holds.

The checksum is keyed (blake2b, 128 bits), so it tells damage, and also an entry that somebody else made: a cloned
repository with a cache in it, a row under another key, parts of two rows. It covers the key, the codec, the payload
and the head, each behind its length. What it cannot tell is a row that was true once and was put back, or brought from
another store of the same secret: stamp, times and fingerprints in the head are there to judge that.

Reading checks the seal first, then the version of the format, and only then decodes anything.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal

import msgspec

from shared_prompt_cache.errors import SerializationError
from shared_prompt_cache.stores import _codec, _tags, _values
from shared_prompt_cache.stores._codec import Unreadable
from shared_prompt_cache.stores._protocol import Stamp, StoredEntry

VERSION: Final = 2
"""Of the format of heads and payloads; the first byte of each head."""
_FIRST: Final = bytes((VERSION,))
_PERSON: Final = b"prompt entry"
_LENGTH: Final = 8


class Sealer:
    """Makes and checks the seals of one secret.

    Args:
        secret: 1 to 64 bytes, as of `load_secret`.
    """

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        if not secret:
            raise ValueError("a seal without a secret is no seal")
        self._keyed = blake2b(key=secret, digest_size=16, person=_PERSON)

    def seal(self, key: str, codec: str, payload: bytes, head: bytes) -> bytes:
        """Return the checksum of an entry."""
        checksum = self._keyed.copy()
        # Each behind its length, or else two entries could share their bytes. The small ones are joined, since a call
        # costs as much as hashing them.
        checksum.update(b"".join([_measured(key.encode()), _measured(codec.encode()), _length(payload)]))
        checksum.update(payload)
        checksum.update(_measured(head))
        return checksum.digest()

    def holds(self, entry: StoredEntry) -> bool:
        """Return whether an entry is as it was sealed, by somebody with the same secret; never raises."""
        try:
            checksum = self.seal(entry.key, entry.codec, entry.payload, entry.head)
            return hmac.compare_digest(checksum, entry.checksum)
        except (AttributeError, TypeError, ValueError):  # a damaged store gives numbers and texts in place of bytes
            return False


def _length(field: bytes) -> bytes:
    return len(field).to_bytes(_LENGTH, "big")


def _measured(field: bytes) -> bytes:
    return _length(field) + field


Status = tuple[int, int, int, int, int]


class StoredDependency(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """The record of something that an entry was made from.

    Attributes:
        path: As whoever packs it wants it back.
        kind: A file, its absence, or a listing of names in a folder.
        digest: Of the content, or of the names; empty for what is absent, None if no state held still.
        status: Device, inode, size, mtime and ctime in nanoseconds.
        settled: Whether equal stat tuples prove equal content.
        pattern: Which names a listing is about; None where it is none.
        folders: For a listing: each folder that was looked into, with its stat tuple.
        linked: Whether the path lies outside of the root of the store and led below it.
        remote: Whether nothing but content counts.
    """

    path: str
    kind: Literal["file", "absent", "listing"]
    digest: bytes | None
    status: Status
    settled: bool
    pattern: str | None
    folders: tuple[tuple[str, Status], ...]
    linked: bool
    remote: bool


class Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """All of an entry but its value.

    Attributes:
        metadata: As `_values.py` writes it.
        agent: As given, or None.
        project: As given, or None.
        tags: Sorted.
        created_at: When it was made, in seconds since the epoch.
        expires_at: Likewise; `math.inf` for never.
        ttl: Its time to live in seconds.
        names: What it can be selected by.
        consumed: The keys of the cached values it was made from, each with whether that value had no agent.
        stamp: When its computation began.
        root: Tells that of the store from others.
        dependencies: What it was made from.
        raw_size: Bytes of the payload before it was compressed.
    """

    metadata: bytes
    agent: str | None
    project: str | None
    tags: tuple[str, ...]
    created_at: float
    expires_at: float
    ttl: float
    names: tuple[str, ...]
    consumed: tuple[tuple[str, bool], ...]
    stamp: Stamp
    root: bytes
    dependencies: tuple[StoredDependency, ...]
    raw_size: int


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A stored entry that was read.

    Attributes:
        value: The value.
        metadata: The metadata.
        head: Everything else.
    """

    value: Any
    metadata: dict[str, Any]
    head: Head


_HEADS: Final = msgspec.msgpack.Decoder(Head)
_NO_METADATA: Final = _values.write({}, name="metadata")


def pack(
    sealer: Sealer,
    key: str,
    value: object,
    *,
    metadata: Mapping[str, Any],
    agent: str | None,
    project: str | None,
    tags: frozenset[str],
    created_at: float,
    expires_at: float,
    ttl: float,
    names: tuple[str, ...],
    consumed: tuple[tuple[str, bool], ...],
    stamp: Stamp,
    root: bytes,
    dependencies: tuple[StoredDependency, ...],
) -> StoredEntry:
    """Return an entry to be put, sealed. It computes for 5 ms on a value of 450 kB: call it in a worker thread.

    Raises:
        SerializationError: If value or metadata would not come back as they are, or if a key, a label or a path
            holds half of a surrogate pair, which no store can look for.
    """
    encoded = _codec.encode(value)
    head = Head(
        metadata=_values.write(dict(metadata), name="metadata") if metadata else _NO_METADATA,
        agent=agent,
        project=project,
        tags=tuple(sorted(tags)),
        created_at=created_at,
        expires_at=expires_at,
        ttl=ttl,
        names=names,
        consumed=consumed,
        stamp=stamp,
        root=root,
        dependencies=dependencies,
        raw_size=encoded.raw_size,
    )
    key = str.__str__(key)
    try:
        packed = _FIRST + _encode_head(head)
        checksum = sealer.seal(key, encoded.codec, encoded.payload, packed)
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        raise SerializationError(
            f"the key, a label, or the path of a file cannot be stored ({error}); use names that are valid Unicode, or "
            "the value stays in memory alone"
        ) from error
    return StoredEntry(key, encoded.codec, encoded.payload, packed, checksum)


def _bare(label: object) -> str:
    """Return a label of a subclass of str as a str: labels are compared as text, unlike values."""
    if isinstance(label, str):
        return str.__str__(label)
    raise TypeError(f"a label of type {type(label).__qualname__}")


_encode_head: Final = msgspec.msgpack.Encoder(enc_hook=_bare).encode


def unpack(sealer: Sealer, entry: StoredEntry) -> Unpacked:
    """Return what was packed. It may read the time zone database, and compute: call it in a worker thread.

    Raises:
        Unreadable: If the seal does not hold, and whatever else is wrong with it.
    """
    if not sealer.holds(entry):
        raise Unreadable("its checksum does not hold: it was damaged, or written under another secret")
    head = entry.head
    if head[:1] != _FIRST:
        raise Unreadable(f"it has version {head[0] if head else 'none'} of the format, this is version {VERSION}")
    try:
        facts = _HEADS.decode(memoryview(head)[1:])
        metadata = _tags.read(facts.metadata)
    except Exception as error:  # as of `decode`
        raise Unreadable(f"no head of an entry ({type(error).__name__})") from error
    if type(metadata) is not dict:
        raise Unreadable("no metadata in its head")
    return Unpacked(_codec.decode(entry.codec, entry.payload, facts.raw_size), metadata, facts)
