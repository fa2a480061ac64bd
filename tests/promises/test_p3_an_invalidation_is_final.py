"""P3: from the moment an invalidation is applied, nothing that was begun before it is returned or kept.

`test_seven_columns.py` has every way of invalidating on every road; here is the promise sentence by sentence. Each has
failed on a planted bug: `Computations.refusal` that finds nothing; a flight that is joined although it was invalidated;
a value that does not take over the scopes of those it was made from; a sweep that its cancelled caller breaks off.
"""

import asyncio

import pytest

from _support import Counted
from _ways import KEY, WAYS, invalidate, options
from shared_prompt_cache.testing import ManualClock, wait_until


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("- use tabs\n")
    return path


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_invalidated_is_gone(cache, file, way):
    await cache.get_or_compute(KEY, Counted("old"), **options(file))
    await cache.set_prompt("bystander", "stays", agent="qa", project="shop", tags=["other"])
    assert await invalidate(cache, way, file) == (2 if way == "all" else 1)
    assert await cache.get_prompt(KEY) is None
    assert (await cache.get_prompt("bystander") is None) == (way == "all")


@pytest.mark.parametrize("way", WAYS)
async def test_a_running_computation_is_not_kept_and_who_comes_later_does_not_join_it(cache, file, way):
    gate = asyncio.Event()
    old, new = Counted("old", gate=gate), Counted("new")
    waiting = asyncio.create_task(cache.get_or_compute(KEY, old, **options(file)))
    await wait_until(lambda: old.began == 1)
    await invalidate(cache, way, file)
    assert await cache.get_or_compute(KEY, new, **options(file)) == "new"
    gate.set()
    assert await waiting == "old"  # it was waiting already
    assert (await cache.get_prompt(KEY)).prompt == "new"


@pytest.mark.parametrize("way", WAYS)
async def test_it_holds_for_what_was_made_from_a_cached_value(cache, file, way):
    async def derived():
        return "from " + await cache.get_or_compute(KEY, Counted("old"), **options(file))

    async def twice_derived():
        return "again " + await cache.get_or_compute("derived", derived)

    assert await cache.get_or_compute("twice derived", twice_derived) == "again from old"
    await cache.set_prompt("bystander", "stays", agent="qa", project="shop")
    await invalidate(cache, way, file)
    assert await cache.get_prompt("twice derived") is None
    assert await cache.get_prompt("derived") is None
    assert (await cache.get_prompt("bystander") is None) == (way == "all")


@pytest.mark.parametrize("way", WAYS)
async def test_it_holds_for_a_computation_that_has_taken_the_value_already(cache, file, way):
    gate, taken = asyncio.Event(), asyncio.Event()
    await cache.get_or_compute(KEY, Counted("old"), **options(file))

    async def derived():
        cached = await cache.get_prompt(KEY)
        taken.set()
        await gate.wait()
        return f"from {cached.prompt}"

    waiting = asyncio.create_task(cache.get_or_compute("derived", derived))
    await taken.wait()
    await invalidate(cache, way, file)
    gate.set()
    assert await waiting == "from old"
    assert await cache.get_prompt("derived") is None


@pytest.mark.parametrize("way", WAYS)
async def test_an_accepted_invalidation_completes_although_its_caller_is_cancelled(cache, file, way):
    await cache.get_or_compute(KEY, Counted("old"), **options(file))
    for number in range(2000):
        await cache.set_prompt(f"plan_{number}", "other", agent="engineer", project="web", tags=["planning"])
    call = asyncio.create_task(invalidate(cache, way, file))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await cache.get_prompt(KEY) is None


async def test_a_subscriber_who_was_handed_the_event_reads_nothing_old(cache):
    seen = []
    gate = asyncio.Event()
    old = Counted("old", gate=gate)
    waiting = asyncio.create_task(cache.get_or_compute(KEY, old, agent="engineer"))
    await wait_until(lambda: old.began == 1)

    async def told(event):
        seen.append(await cache.get_or_compute(KEY, Counted("new"), agent="engineer"))

    cache.events.listen(told)
    await cache.invalidate_agent("engineer")
    await wait_until(lambda: seen)
    gate.set()
    await waiting
    assert seen == ["new"]


async def test_many_invalidations_in_a_row_leave_no_gap(cache):
    values = iter(range(1000))

    async def compute():
        value = next(values)
        await asyncio.sleep(0)
        return value

    last = -1
    for _ in range(50):
        found = await cache.get_or_compute(KEY, compute, agent="engineer")
        assert found > last
        last = found
        await cache.invalidate_agent("engineer")


async def test_a_set_counts_as_begun_when_its_block_began(cache):
    async with cache.lock(KEY):
        await cache.invalidate(KEY)
        await cache.set_prompt(KEY, "made before")
    assert await cache.get_prompt(KEY) is None
    async with cache.batch() as batch:
        batch.set_prompt("a", "made before", agent="engineer")
        batch.set_prompt("b", "made before", agent="qa")
        await cache.invalidate_agent("engineer")
    assert await cache.get_prompt("a") is None
    assert (await cache.get_prompt("b")).prompt == "made before"
    assert cache.get_stats().dropped_values == 2


async def test_a_set_gives_those_who_wait_no_second_life(cache):
    """The value of a running computation is not stored over one that was set meanwhile."""
    gate = asyncio.Event()
    waiting = asyncio.create_task(cache.get_or_compute(KEY, Counted("computed", gate=gate)))
    await wait_until(lambda: cache.get_stats().computations == 1)
    await cache.set_prompt(KEY, "set")
    gate.set()
    await waiting
    assert (await cache.get_prompt(KEY)).prompt == "set"


@pytest.mark.parametrize("way", WAYS)
async def test_soft_lets_expire_instead(open_cache, file, way):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    await cache.get_or_compute(KEY, Counted("old"), **options(file))
    await invalidate(cache, way, file, soft=True)
    assert await cache.get_prompt(KEY) is None
    assert await cache.get_or_compute(KEY, Counted("new"), stale_for=60, **options(file)) == "old"
    await wait_until(lambda: not cache._flights.running)
    assert await cache.get_or_compute(KEY, Counted("never"), stale_for=60) == "new"


@pytest.mark.parametrize("way", WAYS)
async def test_soft_reaches_the_result_of_a_running_computation(open_cache, file, way):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    gate = asyncio.Event()
    old = Counted("old", gate=gate)
    waiting = asyncio.create_task(cache.get_or_compute(KEY, old, **options(file)))
    await wait_until(lambda: old.began == 1)
    await invalidate(cache, way, file, soft=True)
    gate.set()
    assert await waiting == "old"
    assert await cache.get_prompt(KEY) is None
    assert await cache.get_or_compute(KEY, Counted("new"), **options(file)) == "new"


@pytest.mark.parametrize("way", WAYS)
async def test_what_went_hard_is_never_served_stale(open_cache, file, way):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    await cache.get_or_compute(KEY, Counted("old"), ttl=10, **options(file))
    clock.advance(10)
    assert await cache.get_prompt(KEY) is None  # expired: stale, and could be served as such
    await invalidate(cache, way, file)
    assert await cache.get_or_compute(KEY, Counted("new"), stale_for=60, **options(file)) == "new"


async def test_the_scopes_of_the_original_keys_are_read_from_the_keys(cache):
    """`set_prompt` without an agent, as the original is used: the shape of the key names it."""
    for key in ("python-engineer_1", "python_engineer:x", "memory_python_engineer_processed", "engineer_1"):
        await cache.set_prompt(key, "prompt")
    await cache.set_prompt("python_engineer_2", "of somebody else", agent="qa")
    assert await cache.invalidate_agent("Python_Engineer") == 3
    assert await cache.get_prompt("engineer_1") is not None
    assert await cache.get_prompt("python_engineer_2") is not None


async def test_what_was_made_from_its_own_predecessor_is_counted_once(open_cache):
    cache = await open_cache()
    for number in range(600):  # so many that they are reclaimed behind the calls
        await cache.set_prompt(f"bystander {number}", number)
    await cache.set_prompt("handed over", 1, agent="engineer")
    async with cache.lock("handed over"):
        before = await cache.get_prompt("handed over")
        await cache.set_prompt("handed over", before.prompt + 1, agent="qa")
    assert (await cache.invalidate_agent("engineer"), await cache.invalidate_agent("qa")) == (1, 0)
    assert await cache.get_prompt("handed over") is None
    assert cache.get_stats().entry_count == 600


@pytest.mark.parametrize("soft", [False, True])
async def test_an_agent_in_a_project_takes_what_was_made_from_a_key_of_its_shape_elsewhere(cache, soft):
    async def derived():
        return "from " + await cache.get_or_compute("engineer_1", Counted("old"))

    await cache.get_or_compute("derived", derived, agent="qa", project="shop")
    assert await cache.invalidate_agent("engineer", "web", soft=soft) == 2
    assert await cache.get_prompt("derived") is None


@pytest.mark.parametrize("block", ["lock", "batch"])
@pytest.mark.parametrize("way", WAYS)
async def test_soft_reaches_what_a_block_that_began_before_it_sets_after_it(cache, file, way, block):
    async with cache.lock(KEY) if block == "lock" else cache.batch():
        await invalidate(cache, way, file, soft=True)
        await cache.set_prompt(KEY, "made before", **options(file))
    assert await cache.get_prompt(KEY) is None
    assert await cache.get_or_compute(KEY, Counted("new"), stale_for=60) == "made before"
