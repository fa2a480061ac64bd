"""A project as claude-mpm lays it out, for the demonstration: agents, their memories, instructions, configuration.

Each file says which edition of it this is, and a prompt is made of the files it was read from. So of any prompt it can
be told whether it was made from the current ones.
"""

import asyncio
import os
import re
from collections.abc import Collection, Sequence
from functools import cache as remembered
from pathlib import Path
from random import Random
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
_WORDS: Final = (
    "mind the",
    "tests of",
    "this project",
    "before you",
    "commit and",
    "tell what",
    "you have",
    "learned from",
    "them",
)


def memory(agent: str) -> str:
    """Return the path of an agent's memory below the root."""
    return f".claude-mpm/memories/{agent}_memories.md"


def definition(agent: str) -> str:
    """Return the path of an agent's definition below the root."""
    return f".claude/agents/{agent}.md"


def sources(agent: str) -> tuple[str, ...]:
    """Return what an agent's prompt is made from."""
    return (definition(agent), memory(agent), INSTRUCTIONS, CONFIGURATION)


@remembered
def _prose(size: int) -> str:
    """Return about so many bytes of text, of which a compression leaves about what it leaves of prose."""
    words = Random(size).choices(_WORDS, k=size // 8)  # noqa: S311 - no secret
    return " ".join(words)[:size] + "\n"


class Project:
    """The files, and what has been written to them.

    Attributes:
        root: Where they lie.
        editions: The edition of each that is written: a reader who asks from now on must not be given an older one.
        computed: The agents whose prompts have been made, in order.
        served: How many prompts have been handed out.
        stale: What was wrong with those of them that were not made from current files.
    """

    def __init__(
        self, root: Path, agents: Sequence[str] = AGENTS, *, file_bytes: int = 640, missing: Collection[str] = ()
    ) -> None:
        """Write the files.

        Args:
            root: The folder.
            agents: Whose prompts are made from them.
            file_bytes: How large each is.
            missing: Those that are not there yet.
        """
        self.root = root
        self.editions: dict[str, int] = {}
        self.computed: list[str] = []
        self.served = 0
        self.stale: list[str] = []
        self._file_bytes = file_bytes
        for name in dict.fromkeys([name for agent in agents for name in sources(agent)]):
            if name not in missing:
                self.write(name)

    def write(self, name: str) -> None:
        """Write the next edition of a file as an editor does: beside it, then renamed over it."""
        edition = self.editions.get(name, 0) + 1
        self._replace(name, f"# {name}, edition {edition}\n{_prose(self._file_bytes)}")
        self.editions[name] = edition

    def replace_by_equal(self, name: str) -> None:
        """Put another file with the same content in the place of one."""
        self._replace(name, (self.root / name).read_text(encoding="utf-8"))

    def delete(self, name: str) -> None:
        """Delete a file; no prompt may hold anything of it from now on."""
        (self.root / name).unlink()
        del self.editions[name]

    def _replace(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.tmp")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)

    def touch_all(self) -> None:
        """Give every file a new timestamp, and no new content."""
        for name in self.editions:
            os.utime(self.root / name)

    async def prompt(self, cache: SharedPromptCache, agent: str) -> str:
        """Return the prompt of an agent from the cache, and look whether it is made from what is written."""
        written = {name: self.editions.get(name, 0) for name in sources(agent)}

        async def read(name: str) -> str:
            try:
                return await cache.files.read_text(self.root / name)
            except FileNotFoundError:
                return ""

        async def compute() -> str:
            self.computed.append(agent)
            await asyncio.sleep(_WORK)
            return "\n".join([await read(name) for name in sources(agent)])

        prompt = await cache.get_or_compute(f"{agent}_system_prompt", compute, agent=agent, project=self.root)
        self.served += 1
        used = {name: int(edition) for name, edition in _EDITION.findall(prompt)}
        for name, edition in written.items():
            if not edition and name in used:
                self.stale.append(f"{agent}: {name} is of edition {used[name]}, and was deleted")
            if used.get(name, 0) < edition:
                self.stale.append(f"{agent}: {name} is of edition {used.get(name)}, {edition} was written")
        return prompt
