"""A project with memory files under a watch whose events, comparisons and ticks a test has in its hands."""

import threading
from pathlib import Path
from typing import Any

from shared_prompt_cache import SharedPromptCache, WatchRule
from shared_prompt_cache._files import heartbeat, watch
from shared_prompt_cache._files.baseline import Baseline


def rules(root: Path) -> list[WatchRule]:
    """Return a rule for the memory of each agent, in the root and in any folder below it."""
    return [WatchRule(root, "**/{agent}.md", "agent", imports=True)]


async def fill(cache: SharedPromptCache, *agents: str) -> None:
    """Put an entry of each agent in; none is made from a file, so only rules can invalidate it."""
    for agent in agents:
        await cache.set_prompt(f"of {agent}", "prompt", agent=agent)


async def dropped(cache: SharedPromptCache, *agents: str) -> set[str]:
    """Return the agents whose entry is gone."""
    return {agent for agent in agents if await cache.get_prompt(f"of {agent}") is None}


def hasten(monkeypatch: Any) -> None:
    """Let the watch tick, look at its roots and begin anew a hundred times as often."""
    for module, name in ((heartbeat, "TICK"), (watch, "_RETRY")):
        monkeypatch.setattr(module, name, getattr(module, name) / 100)


class Comparisons:
    """The comparisons with the baseline: counted, held up while `gate` is shut, and failed by `error`."""

    def __init__(self, monkeypatch: Any) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.began = 0
        self.of: list[Any] = []
        compare = Baseline.compare

        def gated(baseline: Baseline, paths: Any, **options: Any) -> Any:
            self.began += 1
            self.of.append(paths)
            assert self.gate.wait(30)
            if self.error is not None:
                raise self.error
            return compare(baseline, paths, **options)

        monkeypatch.setattr(Baseline, "compare", gated)
