"""Who is told of invalidations and removals: bounded, in order, and after they have taken effect.

Seen to fail on planted bugs: a full queue that loses the newest; a subscription that counts nothing as missed; a
listener that ends with the first failure of its callback; a callback whose awaitable is not awaited; events that are
told before the number of dropped entries is known; a closed bus that gives up what waits.
"""

import asyncio
import logging

import pytest

from _support import Counted
from shared_prompt_cache import ApiCall, CacheClosedError, ConfigError, ConfigTypeError, SharedPromptCache
from shared_prompt_cache.testing import ManualClock, wait_until

SCOPES = ["key", "pattern", "tag", "agent", "project", "all", "file"]


async def invalidate_in_each_way(cache):
    await cache.invalidate("a")
    await cache.invalidate_pattern("a*")
    await cache.invalidate_tag("t")
    await cache.invalidate_agent("engineer")
    await cache.invalidate_project("web")
    await cache.clear()
    await cache.invalidate_file("/f")


async def taken(subscription):
    """Close it, and return what was left."""
    subscription.close()
    return [event async for event in subscription]


async def test_events_come_in_the_order_of_the_invalidations(cache):
    heard = []
    cache.events.listen(lambda event: heard.append(event.scope))
    subscription = cache.events.subscribe()
    await invalidate_in_each_way(cache)
    events = await taken(subscription)
    assert [event.scope for event in events] == SCOPES
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6, 7]
    await wait_until(lambda: heard == SCOPES)


async def test_one_that_takes_long_to_count_holds_back_those_after_it(open_cache):
    cache = await open_cache(max_size=10_000)
    for number in range(10_000):
        await cache.set_prompt(f"plan_{number}" if number else "note", "p", tags=[] if number else ["t"])
    subscription = cache.events.subscribe()
    await asyncio.gather(cache.invalidate_pattern("plan_*9"), cache.invalidate("nothing"), cache.invalidate_tag("t"))
    events = await taken(subscription)
    assert [(event.scope, event.dropped) for event in events] == [("pattern", 1_000), ("key", 0), ("tag", 1)]


async def test_a_slow_subscriber_loses_the_oldest_and_is_told_how_many(cache, caplog):
    subscription = cache.events.subscribe(max_queue=3)
    with caplog.at_level(logging.WARNING, "shared_prompt_cache"):
        for number in range(10):
            await cache.invalidate(f"key-{number}")
    assert subscription.missed == 7
    assert [record.event for record in caplog.records] == ["subscription.overflowed"]  # once
    assert [event.name for event in await taken(subscription)] == ["key-7", "key-8", "key-9"]


async def test_a_slow_callback_loses_the_oldest_too(cache):
    gate, heard = asyncio.Event(), []

    async def callback(event):
        heard.append(event.name)
        await gate.wait()

    listener = cache.events.listen(callback, max_queue=2)
    await cache.invalidate("first")
    await wait_until(lambda: heard)
    for number in range(5):
        await cache.invalidate(f"key-{number}")
    assert listener.missed == 3
    gate.set()
    await wait_until(lambda: heard == ["first", "key-3", "key-4"])


async def test_a_failing_callback_is_logged_and_hurts_nobody(cache, caplog):
    heard = []

    def failing(event):
        heard.append(("failing", event.name))
        raise LookupError(event.name)

    async def failing_later(event):
        await asyncio.sleep(0)
        failing(event)

    cache.events.listen(failing)
    cache.events.listen(failing_later)
    cache.events.listen(lambda event: heard.append(("well", event.name)))
    await cache.set_prompt("a", "p")
    assert await cache.invalidate("a") is True
    await cache.invalidate("b")
    await wait_until(lambda: len(heard) == 6)
    assert heard.count(("well", "a")) == heard.count(("well", "b")) == 1
    assert [record.event for record in caplog.records] == ["listener.failed"] * 4
    assert caplog.records[0].exc_info[0] is LookupError
    assert "failing" in caplog.records[0].facts["listener"]


async def test_a_callback_that_waits_for_something_cancelled_goes_on_being_called(cache):
    heard = []

    async def callback(event):
        heard.append(event.name)
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    cache.events.listen(callback)
    for name in ("a", "b"):
        await cache.invalidate(name)
    await wait_until(lambda: heard == ["a", "b"])


async def test_asynchronous_callbacks_are_awaited_one_after_the_other(cache):
    heard = []

    async def callback(event):
        heard.append(("begins", event.name))
        await asyncio.sleep(0)
        heard.append(("ends", event.name))

    cache.events.listen(callback)
    await cache.invalidate("a")
    await cache.invalidate("b")
    await wait_until(lambda: len(heard) == 4)
    assert heard == [("begins", "a"), ("ends", "a"), ("begins", "b"), ("ends", "b")]


async def test_only_the_scopes_that_were_asked_for(cache):
    some, none = cache.events.subscribe(scopes=["agent", "all"]), cache.events.subscribe(scopes=[])
    heard = []
    cache.events.listen(lambda event: heard.append(event.scope), scopes={"tag"})
    await invalidate_in_each_way(cache)
    assert [event.scope for event in await taken(some)] == ["agent", "all"]
    assert await taken(none) == []
    await wait_until(lambda: heard == ["tag"])


async def test_removals_are_told_to_who_asks_for_them(open_cache):
    cache = await open_cache(max_size=2)
    invalidations = cache.events.subscribe()
    everything = cache.events.subscribe(removals=True, scopes=["tag"])
    await cache.set_prompt("a", "p")
    await cache.set_prompt("a", "another")
    await cache.set_prompt("b", "p", tags=["t"])
    await cache.set_prompt("c", "p", tags=["t"])
    await cache.invalidate_tag("t")
    await cache.invalidate("a")
    told = [getattr(event, "reason", None) or event.scope for event in await taken(everything)]
    assert told == ["replaced", "evicted", "invalidated", "invalidated", "tag"]
    assert [event.scope for event in await taken(invalidations)] == ["tag", "key"]
    assert cache.events.wants_removals is False  # nobody who does is left, and they cost something


async def test_an_expired_entry_is_a_removal(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    subscription = cache.events.subscribe(removals=True)
    await cache.set_prompt("a", "p", ttl=10)
    clock.advance(10)
    await cache.get_prompt("a")
    (removal,) = await taken(subscription)
    assert (removal.key, removal.reason) == ("a", "expired")


async def test_after_closing_nothing_more_comes_and_the_loop_over_it_ends(cache):
    async with cache.events.subscribe() as subscription:
        await cache.invalidate("a")
    await cache.invalidate("b")
    assert [event.name async for event in subscription] == ["a"]
    listener = cache.events.listen(lambda event: heard.append(event.name))
    heard = []
    await cache.invalidate("a")
    listener.close()
    listener.close()
    await cache.invalidate("b")
    await wait_until(lambda: heard == ["a"])
    assert cache.events._subscriptions == []


async def test_who_waits_for_an_event_can_be_cancelled_and_come_again(cache):
    subscription = cache.events.subscribe()
    waiting = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    waiting = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    await cache.invalidate("a")
    assert (await waiting).name == "a"


async def test_the_end_wakes_who_waits(cache):
    subscription = cache.events.subscribe()
    waiting = asyncio.create_task(taken(cache.events.subscribe()))
    also = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    await cache.aclose()
    assert await waiting == []
    with pytest.raises(StopAsyncIteration):
        await also


async def test_a_callback_may_invalidate(cache):
    heard = []

    async def callback(event):
        heard.append((event.scope, event.name))
        if event.scope == "agent":
            assert await cache.invalidate("summary") is True

    cache.events.listen(callback)
    await cache.set_prompt("summary", "of all agents")
    await cache.invalidate_agent("engineer")
    await wait_until(lambda: len(heard) == 2)
    assert heard == [("agent", "engineer"), ("key", "summary")]


async def test_it_is_in_force_before_anyone_is_told(open_cache):
    """The entries are gone for who is told, although reclaiming them takes many passes of the loop."""
    cache, found = await open_cache(max_size=2_000), []

    async def callback(event):
        found.append([await cache.get_prompt(f"key-{number}") for number in range(0, 2_000, 100)])
        found.append(await cache.get_or_compute("key-7", Counted("new"), tags=["t"]))

    for number in range(2_000):
        await cache.set_prompt(f"key-{number}", "old", tags=["t"])
    cache.events.listen(callback)
    await cache.invalidate_tag("t")
    await wait_until(lambda: len(found) == 2)
    assert found == [[None] * 20, "new"]


def test_listeners_may_come_before_there_is_a_loop():
    cache, heard = SharedPromptCache(), []

    async def callback(event):
        heard.append(event.name)

    cache.events.listen(callback)
    cache.events.listen(lambda event: heard.append(event.name))
    subscription = cache.events.subscribe()

    async def main():
        async with cache:
            await cache.invalidate("a")
        return [event.name async for event in subscription]

    assert asyncio.run(main()) == ["a"]
    assert heard == ["a", "a"]


async def test_the_end_delivers_what_waits(cache):
    heard, gate = [], asyncio.Event()

    async def callback(event):
        await gate.wait()
        heard.append(event.name)

    cache.events.listen(callback)
    for name in ("a", "b", "c"):
        await cache.invalidate(name)
    asyncio.get_running_loop().call_soon(gate.set)
    await cache.aclose()
    assert heard == ["a", "b", "c"]


async def test_the_end_waits_for_no_callback_that_hangs(cache):
    """For a second at the most."""

    async def callback(event):
        await asyncio.Event().wait()

    cache.events.listen(callback)
    await cache.invalidate("a")
    async with asyncio.timeout(30):
        await cache.aclose()


@pytest.mark.parametrize("how", ["first", "while others listen"])
async def test_a_callback_may_close_the_cache(cache, how):
    heard, closed = [], asyncio.Event()

    async def callback(event):
        if event.name == "a":
            await cache.aclose()
            closed.set()

    cache.events.listen(callback)
    if how == "while others listen":
        cache.events.listen(lambda event: heard.append(event.name))
    await cache.invalidate("a")
    async with asyncio.timeout(30):
        await closed.wait()
    assert heard == ["a"] * (how == "while others listen")
    with pytest.raises(CacheClosedError):
        await cache.get_prompt("a")


async def test_after_another_start_there_are_new_events(cache):
    before = cache.events.subscribe()
    await cache.aclose()
    await cache.start()
    async with cache.events.subscribe() as after:
        await cache.invalidate("a")
    assert [event.cause async for event in after] == [ApiCall(verb="invalidate")]
    assert [event async for event in before] == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"scopes": ["agents"]}, "scopes"),
        ({"scopes": "agent"}, "scopes"),
        ({"scopes": [[]]}, "scopes"),
        ({"scopes": 5}, "scopes"),
        ({"max_queue": 0}, "max_queue"),
        ({"max_queue": True}, "max_queue"),
        ({"max_queue": 1.5}, "max_queue"),
    ],
)
def test_what_cannot_be_subscribed_to_is_refused(arguments, field):
    bus = SharedPromptCache().events
    for subscribe in (bus.subscribe, lambda **options: bus.listen(print, **options)):
        with pytest.raises(ConfigError) as caught:
            subscribe(**arguments)
        assert caught.value.field == field
    assert bus._subscriptions == []


def test_a_callback_must_be_callable():
    bus = SharedPromptCache().events
    with pytest.raises(ConfigTypeError, match="give a function"):
        bus.listen("print")
    assert bus._subscriptions == []
