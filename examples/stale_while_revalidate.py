"""Serving an expired value while a new one is computed, or when that fails; computing ahead of the expiry.

Only time and a soft invalidation make a value stale but servable. What was invalidated hard, or whose files have
changed, is never served again. Needs nothing but the package. Run it: python examples/stale_while_revalidate.py
"""

import asyncio
from collections.abc import Awaitable, Callable

from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.testing import ManualClock, wait_until


async def main() -> None:
    """Let time pass by hand, so that nothing here has to sleep."""
    clock = ManualClock()
    cache = SharedPromptCache(clock=clock)
    edition = 0

    async def compute() -> str:
        nonlocal edition
        edition += 1
        return f"edition {edition}"

    async def fail() -> str:
        message = "the model is not to be reached"
        raise ConnectionError(message)

    async def ask(how: Callable[[], Awaitable[str]] = compute, soft_timeout: float | None = None) -> str:
        return await cache.get_or_compute("news", how, ttl=60, stale_for=600, soft_timeout=soft_timeout)

    async def refreshed(to: str) -> bool:
        entry = await cache.get_prompt("news")
        return entry is not None and entry.prompt == to

    assert await ask() == "edition 1"

    clock.advance(61)  # expired: the old value is served at once, the new one is computed behind it
    assert await ask() == "edition 1"
    await wait_until(lambda: refreshed(to="edition 2"))
    assert await ask() == "edition 2"

    clock.advance(61)  # with a soft_timeout the caller waits that long for the new one
    assert await ask(soft_timeout=1.0) == "edition 3"

    clock.advance(61)  # a failure is answered with the stale value, as long as stale_for allows
    assert await ask(fail, soft_timeout=1.0) == "edition 3"

    assert await cache.invalidate("news", soft=True) is False  # it has expired already
    clock.advance(600)  # older than stale_for: now everybody waits for the new one
    assert await ask() == "edition 4"

    clock.advance(50)  # ahead of the expiry: a hit starts a computation when 80 % of the time to live are over
    assert await cache.get_or_compute("news", compute, ttl=60, refresh_ahead=0.8) == "edition 4"
    await wait_until(lambda: refreshed(to="edition 5"))
    print(f"served stale: {cache.get_stats().stale_served} times; computed: {cache.get_stats().computations} times")
    assert cache.get_stats().stale_served == 2  # one expired, one failed
    await cache.aclose()


asyncio.run(main())
