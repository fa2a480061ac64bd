"""One computation: how its value is kept, and whose word about that counts.

P1 to P3 have what becomes of callers and invalidations; `test_lookup.py` has what is served meanwhile.
"""

import asyncio
import gc
import math
import traceback
from datetime import timedelta

import pytest

from _support import Counted
from _ways import AGENT, KEY, PROJECT, TAG, invalidate
from shared_prompt_cache import Computed, ComputeTimeout, ConfigError, SharedPromptCache
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


def started(cache, compute, **more):
    return asyncio.create_task(cache.get_or_compute(KEY, compute, **more))


def logged(caplog):
    return [record.event for record in caplog.records]


# ttl


@pytest.mark.parametrize(
    ("ttl", "lives"), [(None, 3600), (7, 7), (0.5, 0.5), (timedelta(minutes=2), 120), (10**9, 10**9)]
)
async def test_a_value_lives_for_its_time_and_not_a_moment_longer(cache, clock, ttl, lives):
    await cache.get_or_compute(KEY, Counted("prompt"), ttl=ttl)
    await cache.set_prompt("set", "prompt", ttl=ttl)
    clock.advance(lives - 0.25)
    assert await cache.get_prompt(KEY) is not None
    assert await cache.get_prompt("set") is not None
    clock.advance(0.25)
    assert await cache.get_prompt(KEY) is None
    assert await cache.get_prompt("set") is None


async def test_for_ever_is_for_ever(cache, clock):
    await cache.get_or_compute(KEY, Counted("prompt"), ttl=math.inf)
    clock.advance(10**12)
    found = await cache.get_prompt(KEY)
    assert (found.prompt, found.expires_at, found.stale) == ("prompt", math.inf, False)


async def test_the_time_counts_from_the_store_however_often_it_is_read(cache, clock):
    await cache.get_or_compute(KEY, Counted("prompt"), ttl=10)
    for _ in range(9):
        clock.advance(1)
        assert await cache.get_or_compute(KEY, Counted("never"), ttl=10) == "prompt"
    clock.advance(1)
    assert await cache.get_or_compute(KEY, Counted("new"), ttl=10) == "new"


async def test_the_time_counts_from_the_store_and_not_from_the_beginning(cache, clock):
    gate = asyncio.Event()
    compute = Counted("prompt", gate=gate)
    caller = started(cache, compute, ttl=10)
    await wait_until(lambda: compute.began == 1)
    clock.advance(100)
    gate.set()
    await caller
    clock.advance(9)
    assert (await cache.get_prompt(KEY)).prompt == "prompt"


# Scopes and metadata


@pytest.mark.parametrize("verb", ["get_or_compute", "set_prompt"])
@pytest.mark.parametrize("way", ["agent", "project", "tag"])
async def test_a_value_is_filed_under_what_the_call_names(cache, file, verb, way):
    more = {"agent": AGENT, "project": PROJECT, "tags": [TAG]}
    await getattr(cache, verb)(KEY, Counted("prompt") if verb == "get_or_compute" else "prompt", **more)
    found = await cache.get_prompt(KEY)
    assert (found.agent, found.project, found.tags) == (AGENT, PROJECT, {TAG})
    assert await invalidate(cache, way, file) == 1


@pytest.mark.parametrize("verb", ["get_or_compute", "set_prompt"])
async def test_metadata_names_the_scopes_that_the_call_does_not(cache, verb):
    prompt = Counted("prompt") if verb == "get_or_compute" else "prompt"
    await getattr(cache, verb)(KEY, prompt, metadata={"agent": "qa", "project": "shop", "tokens": 12})
    await getattr(cache, verb)("named", prompt, metadata={"agent": "qa", "project": "shop"}, agent=AGENT)
    found = await cache.get_prompt("named")
    assert (found.agent, found.project) == (AGENT, "shop")
    assert await cache.invalidate_agent("qa", "shop") == 1
    assert await cache.invalidate_project("shop") == 1


async def test_metadata_is_kept_as_it_was(cache):
    metadata = {"tokens": 12, "sources": ["a"]}
    await cache.get_or_compute(KEY, Counted("prompt"), metadata=metadata)
    metadata["tokens"] = 13
    metadata["sources"].append("b")
    found = await cache.get_prompt(KEY)
    assert found["metadata"] == {"tokens": 12, "sources": ["a"]}
    with pytest.raises(TypeError):
        found.metadata["tokens"] = 14


# Computed


async def test_the_computation_has_the_last_word_on_how_its_value_is_kept(cache, clock):
    compute = Counted(lambda: Computed("prompt", ttl=timedelta(seconds=5), metadata={"tokens": 3}, tags=["late"]))
    assert await cache.get_or_compute(KEY, compute, ttl=50, metadata={"tokens": 1}, tags=["early"]) == "prompt"
    found = await cache.get_prompt(KEY)
    assert (found.prompt, found.metadata, found.tags) == ("prompt", {"tokens": 3}, {"early", "late"})
    clock.advance(5)
    assert await cache.get_prompt(KEY) is None


async def test_what_the_computation_does_not_say_the_call_does(cache, clock):
    await cache.get_or_compute(KEY, Counted(lambda: Computed("prompt")), ttl=50, metadata={"tokens": 1}, tags=[TAG])
    found = await cache.get_prompt(KEY)
    assert (found.metadata, found.tags, found.expires_at) == ({"tokens": 1}, {TAG}, clock.wall() + 50)


@pytest.mark.parametrize("tag", ["early", "late"])
async def test_a_value_is_filed_under_the_tags_of_both(cache, tag):
    await cache.get_or_compute(KEY, Counted(lambda: Computed("prompt", tags=["late", "early"])), tags=["early"])
    assert await cache.invalidate_tag(tag) == 1
    assert await cache.get_prompt(KEY) is None


async def test_a_tag_that_was_invalidated_before_it_was_known_counts(cache):
    gate = asyncio.Event()
    compute = Counted(lambda: Computed("old", tags=["late"]), gate=gate)
    caller = started(cache, compute)
    await wait_until(lambda: compute.began == 1)
    await cache.invalidate_tag("late")
    gate.set()
    assert await caller == "old"
    assert await cache.get_prompt(KEY) is None
    assert await cache.get_or_compute(KEY, Counted(lambda: Computed("new", tags=["late"]))) == "new"
    assert await cache.invalidate_tag("late") == 1


async def test_a_tag_that_was_softened_before_it_was_known_counts(cache):
    gate = asyncio.Event()
    compute = Counted(lambda: Computed("old", tags=["late"]), gate=gate)
    caller = started(cache, compute)
    await wait_until(lambda: compute.began == 1)
    await cache.invalidate_tag("late", soft=True)
    gate.set()
    assert await caller == "old"
    assert await cache.get_prompt(KEY) is None
    assert await cache.get_or_compute(KEY, Counted("new"), stale_for=60) == "old"


@pytest.mark.parametrize("during", [False, True])
async def test_the_metadata_of_the_computation_names_scopes_too(cache, during):
    """As that of the call does, where neither the call nor its metadata has named one."""
    gate = asyncio.Event()
    compute = Counted(lambda: Computed("old", metadata={"agent": "qa", "project": "shop"}), gate=gate)
    caller = started(cache, compute)
    await wait_until(lambda: compute.began == 1)
    if during:
        await cache.invalidate_agent("qa", "shop")
    gate.set()
    assert await caller == "old"
    assert (await cache.get_prompt(KEY) is None) == during
    if not during:
        await cache.invalidate_project("another")
        assert (await cache.get_prompt(KEY)).agent == "qa"
        assert await cache.invalidate_agent("qa") == 1
    assert await cache.get_prompt(KEY) is None


async def test_what_the_call_names_goes_before_the_metadata_of_the_computation(cache):
    compute = Counted(lambda: Computed("prompt", metadata={"agent": "qa", "project": "shop"}))
    await cache.get_or_compute(KEY, compute, agent=AGENT, metadata={"project": PROJECT})
    found = await cache.get_prompt(KEY)
    assert (found.agent, found.project) == (AGENT, PROJECT)
    assert await cache.invalidate_agent("qa") == 0


async def test_what_is_not_to_be_kept_replaces_nothing(cache, clock):
    await cache.get_or_compute(KEY, Counted("old"), ttl=10)
    clock.advance(9)
    compute = Counted(lambda: Computed("new", keep=False))
    assert await cache.get_or_compute(KEY, compute, refresh_ahead=0.5) == "old"
    await wait_until(lambda: not cache._flights.running)
    assert (compute.ended, (await cache.get_prompt(KEY)).prompt) == (1, "old")


async def test_a_mistake_in_computed_reaches_the_caller(cache):
    with pytest.raises(ConfigError, match="ttl is -1"):
        await cache.get_or_compute(KEY, Counted(lambda: Computed("prompt", ttl=-1)))
    assert await cache.get_prompt(KEY) is None


# What compute may be


async def test_a_plain_function_is_refused_with_the_way_out(cache):
    def assemble():
        return "prompt"

    with pytest.raises(TypeError, match=r"assemble is a plain function.*asyncio\.to_thread\(.*assemble\)") as caught:
        await cache.get_or_compute(KEY, assemble)
    assert isinstance(caught.value, ConfigError)
    assert caught.value.field == "compute"
    assert await cache.get_prompt(KEY) is None
    assert await cache.get_or_compute(KEY, lambda: asyncio.to_thread(assemble)) == "prompt"


async def test_whatever_can_be_awaited_will_do(cache):
    class Late:
        def __await__(self):
            yield
            return "awaited"

    async def make():
        return "made"

    assert await cache.get_or_compute("awaitable", Late) == "awaited"
    assert await cache.get_or_compute("task", lambda: asyncio.ensure_future(make())) == "made"


async def test_what_cannot_be_called_is_refused_before_anything_is_begun(cache):
    with pytest.raises(TypeError, match="compute is 'prompt', which cannot be called; give an async function"):
        await cache.get_or_compute(KEY, "prompt")
    assert cache.get_stats().computations == 0


# Failures


@pytest.mark.parametrize("error", [LookupError("no"), TimeoutError(), ExceptionGroup("both", [ValueError()])])
async def test_an_exception_reaches_the_caller_as_it_is(cache, error):
    async def compute():
        raise error

    with pytest.raises(type(error)) as caught:
        await cache.get_or_compute(KEY, compute)
    assert caught.value is error
    assert error.__cause__ is error.__context__ is None
    assert traceback.extract_tb(caught.tb)[-1].name == "compute"


async def test_an_exception_of_the_call_itself_is_one_too(cache):
    def compute():
        raise LookupError("before anything could be awaited")

    with pytest.raises(LookupError, match="before anything"):
        await cache.get_or_compute(KEY, compute)


def test_what_ends_the_program_ends_it():
    async def compute():
        raise SystemExit(3)

    async def main():
        async with SharedPromptCache() as cache:
            await cache.get_or_compute(KEY, compute, cache_errors_for=60)

    with pytest.raises(SystemExit, match="3"):
        asyncio.run(main())
    gc.collect()  # asyncio says of each task that ended so that nobody asked it; not in the log of another test


async def test_what_cannot_even_be_kept_fails_the_call_and_no_more(cache):
    class Broken(dict):
        def values(self):
            raise LookupError("no values")

    for _ in range(2):
        with pytest.raises(LookupError, match="no values"):
            await cache.get_or_compute(KEY, Counted(lambda: Computed("prompt", metadata=Broken(tokens=1))))
    assert await cache.get_or_compute(KEY, Counted("prompt")) == "prompt"


# hard_timeout


async def test_a_hard_timeout_ends_the_computation_and_says_what_it_was(cache):
    compute = Counted("prompt", gate=asyncio.Event())
    callers = [started(cache, compute, hard_timeout=timedelta(milliseconds=1)) for _ in range(3)]
    for outcome in await asyncio.gather(*callers, return_exceptions=True):
        assert isinstance(outcome, ComputeTimeout)
        assert isinstance(outcome, TimeoutError)
        assert (outcome.key, outcome.timeout) == (KEY, 0.001)
        assert str(outcome) == f"the computation of '{KEY}' took longer than its hard_timeout of 0.001 s"
    await wait_until(lambda: compute.cancelled == 1)
    assert compute.began == 1


async def test_a_hard_timeout_is_that_of_the_call_that_began(cache):
    gate = asyncio.Event()
    compute = Counted("prompt", gate=gate)
    first = started(cache, compute)
    await wait_until(lambda: compute.began == 1)
    later = started(cache, compute, hard_timeout=0.001)
    await wait_until(lambda: cache.get_stats().shared_computations == 1)
    await asyncio.sleep(0.005)
    gate.set()
    assert await asyncio.gather(first, later) == ["prompt", "prompt"]


async def test_the_next_call_after_a_timeout_begins_afresh_while_the_old_one_is_still_ending(cache):
    ending, gate = asyncio.Event(), asyncio.Event()

    async def slow():
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await gate.wait()

    with pytest.raises(ComputeTimeout):
        await cache.get_or_compute(KEY, slow, hard_timeout=0.001, cache_errors_for=60)
    await ending.wait()
    assert await cache.get_or_compute(KEY, Counted("new")) == "new"
    gate.set()
    await wait_until(lambda: not cache._flights.running)
    assert (await cache.get_prompt(KEY)).prompt == "new"


async def test_an_endless_hard_timeout_is_none(cache):
    assert await cache.get_or_compute(KEY, Counted("prompt"), hard_timeout=math.inf, soft_timeout=math.inf) == "prompt"
    await wait_until(lambda: not cache._flights.running)
