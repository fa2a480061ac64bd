"""Flights: who joins which, whose options count for a shared one, and what takes it from its place.

P2 has cancellation; `test_lock.py` has circles.
"""

import asyncio

import pytest

from _support import Counted, replace
from _ways import AGENT, KEY, PROJECT, TAG, WAYS, invalidate, options
from shared_prompt_cache import CacheKeyError, ConfigError, WatchRule
from shared_prompt_cache.testing import FakeWatcher, ManualClock, wait_until


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def cache(open_cache, clock):
    return await open_cache(clock=clock)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("- use tabs\n")
    return path


def started(cache, compute, **more):
    return asyncio.create_task(cache.get_or_compute(KEY, compute, **more))


async def joined(cache, count=1):
    await wait_until(lambda: cache.get_stats().shared_computations == count)


async def at_rest(cache):
    await wait_until(lambda: not cache._flights.running)


def logged(caplog):
    return [record.event for record in caplog.records]


# Whose options


async def test_how_a_value_is_kept_is_said_by_the_call_that_began(cache, clock, file):
    gate = asyncio.Event()
    compute = Counted("prompt", gate=gate)
    first = started(cache, compute, ttl=10, metadata={"by": "first"}, agent=AGENT, tags=[TAG], depends_on=file)
    await wait_until(lambda: compute.began == 1)
    second = started(cache, Counted("never"), ttl=99, metadata={"by": "second"}, agent="qa", tags=["other"])
    await joined(cache)
    gate.set()
    assert await asyncio.gather(first, second) == ["prompt", "prompt"]
    found = await cache.get_prompt(KEY)
    assert (found.metadata, found.agent, found.tags) == ({"by": "first"}, AGENT, {TAG})
    assert found.expires_at == clock.wall() + 10
    assert found.dependencies == (str(file),)


async def test_how_long_to_wait_is_said_by_each_caller(cache, clock):
    await cache.get_or_compute(KEY, Counted("old"), ttl=10)
    clock.advance(10)
    gate = asyncio.Event()
    refresh = Counted("new", gate=gate)
    patient = started(cache, refresh)
    await wait_until(lambda: refresh.began == 1)
    assert await cache.get_or_compute(KEY, refresh, stale_for=60) == "old"
    assert await cache.get_or_compute(KEY, refresh, stale_for=60, soft_timeout=0.001) == "old"
    gate.set()
    assert await patient == "new"
    assert refresh.began == 1


async def test_how_strictly_files_are_proved_is_said_by_each_caller(open_cache, file):
    rules = [WatchRule(file.parent, "*.md", "files")]
    cache = await open_cache(watch=rules, watcher=FakeWatcher(), freshness="events")
    await cache.get_or_compute(KEY, lambda: cache.files.read_text(file))
    await wait_until(lambda: cache.health().unwatched == 0)
    await cache.get_prompt(KEY)
    replace(file, "- use spaces\n")  # and the watcher says nothing
    assert (await cache.get_prompt(KEY)).prompt == "- use tabs\n"
    assert await cache.get_prompt(KEY, freshness="strict") is None
    assert await cache.get_or_compute(KEY, lambda: cache.files.read_text(file), freshness="strict") == "- use spaces\n"


async def test_the_options_of_a_caller_who_only_waits_are_no_reason_to_fail_the_others(cache):
    gate = asyncio.Event()
    compute = Counted("prompt", gate=gate)
    first = started(cache, compute)
    await wait_until(lambda: compute.began == 1)
    with pytest.raises(ConfigError, match="stale_for is -1"):
        await cache.get_or_compute(KEY, compute, stale_for=-1)
    gate.set()
    assert await first == "prompt"


# A hit that names other scopes


OTHER = [{"agent": "qa"}, {"project": "shop"}, {"tags": ["other"]}, {"agent": "qa", "project": PROJECT, "tags": [TAG]}]


@pytest.mark.parametrize("made_of", ["arguments", "a file"])
@pytest.mark.parametrize("ahead", [None, 0.9])
@pytest.mark.parametrize("more", OTHER)
async def test_a_hit_that_names_other_scopes_is_logged_once(cache, caplog, file, made_of, ahead, more):
    labels = {"agent": AGENT, "project": PROJECT, "tags": [TAG]}
    await cache.get_or_compute(KEY, Counted("prompt"), **labels, depends_on=file if made_of == "a file" else ())
    for _ in range(3):
        assert await cache.get_or_compute(KEY, Counted("never"), refresh_ahead=ahead, **more) == "prompt"
    assert logged(caplog) == ["entry.scopes_differ"]
    assert caplog.records[0].facts == {"cache": "default", "key": KEY}


SAME = [
    {},
    {"agent": AGENT},
    {"agent": "Engineer_Agent"},
    {"agent": "Engineer_Agent", "tags": [TAG]},
    {"project": PROJECT},
    {"tags": [TAG]},
    {"agent": AGENT, "project": PROJECT, "tags": [TAG, "more"]},
    {"metadata": {"agent": AGENT, "project": PROJECT}},
]


@pytest.mark.parametrize("made_of", ["arguments", "a file"])
@pytest.mark.parametrize("more", SAME)
async def test_a_hit_that_names_some_of_the_scopes_is_fine(cache, caplog, file, made_of, more):
    labels = {"agent": AGENT, "project": PROJECT, "tags": [TAG, "more"]}
    await cache.get_or_compute(KEY, Counted("prompt"), **labels, depends_on=file if made_of == "a file" else ())
    assert await cache.get_or_compute(KEY, Counted("never"), **more) == "prompt"
    assert await cache.get_or_compute(KEY, Counted("never"), refresh_ahead=0.9, **more) == "prompt"
    assert logged(caplog) == []


async def test_the_number_of_keys_that_are_logged_is_bounded(cache, caplog):
    for number in range(1005):
        await cache.set_prompt(f"key-{number % 1000}-{number}", "prompt", agent=AGENT)
        await cache.get_or_compute(f"key-{number % 1000}-{number}", Counted("never"), agent="qa")
    assert len(caplog.records) == len(cache._lookups._warned) == 1000


# set_prompt


async def test_a_value_that_is_set_takes_the_place_of_the_computation(cache):
    gate = asyncio.Event()
    compute = Counted("computed", gate=gate)
    waiting = started(cache, compute)
    await wait_until(lambda: compute.began == 1)
    await cache.set_prompt(KEY, "set")
    assert await cache.get_or_compute(KEY, Counted("never")) == "set"
    gate.set()
    assert await waiting == "computed"  # its waiters get what it makes
    assert (await cache.get_prompt(KEY)).prompt == "set"
    assert compute.cancelled == 0


async def test_a_computation_that_fails_after_its_key_was_set_leaves_the_value(cache):
    gate = asyncio.Event()
    failing = Counted(LookupError(), gate=gate)
    waiting = started(cache, failing, cache_errors_for=60)
    await wait_until(lambda: failing.began == 1)
    await cache.set_prompt(KEY, "set")
    gate.set()
    with pytest.raises(LookupError):
        await waiting
    assert await cache.get_or_compute(KEY, Counted("never")) == "set"


async def test_a_computation_may_set_its_own_key(cache):
    async def compute():
        await cache.set_prompt(KEY, "set")
        return "returned"

    assert await cache.get_or_compute(KEY, compute) == "returned"
    assert (await cache.get_prompt(KEY)).prompt == "set"


# What is invalidated softly


@pytest.mark.parametrize("way", WAYS)
async def test_who_comes_after_a_soft_invalidation_and_takes_nothing_stale_does_not_join(cache, file, way):
    gate = asyncio.Event()
    old, new = Counted("old", gate=gate), Counted("new")
    waiting = started(cache, old, **options(file))
    await wait_until(lambda: old.began == 1)
    await invalidate(cache, way, file, soft=True)
    assert await cache.get_or_compute(KEY, new, **options(file)) == "new"
    gate.set()
    assert await waiting == "old"
    assert (await cache.get_prompt(KEY)).prompt == "new"
    assert (old.began, new.began) == (1, 1)


@pytest.mark.parametrize("way", WAYS)
async def test_who_comes_after_a_soft_invalidation_and_takes_stale_values_joins(cache, clock, file, way):
    gate = asyncio.Event()
    old = Counted("old", gate=gate)
    waiting = started(cache, old, **options(file))
    await wait_until(lambda: old.began == 1)
    await invalidate(cache, way, file, soft=True)
    clock.advance(30)
    late = started(cache, Counted("never"), stale_for=60, **options(file))
    await joined(cache)
    gate.set()
    assert await asyncio.gather(waiting, late) == ["old", "old"]


async def test_nobody_joins_what_waits_for_a_value_that_was_invalidated_softly(cache):
    gate = asyncio.Event()
    old = Counted("old", gate=gate)

    async def derived():
        return "from " + await cache.get_or_compute("source", old)

    waiting = started(cache, derived)
    await wait_until(lambda: old.began == 1)
    await cache.invalidate("source", soft=True)

    async def derived_anew():
        return "from " + await cache.get_or_compute("source", Counted("new"))

    assert await cache.get_or_compute(KEY, derived_anew) == "from new"
    gate.set()
    assert await waiting == "from old"
    assert (await cache.get_prompt(KEY)).prompt == "from new"


@pytest.mark.parametrize("way", WAYS)
async def test_soft_reaches_what_was_made_from_a_cached_value(cache, file, way):
    async def derived():
        return "from " + await cache.get_or_compute(KEY, Counted("old"), **options(file))

    await cache.get_or_compute("derived", derived)
    await invalidate(cache, way, file, soft=True)
    assert await cache.get_prompt("derived") is None
    assert await cache.get_or_compute("derived", Counted(LookupError()), stale_for=60) == "from old"
    await at_rest(cache)


async def test_what_is_softened_again_is_no_younger_for_it(cache, clock):
    await cache.set_prompt(KEY, "old", tags=[TAG], ttl=100)
    await cache.invalidate_tag(TAG, soft=True)
    clock.advance(50)
    await cache.invalidate_tag(TAG, soft=True)
    await cache.invalidate(KEY, soft=True)
    clock.advance(10)
    assert await cache.get_or_compute(KEY, Counted("new"), stale_for=60) == "new"


async def test_soft_says_how_many_expired_and_whether_the_key_was_there(cache):
    for number in range(3):
        await cache.set_prompt(f"key-{number}", "old", tags=[TAG])
    assert await cache.invalidate("key-0", soft=True) is True
    assert await cache.invalidate("key-0", soft=True) is False
    assert await cache.invalidate_tag(TAG, soft=True) == 2
    assert cache.get_stats().expirations == 3


# Room


async def test_what_is_larger_than_all_the_room_is_returned_and_evicts_nothing(open_cache):
    cache = await open_cache(max_memory_mb=0.1)
    await cache.set_prompt("bystander", "stays")
    huge = "x" * 200_000
    assert await cache.get_or_compute(KEY, Counted(huge)) is huge
    await cache.set_prompt("set", huge)
    assert await cache.get_prompt(KEY) is await cache.get_prompt("set") is None
    assert (await cache.get_prompt("bystander")).prompt == "stays"
    stats = cache.get_stats()
    assert (stats.eviction_count, stats.entry_count, stats.dropped_values) == (0, 1, 2)


async def test_a_value_too_large_takes_the_older_one_with_it(cache, open_cache):
    cache = await open_cache(max_memory_mb=0.1)
    await cache.set_prompt(KEY, "old")
    await cache.set_prompt(KEY, "x" * 200_000)
    assert await cache.get_prompt(KEY) is None
    assert cache.get_stats().memory_usage_mb == 0


async def test_replacing_at_capacity_evicts_nothing(open_cache):
    cache = await open_cache(max_size=2)
    for key in ("a", "b", "a", "b"):
        await cache.set_prompt(key, key)
    assert set(await cache.get_many(["a", "b"])) == {"a", "b"}
    assert cache.get_stats().eviction_count == 0


@pytest.mark.parametrize("key", ["", 5, None, ["list"], "x" * 1025])
async def test_a_key_that_is_none_is_refused_before_anything_is_begun(cache, key):
    with pytest.raises(CacheKeyError):
        await cache.get_or_compute(key, Counted("never"))
    with pytest.raises(CacheKeyError):
        await cache.get_prompt(key)
    assert cache.get_stats().computations == 0
