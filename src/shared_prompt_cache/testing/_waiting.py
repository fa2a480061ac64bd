"""Waiting for something to come true, for a bounded time."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from inspect import isawaitable
from typing import Final

from shared_prompt_cache.clock import seconds

_EAGER_PASSES: Final = 100
_PAUSE: Final = 0.001


async def wait_until(
    predicate: Callable[[], object | Awaitable[object]],
    *,
    timeout: float | timedelta = 5.0,  # noqa: ASYNC109 - the deadline of the test, not of what is awaited
    what: str = "",
) -> None:
    """Wait until `predicate()` is true, and fail the test if that takes too long.

    For what no test can await directly: an event that comes from a file watcher, a task that has to get somewhere.

    ```python
    memory_file.write_text("- use tabs")
    await wait_until(lambda: cache.get_stats().entry_count == 0, what="the edit reaches the cache")
    ```

    The first hundred tries follow each other by passes of the event loop, later ones a millisecond apart.

    Args:
        predicate: Called again and again; it may be a coroutine function.
        timeout: Seconds or a `timedelta`, by the clock of the event loop.
        what: What is waited for, for the message.

    Raises:
        AssertionError: If it was not true in time; the message says what was waited for.
    """
    limit = seconds(timeout, "timeout", infinite=False)
    passes = 0
    try:
        async with asyncio.timeout(limit) as deadline:
            while not await _ask(predicate):
                await asyncio.sleep(0 if passes < _EAGER_PASSES else _PAUSE)
                passes += 1
    except TimeoutError:
        if not deadline.expired():
            raise  # the predicate's own
        name = what or f"{getattr(predicate, '__qualname__', predicate)}()"
        raise AssertionError(f"waited {limit:g} s in vain until: {name} (asked {passes + 1} times)") from None


async def _ask(predicate: Callable[[], object | Awaitable[object]]) -> object:
    answer = predicate()
    return await answer if isawaitable(answer) else answer
