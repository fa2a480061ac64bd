"""A process that watches a folder in which nothing happens, and prints the processor seconds that this took.

Usage: _idle.py cache|bare FOLDER SECONDS
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from time import process_time

from watchfiles import Change, awatch

from shared_prompt_cache import SharedPromptCache, WatchRule


def bare_awatch(folder: Path, stop: asyncio.Event) -> AsyncIterator[set[tuple[Change, str]]]:
    """Watch a folder with the settings that the cache uses, and nothing around them."""
    return awatch(folder, watch_filter=None, step=5, debounce=10, rust_timeout=0, stop_event=stop, recursive=False)


async def _cache(folder: Path, seconds: float) -> float:
    async with SharedPromptCache(watch=(WatchRule(folder, "*.md", "project"),)):
        return await _spent(seconds)


async def _bare(folder: Path, seconds: float) -> float:
    stop = asyncio.Event()

    async def consume() -> None:
        async for _ in bare_awatch(folder, stop):
            pass

    consumer = asyncio.create_task(consume())
    spent = await _spent(seconds)
    stop.set()
    await consumer
    return spent


async def _spent(seconds: float) -> float:
    await asyncio.sleep(0.5)
    before = process_time()
    await asyncio.sleep(seconds)
    return process_time() - before


def main(what: str, folder: str, seconds: str) -> None:
    """Print the figure."""
    watch = {"cache": _cache, "bare": _bare}[what]
    sys.stdout.write(f"{asyncio.run(watch(Path(folder), float(seconds)))}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
