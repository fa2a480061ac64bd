"""Files that are watched, against a bare watchfiles consumer: how fast a change arrives, and what waiting costs."""

import asyncio
import random
import statistics
import subprocess
import sys
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from time import perf_counter

import _idle
from _measure import Chunk, Findings, Size, folder, interleaved, ratios, row, settle_time

from shared_prompt_cache import SharedPromptCache, WatchRule

_BLOCK = 25
_LATEST = 10.0


def events(size: Size) -> Findings:
    """Measure the way of a change from the file to the subscriber."""
    with folder() as root:
        ours, theirs = root / "cache" / "CLAUDE.md", root / "bare" / "CLAUDE.md"
        for path in (ours, theirs):
            path.parent.mkdir()
            path.write_text("# Before\n")
        return asyncio.run(_events(size, ours, theirs, settle_time(root)))


class _Arrival:
    """The moment at which a change was seen."""

    def __init__(self) -> None:
        self.count = 0
        self.at = 0.0
        self._seen = asyncio.Event()

    def arrived(self) -> None:
        self.at = perf_counter()
        self.count += 1
        self._seen.set()

    async def wait(self) -> float:
        async with asyncio.timeout(_LATEST):
            await self._seen.wait()
        self._seen.clear()
        return self.at


async def _events(size: Size, ours: Path, theirs: Path, settled_after: float) -> Findings:
    await asyncio.sleep(settled_after)
    told, saw = _Arrival(), _Arrival()
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(SharedPromptCache(watch=(WatchRule(ours.parent, "*.md", "project"),)))
        subscription = await stack.enter_async_context(cache.events.subscribe())

        async def subscriber() -> None:
            async for _ in subscription:
                told.arrived()

        async def consumer() -> None:
            async for changes in _idle.bare_awatch(theirs.parent, stop):
                if any(path == str(theirs) for _, path in changes):
                    saw.arrived()

        group = await stack.enter_async_context(asyncio.TaskGroup())
        listening = group.create_task(subscriber())
        group.create_task(consumer())
        await asyncio.sleep(0.5)
        already = told.count
        chunks = {"cache": _replacing(ours, told), "bare": _replacing(theirs, saw)}
        seconds = await interleaved(chunks, size.replaces)
        events_per_replace = (told.count - already) / (size.replaces + 1)
        listening.cancel()
        stop.set()
    return Findings(
        rows=(
            row(
                f"event: {size.replaces} replaced files, median / bare awatch",
                ratios(_medians(seconds["cache"]), _medians(seconds["bare"])),
                target=1.3,
            ),
            row("event: invalidations for one replaced file", [events_per_replace], unit="count", target=1),
        )
    )


def _replacing(path: Path, arrival: _Arrival) -> Chunk:
    """Return a chunk that replaces the file and waits for the word of it, at a random moment of the watcher's step."""
    moments = random.Random(7)
    numbers = count()

    async def chunk() -> float:
        await asyncio.sleep(moments.uniform(0.020, 0.030))
        replaced_at = await asyncio.to_thread(_replace, path, f"# Version {next(numbers)}\n")
        return await arrival.wait() - replaced_at

    return chunk


def _replace(path: Path, text: str) -> float:
    """Replace the file as editors do, and return when."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    replaced_at = perf_counter()
    temporary.replace(path)
    return replaced_at


def _medians(seconds: list[float]) -> list[float]:
    """Return the median of each block."""
    return [statistics.median(seconds[start : start + _BLOCK]) for start in range(0, len(seconds), _BLOCK)]


def idle(size: Size) -> Findings:
    """Measure the processor time of watching a project in which nothing happens."""
    with folder() as root:
        for number in range(20):
            (root / f"agent_{number}.md").write_text(f"# Agent {number}\n")

        async def of_cache() -> float:
            return await asyncio.to_thread(_processor_seconds, "cache", root, size.idle_seconds)

        async def of_bare() -> float:
            return await asyncio.to_thread(_processor_seconds, "bare", root, size.idle_seconds)

        seconds = asyncio.run(interleaved({"cache": of_cache, "bare": of_bare}, size.idle_pairs))
    return Findings(
        rows=(
            row(
                "idle: processor time of a watched project / bare awatch",
                ratios(seconds["cache"], seconds["bare"]),
                target=1.2,
            ),
        )
    )


def _processor_seconds(what: str, root: Path, seconds: float) -> float:
    command = [sys.executable, _idle.__file__, what, str(root), str(seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60 + seconds)
    return float(done.stdout)
