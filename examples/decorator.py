"""`@cache.cached()`: an async function whose results are cached by its arguments.

Options may be functions of the arguments. Needs nothing but the package. Run it: python examples/decorator.py
"""

import asyncio
import tempfile
from pathlib import Path

from shared_prompt_cache import TTL, SharedPromptCache

cache = SharedPromptCache()
calls = 0


@cache.cached(ttl=TTL.STABLE, agent=lambda agent, folder, style="short": agent, tags=["memory"])
async def memory_of(agent: str, folder: Path, style: str = "short") -> str:
    """Return what an agent remembers."""
    global calls  # noqa: PLW0603 - it is counted how often this runs
    calls += 1
    text = await cache.files.read_text(folder / f"{agent}.md")
    return text.splitlines()[0] if style == "short" else text


async def main() -> None:
    """Call it in several spellings, which share a key."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "engineer.md").write_text("- use tabs\n- test first\n", encoding="utf-8")

        assert await memory_of("engineer", folder) == "- use tabs"
        assert await memory_of(agent="engineer", folder=folder, style="short") == "- use tabs"
        assert calls == 1
        assert await memory_of("engineer", folder, "long") == "- use tabs\n- test first\n"

        print(memory_of.key("engineer", folder))
        await memory_of.invalidate("engineer", folder)
        await memory_of("engineer", folder)
        assert calls == 3  # short, long, short again

        await cache.invalidate_agent("Engineer")  # agents are compared normalised
        await memory_of("engineer", folder)
        assert calls == 4  # and once more
    await cache.aclose()


asyncio.run(main())
