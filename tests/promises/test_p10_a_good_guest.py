"""P10: a cache leaves the process it lives in as it found it.

Seen to fail on planted bugs: a logger with a handler that writes, a watcher that is imported with the package.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading

from shared_prompt_cache import SharedPromptCache, presets

LATER = ("watchfiles", "aiosqlite", "structlog", "msgspec", "yaml", "anyio")


def run(*lines):
    """Run a program; return what it wrote to stdout and to stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_what_is_not_used_is_not_loaded():
    program = (
        "import asyncio, sys",
        "import shared_prompt_cache",
        "async def main():",
        "    cache = shared_prompt_cache.SharedPromptCache()",
        "    await cache.set_prompt('key', 'value')",
        "    await cache.aclose()",
        "asyncio.run(main())",
        f"assert not set({LATER!r}) & set(sys.modules), sys.modules.keys()",
    )
    assert run(*program) == ("", "")


def test_nothing_is_written_and_no_logging_is_configured_whatever_goes_wrong():
    program = (
        "import asyncio, logging",
        "from shared_prompt_cache import SharedPromptCache",
        "async def fail(): raise LookupError('gone')",
        "async def main():",
        "    cache = SharedPromptCache(ttl_seconds=0.001)",
        "    await cache.set_prompt('key', 'value')",
        "    cache.events.listen(lambda event: 1 / 0)",
        "    await asyncio.sleep(0.01)",
        "    await cache.get_or_compute('key', fail, stale_for=60)",
        "    await cache.invalidate('other')",
        "    await asyncio.sleep(0.01)",
        "    await cache.aclose()",
        "asyncio.run(main())",
        "assert logging.getLogger().handlers == []",
        "assert [type(h).__name__ for h in logging.getLogger('shared_prompt_cache').handlers] == ['NullHandler']",
        "assert logging.getLogger('shared_prompt_cache').level == logging.NOTSET",
    )
    assert run(*program) == ("", "")


async def test_signals_threads_and_tasks_are_as_they_were(tmp_path):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = set(threading.enumerate())
    async with SharedPromptCache(watch=presets.claude_mpm(tmp_path, home=tmp_path / "home")) as cache:
        file = tmp_path / "memory.md"
        file.write_text("m")
        await cache.get_or_compute("key", lambda: cache.files.read_text(file))
        assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert set(threading.enumerate()) <= threads


async def test_caches_live_side_by_side(tmp_path):
    """Each has keys, scopes, files and figures of its own; over one folder, each sees the edit."""
    file = tmp_path / "memory.md"
    file.write_text("old")
    async with SharedPromptCache(name="one") as one, SharedPromptCache(name="two") as two:
        for cache in (one, two):
            await cache.get_or_compute("key", lambda cache=cache: cache.files.read_text(file), agent="qa")
        assert await one.invalidate_agent("qa") == 1
        assert await one.get_prompt("key") is None
        assert (await two.get_prompt("key")).prompt == "old"
        assert (one.get_stats().entry_count, two.get_stats().entry_count) == (0, 1)
        file.write_text("new")
        assert await two.get_prompt("key") is None


def test_nothing_is_bound_to_a_loop_before_the_first_await():
    cache = SharedPromptCache()
    cache.events.subscribe()
    asyncio.run(used(cache))


async def used(cache):
    await cache.set_prompt("key", os.getpid())
    await cache.aclose()
