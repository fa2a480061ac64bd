"""The end of the demonstration: a program that is started again computes what has changed, and finds the rest."""

import asyncio
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared_prompt_cache import presets
from shared_prompt_cache.cache import SharedPromptCache
from shared_prompt_cache.cli._project import Project, memory
from shared_prompt_cache.cli._stage import Stage
from shared_prompt_cache.cli._words import size
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.stores._secret import VARIABLE

AGENTS: Final = tuple(f"agent-{number:02}" for number in range(1, 51))
_FILE_BYTES: Final = 112_500  # a prompt is made of four files
_AT_ONCE: Final = 10
_EDITED: Final = AGENTS[:5]
_DELETED: Final = AGENTS[5]
_REPLACED: Final = AGENTS[6]
_CREATED: Final = AGENTS[-1]


def prepared(root: Path) -> Project:
    """Return the project; one of its agents has no memory yet."""
    return Project(root, AGENTS, file_bytes=_FILE_BYTES, missing=(memory(_CREATED),))


@contextmanager
def own_key() -> Iterator[None]:
    """Seal what is stored in this block with a key of its own; no key file of the user is made, or read."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = secrets.token_hex()
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


async def show(stage: Stage, project: Project) -> None:
    """Start three times; before the third some of the files change.

    Raises:
        Wrong: If other prompts were computed than had to be.
    """
    total = len(AGENTS)
    stage.head(f"A larger project: {total} agents, prompts of {4 * _FILE_BYTES // 1000} kB, and a store to keep them")
    await _start(stage, project, computed=set(AGENTS))

    stage.head("The program has ended, and is started again")
    await _start(stage, project, computed=set())

    stage.head("It has ended, and while it does not run, files change")
    await asyncio.to_thread(_change, project)
    stage.say(f"edited: the memories of {', '.join(_EDITED)}")
    stage.say(f"deleted: that of {_DELETED}; created: that of {_CREATED}, which had none")
    stage.say(f"replaced by an equal file: that of {_REPLACED}")
    await _start(stage, project, computed={*_EDITED, _DELETED, _CREATED})


def _change(project: Project) -> None:
    for agent in (*_EDITED, _CREATED):
        project.write(memory(agent))
    project.delete(memory(_DELETED))
    project.replace_by_equal(memory(_REPLACED))


async def _start(stage: Stage, project: Project, *, computed: set[str]) -> None:
    """Ask for all prompts as a program does that has just been started; then end it."""
    before = len(project.computed)
    store = SQLiteStore(project.root / ".cache" / "prompts")
    rules = presets.claude_mpm(project.root, home=project.root / "home")
    async with SharedPromptCache(store=store, watch=rules) as cache:
        for first in range(0, len(AGENTS), _AT_ONCE):
            async with asyncio.TaskGroup() as tasks:
                for agent in AGENTS[first : first + _AT_ONCE]:
                    tasks.create_task(project.prompt(cache, agent))
        health = cache.health().parts["store"]
        stage.check(health.status == "ok", f"the store had to be in use: {health.reason}")
        found = cache.get_stats().hits  # of a memory that was empty: they came from the store
        await cache.flush()
        kept = await store.stats()
    made = project.computed[before:]
    what = "" if len(made) in {0, len(AGENTS)} else f": {', '.join(sorted(made))}"
    stage.say(f"{len(AGENTS)} prompts served, {found} from the store, {len(made)} computed{what}")
    if not found:
        stage.say(f"the store keeps {kept.entries} of them in {size(kept.file_bytes)}")
    stage.check(sorted(made) == sorted(computed), f"to be computed were {', '.join(sorted(computed)) or 'none'}")
    stage.check(found == len(AGENTS) - len(made), "the others had to come from the store")
