"""What stands for the values that msgpack has no type for, and how they are read.

Each is an extension: a code of this table and bytes, which are msgpack again where the value has members. Nothing but
these constructors is ever called for what was stored, and no class is found by a name. The one name that is looked up
is that of a time zone, in the database that `zoneinfo` reads, and only if it is written like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec.msgpack import decode

MOST_LEVELS: Final = 100
"""How deep containers may lie in each other."""
TEXT: Final = 1
INT: Final = 2
BYTEARRAY: Final = 3
TUPLE: Final = 4
SET: Final = 5
FROZENSET: Final = 6
DICT: Final = 7
DATETIME: Final = 8
DATE: Final = 9
TIME: Final = 10
TIMEDELTA: Final = 11
OFFSET: Final = 12
ZONE: Final = 13
UUID_: Final = 14
DECIMAL: Final = 15
_ZONE_NAME: Final = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")


def is_zone_name(name: str) -> bool:
    """Return whether `name` is written like one of the time zone database."""
    return _ZONE_NAME.fullmatch(name) is not None


def read(written: bytes) -> Any:
    """Return the value that was written.

    Raises:
        Exception: Of whatever type, if the bytes are none that were written.
    """
    return decode(written, ext_hook=_Reader().made)


class _Reader:
    """One reading of one value, which may lie in extensions in extensions.

    Attributes:
        level: How deep the reading is.
    """

    __slots__ = ("level",)

    def __init__(self) -> None:
        self.level = 0

    def members(self, written: memoryview) -> Any:
        """Return the members of an extension."""
        self.level += 1
        if self.level > MOST_LEVELS:
            raise ValueError("too deep")
        members = decode(written, ext_hook=self.made)
        self.level -= 1
        return members

    def made(self, code: int, written: memoryview) -> Any:
        """Return what an extension stands for."""
        return _READERS[code](self, written)


def _set(reader: _Reader, written: memoryview) -> set[Any]:
    members = reader.members(written)
    found = set(members)
    if len(found) != len(members):
        raise ValueError("two members are equal")
    return found


def _dict(reader: _Reader, written: memoryview) -> dict[Any, Any]:
    keys, members = reader.members(written)
    found = dict(zip(keys, members, strict=True))
    if len(found) != len(keys):
        raise ValueError("two keys are equal")
    return found


def _datetime(reader: _Reader, written: memoryview) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = reader.members(written)
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _time(reader: _Reader, written: memoryview) -> time:
    hour, minute, second, microsecond, fold, zone = reader.members(written)
    return time(hour, minute, second, microsecond, zone, fold=fold)


def _offset(reader: _Reader, written: memoryview) -> timezone:
    *span, name = reader.members(written)
    return timezone(timedelta(*span)) if name is None else timezone(timedelta(*span), name)


def _zone(_: _Reader, written: memoryview) -> ZoneInfo:
    name = str(written, "ascii")
    if not is_zone_name(name):
        raise ValueError("no name of a time zone")
    return ZoneInfo(name)


_READERS: Final[dict[int, Callable[[_Reader, memoryview], Any]]] = {
    TEXT: lambda _, written: str(written, "utf-8", "surrogatepass"),
    INT: lambda _, written: int.from_bytes(written, "big", signed=True),
    BYTEARRAY: lambda _, written: bytearray(written),
    TUPLE: lambda reader, written: tuple(reader.members(written)),
    SET: _set,
    FROZENSET: lambda reader, written: frozenset(_set(reader, written)),
    DICT: _dict,
    DATETIME: _datetime,
    DATE: lambda reader, written: date(*reader.members(written)),
    TIME: _time,
    TIMEDELTA: lambda reader, written: timedelta(*reader.members(written)),
    OFFSET: _offset,
    ZONE: _zone,
    UUID_: lambda _, written: UUID(bytes=bytes(written)),
    DECIMAL: lambda _, written: Decimal(str(written, "ascii")),
}
