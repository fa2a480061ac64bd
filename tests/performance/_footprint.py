"""What is paid before anything is cached, and beside what is cached: import time, and bytes per entry."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import tracemalloc

from _measure import Findings, Size, folder, interleaved, ratios, row

from shared_prompt_cache import SharedPromptCache

LATER = ("watchfiles", "aiosqlite", "msgspec", "yaml", "click")
"""What an import of the package must not import."""

_IMPORT = """
import json, sys, time
started = time.perf_counter()
import {module}
print(json.dumps([time.perf_counter() - started, sorted(set({later}) & set(sys.modules))]))
"""


def memory(size: Size) -> Findings:
    """Count the bytes of an entry."""
    plain = asyncio.run(_bytes_per_entry(size.footprint, agent=None))
    scoped = asyncio.run(_bytes_per_entry(size.footprint, agent="engineer"))
    return Findings(
        rows=(
            row("memory of an entry beside key and value", [plain], unit="B", target=320),
            row("the same with an agent", [scoped], unit="B"),
        )
    )


async def _bytes_per_entry(entries: int, agent: str | None) -> float:
    keys = [f"engineer_{number:06d}" for number in range(entries)]
    values = [f"the prompt of {key}" for key in keys]
    async with SharedPromptCache(max_size=entries, max_memory_mb=100_000) as cache:
        await cache.set_prompt("warm", "up", agent=agent)
        await cache.invalidate("warm")
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for key, value in zip(keys, values, strict=True):
                await cache.set_prompt(key, value, agent=agent)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert cache.get_stats().entry_count == entries
    return (after - before) / entries


def imports(size: Size) -> Findings:
    """Measure the import of the package, in fresh interpreters that find everything compiled."""
    too_early: set[str] = set()
    with folder() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        async def of_asyncio() -> float:
            return (await asyncio.to_thread(_import, "asyncio", environment))[0]

        async def of_package() -> float:
            taken, found = await asyncio.to_thread(_import, "shared_prompt_cache", environment)
            too_early.update(found)
            return taken

        seconds = asyncio.run(interleaved({"asyncio": of_asyncio, "package": of_package}, size.imports))
    times = ratios(seconds["package"], seconds["asyncio"])
    names = ", ".join(sorted(too_early))
    return Findings(
        rows=(
            row("import shared_prompt_cache / import asyncio", times, target=1.6),
            row("modules imported before they are used", [len(too_early)], unit="count", target=0, note=names),
        )
    )


def _import(module: str, environment: dict[str, str]) -> tuple[float, list[str]]:
    """Return the seconds of an import, and which of `LATER` it imported."""
    program = _IMPORT.format(module=module, later=LATER)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    taken, found = json.loads(done.stdout)
    return taken, found
