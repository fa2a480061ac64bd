"""A prompt made from a file: computed once, and computed again as soon as the file has changed.

Needs nothing but the package. Run it: python examples/quickstart.py
"""

import asyncio
import tempfile
from pathlib import Path

from shared_prompt_cache import SharedPromptCache

cache = SharedPromptCache()


async def system_prompt(memory: Path) -> str:
    """Return the prompt, from the cache if it is there."""

    async def compute() -> str:
        print("computing")
        return f"You are an engineer. You remember:\n{await cache.files.read_text(memory)}"

    return await cache.get_or_compute("engineer_system_prompt", compute, agent="engineer")


async def main() -> None:
    """Ask ten times at once, edit the file, ask again."""
    with tempfile.TemporaryDirectory() as folder:
        memory = Path(folder) / "engineer_memories.md"
        memory.write_text("- use tabs\n", encoding="utf-8")
        prompts = await asyncio.gather(*(system_prompt(memory) for _ in range(10)))  # computed once
        assert len(set(prompts)) == 1

        memory.write_text("- use spaces\n", encoding="utf-8")
        assert "spaces" in await system_prompt(memory)  # no event to wait for, nothing to invalidate
    assert cache.get_stats().computations == 2
    await cache.aclose()


asyncio.run(main())
