"""What it costs that a hit proves the files it was made from: hardly more than asking for their stat."""

import asyncio
import os
from itertools import repeat
from pathlib import Path
from time import perf_counter

from _measure import Findings, Row, Size, chunk_of_calls, folder, interleaved, row, settle_time, unshared

from shared_prompt_cache import SharedPromptCache


def files(size: Size) -> Findings:
    """Measure strict hits of entries that were made from files."""
    with folder() as root:
        return asyncio.run(_files(size, root))


async def _files(size: Size, root: Path) -> Findings:
    async with SharedPromptCache() as cache:
        return Findings(rows=tuple([await _strict_hits(cache, root, number, size) for number in size.files]))


async def _strict_hits(cache: SharedPromptCache, root: Path, number: int, size: Size) -> Row:
    """Return the row of an entry that was made from `number` files."""
    paths = [str(root / f"engineer_{number}_memories_{index}.md") for index in range(number)]
    for path in paths:
        await asyncio.to_thread(Path(path).write_text, f"# What {path} remembers\n" + "- a fact\n" * 100)
    await asyncio.sleep(await asyncio.to_thread(settle_time, root))
    computations = 0

    async def compute() -> str:
        nonlocal computations
        computations += 1
        return "\n".join([await cache.files.read_text(path) for path in paths])

    plain, made = f"plain_{number}", f"made_{number}"
    value = await cache.get_or_compute(made, compute)
    await cache.set_prompt(plain, value)
    calls = max(4, size.calls // (2 * number))

    async def stats() -> float:
        stat = os.stat
        started = perf_counter()
        for _ in range(calls):
            for path in paths:
                stat(path)
        return perf_counter() - started

    seconds = await interleaved(
        {
            "plain": chunk_of_calls(cache.get_prompt, repeat([plain] * calls)),
            "strict": chunk_of_calls(cache.get_prompt, repeat([made] * calls)),
            "stat": unshared(stats),
        },
        size.rounds,
    )
    cached = await cache.get_prompt(made)
    assert cached is not None
    assert computations == 1, f"{computations} computations; a hit was to be measured"
    assert len(cached.dependencies) == number
    return row(
        f"strict hit, {number} file{'s' * (number > 1)}: what it adds / {number} os.stat",
        [
            (strict - hit) / stat
            for strict, hit, stat in zip(seconds["strict"], seconds["plain"], seconds["stat"], strict=True)
        ],
        target=1.3,
    )
