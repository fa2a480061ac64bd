"""What has expired leaves the store, also where nobody writes to it any more: it is bounded (P7).

Seen to fail on planted bugs: a store that is swept behind writes alone; one that is swept once and then a minute later,
however much is left; a sweep that fails and ends the writer.
"""

import math

import pytest

from shared_prompt_cache._tier import upkeep
from shared_prompt_cache.stores import MemoryStore
from shared_prompt_cache.testing import ChaosStore, ManualClock, wait_until

ROWS = 600


@pytest.fixture
def pauses(monkeypatch):
    """Set the pauses between two sweeps."""

    def set_pauses(soon, later):
        monkeypatch.setattr(upkeep, "_SOON", soon)
        monkeypatch.setattr(upkeep, "_LATER", later)

    return set_pauses


async def test_what_expires_in_a_store_that_rests_is_removed(open_cache, pauses):
    pauses(0.01, 0.01)
    store, clock = MemoryStore(), ManualClock()
    cache = await open_cache(store=store, clock=clock)
    await cache.set_prompt("brief", 1, ttl=10)
    await cache.set_prompt("lasting", 2, ttl=math.inf)
    await cache.flush()
    assert set(store._place.entries) == {"brief", "lasting"}
    clock.advance(11)
    await wait_until(lambda: set(store._place.entries) == {"lasting"})


async def test_what_expired_while_the_store_was_closed_is_removed_without_a_write(open_cache, pauses):
    pauses(0.01, 3600)
    store, clock = MemoryStore(), ManualClock()
    async with await open_cache(store=store, clock=clock) as cache:
        for number in range(ROWS):
            await cache.set_prompt(f"brief {number}", number, ttl=10)
        await cache.flush()
    assert len(store._place.entries) == ROWS
    clock.advance(11)
    await open_cache(store=store.connect(), clock=clock)
    await wait_until(lambda: not store._place.entries)


async def test_a_sweep_that_fails_is_trouble_like_any_other_and_is_tried_again(open_cache, pauses):
    pauses(0.01, 0.01)
    store, clock = MemoryStore(), ManualClock()
    chaos = ChaosStore(store, seed=1, errors=0)
    cache = await open_cache(store=chaos, clock=clock)
    await cache.set_prompt("brief", 1, ttl=10)
    await cache.flush()
    chaos.fail_next(2)
    await wait_until(lambda: not chaos._scripted)
    clock.advance(11)
    await wait_until(lambda: not store._place.entries)
    await wait_until(lambda: cache.health().parts["store"].status == "ok")
