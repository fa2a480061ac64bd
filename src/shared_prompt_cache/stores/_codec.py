"""Values as bytes and back, without I/O.

| codec     | of                 | payload                     |
|-----------|--------------------|-----------------------------|
| `str`     | exactly a str      | UTF-8, with surrogates      |
| `bytes`   | exactly bytes      | itself                      |
| `msgpack` | all other values   | `_values.py` says which     |

`+zlib` behind a name says that the payload is compressed. Level 1: on 450 kB of Markdown it leaves 36 % at 92 MB/s,
level 3 leaves 33 % at 66 MB/s, level 6 leaves 30 % at 28 MB/s; all are read at 290 MB/s.

These are calls that compute: some 5 ms for 450 kB, so they belong in a worker thread. There they let go of the
interpreter while they compress, but not inside one call of msgspec.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from shared_prompt_cache.stores import _tags, _values
from shared_prompt_cache.stores._refusal import too_large
from shared_prompt_cache.stores._values import MOST_BYTES

MOST_PLAIN: Final = 4096
"""Payloads up to this many bytes are never compressed."""
_COMPRESSED: Final = "+zlib"
_LEVEL: Final = 1
_SAVED: Final = 0.9  # what is left must be at most this much
_SAMPLE: Final = 4096
_LARGE: Final = 16 * _SAMPLE  # from here on a look at three samples costs little beside the rest


class Unreadable(Exception):  # noqa: N818 - a state of stored bytes, which becomes a miss and not an error
    """Stored bytes that cannot be read, or are not to be believed. It does not leave the package.

    Attributes:
        reason: Why, in a few words without any of the content.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Encoded(NamedTuple):
    """A value as bytes.

    Attributes:
        codec: The name of the codec.
        payload: The bytes.
        raw_size: How many they are before they are compressed.
    """

    codec: str
    payload: bytes
    raw_size: int


def encode(value: object) -> Encoded:
    """Return `value` as bytes from which an equal value of exactly the same type can be made, at every depth.

    Raises:
        SerializationError: If that cannot be promised; it says which part of the value, of what type, and what to
            keep instead.
    """
    if type(value) is str:
        codec, raw = "str", value.encode("utf-8", "surrogatepass")
    elif type(value) is bytes:
        codec, raw = "bytes", value
    else:
        codec, raw = "msgpack", _values.write(value)
    size = len(raw)
    if size > MOST_BYTES:
        raise too_large(MOST_BYTES).error("value")
    if size > MOST_PLAIN and _pays(raw):
        packed = zlib.compress(raw, _LEVEL)
        if len(packed) <= size * _SAVED:
            return Encoded(codec + _COMPRESSED, packed, size)
    return Encoded(codec, raw, size)


def decode(codec: str, payload: bytes, raw_size: int | None = None) -> Any:
    """Return the value of a payload.

    Args:
        codec: The name of the codec.
        payload: The bytes.
        raw_size: How many they must be once they are no more compressed; None: at most 64 MiB.

    Raises:
        Unreadable: Whatever is wrong with them.
    """
    most = MOST_BYTES if raw_size is None else raw_size
    if type(payload) is not bytes or not 0 <= most <= MOST_BYTES:
        raise Unreadable("no payload, or of a size that no value has")
    try:
        name = codec.removesuffix(_COMPRESSED)
        raw = payload if name == codec else _unpacked(payload, most)
        if len(raw) > most or (raw_size is not None and len(raw) != raw_size):
            raise Unreadable("not of the size that it had")  # noqa: TRY301 - one place tells errors apart
        return _DECODERS[name](raw)
    except Unreadable:
        raise
    except Exception as error:  # whatever msgspec, the constructors and the stack say to bytes that mean nothing
        raise Unreadable(f"no payload of its codec ({type(error).__name__})") from error


def _pays(raw: bytes) -> bool:
    """Return whether it is worth a try: three samples of what is large, since the whole costs 30 ms for each MB."""
    size = len(raw)
    if size < _LARGE:
        return True
    sample = b"".join([raw[at : at + _SAMPLE] for at in (0, (size - _SAMPLE) // 2, size - _SAMPLE)])
    return len(zlib.compress(sample, _LEVEL)) <= len(sample) * _SAVED


def _unpacked(payload: bytes, most: int) -> bytes:
    unpacking = zlib.decompressobj()
    raw = unpacking.decompress(payload, most + 1)  # never more than that, whatever the payload would become
    if not unpacking.eof or unpacking.unused_data:
        raise Unreadable("compressed, but cut off or of another size than it had")
    return raw


_DECODERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "str": lambda raw: str(raw, "utf-8", "surrogatepass"),
    "bytes": lambda raw: raw,
    "msgpack": _tags.read,
}
