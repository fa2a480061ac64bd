"""A program whose processes end without closing their cache: `python -m stores._endings FOLDER PROCESSES SECONDS`.

Each ends in one of the ways of `ENDS`, within so many seconds, says nothing of the package, and leaves the database
whole.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared_prompt_cache import SharedPromptCache, WatchRule
from shared_prompt_cache.stores import SQLiteStore
from stores._lives import PATIENCE, Child, intact


async def used(folder: Path) -> SharedPromptCache:
    cache = SharedPromptCache(store=SQLiteStore(folder), watch=[WatchRule(folder.parent, "*.md", "all")])
    await cache.start()
    await cache.get_or_compute("key", lambda: asyncio.sleep(0, "value"))
    await cache.flush()
    return cache


def ready() -> None:
    os.write(1, b"ready")


async def returns(folder: Path) -> None:
    await used(folder)
    ready()


async def holds(folder: Path) -> None:
    sys.held = await used(folder)  # type: ignore[attr-defined] # it outlives even this module
    ready()


async def loses(folder: Path) -> None:
    cache = await used(folder)
    del cache
    ready()
    await asyncio.sleep(0.01)


async def raises(folder: Path) -> None:
    _cache = await used(folder)
    ready()
    raise LookupError("of the program")


async def leaves(folder: Path) -> None:
    _cache = await used(folder)
    ready()
    sys.exit(3)


async def leaves_at_once(folder: Path) -> None:
    _cache = await used(folder)
    ready()
    os._exit(0)


async def waits(folder: Path) -> None:
    _cache = await used(folder)
    ready()
    await asyncio.sleep(PATIENCE)


async def waits_in_a_block(folder: Path) -> None:
    async with await used(folder):
        ready()
        await asyncio.sleep(PATIENCE)


async def writes(folder: Path) -> None:
    """Ends in the middle of it."""
    cache = await used(folder)
    for number in range(900):
        await cache.set_prompt(f"key {number}", "large " * 200)
    ready()
    await asyncio.sleep(0.002)


async def invalidates(folder: Path) -> None:
    """Ends with an invalidation of many rows under way: if that was broken off, everything would have to go."""
    cache = await used(folder)
    for number in range(900):
        await cache.set_prompt(f"key {number}", "large " * 200, tags=["t", *map(str, range(number, number + 9))])
    await cache.flush()
    invalidating = asyncio.create_task(cache.invalidate_tag("t"))
    writer = cache._tier._store._doors.writer  # type: ignore[union-attr]
    while not writer._insists:  # noqa: ASYNC110 - it is set in the thread of the store
        await asyncio.sleep(0)
    ready()
    del invalidating


def script(folder: Path) -> None:
    """No loop of its own, and no end of the cache's."""
    cache = SharedPromptCache(store=SQLiteStore(folder))
    cache.blocking.start()
    cache.blocking.get_or_compute("key", lambda: "value")
    cache.blocking.flush()
    for number in range(100):
        cache.blocking.set_prompt(f"key {number}", "large " * 200)
    ready()


ENDS: list[tuple[Callable[[Path], Any], int | None, tuple[int, str]]] = [
    (returns, None, (0, "")),
    (holds, None, (0, "")),
    (loses, None, (0, "")),
    (raises, None, (1, "LookupError: of the program")),
    (leaves, None, (3, "")),
    (leaves_at_once, None, (0, "")),
    (writes, None, (0, "")),
    (invalidates, None, (0, "")),
    (script, None, (0, "")),
    (waits, signal.SIGINT, (1, "KeyboardInterrupt")),
    (waits, signal.SIGTERM, (-signal.SIGTERM, "")),
    (waits_in_a_block, signal.SIGINT, (1, "KeyboardInterrupt")),
    (waits_in_a_block, signal.SIGTERM, (-signal.SIGTERM, "")),
]
"""What a program does last, the signal that it gets then, and how it ends: its code, and its last word."""


def main(base: Path, processes: int, limit: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell that started the tests ignores
    folder = base / "store"
    for number in range(processes):
        life, sent, expected = ENDS[number % len(ENDS)]
        name = life.__name__

        def live(life: Callable[[Path], Any] = life) -> None:
            outcome = life(folder)
            if outcome is not None:
                asyncio.run(outcome)

        child = Child(live)
        child.word()
        since = time.monotonic()
        if sent is not None:
            child.kill(sent)
        code, said = child.end()
        passed = time.monotonic() - since
        assert "Warning" not in said, f"{name}: {said}"
        assert "/shared_prompt_cache/" not in said, f"{name}: {said}"
        if code == -signal.SIGINT:
            code = 1  # as later interpreters end
        assert (code, said.strip().rpartition("\n")[2]) == expected, f"{name}: {said}"
        assert passed < limit, f"{name} took {passed:.1f} s to end"
        asyncio.run(is_there(folder))
        intact(folder)


async def is_there(folder: Path) -> None:
    async with SharedPromptCache(store=SQLiteStore(folder)) as cache:
        assert (await cache.get_prompt("key")).prompt == "value"  # type: ignore[union-attr]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print("intact")  # noqa: T201 - read by the test
