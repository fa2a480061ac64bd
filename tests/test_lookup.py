"""One lookup: what a caller is given where a glance at the entry does not answer, and whose options count.

P1 to P3 have the promises about computations; here is each option of `get_or_compute` that decides what is served.
"""

import asyncio
import traceback

import pytest

from _support import Counted, replace
from _ways import KEY, WAYS, invalidate, options
from shared_prompt_cache import CacheClosedError, ComputeCancelled, ComputeTimeout
from shared_prompt_cache._flights import MOST_BACKGROUND
from shared_prompt_cache.testing import ManualClock, wait_until


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


async def at_rest(cache):
    await wait_until(lambda: not cache._flights.running)


async def make_stale(cache, clock, **more):
    """Let `"old"` lie under `KEY`, expired just now."""
    await cache.get_or_compute(KEY, Counted("old"), ttl=10, **more)
    clock.advance(10)


def logged(caplog):
    return [record.event for record in caplog.records]


# stale_for


async def test_a_stale_value_is_served_until_stale_for_has_passed(cache, clock):
    await make_stale(cache, clock)
    clock.advance(59)
    assert await cache.get_or_compute(KEY, Counted(LookupError()), stale_for=60) == "old"
    await at_rest(cache)
    clock.advance(1)
    assert await cache.get_or_compute(KEY, Counted("new"), stale_for=60) == "new"


async def test_nothing_stale_is_served_to_who_does_not_ask_for_it(cache, clock):
    await make_stale(cache, clock)
    assert await cache.get_or_compute(KEY, Counted("new")) == "new"


async def test_a_stale_value_does_not_stop_being_one_by_being_served(cache, clock):
    await make_stale(cache, clock)
    for _ in range(2):
        clock.advance(20)
        assert await cache.get_or_compute(KEY, Counted(LookupError()), stale_for=60) == "old"
        await at_rest(cache)
    clock.advance(20)
    assert await cache.get_or_compute(KEY, Counted("new"), stale_for=60) == "new"


async def test_a_failure_in_the_background_is_logged_and_hurts_nobody(cache, clock, caplog):
    await make_stale(cache, clock)
    failing = Counted(LookupError("no such memory"))
    assert await cache.get_or_compute(KEY, failing, stale_for=60) == "old"
    await at_rest(cache)
    assert logged(caplog) == ["refresh.failed"]
    assert await cache.get_or_compute(KEY, failing, stale_for=60) == "old"
    await at_rest(cache)
    assert failing.began == 2
    assert await cache.get_or_compute(KEY, Counted("new")) == "new"


async def test_a_timeout_in_the_background_is_logged_too(cache, clock, caplog):
    await make_stale(cache, clock)
    slow = Counted("new", gate=asyncio.Event())
    assert await cache.get_or_compute(KEY, slow, stale_for=60, hard_timeout=0.001) == "old"
    await at_rest(cache)
    assert logged(caplog) == ["refresh.failed"]
    assert isinstance(caplog.records[0].exc_info[1], ComputeTimeout)


async def test_a_failure_that_reaches_a_caller_is_not_logged_besides(cache, caplog):
    with pytest.raises(LookupError):
        await cache.get_or_compute(KEY, Counted(LookupError()))
    assert logged(caplog) == []


async def test_with_the_background_full_a_stale_value_is_served_and_nothing_is_begun(cache, clock):
    await make_stale(cache, clock)
    gate = asyncio.Event()
    for number in range(MOST_BACKGROUND):
        await cache.get_or_compute(f"key-{number}", Counted("old"), ttl=10)
    clock.advance(10)
    for number in range(MOST_BACKGROUND):
        await cache.get_or_compute(f"key-{number}", Counted("new", gate=gate), stale_for=60)
    refresh = Counted("new", gate=gate)
    assert await cache.get_or_compute(KEY, refresh, stale_for=60) == "old"
    # Who waits and runs out of patience cannot leave one more behind either: the last to leave ends it.
    assert await cache.get_or_compute(KEY, refresh, stale_for=60, soft_timeout=0.001) == "old"
    await wait_until(lambda: refresh.cancelled == 1)
    assert refresh.began == 1
    gate.set()
    await at_rest(cache)
    assert await cache.get_or_compute(KEY, Counted("new"), stale_for=60) == "old"
    await at_rest(cache)
    assert (await cache.get_prompt(KEY)).prompt == "new"


# soft_timeout


async def test_who_waits_softly_gets_the_new_value_if_it_comes_in_time(cache, clock):
    await make_stale(cache, clock)
    assert await cache.get_or_compute(KEY, Counted("new"), stale_for=60, soft_timeout=3600) == "new"
    assert cache.get_stats().stale_served == 0


async def test_without_anything_stale_a_soft_timeout_ends_nothing(cache):
    gate = asyncio.Event()
    compute = Counted("new", gate=gate)
    waiting = asyncio.create_task(cache.get_or_compute(KEY, compute, stale_for=60, soft_timeout=0))
    alone = asyncio.create_task(cache.get_or_compute(KEY, compute, soft_timeout=0))
    await wait_until(lambda: compute.began == 1 and cache.get_stats().shared_computations == 1)
    await asyncio.sleep(0.005)
    gate.set()
    assert await asyncio.gather(waiting, alone) == ["new", "new"]


async def test_who_waits_softly_is_served_stale_when_the_computation_fails(cache, clock, caplog):
    await make_stale(cache, clock)
    failing = Counted(LookupError())
    assert await cache.get_or_compute(KEY, failing, stale_for=60, soft_timeout=3600) == "old"
    assert failing.began == 1
    assert cache.get_stats().stale_served == 1
    with pytest.raises(LookupError):
        await cache.get_or_compute(KEY, failing, soft_timeout=3600)


async def test_a_hard_timeout_is_a_failure_to_who_takes_something_stale(cache, clock):
    await make_stale(cache, clock)
    slow = Counted("new", gate=asyncio.Event())
    assert await cache.get_or_compute(KEY, slow, stale_for=60, soft_timeout=3600, hard_timeout=0.001) == "old"
    await wait_until(lambda: slow.cancelled == 1)


async def test_what_became_too_old_while_the_caller_waited_is_not_served(cache, clock):
    await make_stale(cache, clock)
    gate = asyncio.Event()
    compute = Counted("new", gate=gate)
    waiting = asyncio.create_task(cache.get_or_compute(KEY, compute, stale_for=60, soft_timeout=0.001))
    await wait_until(lambda: compute.began == 1)
    clock.advance(60)
    await asyncio.sleep(0.005)
    gate.set()
    assert await waiting == "new"
    assert compute.began == 1


@pytest.mark.parametrize("way", WAYS)
async def test_what_was_invalidated_while_the_caller_waited_is_not_served(cache, clock, file, way):
    await make_stale(cache, clock, **options(file))
    gate = asyncio.Event()
    failing = Counted(LookupError(), gate=gate)
    waiting = asyncio.create_task(cache.get_or_compute(KEY, failing, stale_for=60, soft_timeout=3600, **options(file)))
    await wait_until(lambda: failing.began == 1)
    await invalidate(cache, way, file)
    gate.set()
    with pytest.raises(LookupError):
        await waiting


async def test_who_waits_softly_for_a_lock_is_served_stale(cache, clock):
    await make_stale(cache, clock)

    async def ask():
        return await cache.get_or_compute(KEY, Counted("never"), stale_for=60, soft_timeout=0.001)

    asking = asyncio.create_task(ask())
    async with cache.lock(KEY):
        assert await asking == "old"


# Cancellation is no failure.


async def test_a_computation_that_cancels_itself_is_kept_by_nobody_and_nothing_stale_hides_it(cache, clock):
    await make_stale(cache, clock)
    cancelling = Counted(asyncio.CancelledError())
    for _ in range(2):
        with pytest.raises(ComputeCancelled):
            await cache.get_or_compute(KEY, cancelling, stale_for=60, soft_timeout=3600, cache_errors_for=60)
    assert cancelling.began == 2


async def test_who_waits_while_the_cache_is_closed_is_not_served_stale(cache, clock):
    await make_stale(cache, clock)
    compute = Counted("new", gate=asyncio.Event())
    waiting = asyncio.create_task(cache.get_or_compute(KEY, compute, stale_for=60, soft_timeout=3600))
    await wait_until(lambda: compute.began == 1)
    await cache.aclose()
    with pytest.raises(CacheClosedError):
        await waiting


# refresh_ahead


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
async def test_a_refresh_begins_at_its_fraction_of_the_time_to_live(cache, clock, fraction):
    await cache.get_or_compute(KEY, Counted("old"), ttl=100)
    refresh = Counted("new")
    clock.advance(100 * fraction - 1)
    assert await cache.get_or_compute(KEY, refresh, ttl=100, refresh_ahead=fraction) == "old"
    assert cache.get_stats().computations == 1
    clock.advance(2)
    assert await cache.get_or_compute(KEY, refresh, ttl=100, refresh_ahead=fraction) == "old"
    await at_rest(cache)
    found = await cache.get_prompt(KEY)
    assert (found.prompt, refresh.began) == ("new", 1)
    assert found.expires_at == clock.wall() + 100


async def test_what_never_expires_is_never_refreshed_ahead(cache, clock):
    await cache.set_prompt(KEY, "old", ttl=float("inf"))
    clock.advance(10**9)
    assert await cache.get_or_compute(KEY, Counted("never"), refresh_ahead=0.1) == "old"
    assert cache.get_stats().computations == 0


async def test_a_refresh_that_fails_leaves_the_value_as_it_is(cache, clock, caplog):
    await cache.get_or_compute(KEY, Counted("old"), ttl=100)
    clock.advance(90)
    failing = Counted(LookupError())
    assert await cache.get_or_compute(KEY, failing, refresh_ahead=0.8, cache_errors_for=60) == "old"
    await at_rest(cache)
    assert logged(caplog) == ["refresh.failed"]
    assert await cache.get_or_compute(KEY, failing) == "old"


async def test_with_the_background_full_no_refresh_is_begun(cache, clock):
    await cache.get_or_compute(KEY, Counted("old"), ttl=100)
    clock.advance(90)
    gate = asyncio.Event()
    for number in range(MOST_BACKGROUND):
        await cache.get_or_compute(f"key-{number}", Counted("old"), ttl=1)
    clock.advance(1)
    for number in range(MOST_BACKGROUND):
        await cache.get_or_compute(f"key-{number}", Counted("new", gate=gate), stale_for=60)
    begun = cache.get_stats().computations
    assert await cache.get_or_compute(KEY, Counted("never"), refresh_ahead=0.8) == "old"
    assert cache.get_stats().computations == begun
    gate.set()


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_invalidated_is_not_brought_back_by_its_refresh(cache, clock, file, way):
    gate = asyncio.Event()
    await cache.get_or_compute(KEY, Counted("old"), ttl=100, **options(file))
    clock.advance(90)
    refresh = Counted("old too", gate=gate)
    assert await cache.get_or_compute(KEY, refresh, refresh_ahead=0.8, **options(file)) == "old"
    await wait_until(lambda: refresh.began == 1)
    await invalidate(cache, way, file)
    gate.set()
    await at_rest(cache)
    assert await cache.get_prompt(KEY) is None


# cache_errors_for


async def test_a_kept_failure_is_the_same_exception_with_its_first_traceback(cache):
    async def compute():
        raise LookupError("no such memory")

    caught = []
    for _ in range(5):
        with pytest.raises(LookupError) as error:
            await cache.get_or_compute(KEY, compute, cache_errors_for=60)
        caught.append(error)
    assert len({id(error.value) for error in caught}) == 1
    frames = [[frame.name for frame in traceback.extract_tb(error.tb)] for error in caught]
    assert all(names[-1] == "compute" for names in frames)
    assert len(frames[4]) == len(frames[1])  # it does not grow by being raised


@pytest.mark.parametrize("way", WAYS)
async def test_a_kept_failure_is_invalidated_like_an_entry(cache, file, way):
    with pytest.raises(LookupError):
        await cache.get_or_compute(KEY, Counted(LookupError()), cache_errors_for=60, **options(file))
    await invalidate(cache, way, file)
    assert await cache.get_or_compute(KEY, Counted("new"), **options(file)) == "new"


@pytest.mark.parametrize("way", WAYS)
async def test_a_failure_that_was_invalidated_while_it_came_about_is_not_kept(cache, file, way):
    gate = asyncio.Event()
    failing = Counted(LookupError(), gate=gate)
    waiting = asyncio.create_task(cache.get_or_compute(KEY, failing, cache_errors_for=60, **options(file)))
    await wait_until(lambda: failing.began == 1)
    await invalidate(cache, way, file)
    gate.set()
    with pytest.raises(LookupError):
        await waiting
    assert await cache.get_or_compute(KEY, Counted("new"), **options(file)) == "new"


async def test_a_kept_failure_goes_with_the_files_it_came_from(cache, file):
    async def parse():
        if "tabs" in await cache.files.read_text(file):
            raise ValueError("no tabs")
        return "parsed"

    for _ in range(2):
        with pytest.raises(ValueError, match="no tabs"):
            await cache.get_or_compute(KEY, parse, cache_errors_for=60)
    assert cache.get_stats().computations == 1
    replace(file, "- use spaces\n")
    assert await cache.get_or_compute(KEY, parse, cache_errors_for=60) == "parsed"


async def test_setting_a_value_forgets_the_failure(cache, clock):
    with pytest.raises(LookupError):
        await cache.get_or_compute(KEY, Counted(LookupError()), cache_errors_for=60)
    await cache.set_prompt(KEY, "set", ttl=10)
    clock.advance(10)
    assert await cache.get_or_compute(KEY, Counted("new")) == "new"


async def test_a_kept_failure_hides_nothing_stale_from_who_takes_that(cache, clock):
    await make_stale(cache, clock)
    failing = Counted(LookupError())
    for _ in range(3):
        assert await cache.get_or_compute(KEY, failing, stale_for=60, cache_errors_for=30) == "old"
        await at_rest(cache)
    assert failing.began == 1
    with pytest.raises(LookupError):
        await cache.get_or_compute(KEY, failing)
    clock.advance(30)
    assert await cache.get_or_compute(KEY, Counted("new"), stale_for=60) == "old"
    await at_rest(cache)
    assert await cache.get_or_compute(KEY, failing, stale_for=60) == "new"


async def test_with_nothing_stale_a_kept_failure_is_raised_to_everybody(cache):
    failing = Counted(LookupError())
    for _ in range(3):
        with pytest.raises(LookupError):
            await cache.get_or_compute(KEY, failing, stale_for=60, cache_errors_for=30)
    assert failing.began == 1


async def test_the_number_of_kept_failures_is_bounded(cache):
    for number in range(1100):
        with pytest.raises(LookupError):
            await cache.get_or_compute(f"key-{number}", Counted(LookupError()), cache_errors_for=60)
    assert len(cache._computations.failures) == 1024
    assert await cache.get_or_compute("key-0", Counted("new")) == "new"  # the oldest is forgotten
