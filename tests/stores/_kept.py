"""Values that a store keeps, drawn by hypothesis, and the strictest way to say that two are the same."""

import operator
import struct
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

ZONES = ("UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "Asia/Kathmandu")


def same(one, other):
    """Return whether two values are equal and of exactly the same type at every depth, with all that they show."""
    return type(one) is type(other) and _SAME.get(type(one), operator.eq)(one, other)


def _same_members(one, other):
    return len(one) == len(other) and all(map(same, one, other))


def _same_sets(one, other):
    left = list(other)
    for member in one:
        twin = next((number for number, candidate in enumerate(left) if same(member, candidate)), None)
        if twin is None:
            return False
        left.pop(twin)
    return not left


_SAME = {
    float: lambda one, other: struct.pack("d", one) == struct.pack("d", other),  # NaN, and the sign of zero
    list: _same_members,
    tuple: _same_members,
    dict: lambda one, other: same(list(one.items()), list(other.items())),
    set: _same_sets,
    frozenset: _same_sets,
    datetime: lambda one, other: repr(one) == repr(other) and same(one.tzinfo, other.tzinfo),
    time: lambda one, other: repr(one) == repr(other) and same(one.tzinfo, other.tzinfo),
    timezone: lambda one, other: one == other and one.tzname(None) == other.tzname(None),
    Decimal: lambda one, other: one.as_tuple() == other.as_tuple(),  # two that are equal may have other digits
}

texts = st.text() | st.text(st.characters(codec=None, categories=("L", "Cs")), max_size=5)  # also halves of pairs
offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
zones = (
    st.just(UTC)
    | st.builds(timezone, offsets)
    | st.builds(timezone, offsets, texts)
    | st.sampled_from(ZONES).map(ZoneInfo)
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([-(2**63) - 1, -(2**63), 2**63, 2**64 - 1, 2**64])
    | st.floats(allow_nan=True)
    | texts
    | st.binary()
    | st.datetimes(timezones=st.none() | zones, allow_imaginary=True)
    | st.datetimes().map(lambda moment: moment.replace(fold=1))
    | st.dates()
    | st.times(timezones=st.none() | zones)
    | st.timedeltas()
    | zones
    | st.uuids()
    | st.decimals().filter(lambda number: not number.is_snan())
    | st.sampled_from([Decimal("1.0"), Decimal("1.00"), Decimal("-0"), Decimal("1E+500"), Decimal("-NaN12")])
)
hashables = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4), max_leaves=8
)
values = st.recursive(
    leaves | st.binary().map(bytearray) | st.just(Decimal("sNaN")),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.sets(hashables, max_size=5)
        | st.frozensets(hashables, max_size=5)
        | st.dictionaries(texts, inner, max_size=5)
        | st.dictionaries(hashables, inner, max_size=5)
        | st.dictionaries(st.text("abc"), st.text("abc"))
    ),
    max_leaves=25,
)
