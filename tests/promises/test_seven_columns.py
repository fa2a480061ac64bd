"""The seven columns: what becomes of a stampede in each of seven mishaps, for each way to invalidate and each road.

Roads: a computation that callers wait for, and a refresh behind callers who are served a stale value. Seen to fail on
planted bugs: a flight that stays in its place when it is invalidated; a value that is stored whatever happened to its
scopes; a cancelled waiter that cancels the flight for the others.
"""

import asyncio

import pytest

from _support import Counted
from _ways import KEY, WAYS, invalidate, options
from shared_prompt_cache.testing import ManualClock, wait_until

CALLERS = 50
ROADS = ("foreground", "background refresh")


class Stampede:
    """Callers of one key on one road; `old` is what their computation makes."""

    def __init__(self, cache, road, file, outcome="old"):
        self.cache, self.road, self.file = cache, road, file
        self.gate = asyncio.Event()
        self.old = Counted(outcome, gate=self.gate)
        self.callers = []

    def ask(self, compute, **more):
        """Ask as everybody on this road does, but for the stale value."""
        return self.cache.get_or_compute(KEY, compute, **options(self.file), **more)

    async def begin(self):
        if self.road == "background refresh":
            # The first caller is served the stale value and leaves the refresh behind; those after it want the new.
            assert await self.ask(self.old, stale_for=60) == "stale"
        shared = CALLERS - 1 if self.road == "foreground" else CALLERS
        self.callers = [asyncio.create_task(self.ask(self.old)) for _ in range(CALLERS)]
        await wait_until(lambda: self.cache.get_stats().shared_computations == shared and self.old.began == 1)
        return self

    async def end(self):
        self.gate.set()
        outcomes = await asyncio.gather(*self.callers, return_exceptions=True)
        await wait_until(lambda: not self.cache._flights.running)
        return outcomes


@pytest.fixture(params=ROADS)
async def stampede(request, open_cache, tmp_path):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    file = tmp_path / "memory.md"
    file.write_text("- use tabs\n")

    async def begun(outcome="old"):
        if request.param == "background refresh":
            await cache.get_or_compute(KEY, Counted("stale"), ttl=10, **options(file))
            clock.advance(10)
        return await Stampede(cache, request.param, file, outcome).begin()

    return begun


async def test_stampede_one_computation(stampede):
    run = await stampede()
    assert await run.end() == ["old"] * CALLERS
    assert run.old.began == 1
    assert await run.ask(Counted("never")) == "old"


@pytest.mark.parametrize("way", WAYS)
async def test_invalidated_during_the_computation_nothing_old_is_kept(stampede, way):
    run = await stampede()
    await invalidate(run.cache, way, run.file)
    assert await run.end() == ["old"] * CALLERS
    assert await run.cache.get_prompt(KEY) is None
    assert await run.ask(Counted("new"), stale_for=60) == "new"


@pytest.mark.parametrize("way", WAYS)
async def test_a_late_joiner_gets_a_fresh_value(stampede, way):
    run = await stampede()
    await invalidate(run.cache, way, run.file)
    new = Counted("new")
    late = [asyncio.create_task(run.ask(new, stale_for=60)) for _ in range(CALLERS)]
    assert await asyncio.gather(*late) == ["new"] * CALLERS
    assert await run.end() == ["old"] * CALLERS
    assert (run.old.began, new.began) == (1, 1)
    assert (await run.cache.get_prompt(KEY)).prompt == "new"


@pytest.mark.parametrize("way", [None, *WAYS])
@pytest.mark.parametrize("which", ["the first", "another"])
async def test_a_cancelled_caller_costs_the_others_nothing(stampede, way, which):
    run = await stampede()
    cancelled = run.callers.pop(0 if which == "the first" else 20)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    if way is not None:
        await invalidate(run.cache, way, run.file)
    assert await run.end() == ["old"] * (CALLERS - 1)
    assert (run.old.began, run.old.cancelled) == (1, 0)
    assert (await run.cache.get_prompt(KEY) is None) == (way is not None)


@pytest.mark.parametrize("way", [None, *WAYS])
async def test_an_error_is_shared_once_and_the_next_call_tries_again(stampede, way):
    run = await stampede(LookupError("no such memory"))
    if way is not None:
        await invalidate(run.cache, way, run.file)
    outcomes = await run.end()
    assert all(outcome is outcomes[0] for outcome in outcomes)
    assert isinstance(outcomes[0], LookupError)
    assert run.old.began == 1
    assert await run.ask(Counted("new")) == "new"


@pytest.mark.parametrize("way", [None, *WAYS])
async def test_when_all_are_cancelled_the_work_stops(stampede, way):
    run = await stampede()
    if way is not None:
        await invalidate(run.cache, way, run.file)
    for caller in run.callers:
        caller.cancel()
    await asyncio.gather(*run.callers, return_exceptions=True)
    if run.road == "foreground":
        await wait_until(lambda: run.old.cancelled == 1)
    else:  # one caller was answered and left it behind; that was no cancellation
        run.gate.set()
        await wait_until(lambda: run.old.ended == 1)
    await wait_until(lambda: not run.cache._flights.running)
    kept = await run.cache.get_prompt(KEY)
    assert (kept is not None) == (way is None and run.road == "background refresh")
