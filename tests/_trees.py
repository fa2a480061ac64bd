"""Folders under a cache: values made from files, rules over them, and what subscribers are told."""

from pathlib import Path

from shared_prompt_cache import Invalidation, SharedPromptCache, WatchRule
from shared_prompt_cache.testing import wait_until


async def text(cache: SharedPromptCache, path: Path) -> str | None:
    """Return the content of a file from the cache, under its path as the key; None where the file is not there."""

    async def compute() -> str | None:
        try:
            return await cache.files.read_text(path)
        except FileNotFoundError:
            return None

    return await cache.get_or_compute(str(path), compute)


async def until_text(cache: SharedPromptCache, path: Path, expected: str | None) -> None:
    """Read until the content is the expected one, as a reader does who trusts events."""

    async def reads() -> bool:
        return await text(cache, path) == expected

    await wait_until(reads, timeout=30, what=f"{path} reads {expected!r}")


async def until_settled(cache: SharedPromptCache, *paths: Path) -> None:
    """Read until stat alone proves the values of these files."""

    async def settled() -> bool:
        for path in paths:
            await text(cache, path)
        entries = [cache._memory.entries[str(path)] for path in paths]
        return all(file.settled for entry in entries for file in entry.origin.dependencies)

    await wait_until(settled, what="stat tells more than the content would")


async def until_watched(cache: SharedPromptCache) -> None:
    """Wait until all that values were made from is watched."""
    await wait_until(lambda: not cache.health().unwatched, timeout=30, what="the folders of all files are armed")


async def put_values(cache: SharedPromptCache, *agents: str) -> None:
    """Put in a value of each agent, under `of <agent>`."""
    for agent in agents:
        await cache.set_prompt(f"of {agent}", "value", agent=agent)


def agents_in(root: Path) -> WatchRule:
    """Return the rule that each Markdown file below `root` is the memory of the agent of its name."""
    return WatchRule(root, "**/{agent}.md", "agent")


class Listener:
    """What a cache has told about invalidations.

    Attributes:
        events: All of them.
    """

    def __init__(self, cache: SharedPromptCache) -> None:
        self.events: list[Invalidation] = []
        cache.events.listen(self.events.append)

    @property
    def names(self) -> list[str | None]:
        """What was invalidated, in order."""
        return [event.name for event in self.events]

    async def until_told(self, *names: str) -> None:
        """Wait until these were invalidated, whatever else was, and forget what has been told."""
        await wait_until(lambda: set(names) <= set(self.names), timeout=30, what=f"{set(names)} were invalidated")
        self.events.clear()
