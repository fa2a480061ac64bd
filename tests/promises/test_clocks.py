"""T12: the wall clock may jump as it likes; what is in memory lives as long as it was told to, by the monotonic one.

What a store keeps can go by the wall clock alone; it may be lost when that is set, and is never the worse for it.

Seen to fail on planted bugs: a deadline that is taken from the wall clock, a moment of expiry that is fixed when the
value is stored and shown after the clock was set; an entry of a store that is believed though it is from the future;
one that is given its whole time to live once more.
"""

import math
import random

import pytest

from _support import Counted, size
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.testing import ManualClock

HOUR, YEAR = 3600.0, 365 * 86400.0
JUMPS = {"an hour on": HOUR, "an hour back": -HOUR, "a year on": YEAR, "a year back": -YEAR}


@pytest.mark.parametrize("jump", [*JUMPS, "to 1970"])
async def test_a_jump_makes_nothing_immortal_and_lets_nothing_expire_early(open_cache, jump):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    await cache.set_prompt("minute", 1, ttl=60)
    await cache.set_prompt("day", 2, ttl=86400)
    await cache.set_prompt("for ever", 3, ttl=math.inf)
    clock.advance(59)
    clock.set_wall(0) if jump == "to 1970" else clock.jump_wall(JUMPS[jump])
    assert set(await cache.get_many(["minute", "day", "for ever"])) == {"minute", "day", "for ever"}
    shown = await cache.get_prompt("minute")
    assert shown.expires_at == pytest.approx(clock.wall() + 1)
    assert shown.age >= 0
    clock.advance(1)
    assert set(await cache.get_many(["minute", "day", "for ever"])) == {"day", "for ever"}
    clock.advance(86400)
    assert set(await cache.get_many(["minute", "day", "for ever"])) == {"for ever"}


@pytest.mark.parametrize("seed", range(size(2, 10)))
async def test_among_many_jumps_each_value_lives_its_own_time(open_cache, seed):
    draw, clock = random.Random(seed), ManualClock()
    cache = await open_cache(clock=clock, max_size=1_000)
    expires = {}
    for number in range(size(1_000, 10_000)):
        key = f"key {draw.randrange(100)}"
        kind = draw.randrange(4)
        if kind == 0:
            ttl = draw.choice([1.0, 60.0, HOUR])
            await cache.set_prompt(key, number, ttl=ttl)
            expires[key] = (number, clock.monotonic() + ttl)
        elif kind == 1:
            clock.advance(draw.choice([0.5, 30.0, 600.0]))
        elif kind == 2:
            clock.jump_wall(draw.choice([-YEAR, -HOUR, HOUR, YEAR]))
        cached = await cache.get_prompt(key)
        value, until = expires.get(key, (None, -math.inf))
        assert (None if cached is None else cached.prompt) == (value if clock.monotonic() < until else None), number


async def test_stale_values_and_kept_failures_go_by_the_same_clock(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    await cache.set_prompt("key", "old", ttl=60)
    with pytest.raises(LookupError):
        await cache.get_or_compute("failed", Counted(LookupError()), cache_errors_for=60)
    clock.advance(61)
    clock.jump_wall(YEAR)
    failing = Counted(LookupError())
    assert await cache.get_or_compute("key", failing, stale_for=60, soft_timeout=1) == "old"
    assert await cache.get_or_compute("failed", Counted("found")) == "found"
    clock.advance(60)
    clock.jump_wall(-2 * YEAR)
    assert await cache.get_or_compute("key", Counted("new"), stale_for=60) == "new"


@pytest.mark.parametrize("jump", [*JUMPS, "to 1970"])
async def test_what_is_stored_from_the_future_is_a_miss_and_nothing_in_a_store_becomes_immortal(tmp_path, jump):
    """Whoever sets the clock while no process runs may lose entries; none lives longer than it was told to."""
    clock = ManualClock()
    store = SQLiteStore(tmp_path / "store")

    async def left():
        async with SharedPromptCache(store=store, clock=clock) as cache:
            before = set(await cache.get_many(["minute", "for ever"]))
            clock.advance(59.5)
            assert set(await cache.get_many(["minute", "for ever"])) == before  # none expires early in memory
            clock.advance(0.5)
            assert set(await cache.get_many(["minute", "for ever"])) == before - {"minute"}
            return before

    async with SharedPromptCache(store=store, clock=clock) as cache:
        await cache.set_prompt("minute", 1, ttl=60)
        await cache.set_prompt("for ever", 2, ttl=math.inf)
    clock.set_wall(0) if jump == "to 1970" else clock.jump_wall(JUMPS[jump])
    on = jump.endswith("on")
    assert await left() == ({"for ever"} if on else set())
    assert await left() == ({"for ever"} if on else set())


@pytest.mark.timeout(300)
async def test_among_many_jumps_and_restarts_what_is_stored_goes_by_the_wall_clock(tmp_path):
    """In memory a value lives its own time; from the store it comes if by the wall clock it is neither new nor over."""
    draw, clock, store = random.Random(12), ManualClock(), SQLiteStore(tmp_path / "store")
    memory, rows = {}, {}
    cache, promoted = SharedPromptCache(store=store, clock=clock), 0
    await cache.start()
    for number in range(size(600, 10_000)):
        key = f"key {draw.randrange(12)}"
        kind = draw.randrange(20)
        if kind < 5:
            ttl = draw.choice([60.0, HOUR, 2 * YEAR])
            await cache.set_prompt(key, number, ttl=ttl)
            await cache.flush()
            memory[key] = number, clock.monotonic() + ttl
            rows[key] = number, clock.wall(), clock.wall() + ttl, ttl
        elif kind < 8:
            clock.advance(draw.choice([0.5, 30.0, 600.0]))
        elif kind < 10:
            clock.jump_wall(draw.choice([-YEAR, -HOUR, -20, 20, HOUR, YEAR]))
        elif kind == 10:
            await cache.aclose()
            await cache.start()
            memory.clear()
        elif kind < 14:
            await cache.evict_oldest(20)
            memory.clear()
        entry = await cache.get_prompt(key)
        value, until = memory.get(key, (None, -math.inf))
        if clock.monotonic() < until:
            assert entry.prompt == value, number
        elif entry is not None:
            value, created, over, ttl = rows[key]
            assert (entry.prompt, created <= clock.wall() + 1, clock.wall() < over) == (value, True, True), number
            memory[key] = value, clock.monotonic() + min(over - clock.wall(), ttl)
            promoted += 1
    assert promoted > number / 20
    await cache.aclose()
