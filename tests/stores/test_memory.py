"""`MemoryStore`, apart from what every store promises: places, doors and loops.

Seen to fail on planted bugs: `connect` that gives a place of its own, a store that is opened twice, a door of a closed
loop that keeps others out, and one of another loop that is let in.
"""

import asyncio

import pytest

from shared_prompt_cache import ConfigError, ConfigTypeError, StoreError
from shared_prompt_cache.stores import MemoryStore, Selection, Stamp, StoredEntry, Swap, Write
from shared_prompt_cache.testing import ManualClock

CLOCK = ManualClock()
ENTRY = StoredEntry("key", "str", b"payload", b"head", b"sum")
WRITE = Write(ENTRY, ("all",), Stamp(0, "a", 0), float("inf"))


def unheard():
    raise AssertionError("nobody else has changed anything")


async def test_two_stores_share_nothing_and_connected_ones_everything():
    store, stranger = MemoryStore(), MemoryStore()
    other = store.connect().connect()
    for one in (store, stranger, other):
        await one.open(CLOCK, lambda: None)
    await store.put_many([WRITE])
    assert await other.get("key") == ENTRY
    assert await stranger.get("key") is None
    for one in (store, stranger, other):
        await one.aclose()


async def test_what_is_in_it_outlasts_those_who_had_it_open():
    store = MemoryStore()
    for expected in (None, ENTRY):
        await store.open(CLOCK, unheard)
        assert await store.get("key") == expected
        await store.put_many([WRITE])
        await store.aclose()


async def test_it_is_opened_by_one_cache_at_a_time():
    store = MemoryStore()
    await store.open(CLOCK, unheard)
    with pytest.raises(StoreError, match=r"give another cache store\.connect\(\)") as caught:
        await store.open(CLOCK, unheard)
    assert caught.value.operation == "open"
    await store.aclose()


async def test_who_changes_something_is_not_told_of_it():
    store = MemoryStore()
    await store.open(CLOCK, unheard)
    await store.put_many([WRITE])
    await store.swap([Swap("/a", None, b"1")], [])
    await asyncio.sleep(0)
    await store.aclose()


def test_all_who_share_it_are_on_one_loop():
    first = MemoryStore()
    second = first.connect()
    with asyncio.Runner() as one, asyncio.Runner() as another:
        one.run(first.open(CLOCK, unheard))
        with pytest.raises(StoreError, match="another event loop"):
            another.run(second.open(CLOCK, unheard))
        one.run(first.aclose())
        another.run(second.open(CLOCK, unheard))


def test_a_loop_that_was_closed_keeps_nobody_out():
    first = MemoryStore()
    with asyncio.Runner() as one:
        one.run(first.open(CLOCK, unheard))
    with asyncio.Runner() as another:
        second = first.connect()
        another.run(second.open(CLOCK, unheard))
        another.run(second.put_many([WRITE]))


async def test_an_error_says_what_was_asked_of_which_key():
    with pytest.raises(StoreError, match=r"not open; await store\.open") as caught:
        await MemoryStore().get("key")
    assert (caught.value.operation, caught.value.key) == ("get", "key")


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        *[(0, ConfigError), (-1, ConfigError), (float("nan"), ConfigError), (float("inf"), ConfigError)],
        *[("8", ConfigTypeError), (True, ConfigTypeError)],
    ],
)
def test_a_limit_that_is_none_is_refused(limit, error):
    with pytest.raises(error, match="max_size_mb") as caught:
        MemoryStore(max_size_mb=limit)
    assert caught.value.field == "max_size_mb"


def test_a_selection_without_anything_selects_nothing():
    assert not Selection().selects(("all",))
