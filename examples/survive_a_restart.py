"""Prompts that outlive the process: after a restart only those are computed whose files are others now.

Needs nothing but the package and writes to a temporary folder. Run it: python examples/survive_a_restart.py
"""

import asyncio
import os
import tempfile
from pathlib import Path

from shared_prompt_cache import SharedPromptCache, presets
from shared_prompt_cache.stores import SQLiteStore

AGENTS = [f"agent-{number}" for number in range(50)]


async def run(project: Path) -> set[str]:
    """Ask for the prompt of every agent, as a program does that has just been started; return whose was computed."""
    computed = set()
    store = SQLiteStore(project / ".cache" / "prompts")
    async with SharedPromptCache(store=store, watch=presets.claude_mpm(project)) as cache:
        for agent in AGENTS:
            memory = project / ".claude-mpm" / "memories" / f"{agent}_memories.md"

            async def compute(agent: str = agent, memory: Path = memory) -> str:
                computed.add(agent)
                try:
                    return "# You are " + agent + "\n" + await cache.files.read_text(memory) * 1000
                except FileNotFoundError:
                    return "# You are " + agent

            await cache.get_or_compute(f"prompt of {agent}", compute, agent=agent, project=project)
    return computed


async def main() -> None:
    """Start three times; before the third some of the files change."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        os.environ["SHARED_PROMPT_CACHE_KEY"] = "only for this example"  # or else a key file is made, once
        memories = project / ".claude-mpm" / "memories"
        memories.mkdir(parents=True)
        for agent in AGENTS[:-1]:  # the last has no memory yet
            (memories / f"{agent}_memories.md").write_text(f"- what {agent} has learned\n")

        print("first start:", len(await run(project)), "computed")
        print("second start:", len(await run(project)), "computed")

        for agent in AGENTS[:5]:
            (memories / f"{agent}_memories.md").write_text("- something else\n")
        (memories / f"{AGENTS[5]}_memories.md").unlink()
        (memories / f"{AGENTS[-1]}_memories.md").write_text("- a first memory\n")
        same = memories / f"{AGENTS[6]}_memories.md"
        same.write_text(same.read_text())

        computed = await run(project)
        print("after 5 were edited, 1 deleted, 1 created and 1 replaced by the same:", len(computed), "computed")
        assert computed == {*AGENTS[:6], AGENTS[-1]}


asyncio.run(main())
