"""Every usage of the synchronous service that this project succeeds, with `await` in front.

Needs nothing but the package. Run it: python examples/coming_from_the_original.py
"""

import asyncio
from datetime import UTC, datetime

from shared_prompt_cache import SharedPromptCache, keys

cache = SharedPromptCache(max_size=1000, ttl_seconds=3600)
generated: list[str] = []


async def expensive_prompt_generation(agent_id: str, context: dict[str, str]) -> str:
    """Stand for the work that is worth caching."""
    generated.append(agent_id)
    await asyncio.sleep(0)
    return f"You are {agent_id}, in {context['project']}."


async def generate_agent_prompt(agent_id: str, context: dict[str, str]) -> str:
    """Basic prompt caching; with `keys.agent`, since `hash(str(context))` differs from process to process."""
    cache_key = keys.agent(agent_id, context)
    cached = await cache.get_prompt(cache_key)
    if cached:
        return cached["prompt"]
    prompt = await expensive_prompt_generation(agent_id, context)
    await cache.set_prompt(cache_key, prompt, ttl=3600)
    return prompt


async def get_processed_memory(agent_id: str) -> str:
    """Memory operation caching, with metadata."""
    cache_key = f"memory_{agent_id}_processed"
    cached = await cache.get_prompt(cache_key)
    if cached:
        return cached["prompt"]
    processed = f"{agent_id} remembers"
    await cache.set_prompt(
        cache_key,
        processed,
        metadata={"agent": agent_id, "processed_at": datetime.now(UTC), "size": len(processed)},
    )
    return processed


async def main() -> None:
    """Go through the document of the original, from top to bottom."""
    await cache.set_prompt(
        key="engineer_context_v1",
        prompt="You are an engineer.",
        metadata={"agent": "engineer", "version": "1.0"},
    )
    cached = await cache.get_prompt("engineer_context_v1")
    if cached:
        assert cached["prompt"] == "You are an engineer."
        assert cached["metadata"]["version"] == "1.0"
    await cache.invalidate_pattern("engineer_*")
    assert await cache.get_prompt("engineer_context_v1") is None

    context = {"project": "shop"}
    for _ in range(3):
        await generate_agent_prompt("engineer", context)
    assert generated == ["engineer"]
    await get_processed_memory("engineer")
    memory = await cache.get_prompt("memory_engineer_processed")
    assert memory is not None
    assert isinstance(memory["metadata"]["processed_at"], datetime)

    # On a memory update: invalidate the caches of the agent, whichever way their keys were made.
    assert await cache.invalidate_agent("engineer") == 2  # the prompt and the memory

    # Pattern-based invalidation.
    await cache.set_prompt("plan_engineer_1", "...")
    await cache.set_prompt("project_shop_summary", "...")
    await cache.set_prompt("temp_notes", "...")
    await cache.invalidate_pattern("engineer_*")
    await cache.invalidate_pattern("*_engineer_*")
    await cache.invalidate_pattern("project_shop_*")
    await cache.invalidate_pattern("temp_*")
    assert cache.get_stats()["entry_count"] == 0

    # Cache warming.
    for agent_id in ("engineer", "qa", "ops"):
        await generate_agent_prompt(agent_id, context)

    # Batch operations.
    prompts = {f"report_{number}": f"report {number}" for number in range(200)}
    async with cache.batch():
        for key, prompt in prompts.items():
            await cache.set_prompt(key, prompt)
    assert len(await cache.get_many(prompts)) == len(prompts)

    # Memory management.
    stats = cache.get_stats()
    if stats["memory_usage_mb"] > 0.01:  # 100 in the original
        await cache.evict_oldest(count=100)

    # Performance tracking.
    stats = cache.get_stats()
    print(f"Hit Rate: {stats['hit_rate']:.2%}")
    print(f"Memory Usage: {stats['memory_usage_mb']}MB")
    print(f"Total Entries: {stats['entry_count']}")
    print(f"Evictions: {stats['eviction_count']}")
    assert stats["entry_count"] == 103  # of 203
    assert stats["eviction_count"] == 100  # as asked for
    await cache.aclose()


asyncio.run(main())
