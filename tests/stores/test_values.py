"""What is written comes back equal and of exactly the same type, or is refused with word of where, what and how else.

Seen to fail on planted bugs: tuples written as lists; a fold, or the name of an offset, that is dropped; an int beyond
64 bits that is left to msgspec; members that are checked but not copied; a subclass that is taken for its base; keys
that became extensions in a plain dict; members that are called alike by the first of them; no end to levels, or to
bytes; a text that msgspec encodes although it is not ASCII; a zone that is looked for by any name.
"""

import sys
from array import array
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given, settings

from _support import size
from shared_prompt_cache.errors import SerializationError
from shared_prompt_cache.stores import _tags, _values
from shared_prompt_cache.stores._tags import read
from shared_prompt_cache.stores._values import write
from stores._kept import same, values

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.timeout(900)
@settings(max_examples=size(60, 5_000))
@given(values)
@example([None, True, 1, 1.0, "", b"", bytearray(), [], (), {}, set(), frozenset()])
@example({1: "int", (1,): "tuple", None: "none", b"1": "bytes", "1": "str", 1.5: "float"})
@example({True: 1, 0: False})
@example({float("nan"): 1, Decimal("NaN"): 2, Decimal("nan"): 3})
@example({"z": 1, "a": 2, "m": 3})
@example(datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN, fold=1))  # an hour that there was twice
@example(datetime(2025, 3, 30, 2, 30, tzinfo=BERLIN))  # one that there was not
@example(timezone(timedelta(hours=1), "CET"))
@example("half a pair: \ud83d, and both halves apart: \ud83d\ude00")
def test_what_is_written_comes_back_equal_and_of_its_type(value):
    assert same(read(write(value)), value)


def test_every_type_in_the_table_comes_back_as_itself():
    """What the types of the drawn values leave to chance: each type once, alone and as a member."""
    kept = [
        2**64,
        -(10**400),
        bytearray(b"x"),
        ("a", ["b", ("c",)]),
        {"a", 1},
        frozenset({"a", (1, 2)}),
        datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - that kind is meant
        datetime(2026, 1, 2, tzinfo=UTC),
        datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-3, seconds=7))),
        datetime(2026, 1, 2, tzinfo=BERLIN).date(),
        time(1, 2, 3, 4, fold=1),
        time(1, 2, tzinfo=BERLIN),
        timedelta(-1, 2, 3),
        UUID(int=7),
        Decimal("1.10"),
        BERLIN,
        UTC,
        timezone(timedelta(0), "Z"),
    ]
    assert {type(value) for value in kept} | {type(None), bool, float, str, bytes, list, dict} <= {
        *_values._WRITERS,
        *_values._CONSTANT,
    }
    for value in kept:
        for form in (value, [value], {"a": value}, (value,)):
            assert same(read(write(form)), form)


@pytest.mark.parametrize(
    "other", [2**64, -(2**63) - 1, True, 1.5, "text", "d\u00e9j\u00e0", b"x", (1,), None, Decimal(1)], ids=repr
)
@pytest.mark.parametrize("most", [1, 0.5, "text", None, True])
def test_one_among_many_members_that_are_alike_comes_back_as_itself(most, other):
    for place in (0, 500, 999):
        value = [most] * 999
        value.insert(place, other)
        found = same(read(write(value)), value), same(read(write({"a": tuple(value)})), {"a": tuple(value)})
        assert found == (True, True)  # in two steps: to explain how a thousand members differ takes minutes


def test_what_a_shared_member_loses_is_only_that_it_is_shared():
    shared = ["a"]
    first, second = read(write([shared, shared]))
    assert first == second == shared
    assert first is not second


def test_a_text_takes_no_more_memory_when_it_has_been_written():
    """What msgspec leaves behind in a text would be missed by the limit on memory."""
    text = f"\N{EN DASH} {id(object())}" * 1000
    before = sys.getsizeof(text)
    write({"messages": [{"role": "user", "content": text}], text: 1, "many": [text] * 100})
    assert sys.getsizeof(text) == before


# What is refused.


class Colour(Enum):
    RED = 1


class Number(IntEnum):
    ONE = 1


class Name(StrEnum):
    A = "a"


@dataclass
class Turn:
    role: str


@dataclass
class Messages(list):
    pass


class Text(str):
    __slots__ = ()


class Moment(datetime):
    pass


class Typed(NamedTuple):
    x: int


class Record(msgspec.Struct):
    x: int


class Zone(tzinfo):
    pass


class Berlin(ZoneInfo):
    pass


Point = namedtuple("Point", "x y")  # noqa: PYI024 - that kind is meant


@pytest.mark.parametrize(
    ("value", "kind", "remedy"),
    [
        (Colour.RED, "Colour", "keep its value or its name"),
        (Number.ONE, "Number", "keep its value or its name"),
        (Name.A, "Name", "keep its value or its name"),
        (Turn("user"), "Turn", "keep dataclasses.asdict(...) of it"),
        (Turn, "type", "keep None, bool, int"),
        (MappingProxyType({"a": 1}), "mappingproxy", "keep dict(...) of it"),
        (Path("a"), "PosixPath", "keep its text, os.fspath(...)"),
        (OrderedDict(a=1), "OrderedDict", "keep a plain dict in its place"),
        (defaultdict(list), "defaultdict", "keep a plain dict in its place"),
        (Counter("a"), "Counter", "keep a plain dict in its place"),
        (Point(1, 2), "Point", "keep a plain tuple in its place"),
        (Typed(1), "Typed", "keep a plain tuple in its place"),
        (sys.version_info, "sys.version_info", "keep a plain tuple in its place"),
        (Text("a"), "Text", "keep a plain str in its place"),
        (Moment(2026, 1, 1), "Moment", "keep a plain datetime in its place"),
        (Zone(), "Zone", "use a zoneinfo.ZoneInfo or a datetime.timezone"),
        (Berlin("Europe/Berlin"), "Berlin", "use a zoneinfo.ZoneInfo or a datetime.timezone"),
        (Record(1), "Record", "keep None, bool, int"),
        (msgspec.msgpack.Ext(_tags.TUPLE, b"\x90"), "Ext", "keep None, bool, int"),
        (msgspec.Raw(b"\x01"), "Raw", "keep None, bool, int"),
        (UserDict(a=1), "UserDict", "keep None, bool, int"),
        (SimpleNamespace(a=1), "SimpleNamespace", "keep None, bool, int"),
        (deque(), "deque", "keep None, bool, int"),
        (memoryview(b"a"), "memoryview", "keep None, bool, int"),
        (array("b", [1]), "array", "keep None, bool, int"),
        (Fraction(1, 2), "Fraction", "keep None, bool, int"),
        (1j, "complex", "keep None, bool, int"),
        (range(3), "range", "keep None, bool, int"),
        (..., "ellipsis", "keep None, bool, int"),
        (NotImplemented, "NotImplementedType", "keep None, bool, int"),
        (len, "builtin_function_or_method", "keep None, bool, int"),
        (lambda: 1, "function", "keep None, bool, int"),
        (iter([]), "list_iterator", "keep None, bool, int"),
        (ValueError("a"), "ValueError", "keep None, bool, int"),
        (object(), "object", "keep None, bool, int"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_what_would_not_come_back_as_it_was_is_refused_with_its_type_and_what_to_keep_instead(value, kind, remedy):
    for form, where in [
        (value, "value"),
        ({"a": ["x", "y", value]}, "value['a'][2]"),
        (("x", (value,)), "value[1][0]"),
    ]:
        with pytest.raises(SerializationError) as caught:
            write(form)
        assert caught.value.where == where
        text = str(caught.value)
        assert text.startswith(f"{where} is of type ")
        assert f"{kind}, which a store cannot give back as it was; {remedy}" in text


def test_the_place_is_an_expression_also_where_it_is_a_key_a_member_of_a_set_or_a_time_zone():
    value = {"a": [{"x": 1, Colour.RED: 2}], 7: {"only", Number.ONE}, "at": [datetime(2026, 1, 1, tzinfo=Zone())]}

    def where(value):
        with pytest.raises(SerializationError) as caught:
            write(value, name="metadata")
        return caught.value.where

    assert (first := where(value)) == "list(metadata['a'][0])[1]"
    assert eval(first, {"metadata": value}) is Colour.RED
    del value["a"]
    assert eval(where(value), {"metadata": value}) is Number.ONE
    del value[7]
    assert where(value) == "metadata['at'][0].tzinfo"
    assert where({"k" * 1000: object()}) == "metadata['" + "k" * 59 + "...]"
    deep = object()
    for _ in range(50):
        deep = [deep]
    assert where(deep) == "metadata" + "[0]" * 8 + "..."


def test_an_attribute_of_the_user_is_no_reason_to_fail_otherwise():
    class Loud(type):
        def __hash__(cls):
            raise RuntimeError("not for sale")

    class Hostile(metaclass=Loud):
        pass

    with pytest.raises(SerializationError, match="RuntimeError"):
        write([Hostile()])


@pytest.mark.parametrize("make", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"a": inner}])
@pytest.mark.parametrize("levels", [101, 1_000, 100_000])
def test_what_lies_too_deep_is_refused(levels, make):
    value = "bottom", 1
    for _ in range(levels):
        value = make(value)
    with pytest.raises(SerializationError, match="more than 100 levels deep, or the value contains itself; keep a"):
        write(value)
    while type(value) is not str:  # from outside inwards, or the interpreter takes it apart by recursion
        value = next(iter(value.values())) if type(value) is dict else value[0]


def test_a_hundred_levels_come_back():
    for make in (lambda inner: [inner], lambda inner: (inner, None), lambda inner: {"a": inner, (): 1}):
        value = ("bottom", 1)
        for _ in range(_tags.MOST_LEVELS - 1):
            value = make(value)
        assert same(read(write(value)), value)


def test_what_lies_beside_each_other_is_not_deep():
    for members in ([], [1], ["a"] * 100):
        value = [members] * 200
        assert same(read(write(value)), value)


def test_what_contains_itself_is_refused():
    ring = []
    ring.append(ring)
    wide = {}
    wide.update(dict.fromkeys("abcdefgh", wide))
    through = []
    through.append((through,))
    for value in (ring, wide, through):
        with pytest.raises(SerializationError, match="contains itself"):
            write(value)


def test_at_the_end_of_the_stack_it_is_refused():
    def at_the_end(value):
        try:
            return at_the_end(value)
        except RecursionError:
            return write(value)

    value = ["bottom", 1]
    for _ in range(50):
        value = [value]
    with pytest.raises(SerializationError, match="RecursionError"):
        at_the_end(value)


def test_what_is_too_large_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(_values, "MOST_BYTES", 100_000)
    doubled = ["a"]
    for _ in range(60):
        doubled = [doubled, doubled]
    text = "x" * 1000
    for value in (
        doubled,
        [text] * 101,
        ["é" + text] * 101,
        {text: [text] * 100},
        [text.encode()] * 101,
        [bytearray(text, "ascii")] * 101,
        [1] * 100_001,
        [[text] * 100, 1, "x" * 1000],
        [[]] * 4_000,
        [2**8_000] * 101,
        [Decimal(10**1_000)] * 101,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(_values, "encode", None)  # it is not come to that
            with pytest.raises(SerializationError, match="which no store keeps; keep a smaller value"):
                write(value)
    with pytest.raises(SerializationError, match="which no store keeps; keep a smaller value"):
        write(["é" * 600] * 99)  # as many characters as are allowed, in more bytes
    assert read(write([text] * 99)) == [text] * 99


def test_a_zone_is_kept_only_if_its_name_stands_for_it():
    file = Path("/usr/share/zoneinfo/Europe/Berlin")
    source = BytesIO(file.read_bytes()) if file.exists() else None
    zones = [ZoneInfo.no_cache("Europe/Berlin")]
    if source is not None:
        zones += [ZoneInfo.from_file(source), ZoneInfo.from_file(BytesIO(file.read_bytes()), key="Asia/Tokyo")]
    for zone in zones:
        with pytest.raises(SerializationError, match=r"value\.tzinfo is a ZoneInfo that its name does not stand for"):
            write(datetime(2026, 1, 1, tzinfo=zone))


@pytest.mark.parametrize("count", [3, 100])
def test_who_changes_a_value_while_it_is_written_gets_the_state_that_was_checked(count, monkeypatch):
    """A tuple that came in between the check and the encoding would come back as a list."""
    value = {"list": ["a"] * count, "dict": dict.fromkeys(map(str, range(count)), "b")}
    checked = deepcopy(value)
    encode = _values.encode

    def change_and_encode(tree):
        value["list"][0] = value["dict"]["0"] = value["more"] = ("came in between",)
        return encode(tree)

    monkeypatch.setattr(_values, "encode", change_and_encode)
    assert same(read(write(value)), checked)
    assert len(value) == 3


def test_what_is_written_is_left_as_it_is():
    value = {"list": [(1,), "d\u00e9j\u00e0"], "dict": {(1,): {2}}, "bytes": bytearray(b"x")}
    before = deepcopy(value)
    write(value)
    assert same(value, before)


# What cannot be read.


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="a byte that msgpack does not have"),
        pytest.param(b"\xc0\xc0", id="more than one value"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="a list of billions without members"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a dict of billions"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="gigabytes"),
        pytest.param(b"\x91" * 100_000 + b"\xc0", id="a list in a list, and so on"),
        pytest.param(b"\xa1\xff", id="text that is none"),
        pytest.param(b"\xd4\x63\x00", id="an unknown extension"),
        pytest.param(b"\xd4\x05\x01", id="a set of a number"),
        pytest.param(b"\xc7\x03\x05\x92\x01\x01", id="a set with the same member twice"),
        pytest.param(b"\xc7\x02\x05\x91\x90\x91", id="a set with more behind it"),
        pytest.param(b"\xc7\x04\x05\x92\x90\x91\x90", id="a set with lists in it"),
        pytest.param(b"\xc7\x03\x07\x91\x91\x01", id="a dict that is no pair"),
        pytest.param(b"\xc7\x07\x07\x92\x92\x01\x01\x92\x01\x01", id="a dict with a key twice"),
        pytest.param(b"\xc7\x05\x07\x92\x91\x01\x90", id="a dict with a key too many"),
        pytest.param(b"\xc7\x04\x08\x93\x01\x01\x01", id="a datetime without its clock"),
        pytest.param(b"\xc7\x04\x09\x93\x01\x0d\x01", id="a date in a month 13"),
        pytest.param(b"\xc7\x02\x0e\x00\x00", id="a UUID of two bytes"),
        pytest.param(b"\xc7\x02\x0fxy", id="a number that is none"),
        pytest.param(b"\xc7\x07\x0dNo/Such", id="a zone that there is not"),
        pytest.param(b"\xd4\x0d\xff", id="a zone that is no text"),
    ],
)
def test_what_was_never_written_is_an_error_and_nothing_else(written):
    with pytest.raises(Exception):  # noqa: B017 - of any type; `decode` makes one of them all
        read(written)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "evil.module/x", "a//b", "a/", "a b", "", "a\n", "Zo\u00eb"]
)
def test_a_zone_is_not_even_looked_for_unless_it_is_named_like_one(name, monkeypatch):
    """`zoneinfo` looks for names in a package as well, which it imports for that."""
    monkeypatch.setattr(_tags, "ZoneInfo", None)
    with pytest.raises(ValueError, match=r"no name of a time zone|can't decode byte"):
        read(msgspec.msgpack.encode(msgspec.msgpack.Ext(_tags.ZONE, name.encode())))


def test_extensions_in_extensions_have_an_end_without_the_stack():
    written = b"\x90"
    for _ in range(_tags.MOST_LEVELS + 1):
        written = msgspec.msgpack.encode(msgspec.msgpack.Ext(_tags.TUPLE, written))
    with pytest.raises(ValueError, match="too deep"):
        read(written)
