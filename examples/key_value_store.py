"""The cache as a store of py-key-value: what FastMCP and others keep in it goes when the files of its project change.

Needs: pip install 'shared-prompt-cache[fastmcp]'. Run it: python examples/key_value_store.py
"""

import asyncio
import tempfile
from pathlib import Path

from key_value.aio.protocols.key_value import AsyncKeyValue

from shared_prompt_cache import SharedPromptCache, presets
from shared_prompt_cache.integrations.key_value import KeyValueStore

made = 0


async def answer(store: AsyncKeyValue, question: str) -> str:
    """Return an answer as a program does that is written for such stores and knows nothing of this one."""
    global made  # noqa: PLW0603 - it is counted how often one is made
    kept = await store.get(question, collection="answers")
    if kept is None:
        made += 1
        kept = {"text": f"{question} Answer {made}.", "sources": []}
        await store.put(question, kept, collection="answers", ttl=3600)
    return str(kept["text"])


async def main() -> None:
    """Ask, edit the instructions of the project, and ask again."""
    with tempfile.TemporaryDirectory() as folder:
        instructions = Path(folder) / "AGENTS.md"
        instructions.write_text("Be brief.\n", encoding="utf-8")
        async with SharedPromptCache(watch=presets.agents_md(folder)) as cache:
            store = KeyValueStore(cache, project=folder)
            assert await answer(store, "Why?") == await answer(store, "Why?") == "Why? Answer 1."

            mine = await store.get("Why?", collection="answers")
            assert mine is not None
            mine["sources"].append("nobody else sees this")
            assert await store.get("Why?", collection="answers") == {"text": "Why? Answer 1.", "sources": []}

            instructions.write_text("Be thorough.\n", encoding="utf-8")
            await cache.sync()
            assert await answer(store, "Why?") == "Why? Answer 2."

            await store.put("session", {"user": "ann"}, collection="sessions")
            assert await cache.invalidate_tag("keyvalue/answers") == 1  # the tag of one collection
            assert await answer(store, "Why?") == "Why? Answer 3."
            assert await store.get("session", collection="sessions") == {"user": "ann"}
            print(cache.explain(store.cache_key("Why?", collection="answers")))


asyncio.run(main())
