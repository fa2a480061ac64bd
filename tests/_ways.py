"""The seven ways to invalidate, over one key that all of them reach."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from shared_prompt_cache import SharedPromptCache

KEY = "plan_of_the_day"
AGENT, PROJECT, TAG = "engineer", "web", "planning"

Way = Callable[[SharedPromptCache, Path, bool], Awaitable[Any]]

WAYS: dict[str, Way] = {
    "key": lambda cache, _, soft: cache.invalidate(KEY, soft=soft),
    "pattern": lambda cache, _, soft: cache.invalidate_pattern("plan_*", soft=soft),
    "tag": lambda cache, _, soft: cache.invalidate_tag(TAG, soft=soft),
    "agent": lambda cache, _, soft: cache.invalidate_agent(AGENT, soft=soft),
    "project": lambda cache, _, soft: cache.invalidate_project(PROJECT, soft=soft),
    "all": lambda cache, _, soft: cache.clear(soft=soft),
    "file": lambda cache, file, soft: cache.invalidate_file(file, soft=soft),
}


def options(file: Path) -> dict[str, Any]:
    """Return the options of a computation that each of the ways reaches."""
    return {"agent": AGENT, "project": PROJECT, "tags": [TAG], "depends_on": file}


async def invalidate(cache: SharedPromptCache, way: str, file: Path, *, soft: bool = False) -> Any:
    """Invalidate `KEY` by one of the ways."""
    return await WAYS[way](cache, file, soft)
