"""What programs expect of any store of py-key-value, held over each kind of cache: the first half of T20.

The behaviour is that of its documentation and of its own stores; what this one has besides is in
`test_key_value_in_the_cache.py`. Seen to fail on planted bugs: values kept as they are given; a collection that is left
out of the key, or stands in it without escapes; a time to live of None taken for the default, or not checked; a value
that JSON cannot hold kept as its `repr`; `put_many` that keeps what stands before a bad value; answers of `get_many` in
the order of the entries.
"""

import asyncio
import math
from collections import Counter, OrderedDict, UserDict
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from uuid import UUID

import pytest
from key_value.aio.errors import InvalidTTLError, SerializationError
from key_value.aio.protocols.key_value import (
    AsyncDestroyCollectionProtocol,
    AsyncDestroyStoreProtocol,
    AsyncKeyValue,
    AsyncKeyValueProtocol,
)

from _support import size
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.integrations.key_value import KeyValueStore
from shared_prompt_cache.testing import ManualClock

CACHES = {  # one line for each kind of cache
    "memory": SharedPromptCache,
}
COLLECTION = "answers"
AGENTS_ANSWER = {"content": [{"type": "text", "text": "use tabs"}], "structured": {"ok": True}, "meta": None}

VALUES = {
    "nothing": {},
    "none": {"a": None},
    "nones in a list": {"a": [None, None]},
    "true": {"a": True},
    "false": {"a": False},
    "booleans further in": {"a": {"yes": True, "no": [False]}},
    "zero": {"a": 0},
    "a negative int": {"a": -17},
    "an int of 64 bits": {"a": 2**63 - 1},
    "an int beyond 64 bits": {"a": 10**40},
    "a float": {"a": 0.1},
    "a whole float": {"a": 2.0},
    "a float beyond ints": {"a": 1.7e308},
    "infinity": {"a": math.inf},
    "an empty text": {"a": ""},
    "lines": {"a": "first\nsecond\tindented\r\n"},
    "quotes": {"a": """he said "it's \\ here" """},
    "other scripts": {"a": "naïve Grüße, привет, 你好, 🙂"},
    "half of a surrogate pair": {"a": "\ud83d"},
    "a NUL": {"a": "before\0after"},
    "keys of other scripts": {"ключ": 1, "鍵": 2, "": 3},
    "an empty list": {"a": []},
    "an empty mapping": {"a": {}},
    "a mixed list": {"a": [1, "one", 1.0, None, True, [], {}]},
    "a list of mappings": {"a": [{"name": "engineer"}, {"name": "qa"}]},
    "a deep one": {"a": {"b": {"c": {"d": {"e": [[[["f"]]]]}}}}},
    "what looks like none": {"null": "null"},
    "what looks like a boolean": {"true": "true"},
    "what looks like numbers": {"1": "1", "1.0": "1.0"},
    "what looks like an id": {"a": "0190b2f3-5c6d-7e8f-9a0b-1c2d3e4f5a6b"},
    "what looks like a moment": {"a": "2026-01-01T00:00:00Z"},
    "an answer of an agent": AGENTS_ANSWER,
}
LARGE = {
    "text": {"a": "x" * size(100_000, 5_000_000)},
    "text of another script": {"a": "語" * size(50_000, 1_000_000)},
    "list": {"a": list(range(size(5_000, 200_000)))},
    "mapping": {f"name {number}": {"number": number} for number in range(size(2_000, 50_000))},
    "deep": {"a": [[[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]]]},
}


class Colour(Enum):
    RED = "red"


def endless():
    value = {}
    value["itself"] = value
    return value


def bottomless():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


REFUSED = {
    "bytes": b"bytes",
    "a set": {1, 2},
    "a frozenset": frozenset("ab"),
    "a moment": datetime(2026, 1, 1, tzinfo=UTC),
    "a day": date(2026, 1, 1),
    "a time": time(12),
    "a span": timedelta(seconds=1),
    "an id": UUID(int=1),
    "a decimal": Decimal("0.1"),
    "a complex number": 1j,
    "a path": PurePosixPath("CLAUDE.md"),
    "an enum": Colour.RED,
    "an object": SimpleNamespace(a=1),
    "a function": len,
    "a mapping that is no dict": MappingProxyType({}),
    "what holds itself": endless(),
    "what is nested too deeply": bottomless(),
    "an int of too many digits": 10**5_000,
}
NO_MAPPINGS = {"none": None, "text": "text", "a list": ["a"], "pairs": [("a", 1)], "keys that are no text": {1: "a"}}
NAMES = [
    "",
    " ",
    "a",
    "with spaces and\nlines",
    "../../etc/passwd",
    "https://example.org/a?b=c&d=%20#e",
    "a=b",
    "b=a",
    "a#b",
    "a%3Db",
    "*",
    "[a-z]?",
    "engineer_1",
    "S_a",
    "\0",
    "\ud83d",
    "é" * 40,
    "语言" * 20,
    "x" * 1_024,
    "x" * 1_025,
    "x" * 100_000,
]
TTLS = [(1, 1), (2.5, 2.5), (Decimal("3.5"), 3.5), (Fraction(1, 2), 0.5), (10**12, 1e12), (None, None)]
FOR_EVER = [math.inf, Decimal("Infinity"), 10**400]
BAD_TTLS = [0, 0.0, -1, -0.5, math.nan, -math.inf, True, False, "60", "", [], timedelta(seconds=60), Decimal("NaN"), 1j]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(params=CACHES)
async def cache(request, clock):
    async with CACHES[request.param](clock=clock) as cache:
        yield cache


@pytest.fixture
def store(cache):
    return KeyValueStore(cache)


class TestKeyValueStore:
    async def test_it_is_what_such_programs_ask_for(self, store):
        assert isinstance(store, AsyncKeyValue)
        assert isinstance(store, AsyncKeyValueProtocol)
        assert isinstance(store, AsyncDestroyStoreProtocol)
        assert isinstance(store, AsyncDestroyCollectionProtocol)

    # What is not there.

    async def test_nothing_is_found_in_an_empty_one(self, store):
        assert await store.get("a", collection=COLLECTION) is None
        assert await store.ttl("a", collection=COLLECTION) == (None, None)
        assert await store.get_many(["a", "b"], collection=COLLECTION) == [None, None]
        assert await store.ttl_many(["a", "b"], collection=COLLECTION) == [(None, None), (None, None)]

    async def test_nothing_is_deleted_from_an_empty_one(self, store):
        assert await store.delete("a", collection=COLLECTION) is False
        assert await store.delete_many(["a", "b"], collection=COLLECTION) == 0
        assert await store.destroy_collection(COLLECTION) is False

    # Values.

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
    async def test_a_value_comes_back_equal_and_of_the_same_types(self, store, value):
        await store.put("a", value, collection=COLLECTION)
        found = await store.get("a", collection=COLLECTION)
        assert found == value
        assert repr(found) == repr(value)  # 1, 1.0 and True are equal; and the order of keys is that of the value
        assert (await store.ttl("a", collection=COLLECTION))[0] == value

    async def test_what_is_no_number_stays_so(self, store):
        await store.put("a", {"a": math.nan})
        assert math.isnan((await store.get("a"))["a"])

    @pytest.mark.parametrize("value", LARGE.values(), ids=LARGE)
    async def test_large_values_too(self, store, value):
        await store.put("a", value, collection=COLLECTION)
        assert await store.get("a", collection=COLLECTION) == value

    @pytest.mark.parametrize("kind", [OrderedDict, Counter, UserDict, MappingProxyType])
    async def test_any_mapping_comes_back_as_a_dict(self, store, kind):
        await store.put("a", kind({"a": 1, "b": 2}))
        found = await store.get("a")
        assert type(found) is dict
        assert found == {"a": 1, "b": 2}

    async def test_what_is_further_in_comes_back_as_json_has_it(self, store):
        await store.put("a", {"tuple": (1, (2, 3)), "keys": {2: "a", None: "b", True: "c"}})
        assert await store.get("a") == {"tuple": [1, [2, 3]], "keys": {"2": "a", "null": "b", "true": "c"}}

    @pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
    async def test_what_would_not_come_back_is_refused_and_changes_nothing(self, store, value):
        await store.put("a", {"a": "before"})
        with pytest.raises(SerializationError, match="cannot be kept as JSON"):
            await store.put("a", {"a": 1, "b": value})
        with pytest.raises(SerializationError):
            await store.put("b", {"list": [value]})
        assert await store.get_many(["a", "b"]) == [{"a": "before"}, None]

    @pytest.mark.parametrize("value", NO_MAPPINGS.values(), ids=NO_MAPPINGS)
    async def test_a_value_is_a_mapping_of_text(self, store, value):
        with pytest.raises(TypeError, match="no mapping with strings for keys"):
            await store.put("a", value)
        assert await store.get("a") is None

    # What is kept belongs to nobody.

    async def test_a_reader_who_changes_what_he_got_changes_nothing_for_others(self, store):
        await store.put("a", AGENTS_ANSWER)
        first = await store.get("a")
        first["content"][0]["text"] = "rm -rf"
        first["structured"].clear()
        del first["meta"]
        for found in (await store.get("a"), (await store.ttl("a"))[0], *await store.get_many(["a", "a"])):
            assert found == AGENTS_ANSWER

    async def test_two_answers_of_one_call_share_nothing(self, store):
        await store.put("a", AGENTS_ANSWER)
        first, second = await store.get_many(["a", "a"])
        first["content"].clear()
        assert second == AGENTS_ANSWER
        (first, _), (second, _) = await store.ttl_many(["a", "a"])
        first["content"].clear()
        assert second == AGENTS_ANSWER

    async def test_a_writer_who_changes_what_he_gave_changes_nothing(self, store):
        value = {"list": [1], "mapping": {"a": 1}}
        await store.put("a", value)
        await store.put_many(["b"], [value])
        value["list"].append(2)
        value["mapping"]["a"] = 2
        value["more"] = True
        assert await store.get_many(["a", "b"]) == [{"list": [1], "mapping": {"a": 1}}] * 2

    # Replacing and deleting.

    async def test_the_last_value_counts(self, store):
        for number in range(3):
            await store.put("a", {"number": number}, collection=COLLECTION)
            assert await store.get("a", collection=COLLECTION) == {"number": number}

    async def test_a_value_replaces_all_of_the_older_one(self, store):
        await store.put("a", {"old": 1, "both": 1})
        await store.put("a", {"both": 2})
        assert await store.get("a") == {"both": 2}

    async def test_what_is_deleted_is_gone_and_can_be_put_again(self, store):
        await store.put("a", {"number": 1}, collection=COLLECTION)
        assert await store.delete("a", collection=COLLECTION) is True
        assert await store.get("a", collection=COLLECTION) is None
        assert await store.ttl("a", collection=COLLECTION) == (None, None)
        assert await store.delete("a", collection=COLLECTION) is False
        await store.put("a", {"number": 2}, collection=COLLECTION)
        assert await store.get("a", collection=COLLECTION) == {"number": 2}

    async def test_only_that_is_deleted(self, store):
        await store.put_many(["a", "b", "ab"], [{"a": 1}, {"b": 1}, {"ab": 1}])
        assert await store.delete("a")
        assert await store.get_many(["a", "b", "ab"]) == [None, {"b": 1}, {"ab": 1}]

    async def test_as_many_are_counted_as_were_there(self, store):
        await store.put_many(["a", "b", "c"], [{}, {}, {}])
        assert await store.delete_many(["a", "missing", "b", "a"]) == 2
        assert await store.delete_many(["a", "b"]) == 0
        assert await store.get_many(["a", "b", "c"]) == [None, None, {}]
        assert await store.delete_many([]) == 0

    # Many at once.

    async def test_many_are_put_by_one_call_and_found_by_one(self, store):
        keys = [f"key {number}" for number in range(300)]
        values = [{"number": number} for number in range(300)]
        await store.put_many(keys, values, collection=COLLECTION)
        assert await store.get_many(keys, collection=COLLECTION) == values
        assert [await store.get(key, collection=COLLECTION) for key in keys] == values
        assert await store.ttl_many(keys, collection=COLLECTION) == [(value, None) for value in values]
        assert await store.delete_many(keys, collection=COLLECTION) == 300
        assert await store.get_many(keys, collection=COLLECTION) == [None] * 300

    async def test_those_that_were_put_one_by_one_are_found_by_one_call(self, store):
        await store.put("a", {"a": 1})
        await store.put("b", {"b": 1}, ttl=60)
        assert await store.get_many(["b", "a"]) == [{"b": 1}, {"a": 1}]
        assert await store.ttl_many(["b", "a"]) == [({"b": 1}, pytest.approx(60)), ({"a": 1}, None)]

    async def test_answers_stand_in_the_order_of_the_keys(self, store):
        await store.put_many(["a", "b"], [{"a": 1}, {"b": 1}])
        assert await store.get_many(["b", "missing", "a", "b"]) == [{"b": 1}, None, {"a": 1}, {"b": 1}]
        assert await store.ttl_many(["b", "missing", "a"]) == [({"b": 1}, None), (None, None), ({"a": 1}, None)]

    @pytest.mark.parametrize("kind", [list, tuple])
    async def test_any_sequence_will_do(self, store, kind):
        await store.put_many(kind(["a", "b"]), kind([{"a": 1}, {"b": 1}]))
        assert await store.get_many(kind(["a", "b"])) == [{"a": 1}, {"b": 1}]
        assert await store.delete_many(kind(["a", "b"])) == 2

    async def test_of_one_key_that_comes_twice_the_last_value_counts(self, store):
        await store.put_many(["a", "a"], [{"number": 1}, {"number": 2}])
        assert await store.get("a") == {"number": 2}

    async def test_no_keys_are_no_trouble(self, store):
        await store.put_many([], [])
        assert await store.get_many([]) == []
        assert await store.ttl_many([]) == []

    @pytest.mark.parametrize("values", [[{"a": 1}], [{}, {}, {}], []])
    async def test_there_are_as_many_values_as_keys(self, store, values):
        with pytest.raises(ValueError, match="as many values as keys"):
            await store.put_many(["a", "b"], values)
        assert await store.get_many(["a", "b"]) == [None, None]

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            ({"values": [{"a": 1}, {"b": {1, 2}}]}, SerializationError),
            ({"values": [{"a": 1}, "text"]}, TypeError),
            ({"values": [{"a": 1}, {"b": 1}], "ttl": -1}, InvalidTTLError),
            ({"values": [{"a": 1}, {"b": 1}], "keys": ["a", None]}, TypeError),
        ],
    )
    async def test_where_one_cannot_be_kept_none_is(self, store, bad, error):
        with pytest.raises(error):
            await store.put_many(**{"keys": ["a", "b"], **bad})
        assert await store.get_many(["a", "b"]) == [None, None]

    # Names.

    async def test_collections_are_apart(self, store):
        for name in ("one", "two"):
            await store.put("a", {"in": name}, collection=name)
        assert await store.get("a", collection="one") == {"in": "one"}
        assert await store.get("a", collection="three") is None
        assert await store.get("a") is None
        assert await store.delete("a", collection="one")
        assert await store.delete_many(["a"], collection="three") == 0
        assert await store.get_many(["a"], collection="two") == [{"in": "two"}]
        assert await store.destroy_collection("one") is False
        assert await store.destroy_collection("two") is True
        assert await store.get("a", collection="two") is None

    @pytest.mark.parametrize("collection", [None, "", "default_collection"])
    async def test_where_no_collection_is_named_it_is_the_default_one(self, store, collection):
        await store.put("a", {"a": 1})
        assert await store.get("a", collection=collection) == {"a": 1}
        await store.put_many(["b"], [{"b": 1}], collection=collection)
        assert await store.get("b") == {"b": 1}

    @pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]) + f" {len(name)}")
    async def test_a_key_or_a_collection_may_be_any_text(self, store, name):
        for number, place in enumerate(({"key": name}, {"key": "a", "collection": name or "*"})):
            await store.put(**place, value={"number": number})
            assert await store.get(**place) == {"number": number}
            other = {**place, "key": place["key"] + "x"}
            assert await store.get(**other) is None
            assert await store.delete(**other) is False
            assert await store.delete(**place) is True
            assert await store.get(**place) is None

    async def test_all_of_them_live_side_by_side(self, store):
        places = [(key, collection) for key in NAMES for collection in NAMES[1:]]
        for number, (key, collection) in enumerate(places):
            await store.put(key, {"number": number}, collection=collection)
        for number, (key, collection) in enumerate(places):
            assert await store.get(key, collection=collection) == {"number": number}

    @pytest.mark.parametrize("name", [None, 1, b"a", ["a"]])
    async def test_what_is_no_text_is_no_key(self, store, name):
        for call in (store.get(name), store.ttl(name), store.put(name, {}), store.delete(name)):
            with pytest.raises(TypeError, match="is no string"):
                await call
        for call in (store.get_many([name]), store.ttl_many([name]), store.delete_many([name])):
            with pytest.raises(TypeError, match="is no string"):
                await call

    @pytest.mark.parametrize("name", [1, b"a", ["a"]])
    async def test_and_no_collection(self, store, name):
        for call in (store.get("a", collection=name), store.put("a", {}, collection=name)):
            with pytest.raises(TypeError, match="is no string"):
                await call

    # Time to live.

    @pytest.mark.parametrize(("ttl", "left"), TTLS)
    async def test_it_is_told_in_seconds(self, store, ttl, left):
        await store.put("a", {"a": 1}, ttl=ttl)
        assert await store.ttl("a") == ({"a": 1}, left if left is None else pytest.approx(left))

    async def test_it_runs_down_and_the_value_is_gone_with_it(self, store, clock):
        await store.put("a", {"a": 1}, collection=COLLECTION, ttl=100)
        clock.advance(40)
        assert await store.ttl("a", collection=COLLECTION) == ({"a": 1}, pytest.approx(60))
        clock.advance(59.5)
        assert await store.get("a", collection=COLLECTION) == {"a": 1}
        clock.advance(0.5)
        assert await store.get("a", collection=COLLECTION) is None
        assert await store.ttl("a", collection=COLLECTION) == (None, None)
        assert await store.get_many(["a"], collection=COLLECTION) == [None]
        assert await store.ttl_many(["a"], collection=COLLECTION) == [(None, None)]

    async def test_what_has_expired_is_not_there_to_be_deleted(self, store, clock):
        await store.put_many(["a", "b"], [{}, {}], ttl=10)
        clock.advance(10)
        assert await store.delete("a") is False
        assert await store.delete_many(["a", "b"]) == 0

    @pytest.mark.parametrize("ttl", [None, *FOR_EVER])
    async def test_without_one_a_value_stays(self, store, clock, ttl):
        await store.put("a", {"a": 1}, ttl=ttl)
        clock.advance(timedelta(days=36_500))
        assert await store.ttl("a") == ({"a": 1}, None)

    async def test_each_put_begins_it_anew(self, store, clock):
        await store.put("a", {"number": 1}, ttl=10)
        clock.advance(9)
        await store.put("a", {"number": 2}, ttl=10)
        clock.advance(9)
        assert await store.ttl("a") == ({"number": 2}, pytest.approx(1))
        await store.put("a", {"number": 3})
        clock.advance(1_000)
        assert await store.ttl("a") == ({"number": 3}, None)
        await store.put("a", {"number": 4}, ttl=1)
        clock.advance(1)
        assert await store.get("a") is None

    async def test_of_many_it_is_that_of_each(self, store, clock):
        await store.put_many(["a", "b"], [{"a": 1}, {"b": 1}], ttl=30)
        await store.put("c", {"c": 1})
        clock.advance(10)
        assert await store.ttl_many(["a", "b", "c"]) == [
            ({"a": 1}, pytest.approx(20)),
            ({"b": 1}, pytest.approx(20)),
            ({"c": 1}, None),
        ]
        clock.advance(20)
        assert await store.get_many(["a", "b", "c"]) == [None, None, {"c": 1}]

    @pytest.mark.parametrize("ttl", BAD_TTLS, ids=repr)
    async def test_what_is_none_is_refused_and_changes_nothing(self, store, ttl):
        await store.put("a", {"a": "before"}, ttl=60)
        with pytest.raises(InvalidTTLError):
            await store.put("a", {"a": "after"}, ttl=ttl)
        with pytest.raises(InvalidTTLError):
            await store.put_many(["a", "b"], [{}, {}], ttl=ttl)
        assert await store.ttl("a") == ({"a": "before"}, pytest.approx(60))
        assert await store.get("b") is None

    # At the same time.

    async def test_many_workers_with_keys_of_their_own_do_not_meet(self, store):
        async def work(worker):
            for number in range(20):
                key = f"worker {worker} key {number}"
                assert await store.get(key) is None
                for value in ({"number": number}, {"number": number, "again": True}):
                    await store.put(key, value)
                    await asyncio.sleep(0)
                    assert await store.get(key) == value
                assert await store.delete(key) is True
                assert await store.get(key) is None

        await asyncio.gather(*(work(worker) for worker in range(10)))

    async def test_who_reads_while_others_write_sees_one_value_or_another(self, store):
        written = [{"text": letter * 500} for letter in "abc"]

        async def write(value):
            for _ in range(50):
                await store.put("a", value)
                await asyncio.sleep(0)

        async def read():
            for _ in range(100):
                assert await store.get("a") in [None, *written]
                await asyncio.sleep(0)

        await asyncio.gather(*map(write, written), read(), read())

    async def test_of_many_who_delete_at_once_one_has_deleted_it(self, store):
        await store.put("a", {})
        assert sum(await asyncio.gather(*(store.delete("a") for _ in range(10)))) == 1
        await store.put("a", {})
        assert sum(await asyncio.gather(*(store.delete_many(["a"]) for _ in range(10)))) == 1


@pytest.mark.parametrize("kind", CACHES.values(), ids=CACHES)
async def test_it_grows_no_further_than_its_cache(kind):
    async with kind(max_size=100) as cache:
        store = KeyValueStore(cache)
        for number in range(1_000):
            await store.put(f"key {number}", {"number": number})
        assert await store.get("key 0") is None
        assert await store.get("key 999") == {"number": 999}
        assert cache.get_stats().entry_count == 100
