"""P7: whatever is done to it, a cache keeps no more than it was allowed to, of anything.

Seen to fail on planted bugs: a history that forgets nothing, conditions that outlive their sweep, marks without a
limit, a shelf that the limit of entries does not count.
"""

import asyncio

import pytest

from _support import Counted, size
from shared_prompt_cache._core import scopes
from shared_prompt_cache.testing import ManualClock, wait_until

MANY = size(3_000, 30_000)


async def test_entries_are_bounded_in_number_and_the_expired_among_them(open_cache):
    clock = ManualClock()
    cache = await open_cache(max_size=100, clock=clock)
    for number in range(MANY):
        await cache.set_prompt(f"key {number}", number, ttl=1 + number % 7)
        if number % 50 == 0:
            clock.advance(1)
            await cache.get_many(f"key {older}" for older in range(number - 90, number))
        assert len(cache._memory.entries) + len(cache._memory.shelf) <= 100


async def test_bytes_are_bounded(open_cache):
    cache = await open_cache(max_size=10_000, max_memory_mb=1)
    for number in range(2_000):
        await cache.set_prompt(f"key {number}", "p" * (number % 5_000), {"number": number})
        assert cache.get_stats().memory_usage_mb <= 1


async def test_what_is_remembered_of_keys_that_left_is_bounded(open_cache):
    cache = await open_cache(max_size=10)
    for number in range(MANY):
        await cache.set_prompt(f"key {number}", number)
    assert cache.explain("key 0").state == "unknown"
    assert cache.explain(f"key {MANY - 11}").reason == "evicted"


async def test_scopes_live_only_as_long_as_something_stands_in_them(open_cache):
    cache = await open_cache(max_size=50)
    for number in range(MANY):
        await cache.set_prompt(f"key {number}", number, agent=f"agent-{number}", project=f"project-{number}")
        await cache.invalidate_agent(f"agent-{number - 5}")
    # Labels are shared, and so kept for a while; they are bounded themselves.
    assert cache._scopes.figures["scopes"] < 8 * 4096
    assert len(cache._labelling._filing._labels) <= 4096


async def test_patterns_and_files_are_forgotten_once_everything_is_judged_by_them(cache, tmp_path):
    for number in range(300):
        await cache.set_prompt(f"key {number}", number)
        await cache.invalidate_pattern(f"*{number}")
        await cache.invalidate_file(tmp_path / f"{number}.md")
    await wait_until(lambda: not cache._memory.has_work)
    assert cache._scopes.figures["conditions"] == 0


async def test_so_they_are_when_the_computation_that_had_to_know_them_is_over(cache, monkeypatch):
    monkeypatch.setattr(scopes, "_MOST_REMEMBERED", 100)
    gate = asyncio.Event()
    compute = Counted("value", gate=gate)
    waiting = asyncio.create_task(cache.get_or_compute("key", compute))
    await wait_until(lambda: compute.began == 1)
    for number in range(150):
        await cache.invalidate_pattern(f"{number}*")
    assert cache._scopes.figures["conditions"] <= 101
    gate.set()
    assert await waiting == "value"
    assert await cache.get_prompt("key") is None  # more was invalidated than is remembered, so it is not trusted
    assert "than is remembered" in cache.explain("key").reason
    assert cache._scopes.figures == {"conditions": 0, "doubts": 0, "open": 0, "remembered": 0} | {
        "scopes": cache._scopes.figures["scopes"]
    }


async def test_locks_are_kept_only_while_somebody_wants_them(cache):
    async def hold(number):
        async with cache.lock(f"key {number % 10}"):
            await asyncio.sleep(0)

    await asyncio.gather(*(hold(number) for number in range(200)))
    assert len(cache._locks) == 0
    assert not cache._flights.table


async def test_what_waits_for_a_slow_subscriber_is_bounded(cache):
    events = cache.events.subscribe(removals=True, max_queue=10)
    for number in range(100):
        await cache.invalidate(f"key {number}")
    assert events.missed == 90
    events.close()
    assert [event.name async for event in events] == [f"key {number}" for number in range(90, 100)]


async def test_paths_are_followed_only_while_something_depends_on_them(open_cache, tmp_path):
    cache = await open_cache(max_size=20, freshness="events")
    for number in range(100):
        path = tmp_path / str(number) / "memory.md"
        path.parent.mkdir()
        path.write_text("m")
        await cache.set_prompt(f"key {number}", number, depends_on=path)
    proofs = cache._proofs
    assert len(proofs._held) == 20
    await cache.clear()
    await wait_until(lambda: not cache._memory.has_work)
    assert [proofs._held, proofs._ways, proofs._listings, proofs.folders] == [{}, {}, {}, {}]


async def test_marks_of_what_happened_to_paths_are_bounded(open_cache, tmp_path):
    cache = await open_cache()
    path = tmp_path / "memory.md"
    path.write_text("m")
    await cache.set_prompt("key", 1, depends_on=path)
    proofs = cache._proofs
    proofs._ways.update({f"/folder/{number}": 1 for number in range(20_000)})
    proofs.mark([f"/folder/{number}" for number in range(20_000)])
    assert len(proofs._marks) <= 10_000
    assert (await cache.get_prompt("key")).prompt == 1  # everything was in doubt, and is looked at again


@pytest.mark.parametrize("count", [200])
async def test_flights_that_nobody_waits_for_are_bounded(open_cache, count):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    gate = asyncio.Event()
    for number in range(count):
        await cache.set_prompt(f"key {number}", "old", ttl=1)
    clock.advance(2)
    for number in range(count):
        assert await cache.get_or_compute(f"key {number}", Counted("new", gate=gate), stale_for=60) == "old"
    assert len(cache._flights.running) == 64
    gate.set()
    await wait_until(lambda: not cache._flights.running)
