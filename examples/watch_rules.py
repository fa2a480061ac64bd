"""Rules that turn changes of files into invalidations of an agent, a project, or everything.

Values that are made from files through `cache.files` need no rules. Rules are for all others: values stored by
`set_prompt`, or made from things that belong to an agent. Needs nothing but the package.
Run it: python examples/watch_rules.py
"""

import asyncio
import tempfile
from pathlib import Path

from shared_prompt_cache import SharedPromptCache, WatchRule, presets


async def main() -> None:
    """Watch two kinds of files by hand, and those of an agent tool by its preset."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "memory").mkdir()
        rules = (
            WatchRule(root, "memory/{agent}.md", "agent"),  # the part in braces says whose file it is
            WatchRule(root, "team.yaml", "project"),
            *presets.claude_mpm(root),
        )
        async with SharedPromptCache(watch=rules) as cache:
            for agent in ("engineer", "qa"):
                await cache.set_prompt(f"{agent}_prompt", f"You are {agent}.", agent=agent, project=root)
            events = cache.events.subscribe()

            (root / "memory" / "engineer.md").write_text("- use tabs\n", encoding="utf-8")
            await cache.sync()  # read your own writes: returns when the change has been applied
            assert await cache.get_prompt("engineer_prompt") is None
            assert await cache.get_prompt("qa_prompt") is not None

            (root / "team.yaml").write_text("size: 2\n", encoding="utf-8")
            event = await anext(events)
            print(event, "because", event.cause)
            event = await anext(events)  # no sync(): when a subscriber has the event in hand, it is in force
            print(event, "because", event.cause)
            assert await cache.get_prompt("qa_prompt") is None

            (root / ".claude-mpm").mkdir()
            (root / ".claude-mpm" / "configuration.yaml").write_text("model: new\n", encoding="utf-8")
            event = await anext(events)
            print(event, "because", event.cause)
            assert event.scope == "all"


asyncio.run(main())
