"""What the store of py-key-value has of the cache behind it: invalidations, files, computations, bounds.

Seen to fail on planted bugs: no tag of the collection; agent and project that are not passed on; `destroy` that clears
the cache; a long key cut off in place of its hash; an escape less; a value that is read without a look at what it is;
a whole `put_many` in one stretch.
"""

import asyncio
import importlib
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from key_value.aio.adapters.pydantic import PydanticAdapter
from key_value.aio.errors import DeserializationError
from key_value.aio.wrappers.limit_size import LimitSizeWrapper
from key_value.aio.wrappers.passthrough_cache import PassthroughCacheWrapper
from key_value.aio.wrappers.prefix_collections import PrefixCollectionsWrapper
from key_value.aio.wrappers.statistics import StatisticsWrapper

from _support import Counted
from shared_prompt_cache import CacheClosedError, SharedPromptCache, WatchRule
from shared_prompt_cache.integrations.key_value import KeyValueStore
from shared_prompt_cache.testing import FakeWatcher, ManualClock, wait_until

LONG = "x" * 2_000
# One letter and whatever means something in a key or a pattern, so that what could be confused is drawn often.
TEXTS = st.text(alphabet="a/=#%|*[]0123456789ABCDEF_:", max_size=12) | st.just(LONG) | st.text(max_size=5)


@pytest.fixture
def store(cache):
    return KeyValueStore(cache)


# Keys of the cache.


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_two_entries_never_share_a_key(key, collection, other_key, other_collection):
    store = KeyValueStore(SharedPromptCache())
    one = store.cache_key(key, collection=collection or "a")
    another = store.cache_key(other_key, collection=other_collection or "a")
    assert (one == another) == ((key, collection or "a") == (other_key, other_collection or "a"))
    assert len(one) <= 1024


@pytest.mark.parametrize(
    ("key", "collection", "expected"),
    [
        ("a", None, "keyvalue/default_collection=a"),
        ("a=b#c", "tools/list", "keyvalue/tools/list=a=b#c"),
        ("a", "50%=#", "keyvalue/50%25%3D%23=a"),
        (LONG, "tools/list", "keyvalue/tools/list#1f48bb46d3193189eb9eb63729885a95"),
        ("a", LONG, "keyvalue/" + "x" * 191 + "#ceea9f7bd7d8d8e7a9363dae085ef1ad"),
    ],
)
def test_the_key_of_an_entry_is_the_same_in_every_process(key, collection, expected):
    assert KeyValueStore(SharedPromptCache()).cache_key(key, collection=collection) == expected


async def test_by_its_key_an_entry_can_be_explained(cache, store):
    await store.put("a", {"a": 1}, collection="tools/call")
    assert "is cached" in str(cache.explain(store.cache_key("a", collection="tools/call")))


# Invalidations.


@pytest.mark.parametrize("key", ["a", LONG])
@pytest.mark.parametrize(
    ("invalidate", "reached"),
    [
        (lambda cache: cache.clear(), {"tools/list", "tools/call", "bystander"}),
        (lambda cache: cache.clear(soft=True), {"tools/list", "tools/call", "bystander"}),
        (lambda cache: cache.invalidate_tag("keyvalue"), {"tools/list", "tools/call"}),
        (lambda cache: cache.invalidate_tag("keyvalue/tools/list"), {"tools/list"}),
        (lambda cache: cache.invalidate_pattern("keyvalue/*"), {"tools/list", "tools/call"}),
        (lambda cache: cache.invalidate_pattern("keyvalue/tools/list[=#]*"), {"tools/list"}),
        (lambda cache: cache.invalidate_agent("Engineer"), {"tools/list", "tools/call"}),
        (lambda cache: cache.invalidate_agent("qa"), {"bystander"}),
        (lambda cache: cache.invalidate_project("shop"), {"tools/list", "tools/call"}),
        (lambda cache: cache.invalidate_project("web"), {"bystander"}),
        (lambda cache: KeyValueStore(cache).destroy(), {"tools/list", "tools/call"}),
        (lambda cache: KeyValueStore(cache).destroy_collection("tools/call"), {"tools/call"}),
    ],
)
async def test_every_way_of_invalidating_reaches_what_it_names_and_nothing_else(cache, invalidate, reached, key):
    store = KeyValueStore(cache, agent="engineer", project="shop")
    await cache.set_prompt("bystander", "stays", agent="qa", project="web")
    for collection in ("tools/list", "tools/call"):
        await store.put(key, {"in": collection}, collection=collection)
    assert await invalidate(cache)
    gone = {name for name in ("tools/list", "tools/call") if await store.get(key, collection=name) is None}
    gone |= {"bystander"} if await cache.get_prompt("bystander") is None else set()
    assert gone == reached


async def test_what_names_no_project_goes_with_every_project(cache, store):
    await store.put("a", {"a": 1})
    await cache.invalidate_project("shop")
    assert await store.get("a") is None


async def test_no_agent_is_read_from_the_name_of_a_collection(cache, store):
    """As it is from keys that look like those of the original."""
    await store.put("1", {"a": 1}, collection="engineer")
    await store.put("engineer_1", {"a": 1})
    await cache.invalidate_agent("engineer")
    assert await store.get("1", collection="engineer") == {"a": 1}
    assert await store.get("engineer_1") == {"a": 1}


async def test_a_change_of_a_watched_file_reaches_it(open_cache, tmp_path):
    watcher = FakeWatcher()
    cache = await open_cache(watch=[WatchRule(tmp_path, "AGENTS.md", "project")], watcher=watcher)
    here, elsewhere = KeyValueStore(cache, project=tmp_path), KeyValueStore(cache, project="elsewhere")
    await here.put("a", {"a": 1})
    await elsewhere.put("b", {"b": 1})
    (tmp_path / "AGENTS.md").write_text("- use spaces\n")
    watcher.push(tmp_path / "AGENTS.md")
    await cache.sync()
    assert await here.get_many(["a", "b"]) == [None, {"b": 1}]


# Computations and files.


async def test_what_was_made_from_a_value_goes_with_it(cache, store):
    async def derived():
        return "from " + (await store.get("a"))["text"]

    await store.put("a", {"text": "old"})
    assert await cache.get_or_compute("derived", derived) == "from old"
    await store.put("a", {"text": "new"})
    await store.delete("a")
    assert await cache.get_prompt("derived") is None


async def test_a_value_that_is_put_in_a_computation_goes_with_the_files_of_that(cache, store, tmp_path):
    memory = tmp_path / "memory.md"
    memory.write_text("- use tabs\n")

    async def compute():
        await store.put("a", {"text": await cache.files.read_text(memory)})

    await cache.get_or_compute("computation", compute)
    assert await store.get("a") == {"text": "- use tabs\n"}
    memory.write_text("- use spaces\n")
    assert await store.get("a") is None
    assert await store.delete("a") is False


async def test_a_value_of_an_invalidated_block_is_not_kept(cache, store):
    async with cache.lock("making"):
        await cache.invalidate_tag("keyvalue/answers")
        await store.put("a", {"a": 1}, collection="answers")
        await store.put("a", {"a": 1}, collection="questions")
    assert await store.get("a", collection="answers") is None
    assert await store.get("a", collection="questions") == {"a": 1}


async def test_it_joins_a_batch(cache, store):
    async def fail():
        async with cache.batch():
            await store.put_many(["a", "b"], [{}, {}])
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await store.get_many(["a", "b"]) == [None, None]
    async with cache.batch():
        await store.put_many(["a", "b"], [{}, {}])
        assert await store.get("a") is None
    assert await store.get_many(["a", "b"]) == [{}, {}]


# Bounds, and trouble.


async def test_a_value_larger_than_all_the_room_is_not_kept_and_the_older_one_is_gone(open_cache):
    cache = await open_cache(max_memory_mb=1)
    store = KeyValueStore(cache)
    await store.put("a", {"a": "old"})
    await store.put("a", {"a": "x" * 2_000_000})
    assert await store.get("a") is None
    assert "larger than max_memory_mb" in str(cache.explain(store.cache_key("a")))


@pytest.mark.parametrize("prompt", ["text", "[]", "null", "", b"{", 1, None, ["a"]])
async def test_what_somebody_else_has_put_there_is_an_error_that_names_the_key(cache, store, prompt):
    await cache.set_prompt(store.cache_key("a"), prompt)
    for call in (store.get("a"), store.ttl("a"), store.get_many(["a"]), store.ttl_many(["a"])):
        with pytest.raises(DeserializationError, match="'keyvalue/default_collection=a'"):
            await call
    await store.put("a", {"a": 1})
    assert await store.get("a") == {"a": 1}


async def test_the_cache_is_lent(store):
    cache = SharedPromptCache()
    store = KeyValueStore(cache)
    await store.put("a", {"a": 1})
    assert await KeyValueStore(cache).get("a") == {"a": 1}
    await cache.aclose()
    with pytest.raises(CacheClosedError):
        await store.get("a")
    with pytest.raises(CacheClosedError):
        await store.put("a", {"a": 1})


async def test_the_wall_clock_may_be_set(open_cache):
    clock = ManualClock()
    store = KeyValueStore(await open_cache(clock=clock))
    await store.put("a", {"a": 1}, ttl=100)
    clock.advance(10)
    clock.jump_wall(3_600)
    assert await store.ttl("a") == ({"a": 1}, pytest.approx(90))
    clock.jump_wall(-3_605)  # the put lies five seconds back, by this clock
    assert await store.ttl("a") == ({"a": 1}, pytest.approx(90))
    clock.jump_wall(-3_600)
    _, left = await store.ttl("a")
    assert left == 0  # too few rather than too many


@pytest.mark.parametrize("verb", ["put_many", "get_many", "ttl_many", "delete_many"])
async def test_others_have_their_turn_while_many_keys_are_gone_through(cache, store, verb):
    keys = [f"key {number}" for number in range(1_000)]
    values = [{"number": number} for number in range(1_000)]
    if verb != "put_many":
        await store.put_many(keys, values)
    turns = 0
    call = asyncio.create_task(store.put_many(keys, values) if verb == "put_many" else getattr(store, verb)(keys))
    while not call.done():
        await asyncio.sleep(0)
        turns += 1
    await call
    assert turns >= 14  # twice through the keys, by 128 at a time


async def test_a_put_of_many_that_is_cancelled_at_its_beginning_keeps_nothing(cache, store):
    keys = [f"key {number}" for number in range(1_000)]
    call = asyncio.create_task(store.put_many(keys, [{}] * 1_000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert cache.get_stats().entry_count == 0
    await store.put_many(keys, [{}] * 1_000)
    assert await store.get_many(keys) == [{}] * 1_000


# What py-key-value puts around its stores.


async def test_its_wrappers_fit_around_it(store):
    inner = LimitSizeWrapper(key_value=store, max_size=1_000, raise_on_too_large=False)
    wrapped = StatisticsWrapper(key_value=PrefixCollectionsWrapper(key_value=inner, prefix="shop"))
    await wrapped.put("a", {"a": 1}, collection="answers")
    await wrapped.put("b", {"b": "x" * 1_000}, collection="answers")
    assert await wrapped.get_many(["a", "b"], collection="answers") == [{"a": 1}, None]
    assert wrapped.statistics.get_collection("answers").get.hit == 1
    assert await store.get("a", collection="shop__answers") == {"a": 1}


async def test_it_stands_in_front_of_a_slower_one(store):
    slow = KeyValueStore(SharedPromptCache())
    fronted = PassthroughCacheWrapper(primary_key_value=slow, cache_key_value=store)
    await fronted.put("a", {"a": 1}, ttl=60)
    assert await fronted.get("a") == {"a": 1}
    assert await store.get("a") == {"a": 1}
    await fronted.delete("a")
    assert await store.get("a") is None


async def test_models_go_in_and_come_out(store):
    kept = PydanticAdapter(key_value=store, pydantic_model=dict[str, set[int]], default_collection="models")
    await kept.put("a", {"numbers": {1, 2}}, ttl=60)
    assert await kept.get("a") == {"numbers": {1, 2}}


# The package that it needs.


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    name = "shared_prompt_cache.integrations.key_value"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "key_value.aio.errors", None)
    with pytest.raises(ImportError, match=r"pip install 'shared-prompt-cache\[fastmcp\]'") as raised:
        importlib.import_module(name)
    assert isinstance(raised.value.__cause__, ImportError)


def test_nobody_who_does_not_ask_for_it_loads_the_package():
    program = """
import sys
import shared_prompt_cache, shared_prompt_cache.testing, shared_prompt_cache.integrations
assert not any(name.partition(".")[0] == "key_value" for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env={**os.environ})


async def test_a_failure_of_the_cache_is_no_value(cache, store):
    """Kept failures lie elsewhere: under the key there is nothing to be read."""
    with pytest.raises(LookupError):
        await cache.get_or_compute(store.cache_key("a"), Counted(LookupError()), cache_errors_for=60)
    assert await store.get("a") is None
    await wait_until(lambda: not cache._flights.running)
