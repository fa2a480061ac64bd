"""An agent that edits its own memory while it works; its next prompt has what it has just learned.

The loop is plain asyncio. The cache watches the project by the preset for claude-mpm, so a memory that anybody else
edits is noticed as well. Needs nothing but the package. Run it: python examples/agent_loop.py
"""

import asyncio
import tempfile
from pathlib import Path

from shared_prompt_cache import SharedPromptCache, presets


class Agent:
    """An agent with a definition and a memory on disk."""

    def __init__(self, cache: SharedPromptCache, project: Path, name: str) -> None:
        """Only remember where things are."""
        self.cache = cache
        self.project = project
        self.name = name
        self.memory = project / ".claude-mpm" / "memories" / f"{name}_memories.md"
        self.definition = project / ".claude" / "agents" / f"{name}.md"

    async def prompt(self) -> str:
        """Return the system prompt."""

        async def compute() -> str:
            definition = await self.cache.files.read_text(self.definition)
            try:
                memory = await self.cache.files.read_text(self.memory)
            except FileNotFoundError:  # recorded as well: when the file appears, the prompt is made anew
                memory = "nothing yet\n"
            return f"{definition}\nYou remember:\n{memory}"

        return await self.cache.get_or_compute(
            f"{self.name}_system_prompt", compute, agent=self.name, project=self.project
        )

    def learn(self, lesson: str) -> None:
        """Add a line to the memory."""
        self.memory.parent.mkdir(parents=True, exist_ok=True)
        with self.memory.open("a", encoding="utf-8") as file:
            file.write(f"- {lesson}\n")

    async def work(self, task: str) -> str:
        """Do one task: think with the current prompt, and learn from it. A model would be asked here."""
        prompt = await self.prompt()
        answer = f"done {task!r}, knowing {prompt.count('- ')} things"
        await asyncio.to_thread(self.learn, f"{task} is done")
        return answer


async def main() -> None:
    """Let two agents work."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        agents = project / ".claude" / "agents"
        agents.mkdir(parents=True)
        for name in ("engineer", "qa"):
            (agents / f"{name}.md").write_text(f"You are the {name}.\n", encoding="utf-8")
        async with SharedPromptCache(watch=presets.claude_mpm(project)) as cache:
            engineer, qa = Agent(cache, project, "engineer"), Agent(cache, project, "qa")
            for number, task in enumerate(("read the code", "write the test", "fix the bug")):
                answer = await engineer.work(task)
                print(answer)
                assert answer.endswith(f"knowing {number} things")
                assert f"- {task} is done" in await engineer.prompt()
                assert "nothing yet" in await qa.prompt()


asyncio.run(main())
