"""P8: work that grows with the number of entries is done in slices, between which the loop runs everything else.

What is counted are the entries that were looked at between two passes of the loop, not the time it took; `make bench`
measures that. Seen to fail on planted bugs: a sweep in one piece, a walk without a limit, an eviction of all at once.
"""

import asyncio

import pytest

from _support import Counted, size
from shared_prompt_cache._core import memory as module
from shared_prompt_cache._core.index import Walk
from shared_prompt_cache.testing import wait_until

ENTRIES = size(6_000, 100_000)
MOST = module._AT_ONCE // module.SLICE * module._MARK_SLICE + module.SLICE  # looked at in one pass, whatever is asked


class Passes:
    """Counts what is looked at in each pass of the loop."""

    def __init__(self):
        self.now = self.most = self.total = 0

    def add(self, count):
        self.now += count
        self.total += count
        self.most = max(self.most, self.now)

    async def turn_over(self):
        while True:
            await asyncio.sleep(0)
            self.now = 0


@pytest.fixture
async def full(open_cache):
    cache = await open_cache(max_size=ENTRIES, max_memory_mb=10_000)
    for number in range(ENTRIES):
        await cache.set_prompt(
            f"{'plan' if number % 10 else 'note'}_{number}",
            number,
            agent=f"agent-{number % 20}",
            project=f"project-{number % 3}",
            tags=[f"tag-{number % 5}"],
        )
    return cache


@pytest.fixture
async def passes(full, monkeypatch):
    passes = Passes()
    take, remove = Walk.take, full._memory.remove

    def counted_take(self, most):
        taken = take(self, most)
        passes.add(len(taken))
        return taken

    def counted_remove(*args, **options):
        passes.add(1)
        remove(*args, **options)

    monkeypatch.setattr(Walk, "take", counted_take)
    monkeypatch.setattr(full._memory, "remove", counted_remove)
    turning = asyncio.create_task(passes.turn_over())
    yield passes
    turning.cancel()


VERBS = {
    "clear": lambda cache: cache.clear(),
    "clear softly": lambda cache: cache.clear(soft=True),
    "prefix": lambda cache: cache.invalidate_pattern("plan_*"),
    "pattern": lambda cache: cache.invalidate_pattern("*7"),
    "agent": lambda cache: cache.invalidate_agent("agent-7"),
    "agent softly": lambda cache: cache.invalidate_agent("agent-7", soft=True),
    "project": lambda cache: cache.invalidate_project("project-1"),
    "tag": lambda cache: cache.invalidate_tag("tag-3"),
    "file": lambda cache: cache.invalidate_file("/absent"),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_an_invalidation_and_the_reclaiming_behind_it_go_in_slices(full, passes, verb):
    dropped = await VERBS[verb](full)
    await wait_until(lambda: not full._memory.has_work, timeout=60)
    expected = {"clear": 1, "prefix": 0.9, "pattern": 0.1, "agent": 0.05, "project": 1 / 3, "tag": 0.2, "file": 0}
    assert dropped == pytest.approx(ENTRIES * expected[verb.partition(" ")[0]], rel=0.001)
    assert passes.total >= min(ENTRIES, dropped)
    assert passes.most <= MOST


async def test_so_does_an_eviction_by_hand(full, passes):
    assert await full.evict_oldest(ENTRIES // 2) == ENTRIES // 2
    assert passes.most <= MOST


async def test_so_does_closing(full, passes):
    await full.aclose()
    assert passes.total >= ENTRIES
    assert passes.most <= MOST


async def test_looking_up_many_lets_others_run(full):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    found = await full.get_many(f"plan_{number}" for number in range(ENTRIES))
    counting.cancel()
    assert len(found) == ENTRIES * 0.9
    assert turns >= ENTRIES // module.SLICE


async def test_what_comes_while_the_sweep_goes_on_is_kept_and_what_was_dropped_is_not_served(full, passes):
    clearing = asyncio.create_task(full.clear())
    await asyncio.sleep(0)
    assert full._memory.has_work
    assert await full.get_prompt("plan_1") is None
    assert await full.get_or_compute("plan_1", Counted("new")) == "new"
    await full.set_prompt("plan_2", "set")
    assert full.get_stats().entry_count == 2
    assert await clearing == ENTRIES
    await wait_until(lambda: not full._memory.has_work, timeout=60)
    assert {key: cached.prompt for key, cached in (await full.get_many(["plan_1", "plan_2", "plan_3"])).items()} == {
        "plan_1": "new",
        "plan_2": "set",
    }
    assert len(full._memory.entries) == 2


async def test_a_large_value_that_makes_room_evicts_in_slices(open_cache):
    cache = await open_cache(max_size=5_000, max_memory_mb=10)
    for number in range(5_000):
        await cache.set_prompt(f"key {number}", "p" * 500)
    before = cache.get_stats().eviction_count
    await cache.set_prompt("large", "p" * 9_000_000)
    assert cache.get_stats().eviction_count - before <= module.SLICE
    await wait_until(lambda: not cache._memory.has_work)
    assert cache.get_stats().memory_usage_mb <= 10
    assert await cache.get_prompt("large") is not None
