"""`demo`: the cache at work on real files, step by step, each step checked."""

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Final

from shared_prompt_cache import presets
from shared_prompt_cache._bus import Subscription
from shared_prompt_cache.cache import SharedPromptCache
from shared_prompt_cache.cli import _restart
from shared_prompt_cache.cli._project import AGENTS, CONFIGURATION, INSTRUCTIONS, Project, memory
from shared_prompt_cache.cli._stage import Stage, Wrong
from shared_prompt_cache.events import Invalidation

TASKS: Final = 200
_EDITS: Final = 40
_PATIENCE: Final = 10.0


def run() -> int:
    """Show everything; return 0 if all of it went as announced, 1 if not."""
    with tempfile.TemporaryDirectory(prefix="shared-prompt-cache-") as folder, _restart.own_key():
        stage, root = Stage(), Path(folder).resolve()
        projects = Project(root / "shop"), _restart.prepared(root / "market")
        try:
            asyncio.run(_show(stage, *projects))
        except Wrong as error:
            print(f"\nFAILED: {error}")
            return 1
    stale = [line for project in projects for line in project.stale]
    served = sum(project.served for project in projects)
    computed = sum(len(project.computed) for project in projects)
    print(f"\n{served:,} prompts served, {computed} computed, {len(stale)} stale.")
    for line in stale[:10]:
        print(f"  stale: {line}")
    return 1 if stale else 0


async def _show(stage: Stage, project: Project, large: Project) -> None:
    await _Demo(stage, project).show()
    await _restart.show(stage, large)


class _Demo:
    """The steps, in order."""

    def __init__(self, stage: Stage, project: Project) -> None:
        self.stage = stage
        self.project = project

    async def show(self) -> None:
        """Go through all of them."""
        project = self.project
        self.stage.head("A project of ten agents, as claude-mpm lays it out")
        self.stage.say(f"{len(project.editions)} files in {project.root}")
        async with SharedPromptCache(watch=presets.claude_mpm(project.root, home=project.root / "home")) as cache:
            figures = cache.get_stats().watcher
            self.stage.say(
                f"the watcher ({figures['name']}) knows {figures['files']} files in {figures['folders']} folders"
            )

            self.stage.head(f"{TASKS} tasks ask for the prompts of the ten agents at once; nothing is cached yet")
            await self._ask(cache, computed=len(AGENTS))
            self.stage.head("They ask again")
            await self._ask(cache, computed=0)

            events = cache.events.subscribe()
            self.stage.head("The engineer learns something: its memory is edited, by an atomic replace")
            await self._edit(events, memory("engineer"), scope="agent", dropped=1)
            self._explain(cache, "engineer_system_prompt")
            await self._ask(cache, computed=1)

            self.stage.head("The instructions of the project are edited")
            await self._edit(events, INSTRUCTIONS, scope="project", dropped=len(AGENTS))
            await self._ask(cache, computed=len(AGENTS))

            self.stage.head("The configuration is edited")
            await self._edit(events, CONFIGURATION, scope="all", dropped=len(AGENTS))
            self._explain(cache, "qa_system_prompt")
            await self._ask(cache, computed=len(AGENTS))

            self.stage.head("All files are touched: new timestamps, the same contents")
            await asyncio.to_thread(project.touch_all)
            await cache.sync()
            await self._ask(cache, computed=0)

            self.stage.head(f"{_EDITS} edits while all {TASKS} tasks keep asking, and nobody waits for an event")
            await self._storm(cache)

            self.stage.head("What is cached in the end, and from what")
            await cache.sync()
            await project.prompt(cache, "engineer")
            self._explain(cache, "engineer_system_prompt")
            stats = cache.get_stats()
            self.stage.say(
                f"hit rate {stats['hit_rate']:.2%}, {stats['computations']} computations, "
                f"{stats['shared_computations']} callers shared one of somebody else, {stats['memory_usage_mb']:.2f} MB"
            )

    # The steps' parts.

    async def _ask(self, cache: SharedPromptCache, *, computed: int) -> None:
        project = self.project
        before, began = len(project.computed), perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(TASKS):
                tasks.create_task(project.prompt(cache, AGENTS[number % len(AGENTS)]))
        took = (perf_counter() - began) * 1000
        made = len(project.computed) - before
        self.stage.say(f"{TASKS} prompts served, {made} computed, in {took:.1f} ms")
        self.stage.check(made == computed, f"{computed} prompts had to be computed, {made} were")

    async def _edit(self, events: Subscription[Invalidation], name: str, *, scope: str, dropped: int) -> None:
        written = await asyncio.to_thread(self._write, name)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                async for event in events:
                    took = (perf_counter() - written) * 1000
                    what = "everything" if event.name is None else f"{event.scope} {Path(event.name).name!r}"
                    self.stage.say(
                        f"event after {took:.1f} ms: {what} invalidated, {event.dropped} of 10 prompts dropped"
                    )
                    right = event.scope == scope and event.dropped == dropped
                    self.stage.check(right, f"{scope} was expected, with {dropped} dropped")
                    return
        self.stage.check(False, f"no event came within {_PATIENCE:g} s of the edit of {name}")

    def _write(self, name: str) -> float:
        self.project.write(name)
        return perf_counter()

    async def _storm(self, cache: SharedPromptCache) -> None:
        project = self.project
        served, computed = project.served, len(project.computed)
        over = asyncio.Event()

        async def keep_asking(number: int) -> None:
            while not over.is_set():
                await project.prompt(cache, AGENTS[number % len(AGENTS)])
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as tasks:
            for number in range(TASKS):
                tasks.create_task(keep_asking(number))
            names = [memory(AGENTS[number % len(AGENTS)]) for number in range(_EDITS - 2)] + [
                INSTRUCTIONS,
                CONFIGURATION,
            ]
            for name in names:
                await asyncio.to_thread(project.write, name)
                await asyncio.sleep(0.025)
            over.set()
        stale = len(project.stale)
        made = len(project.computed) - computed
        self.stage.say(f"{project.served - served:,} prompts served, {made} computed, {stale} stale")

    def _explain(self, cache: SharedPromptCache, key: str) -> None:
        self.stage.say(f"explain({key!r}):")
        root = self.project.root
        for line in str(cache.explain(key)).replace(f"{root}/", "").replace(str(root), root.name).splitlines():
            print(f"     | {line}")
