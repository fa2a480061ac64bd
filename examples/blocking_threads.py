"""`cache.blocking`: the cache for worker threads and for scripts without an event loop.

Needs nothing but the package. Run it: python examples/blocking_threads.py
"""

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shared_prompt_cache import SharedPromptCache


def script(memory: Path) -> None:
    """Use a cache without any event loop of one's own."""
    cache = SharedPromptCache()
    computed = []

    def compute() -> str:
        computed.append(memory)
        return cache.blocking.files.read_text(memory).upper()  # recorded, as in a coroutine

    with cache.blocking:
        with ThreadPoolExecutor(8) as threads:
            prompts = list(threads.map(lambda _: cache.blocking.get_or_compute("prompt", compute), range(100)))
        assert set(prompts) == {"- USE TABS\n"}
        assert len(computed) == 1

        memory.write_text("- use spaces\n", encoding="utf-8")
        assert cache.blocking.get_or_compute("prompt", compute) == "- USE SPACES\n"


async def server(memory: Path) -> None:
    """Use the cache of a running event loop from a worker thread."""
    async with SharedPromptCache() as cache:

        def in_a_thread() -> str:
            return cache.blocking.get_or_compute("prompt", lambda: cache.blocking.files.read_text(memory))

        from_thread = await asyncio.to_thread(in_a_thread)
        cached = await cache.get_prompt("prompt")
        assert cached is not None
        assert cached["prompt"] == from_thread
        print(cache.explain("prompt"))


with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "engineer_memories.md"
    file.write_text("- use tabs\n", encoding="utf-8")
    script(file)
    asyncio.run(server(file))
