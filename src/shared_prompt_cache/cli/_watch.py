"""`watch PATH`: the invalidations of a real folder, one line each."""

import asyncio
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from shared_prompt_cache.cache import SharedPromptCache
from shared_prompt_cache.config import WatchConfig
from shared_prompt_cache.errors import ConfigError
from shared_prompt_cache.events import Invalidation
from shared_prompt_cache.presets import rules_of
from shared_prompt_cache.rules import WatchRule


def run(path: str, presets: Sequence[str], watcher: Literal["auto", "watchfiles", "polling"]) -> int:
    """Print what changes of files below `path` invalidate, until it is interrupted.

    Raises:
        ConfigError: If there is nothing to watch.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ConfigError(f"{path} is no folder; give the folder of a project", field="path")
    rules = rules_of([WatchConfig(root=str(root), presets=tuple(presets))])
    if not rules:
        raise ConfigError(
            f"no agent tool has files in {path}; name one with --preset, for example --preset agents_md", field="preset"
        )
    asyncio.run(_tell(root, rules, watcher))
    return 0


async def _tell(root: Path, rules: tuple[WatchRule, ...], watcher: Literal["auto", "watchfiles", "polling"]) -> None:
    async with SharedPromptCache(watch=rules, watcher=watcher, name="watch") as cache:
        figures = cache.get_stats().watcher
        print(f"watching {figures['files']} files in {figures['folders']} folders; Ctrl-C ends", flush=True)
        for name, part in cache.health().parts.items():
            if part.status == "degraded":
                print(f"  {name} is degraded: {part.reason}", flush=True)
        async for event in cache.events.subscribe():
            print(line(event, root), flush=True)


def line(event: Invalidation, root: Path) -> str:
    """Return an invalidation as one line for people; paths below the root are told from there."""
    moment = datetime.fromtimestamp(event.at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    top = os.path.abspath(root)  # noqa: PTH100 - as rules spell it
    what = event.scope if event.name is None else f"{event.scope} {event.name}"
    text = f"{moment}  {what:<28}  {event.cause}"
    return text.replace(top + os.sep, "").replace(top, Path(top).name)
