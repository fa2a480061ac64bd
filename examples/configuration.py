"""A cache from a YAML file, in the form that the original service used.

Needs nothing but the package. Run it: python examples/configuration.py
"""

import asyncio
import tempfile
from pathlib import Path

from shared_prompt_cache import ConfigError, SharedPromptCache

YAML = """\
cache:
  shared_prompt:
    enabled: true
    max_size: 1000
    max_memory_mb: 100
    default_ttl: 3600
    eviction_policy: "lru"
    persistence:
      enabled: false
      path: ".cache/prompts"
    watch:
      - root: "."
        presets: [claude_mpm, agents_md]
"""


async def use(cache: SharedPromptCache, project: Path) -> None:
    """Store a prompt that an edit of AGENTS.md drops."""
    async with cache:
        await cache.set_prompt("prompt", "You are an engineer.", project=project)
        (project / "AGENTS.md").write_text("Be brief.\n", encoding="utf-8")
        await cache.sync()
        assert await cache.get_prompt("prompt") is None


with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "config.yaml"
    file.write_text(YAML, encoding="utf-8")
    asyncio.run(use(SharedPromptCache.from_config(file), Path(folder)))

    file.write_text(YAML.replace("max_size", "max_sise"), encoding="utf-8")
    try:
        SharedPromptCache.from_config(file)
    except ConfigError as error:
        message = str(error).replace(f"{folder}/", "")
    print(message)
    assert message.startswith("config.yaml:4: cache.shared_prompt.max_sise is no field; did you mean max_size?")
