"""A project as claude-mpm lays it out, for the demonstration: ten agents, their memories, instructions, configuration.

Each file says which edition of it this is, and a prompt is made of the files it was read from. So of any prompt it can
be told whether it was made from the current ones.
"""

import asyncio
import os
import re
from pathlib import Path
from typing import Final

from shared_prompt_cache.cache import SharedPromptCache

AGENTS: Final = (
    "engineer",
    "data-engineer",
    "qa",
    "security",
    "documentation",
    "research",
    "ops",
    "version-control",
    "ticketing",
    "pm",
)
INSTRUCTIONS: Final = ".claude-mpm/INSTRUCTIONS.md"
CONFIGURATION: Final = ".claude-mpm/configuration.yaml"
_EDITION: Final = re.compile(r"^# (\S+), edition (\d+)$", re.MULTILINE)
_WORK: Final = 0.02


def memory(agent: str) -> str:
    """Return the path of an agent's memory below the root."""
    return f".claude-mpm/memories/{agent}_memories.md"


def definition(agent: str) -> str:
    """Return the path of an agent's definition below the root."""
    return f".claude/agents/{agent}.md"


def sources(agent: str) -> tuple[str, ...]:
    """Return what an agent's prompt is made from."""
    return (definition(agent), memory(agent), INSTRUCTIONS, CONFIGURATION)


class Project:
    """The files, and what has been written to them.

    Attributes:
        root: Where they lie.
        editions: The edition of each that is written: a reader who asks from now on must not be given an older one.
        computed: How many prompts have been made.
        served: How many prompts have been handed out.
        stale: What was wrong with those of them that were not made from current files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.editions: dict[str, int] = {}
        self.computed = self.served = 0
        self.stale: list[str] = []
        for agent in AGENTS:
            for name in sources(agent):
                self.write(name)

    def write(self, name: str) -> None:
        """Write the next edition of a file as an editor does: beside it, then renamed over it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        edition = self.editions.get(name, 0) + 1
        beside = path.with_name(f".{path.name}.tmp")
        beside.write_text(f"# {name}, edition {edition}\n" + "Mind the tests.\n" * 40, encoding="utf-8")
        beside.replace(path)
        self.editions[name] = edition

    def touch_all(self) -> None:
        """Give every file a new timestamp, and no new content."""
        for name in self.editions:
            os.utime(self.root / name)

    async def prompt(self, cache: SharedPromptCache, agent: str) -> str:
        """Return the prompt of an agent from the cache, and look whether it is made from what is written."""
        written = {name: self.editions[name] for name in sources(agent)}

        async def compute() -> str:
            self.computed += 1
            await asyncio.sleep(_WORK)
            return "\n".join([await cache.files.read_text(self.root / name) for name in sources(agent)])

        prompt = await cache.get_or_compute(f"{agent}_system_prompt", compute, agent=agent, project=self.root)
        self.served += 1
        used = {name: int(edition) for name, edition in _EDITION.findall(prompt)}
        for name, edition in written.items():
            if used.get(name, 0) < edition:
                self.stale.append(f"{agent}: {name} is of edition {used.get(name)}, {edition} was written")
        return prompt
