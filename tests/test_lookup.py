"""What the options of one lookup promise to the caller that gives them, and to those that do not.

Seen to fail on planted bugs: an expiry that counts from the last read, a stale value that is served for ever, a soft
timeout that ends the computation, a kept failure that no invalidation reaches, a refresh at every hit.
"""

import asyncio
import logging
import math
from datetime import UTC, datetime, timedelta

import pytest

from _support import Counted
from _ways import KEY, WAYS, invalidate, options
from shared_prompt_cache import TTL, Computed
from shared_prompt_cache.testing import ManualClock, wait_until


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def timed(open_cache, clock):
    return await open_cache(clock=clock, ttl_seconds=60)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("- use tabs\n")
    return path


# Time to live.


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(None, 60), (5, 5), (2.5, 2.5), (timedelta(minutes=3), 180), (TTL.DYNAMIC, 300)]
)
async def test_a_value_lives_for_its_time_and_no_longer(timed, clock, ttl, seconds):
    await timed.get_or_compute("key", Counted("old"), ttl=ttl)
    clock.advance(seconds - 0.001)
    assert await timed.get_or_compute("key", Counted("new"), ttl=ttl) == "old"
    clock.advance(0.001)
    assert await timed.get_prompt("key") is None
    assert await timed.get_or_compute("key", Counted("new"), ttl=ttl) == "new"


async def test_for_ever_is_for_ever(timed, clock):
    await timed.set_prompt("key", "value", ttl=math.inf)
    clock.advance(1e9)
    cached = await timed.get_prompt("key")
    assert (cached.prompt, cached.expires_at, cached.stale) == ("value", math.inf, False)


async def test_reading_does_not_prolong_a_life(timed, clock):
    await timed.set_prompt("key", "value")
    for _ in range(6):
        clock.advance(10)
        last = await timed.get_prompt("key")
    assert last is None


async def test_a_value_set_again_lives_anew(timed, clock):
    await timed.set_prompt("key", "value")
    clock.advance(50)
    await timed.set_prompt("key", "value")
    clock.advance(50)
    assert (await timed.get_prompt("key")).prompt == "value"


# Stale values.


async def test_who_accepts_it_is_served_the_stale_value_at_once_and_it_is_computed_behind(timed, clock):
    await timed.get_or_compute("key", Counted("old"))
    clock.advance(61)
    gate = asyncio.Event()
    new = Counted("new", gate=gate)
    assert await timed.get_or_compute("key", new, stale_for=30) == "old"
    assert await timed.get_prompt("key") is None  # for those who do not accept it, it has expired
    assert timed.get_stats().stale_served == 1
    gate.set()
    await wait_until(lambda: new.ended == 1)
    assert await timed.get_or_compute("key", new, stale_for=30) == "new"


async def test_it_is_served_for_so_long_and_no_longer(timed, clock):
    await timed.get_or_compute("key", Counted("old"))
    clock.advance(60 + 29.9)
    assert await timed.get_or_compute("key", Counted(LookupError()), stale_for=30) == "old"
    await wait_until(lambda: not timed._flights.running)
    clock.advance(0.1)
    assert await timed.get_or_compute("key", Counted("new"), stale_for=30) == "new"


async def test_a_failure_behind_it_is_logged_and_hurts_nobody(timed, clock, caplog):
    await timed.get_or_compute("key", Counted("old"))
    clock.advance(61)
    with caplog.at_level(logging.WARNING, logger="shared_prompt_cache"):
        assert await timed.get_or_compute("key", Counted(LookupError("gone")), stale_for=30) == "old"
        await wait_until(lambda: not timed._flights.running)
    (record,) = [record for record in caplog.records if "refresh.failed" in record.message]
    assert "key" in record.message
    assert await timed.get_or_compute("key", Counted("new"), stale_for=30) in {"old", "new"}


async def test_a_caller_who_waits_is_served_the_stale_value_where_the_computation_fails(timed, clock):
    await timed.get_or_compute("key", Counted("old"))
    clock.advance(61)
    assert await timed.get_or_compute("key", Counted(LookupError()), stale_for=30, soft_timeout=5) == "old"
    with pytest.raises(LookupError):
        await timed.get_or_compute("key", Counted(LookupError()))


async def test_with_a_soft_timeout_the_new_value_is_waited_for(timed, clock):
    await timed.get_or_compute("key", Counted("old"))
    clock.advance(61)
    assert await timed.get_or_compute("key", Counted("new"), stale_for=30, soft_timeout=5) == "new"


async def test_when_that_has_passed_the_stale_value_has_to_do_and_the_computation_goes_on(timed, clock):
    await timed.get_or_compute("key", Counted("old"))
    clock.advance(61)
    gate = asyncio.Event()
    new = Counted("new", gate=gate)
    assert await timed.get_or_compute("key", new, stale_for=30, soft_timeout=0) == "old"
    gate.set()
    await wait_until(lambda: new.ended == 1)
    assert new.cancelled == 0
    assert (await timed.get_prompt("key")).prompt == "new"


async def test_a_soft_timeout_without_a_stale_value_waits(timed):
    gate = asyncio.Event()
    asking = asyncio.create_task(timed.get_or_compute("key", Counted("new", gate=gate), stale_for=30, soft_timeout=0))
    await wait_until(lambda: timed.get_stats().computations == 1)
    gate.set()
    assert await asking == "new"


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_invalidated_softly_is_stale_and_what_is_invalidated_hard_is_gone(timed, file, way):
    await timed.get_or_compute(KEY, Counted("old"), **options(file))
    await invalidate(timed, way, file, soft=True)
    assert await timed.get_prompt(KEY) is None
    gate = asyncio.Event()
    new = Counted("new", gate=gate)
    assert await timed.get_or_compute(KEY, new, stale_for=30, **options(file)) == "old"
    await wait_until(lambda: new.began == 1)
    await invalidate(timed, way, file)
    assert await timed.get_or_compute(KEY, Counted("newest"), stale_for=30, **options(file)) == "newest"
    gate.set()


@pytest.mark.parametrize("way", WAYS)
async def test_a_soft_invalidation_during_a_computation_lets_its_value_be_born_stale(timed, file, way):
    gate = asyncio.Event()
    old = Counted("old", gate=gate)
    waiting = asyncio.create_task(timed.get_or_compute(KEY, old, **options(file)))
    await wait_until(lambda: old.began == 1)
    await invalidate(timed, way, file, soft=True)
    gate.set()
    assert await waiting == "old"
    assert await timed.get_prompt(KEY) is None
    assert await timed.get_or_compute(KEY, Counted("new"), stale_for=30, **options(file)) == "old"


async def test_what_was_made_from_a_file_that_changed_is_never_served_stale(timed, clock, file):
    async def read():
        return await timed.files.read_text(file)

    await timed.get_or_compute("key", read)
    clock.advance(61)
    file.write_text("- use spaces\n")
    assert await timed.get_or_compute("key", read, stale_for=30) == "- use spaces\n"


# Refresh ahead.


async def test_a_hit_late_in_life_starts_one_computation_behind_it(timed, clock):
    new = Counted("new")
    await timed.get_or_compute("key", Counted("old"))
    clock.advance(29)
    assert await timed.get_or_compute("key", new, refresh_ahead=0.5) == "old"
    assert timed.get_stats().computations == 1
    clock.advance(2)
    assert await timed.get_or_compute("key", new, refresh_ahead=0.5) == "old"
    assert await timed.get_or_compute("key", new, refresh_ahead=0.5) == "old"
    await wait_until(lambda: new.ended == 1)
    assert await timed.get_or_compute("key", new, refresh_ahead=0.5) == "new"
    assert new.began == 1


# Kept failures.


async def test_a_kept_failure_is_raised_again_with_the_traceback_of_the_first(timed, clock):
    compute = Counted(LookupError("no such agent"))
    caught = []
    for _ in range(2):
        with pytest.raises(LookupError) as error:
            await timed.get_or_compute("key", compute, cache_errors_for=10)
        caught.append(error)
    assert caught[0].value is caught[1].value
    assert caught[1].traceback[-1].name == "__call__"
    assert compute.began == 1
    clock.advance(10)
    assert await timed.get_or_compute("key", Counted("found")) == "found"


@pytest.mark.parametrize("way", WAYS)
async def test_an_invalidation_forgets_it(timed, file, way):
    with pytest.raises(LookupError):
        await timed.get_or_compute(KEY, Counted(LookupError()), cache_errors_for=10, **options(file))
    await invalidate(timed, way, file)
    assert await timed.get_or_compute(KEY, Counted("found"), **options(file)) == "found"


async def test_so_does_a_change_of_a_file_it_was_made_from(timed, tmp_path):
    async def read():
        return await timed.files.read_text(tmp_path / "absent.md")

    with pytest.raises(FileNotFoundError):
        await timed.get_or_compute("key", read, cache_errors_for=10)
    (tmp_path / "absent.md").write_text("here")
    assert await timed.get_or_compute("key", read) == "here"


async def test_a_value_that_is_set_takes_the_place_of_a_kept_failure(timed):
    with pytest.raises(LookupError):
        await timed.get_or_compute("key", Counted(LookupError()), cache_errors_for=10)
    await timed.set_prompt("key", "by hand")
    assert await timed.get_or_compute("key", Counted("computed")) == "by hand"


async def test_kept_failures_are_bounded(timed):
    for number in range(1100):
        with pytest.raises(LookupError):
            await timed.get_or_compute(f"key {number}", Counted(LookupError()), cache_errors_for=10)
    assert len(timed._computations.failures) == 1024
    assert await timed.get_or_compute("key 0", Counted("found")) == "found"


# What a computation says of its value.


async def test_a_computation_may_say_how_its_value_is_kept(timed, clock):
    said = Computed("value", ttl=5, metadata={"model": "small"}, tags=["from inside"])
    assert await timed.get_or_compute("key", Counted(said), metadata={"model": "?"}, tags=["from outside"]) == "value"
    cached = await timed.get_prompt("key")
    assert cached.metadata == {"model": "small"}
    assert cached.tags == {"from inside", "from outside"}
    clock.advance(5)
    assert await timed.get_prompt("key") is None


async def test_an_invalidation_finds_a_value_by_the_tag_it_got_from_inside(timed):
    await timed.get_or_compute("key", Counted(Computed("value", tags=["late"])))
    assert await timed.invalidate_tag("late") == 1


async def test_a_tag_that_was_invalidated_before_the_value_had_it_keeps_the_value_out(timed):
    gate = asyncio.Event()
    compute = Counted(Computed("old", tags=["late"]), gate=gate)
    waiting = asyncio.create_task(timed.get_or_compute("key", compute))
    await wait_until(lambda: compute.began == 1)
    await timed.invalidate_tag("late")
    gate.set()
    assert await waiting == "old"
    assert await timed.get_prompt("key") is None
    assert "a tag of it was invalidated" in timed.explain("key").reason


# Whose options.


async def test_scopes_may_come_from_metadata(timed):
    metadata = {"agent": "Python_Engineer", "project": "web", "at": datetime(2026, 1, 1, tzinfo=UTC)}
    await timed.set_prompt("key", "value", metadata)
    cached = await timed.get_prompt("key")
    assert (cached.agent, cached.project) == ("Python_Engineer", "web")
    assert await timed.invalidate_agent("python-engineer-agent", "web") == 1


async def test_the_options_of_a_value_are_those_of_the_call_that_started_it(timed, clock):
    gate = asyncio.Event()
    compute = Counted("value", gate=gate)
    first = asyncio.create_task(timed.get_or_compute("key", compute, ttl=5, tags=["first"]))
    await wait_until(lambda: compute.began == 1)
    second = asyncio.create_task(timed.get_or_compute("key", compute, ttl=500, tags=["second"]))
    await wait_until(lambda: timed.get_stats().shared_computations == 1)
    gate.set()
    assert await asyncio.gather(first, second) == ["value", "value"]
    assert (await timed.get_prompt("key")).tags == {"first"}
    clock.advance(5)
    assert await timed.get_prompt("key") is None


async def test_a_hit_that_names_other_scopes_is_logged_once(timed, caplog):
    await timed.get_or_compute("key", Counted("value"), agent="engineer")
    with caplog.at_level(logging.WARNING, logger="shared_prompt_cache"):
        for said in ({"agent": "engineer"}, {"agent": "qa"}, {"tags": ["web"]}, {"project": "web"}):
            assert await timed.get_or_compute("key", Counted("other"), **said) == "value"
    assert [record.message for record in caplog.records] == [
        "entry.scopes_differ cache='default' key='key'",
    ]


async def test_a_value_that_is_set_overtakes_the_computation_of_its_key(timed):
    gate = asyncio.Event()
    compute = Counted("computed", gate=gate)
    waiting = asyncio.create_task(timed.get_or_compute("key", compute))
    await wait_until(lambda: compute.began == 1)
    await timed.set_prompt("key", "by hand")
    assert await timed.get_or_compute("key", compute) == "by hand"
    gate.set()
    assert await waiting == "computed"
    assert (await timed.get_prompt("key")).prompt == "by hand"


# Room.


async def test_a_value_larger_than_all_the_room_is_returned_and_evicts_nothing(open_cache):
    cache = await open_cache(max_memory_mb=0.1)
    await cache.set_prompt("small", "s")
    assert len(await cache.get_or_compute("huge", Counted("h" * 200_000))) == 200_000
    assert await cache.get_prompt("huge") is None
    assert (await cache.get_prompt("small")).prompt == "s"
    assert cache.get_stats().eviction_count == 0
    assert cache.explain("huge").state == "not kept"
    assert "max_memory_mb" in cache.explain("huge").reason


async def test_one_made_from_files_leaves_no_trace_of_them(open_cache, file):
    cache = await open_cache(max_memory_mb=0.1)

    async def read():
        return await cache.files.read_text(file) * 20_000

    await cache.get_or_compute("huge", read)
    assert cache._proofs._held == {}


async def test_replacing_a_key_at_capacity_evicts_nothing(open_cache):
    cache = await open_cache(max_size=2)
    for number in range(5):
        await cache.set_prompt("a", number)
        await cache.set_prompt("b", number)
    assert cache.get_stats().eviction_count == 0
    assert set(await cache.get_many(["a", "b", "c"])) == {"a", "b"}
