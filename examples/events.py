"""Being told: a subscription to iterate over, and a callback.

When an event arrives, the invalidation is in force: no call returns what it took. Needs nothing but the package.
Run it: python examples/events.py
"""

import asyncio

from shared_prompt_cache import ApiCall, Invalidation, Removal, SharedPromptCache


async def main() -> None:
    """Invalidate this and that, and see who is told."""
    async with SharedPromptCache() as cache:
        heard: list[str] = []

        async def callback(event: Invalidation) -> None:
            heard.append(f"{event.scope} {event.name}, {event.dropped} dropped")

        cache.events.listen(callback, scopes=["agent", "tag"])
        subscription = cache.events.subscribe(removals=True, max_queue=100)

        await cache.set_prompt("engineer_prompt", "You are an engineer.", agent="engineer", tags=["morning"])
        await cache.set_prompt("qa_prompt", "You are a tester.", agent="qa", tags=["morning"])
        await cache.invalidate("engineer_prompt")
        await cache.invalidate_tag("morning")

        async with subscription:
            removal = await anext(subscription)
            assert isinstance(removal, Removal)
            assert (removal.key, removal.reason) == ("engineer_prompt", "invalidated")
            event = await anext(subscription)
            assert isinstance(event, Invalidation)
            assert event.cause == ApiCall(verb="invalidate")
            print(event, "because", event.cause)

    # Closing the cache delivers what was waiting for the callback.
    print(heard)
    assert heard == ["tag morning, 1 dropped"]


asyncio.run(main())
