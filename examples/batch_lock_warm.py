"""Three verbs for more than one step: sets applied together, get-compute-set by hand, filling ahead of use.

Needs nothing but the package. Run it: python examples/batch_lock_warm.py
"""

import asyncio

from shared_prompt_cache import SharedPromptCache


async def main() -> None:
    """Use each of them."""
    cache = SharedPromptCache()

    # A batch is applied when its block ends, all of it at once, and not at all if the block raises.
    async with cache.batch() as batch:
        batch.set_prompt("greeting", "hello")
        batch.set_prompt("farewell", "goodbye")
        batch.invalidate("yesterday")
        assert await cache.get_prompt("greeting") is None
    assert sorted(await cache.get_many(["greeting", "farewell", "yesterday"])) == ["farewell", "greeting"]

    # A lock keeps others from computing the key, also those who use get_or_compute.
    async with cache.lock("answer"):
        cached = await cache.get_prompt("answer")
        if cached is None:
            await cache.set_prompt("answer", 42)

    async def never() -> int:
        message = "it is there"
        raise AssertionError(message)

    answer = await cache.get_or_compute("answer", never)
    print("the answer is", answer)

    # Warming computes what is missing, a few at a time; failures are collected.
    async def compute(key: str) -> str:
        if key == "agent-3":
            message = "no such agent"
            raise LookupError(message)
        return f"You are {key}."

    report = await cache.warm(
        [f"agent-{number}" for number in range(10)],
        compute,
        concurrency=4,
        on_progress=lambda done, total: print(f"{done} of {total}") if done % 5 == 0 else None,
        agent=lambda key: key,
        ttl=3600,
    )
    print(report)
    assert (report.computed, list(report.failures)) == (9, ["agent-3"])
    await cache.aclose()


asyncio.run(main())
