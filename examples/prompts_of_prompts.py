"""A value made from other cached values goes when one of those goes, whatever the reason.

Needs nothing but the package. Run it: python examples/prompts_of_prompts.py
"""

import asyncio
import tempfile
from pathlib import Path

from shared_prompt_cache import SharedPromptCache


async def main() -> None:
    """Make a team's prompt from the prompts of its agents."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for agent in ("engineer", "qa"):
            (folder / f"{agent}.md").write_text(f"{agent} knows nothing\n", encoding="utf-8")
        cache = SharedPromptCache()

        async def agent_prompt(agent: str) -> str:
            return await cache.get_or_compute(
                f"{agent}_prompt", lambda: cache.files.read_text(folder / f"{agent}.md"), agent=agent
            )

        async def team_prompt() -> str:
            async def compute() -> str:
                return "".join(await asyncio.gather(agent_prompt("engineer"), agent_prompt("qa")))

            return await cache.get_or_compute("team_prompt", compute)

        assert await team_prompt() == "engineer knows nothing\nqa knows nothing\n"
        entry = await cache.get_prompt("team_prompt")
        assert entry is not None
        print("the team's prompt is made from", [Path(path).name for path in entry.dependencies])

        (folder / "qa.md").write_text("qa knows pytest\n", encoding="utf-8")
        assert "qa knows pytest" in await team_prompt()  # a file that it never read itself

        await cache.invalidate_agent("engineer")
        assert await cache.get_prompt("team_prompt") is None
        assert await cache.get_prompt("qa_prompt") is not None
        print(cache.explain("team_prompt"))
        await cache.aclose()


asyncio.run(main())
