"""The seven columns on the roads of the store: promotion into memory, and what comes of a stampede in the store.

On the road of promotion fifty callers wait for one look into the store, which has the value; on that of writing they
wait for a computation, whose value is to be written. What becomes of writes that an invalidation meets under way is in
`test_p3_with_a_store.py`. At full size the store is an SQLite database.

Seen to fail on planted bugs: a flight that is left for another by each who comes; a cancelled caller that takes it
along; one that goes on when all have left; a value that is kept although its computation was overtaken; a row that is
believed although what it was filed under was invalidated since the look began.
"""

import asyncio

import pytest

from _gated import GatedStore
from _support import STRESS, Counted
from _ways import KEY, WAYS, invalidate, options
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.stores import MemoryStore, SQLiteStore
from shared_prompt_cache.testing import wait_until

CALLERS = 50
ROADS = ("promotion", "store write")


class Stampede:
    """Callers of one key: `old` is what they compute, if they do, and `gate` holds them up on their road."""

    def __init__(self, cache, store, file, road, outcome):
        self.cache, self.store, self.file, self.road = cache, store, file, road
        self.opened = asyncio.Event()
        self.old = Counted(outcome, gate=None if road == "promotion" else self.opened)
        self.callers = []

    def ask(self, compute):
        return self.cache.get_or_compute(KEY, compute, **options(self.file))

    async def begin(self):
        if self.road == "promotion":
            gate = self.store.gate("get", after=True)  # the row has been read by then
            self.opened, reached = gate.opened, gate.reached
        self.callers = [asyncio.create_task(self.ask(self.old)) for _ in range(CALLERS)]
        await wait_until(lambda: self.cache.get_stats().shared_computations == CALLERS - 1)
        await wait_until(lambda: self.old.began or (self.road == "promotion" and reached.is_set()))
        return self

    async def end(self):
        self.opened.set()
        outcomes = await asyncio.gather(*self.callers, return_exceptions=True)
        await wait_until(lambda: not self.cache._flights.running)
        await self.cache.flush()
        return outcomes

    async def stored(self):
        """Close the cache; return what another one finds that knows nothing but the store."""
        await self.cache.aclose()
        async with SharedPromptCache(store=self.store) as another:
            entry = await another.get_prompt(KEY)
            return None if entry is None else entry.prompt


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("- use tabs\n")
    return path


@pytest.fixture(params=ROADS)
async def stampede(request, open_cache, tmp_path, file):
    """Return what begins a stampede; on the road of promotion the store has the value "old" by then."""
    store = GatedStore(SQLiteStore(tmp_path / "store") if STRESS else MemoryStore())

    async def begun(outcome=None):
        if request.param == "promotion":
            async with SharedPromptCache(store=store) as before:
                await before.get_or_compute(KEY, Counted("old"), **options(file))
        store.calls.clear()
        outcome = outcome or ("old" if request.param == "store write" else "computed after the look")
        cache = await open_cache(store=store)
        return await Stampede(cache, store, file, request.param, outcome).begin()

    return begun


def allowed(run, way):
    """Return what those who wait may be given: after an invalidation a promotion may go on to compute."""
    return {"old"} if way is None or run.road == "store write" else {"old", run.old.value}


async def test_stampede_one_look_and_one_computation(stampede):
    run = await stampede()
    assert await run.end() == ["old"] * CALLERS
    assert (run.store.calls["get"], run.old.began) == (
        (1, 0) if run.road == "promotion" else (run.store.calls["get"], 1)
    )
    assert await run.ask(Counted(AssertionError())) == "old"
    assert await run.stored() == "old"


@pytest.mark.parametrize("way", WAYS)
async def test_invalidated_during_it_nothing_old_is_kept_or_stored(stampede, way):
    run = await stampede()
    await invalidate(run.cache, way, run.file)
    assert set(await run.end()) <= allowed(run, way)
    assert run.old.began <= 1
    kept = await run.cache.get_prompt(KEY)
    assert kept is None or kept.prompt != "old"
    assert await run.ask(Counted("new")) in ("new", run.old.value if kept else "new")
    assert await run.stored() != "old"


@pytest.mark.parametrize("way", WAYS)
async def test_a_late_joiner_gets_a_fresh_value_and_that_is_stored(stampede, way):
    run = await stampede()
    await invalidate(run.cache, way, run.file)
    new = Counted("new")
    late = [asyncio.create_task(run.ask(new)) for _ in range(CALLERS)]
    await wait_until(lambda: new.began or run.cache.get_stats().shared_computations == 2 * CALLERS - 1)
    # No file of the row is known before it was read; so who comes after `invalidate_file` may wait for the look-up,
    # which will not be believed, and what is computed then is as fresh.
    fresh = "new" if new.began else run.old.value
    assert set(await run.end()) <= {*allowed(run, way), "new"}
    assert await asyncio.gather(*late) == [fresh] * CALLERS
    assert fresh == "new" or (run.road, way) == ("promotion", "file")
    assert max(new.began, run.old.began) <= 1
    assert (await run.cache.get_prompt(KEY)).prompt == fresh
    assert await run.stored() == fresh


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
    assert set(await run.end()) <= allowed(run, way)
    assert run.old.began <= 1
    assert run.old.cancelled == 0
    if way is None:
        assert run.old.began == (run.road == "store write")
        assert await run.stored() == "old"
    else:
        assert await run.stored() != "old"


@pytest.mark.parametrize("way", [None, *WAYS])
async def test_an_error_is_shared_once_and_the_next_call_tries_again(stampede, way):
    """On the road of promotion they come to compute, since the file has changed that the row was made from."""
    run = await stampede(LookupError("no such memory"))
    run.file.write_text("- use spaces\n")
    if way is not None:
        await invalidate(run.cache, way, run.file)
    outcomes = await run.end()
    assert isinstance(outcomes[0], LookupError)
    assert all(outcome is outcomes[0] for outcome in outcomes)
    assert run.old.began == 1
    assert await run.cache.get_prompt(KEY) is None
    assert await run.ask(Counted("new")) == "new"
    assert await run.stored() == "new"


@pytest.mark.parametrize("way", [None, *WAYS])
async def test_when_all_are_cancelled_the_work_stops(stampede, way):
    run = await stampede()
    if way is not None:
        await invalidate(run.cache, way, run.file)
    for caller in run.callers:
        caller.cancel()
    await asyncio.gather(*run.callers, return_exceptions=True)
    await wait_until(lambda: not run.cache._flights.running)
    assert (run.old.began, run.old.ended) == (run.old.cancelled, 0)
    assert run.old.began == (run.road == "store write")
    run.opened.set()
    await run.cache.flush()
    kept = await run.cache.get_prompt(KEY)  # nothing was computed, but the store may still have it
    assert (kept is not None) == (way is None and run.road == "promotion")
    assert await run.stored() == (None if kept is None else "old")
