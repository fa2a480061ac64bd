"""Values as msgpack and back: what comes back is equal and of exactly the same type at every depth, or is refused.

| type                                         | becomes                                                        |
|----------------------------------------------|----------------------------------------------------------------|
| None, bool, float, bytes, int of 64 bits     | itself                                                         |
| str                                          | itself; as an extension if not ASCII, see below                |
| list; dict with keys of ASCII or numbers     | itself, in order                                               |
| longer int, bytearray, UUID, Decimal         | an extension with its bytes or its text                        |
| tuple, set, frozenset, any other dict        | an extension that holds the members, msgpack again             |
| date, time, datetime, timedelta, time zones  | an extension that holds the arguments to make it from          |
| anything else, every subclass among it       | `SerializationError`                                           |

Users cannot write extensions by themselves: msgspec's type for them is refused like any other. `_tags.py` reads them.

Three things are not kept: that two members are the same object (they come back as equal ones), the order of a set, and
what `==` does not look at in a UUID (`is_safe`). NaN comes back as NaN, which is not equal to itself.

msgspec leaves the UTF-8 of a text that is not ASCII inside the str, as long as that lives; a cached prompt would grow
by its length unseen by the limit on memory. So such texts are encoded here, which also keeps halves of surrogate pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec.msgpack import Ext, encode

from shared_prompt_cache.errors import SerializationError
from shared_prompt_cache.stores import _tags
from shared_prompt_cache.stores._refusal import (
    KEEP_PLAIN,
    Refusal,
    Step,
    attribute,
    foreign,
    item,
    nth,
    too_deep,
    too_large,
)

MOST_BYTES: Final = 64 * 2**20
"""The most that a value may take, encoded."""
_CONTAINER: Final = 32  # what one counts for beside its members, so that their number is bounded as well
_CONSTANT: Final = frozenset({type(None), bool, float})
_MANY: Final = 64  # members for which it pays to see whether they are alike
_LEAST: Final = -(2**63)
_GREATEST: Final = 2**64 - 1


def write(value: object, *, name: str = "value") -> bytes:
    """Return `value` as msgpack.

    Args:
        value: The value. If it changes meanwhile, each of its containers is written as it was at one moment.
        name: How messages call it.

    Raises:
        SerializationError: If it, or something in it, would not come back equal and of the same type; if it is too
            large or too deep, or contains itself.
    """
    writer = _Writer()
    try:
        written = encode(writer.tree(value))
        if len(written) > MOST_BYTES:
            raise too_large(MOST_BYTES)  # noqa: TRY301 - one place makes the message
    except Refusal as refusal:
        raise refusal.error(name) from None
    except Exception as error:  # the end of the stack, or a metaclass that does not let its types be looked up
        raise SerializationError(
            f"{name} cannot be encoded ({type(error).__name__}); {KEEP_PLAIN}", where=name
        ) from error
    return written


class _Writer:
    """One walk over one value.

    Attributes:
        left: How many bytes more it may take; less than it will take is counted.
        level: How deep the walk is.
    """

    __slots__ = ("left", "level")

    def __init__(self) -> None:
        self.left = MOST_BYTES
        self.level = 0

    def tree(self, value: Any) -> Any:
        """Return `value` with that in the place of its members which msgspec gives back as they were."""
        kind = type(value)
        if kind in _CONSTANT:
            return value
        to_tree = _WRITERS.get(kind)
        if to_tree is None:
            raise foreign(value, _WRITERS)
        return to_tree(self, value)

    def members(self, members: list[Any], step: Callable[[int], Step] = item) -> bool:
        """Put what `tree` returns in the place of each member; return whether all of them could stay.

        Args:
            members: A copy that belongs to this walk: nobody changes it between the check and the encoding.
            step: Names the member of a number.
        """
        self.spend(_CONTAINER + len(members))
        self.level += 1
        if self.level > _tags.MOST_LEVELS:
            raise too_deep(_tags.MOST_LEVELS)
        if len(members) >= _MANY and self._are_alike(members):
            self.level -= 1
            return True
        size, plain, number = 0, True, 0
        try:
            # What most members are is decided here: a call for each would cost four times as much.
            for number, member in enumerate(members):
                kind = type(member)
                if kind is str and member.isascii():
                    size += len(member)
                elif not (kind in _CONSTANT or (kind is int and _LEAST <= member <= _GREATEST)):
                    members[number] = self.tree(member)
                    plain = False
        except Refusal as refusal:
            refusal.steps.append(step(number))
            raise
        self.level -= 1
        self.spend(size)
        return plain

    def spend(self, size: int) -> None:
        """Count bytes; the count ends what would never end, as lists that hold each other twice, thirty times over."""
        self.left -= size
        if self.left < 0:
            raise too_large(MOST_BYTES)

    def _are_alike(self, members: list[Any]) -> bool:
        """Return whether all are plain and of one type: found out in half the time, or less, of looking at each."""
        kinds = set(map(type, members))
        if len(kinds) > 1:
            return False
        if str in kinds and all(map(str.isascii, members)):
            self.spend(sum(map(len, members)))
            return True
        return kinds <= _CONSTANT or (int in kinds and min(members) >= _LEAST and max(members) <= _GREATEST)


def _str(writer: _Writer, value: str) -> Any:
    writer.spend(len(value))
    return value if value.isascii() else Ext(_tags.TEXT, value.encode("utf-8", "surrogatepass"))


def _bytes(writer: _Writer, value: bytes) -> bytes:
    writer.spend(len(value))
    return value


def _bytearray(writer: _Writer, value: bytearray) -> Ext:
    writer.spend(len(value))
    return Ext(_tags.BYTEARRAY, bytes(value))


def _int(writer: _Writer, value: int) -> Any:
    if _LEAST <= value <= _GREATEST:
        return value
    size = value.bit_length() // 8 + 1  # with room for the sign
    writer.spend(size)
    return Ext(_tags.INT, value.to_bytes(size, "big", signed=True))


def _list(writer: _Writer, value: list[Any]) -> list[Any]:
    members = list(value)
    writer.members(members)
    return members


def _tuple(writer: _Writer, value: tuple[Any, ...]) -> Ext:
    members = list(value)
    writer.members(members)
    return Ext(_tags.TUPLE, encode(members))


def _set(writer: _Writer, value: set[Any] | frozenset[Any]) -> Ext:
    members = list(value)
    writer.members(members, nth)
    return Ext(_tags.SET if type(value) is set else _tags.FROZENSET, encode(members))


def _dict(writer: _Writer, value: dict[Any, Any]) -> Any:
    value = value.copy()
    keys, members = list(value), list(value.values())
    plain_keys = writer.members(keys, nth)
    plain = writer.members(members, lambda number: item(list(value)[number]))
    if not plain_keys:  # they may be extensions, which cannot be keys
        return Ext(_tags.DICT, encode((keys, members)))
    return value if plain else dict(zip(keys, members, strict=True))


def _datetime(writer: _Writer, value: datetime) -> Ext:
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return Ext(
        _tags.DATETIME, encode((value.year, value.month, value.day, *clock, value.fold, _zone(writer, value.tzinfo)))
    )


def _date(_: _Writer, value: date) -> Ext:
    return Ext(_tags.DATE, encode((value.year, value.month, value.day)))


def _time(writer: _Writer, value: time) -> Ext:
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return Ext(_tags.TIME, encode((*clock, value.fold, _zone(writer, value.tzinfo))))


def _zone(writer: _Writer, zone: tzinfo | None) -> Any:
    try:
        return writer.tree(zone)
    except Refusal as refusal:
        refusal.steps.append(attribute("tzinfo"))
        raise


def _timedelta(_: _Writer, value: timedelta) -> Ext:
    return Ext(_tags.TIMEDELTA, encode((value.days, value.seconds, value.microseconds)))


def _timezone(writer: _Writer, value: timezone) -> Ext:
    offset, name = value.utcoffset(None), value.tzname(None)
    given = None if name == timezone(offset).tzname(None) else _str(writer, name)
    return Ext(_tags.OFFSET, encode((offset.days, offset.seconds, offset.microseconds, given)))


def _zone_info(_: _Writer, value: ZoneInfo) -> Ext:
    # Only those whose name stands for them: not one from another file, or from before the database was renewed.
    name = value.key
    if name is None or not _tags.is_zone_name(name) or ZoneInfo(name) is not value:
        raise Refusal("is a ZoneInfo that its name does not stand for; make it by ZoneInfo(name)")
    return Ext(_tags.ZONE, name.encode())


def _uuid(_: _Writer, value: UUID) -> Ext:
    return Ext(_tags.UUID_, value.bytes)


def _decimal(writer: _Writer, value: Decimal) -> Ext:
    text = str(value).encode()
    writer.spend(len(text))
    return Ext(_tags.DECIMAL, text)


_WRITERS: Final[dict[type, Callable[[_Writer, Any], Any]]] = {
    type(None): lambda _, value: value,
    str: _str,
    bytes: _bytes,
    bytearray: _bytearray,
    int: _int,
    list: _list,
    tuple: _tuple,
    set: _set,
    frozenset: _set,
    dict: _dict,
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _timedelta,
    timezone: _timezone,
    ZoneInfo: _zone_info,
    UUID: _uuid,
    Decimal: _decimal,
}
