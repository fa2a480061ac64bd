"""T12: the wall clock may jump as it likes; what is in memory lives as long as it was told to, by the monotonic one.

Seen to fail on planted bugs: a deadline that is taken from the wall clock, a moment of expiry that is fixed when the
value is stored and shown after the clock was set.
"""

import math
import random

import pytest

from _support import Counted, size
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
