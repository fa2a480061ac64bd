"""Caches over an SQLite store: what a test of trouble does with one before, meanwhile and afterwards."""

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from _support import Counted
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache._tier import breaker
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.stores._secret import VARIABLE
from shared_prompt_cache.testing import wait_until

PATIENCE = 30.0
TESTS = Path(__file__).parents[1]


def run_program(module, *arguments, timeout=110, before=()):
    """Run a module of the tests in a process of its own, which must say nothing against it; return what it prints."""
    # Where coverage is measured it would be written by somebody who may not, or who is killed.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environ |= {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), VARIABLE: "a secret of the tests alone"}
    command = [*before, sys.executable, "-W", "error", "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout, check=False)
    assert (done.returncode, done.stderr) == (0, ""), " ".join(command) + "\n" + done.stderr
    return done.stdout.split()


def hasten(put=setattr):
    """Let a store that fails be tried again a hundred times as soon."""
    for name in ("_FIRST_DELAY", "_LONGEST_DELAY"):
        put(breaker, name, getattr(breaker, name) / 100)


def state(cache):
    """Return the health of the store."""
    return cache.health().parts["store"]


async def well(cache):
    """Wait until the store is in use again, by itself."""
    await wait_until(lambda: state(cache).status == "ok", timeout=PATIENCE, what=f"{state(cache)} is over")


@asynccontextmanager
async def anew(folder, **options):
    """Open a cache that knows nothing but what is in a folder."""
    async with SharedPromptCache(store=SQLiteStore(folder), **options) as cache:
        yield cache


async def found(folder, *keys):
    """Return what another cache finds of these keys in a folder."""
    async with anew(folder) as cache:
        return {key: entry.prompt for key, entry in (await cache.get_many(keys)).items()}


async def fill(cache):
    """Put in what the other functions know: two values that stay, and one that is to be invalidated in trouble."""
    for key in ("kept", "another", "doomed"):
        await cache.set_prompt(key, key, agent="of doomed" if key == "doomed" else "qa", project="web")
    await cache.flush()


async def use_every_verb(cache, *, forgets=False):
    """Call what there is to be called, and look at each answer: whatever the store does, it is that of the memory.

    Args:
        cache: The cache.
        forgets: Whether it may forget everything meanwhile, as it does when it finds that its store is another one.
    """

    async def has(key, value):
        entry = await cache.get_prompt(key)
        return forgets if entry is None else entry.prompt == value

    missing = Counted("computed")
    assert await cache.get_prompt("missing") is None
    assert await cache.get_or_compute("missing", missing) == "computed"
    assert await cache.get_or_compute("missing", missing) == "computed"
    assert missing.began == 1 or forgets
    await cache.set_prompt("set", 1)
    await cache.set_prompt("set", 2, tags=["t"])
    assert await has("set", 2)
    assert set(await cache.get_many(["set", "missing", "nowhere"])) == {"set", "missing"} or forgets
    async with cache.batch() as batch:
        batch.set_prompt("in a batch", 3)
        batch.invalidate("set")
    assert await has("in a batch", 3)
    assert await cache.get_prompt("set") is None
    async with cache.lock("locked"):
        await cache.set_prompt("locked", 4)
    assert await has("locked", 4)
    warmed = await cache.warm(["warm"], Counted(5))
    assert warmed.failures == {}
    assert await cache.invalidate("locked") or forgets
    assert await cache.invalidate_tag("t") == 0
    assert await cache.invalidate_pattern("in a b*") == 1 or forgets
    await cache.invalidate_agent("of doomed")
    assert await cache.get_prompt("doomed") is None
    await cache.invalidate_project("/nowhere")
    assert await cache.invalidate_file("/nowhere/memory.md") == 0
    assert await cache.evict_oldest(2) <= 2
    await cache.sync()
    await cache.flush()
    await cache.set_prompt("last", 6)
    assert await has("last", 6)
    assert cache.explain("last").state == "cached" or forgets
    assert cache.get_stats().hits > 0
