"""Several processes share one store: a prompt is computed once among all, and what one invalidates is gone in all.

Needs nothing but the package and writes to a temporary folder. Run it: python examples/several_workers.py
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path

from shared_prompt_cache import SharedPromptCache, presets
from shared_prompt_cache.stores import SQLiteStore

WORKERS = 4
AGENTS = [f"agent-{number}" for number in range(10)]


def memory_of(agent: str, project: Path) -> Path:
    """Return where an agent keeps what it has learned."""
    return project / ".claude-mpm" / "memories" / f"{agent}_memories.md"


async def work(number: int, project: Path, together: Barrier, computed: Synchronized[int]) -> None:
    """Do what a worker of a server does; all of them go on from one `wait` to the next at the same moment."""

    async def wait() -> None:
        await asyncio.to_thread(together.wait, 30)

    # Each process makes a store and a cache of its own, over the same folder, and after the fork if there is one.
    store = SQLiteStore(project / ".cache" / "prompts")
    async with SharedPromptCache(store=store, watch=presets.claude_mpm(project)) as cache:

        async def prompt(agent: str) -> str:
            async def compute() -> str:
                with computed:
                    computed.value += 1
                return f"You are {agent}.\n" + await cache.files.read_text(memory_of(agent, project))

            return await cache.get_or_compute(f"prompt of {agent}", compute, agent=agent, project=project)

        async def prompts() -> list[str]:
            await wait()
            found = await asyncio.gather(*map(prompt, AGENTS))
            await wait()
            return found

        await prompts()
        assert computed.value == 10  # among all

        if number == 0:
            memory_of("agent-3", project).write_text("- use tabs\n")
        await wait()
        await cache.sync()  # without it the answer is as new, but a late event may let it be computed once more
        assert "- use tabs" in (await prompts())[3]  # in every process
        assert computed.value == 10 + 1

        events = cache.events.subscribe(scopes=["project"])
        await wait()
        if number == 1:
            await cache.invalidate_project(project)
        event = await anext(events)  # within a tenth of a second, everywhere
        if number == 2:
            print(event, "because", event.cause)
        await prompts()
        assert computed.value == 10 + 1 + 10


def run(number: int, project: Path, together: Barrier, computed: Synchronized[int]) -> None:
    """Be one of the processes."""
    asyncio.run(work(number, project, together, computed))


def main() -> None:
    """Start the workers."""
    os.environ["SHARED_PROMPT_CACHE_KEY"] = "only for this example"  # or else a key file is made, once
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        for agent in AGENTS:
            memory_of(agent, project).parent.mkdir(parents=True, exist_ok=True)
            memory_of(agent, project).write_text(f"- what {agent} has learned\n")
        together, computed = spawn.Barrier(WORKERS), spawn.Value("i", 0)
        workers = [spawn.Process(target=run, args=(number, project, together, computed)) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * WORKERS
        print(WORKERS, "workers asked for", 3 * WORKERS * len(AGENTS), "prompts;", computed.value, "were computed")


if __name__ == "__main__":
    main()
