"""The cache as an object: its life, the loop it belongs to, the arguments it is made with."""

import asyncio
import math
import threading
from datetime import timedelta

import pytest

from _support import Counted
from _ways import KEY, WAYS, invalidate
from shared_prompt_cache import (
    CacheClosedError,
    ConfigError,
    SharedPromptCache,
    WatchRule,
    WrongLoopError,
)
from shared_prompt_cache.testing import FakeWatcher, ManualClock, wait_until


class GatedWatcher(FakeWatcher):
    """A watcher that is live only when its gate opens."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()
        self.starts = self.closes = 0

    async def start(self, sink):
        self.starts += 1
        await self.gate.wait()
        await super().start(sink)

    async def aclose(self):
        self.closes += 1
        await super().aclose()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("- use tabs\n")
    return path


@pytest.fixture
def rules(tmp_path):
    return [WatchRule(tmp_path, "*.md", "all")]


VERBS = {
    "get_prompt": lambda cache: cache.get_prompt(KEY),
    "get_or_compute": lambda cache: cache.get_or_compute(KEY, Counted("never")),
    "get_many": lambda cache: cache.get_many([KEY]),
    "set_prompt": lambda cache: cache.set_prompt(KEY, "prompt"),
    "evict_oldest": lambda cache: cache.evict_oldest(),
    "sync": lambda cache: cache.sync(),
    "warm": lambda cache: cache.warm([KEY], Counted("never")),
    "lock": lambda cache: cache.lock(KEY).__aenter__(),
    "batch": lambda cache: cache.batch().__aenter__(),
    **{f"invalidate by {way}": lambda cache, way=way: invalidate(cache, way, "/file") for way in WAYS},
}
verbs = pytest.mark.parametrize("verb", VERBS)


# Life


@verbs
async def test_with_watch_rules_a_verb_before_the_start_says_what_to_do(rules, verb):
    cache = SharedPromptCache(watch=rules, name="prompts")
    with pytest.raises(CacheClosedError, match=r"'prompts' watches files and is not started; use `async with cache:`"):
        await VERBS[verb](cache)
    await cache.aclose()


@verbs
async def test_a_verb_after_the_end_says_what_to_do(verb):
    async with SharedPromptCache(name="prompts") as cache:
        await cache.set_prompt(KEY, "prompt")
    with pytest.raises(CacheClosedError, match=r"'prompts' is closed; .*`async with cache:`, or start\(\) it"):
        await VERBS[verb](cache)


async def test_without_watch_rules_no_start_is_needed(file):
    cache = SharedPromptCache()
    assert await cache.get_or_compute(KEY, lambda: cache.files.read_text(file)) == "- use tabs\n"
    await cache.sync()
    await cache.aclose()


@pytest.mark.parametrize("with_rules", [False, True])
async def test_starting_and_closing_twice_is_as_good_as_once(rules, with_rules):
    watcher = GatedWatcher()
    watcher.gate.set()
    cache = SharedPromptCache(watch=rules if with_rules else (), watcher=watcher)
    for _ in range(2):
        await cache.start()
        await cache.start()
    assert watcher.starts == with_rules
    await cache.set_prompt(KEY, "prompt")
    for _ in range(2):
        await cache.aclose()
    await asyncio.gather(cache.aclose(), cache.aclose())
    assert watcher.closes == with_rules


async def test_a_cache_that_was_never_used_can_be_closed():
    await SharedPromptCache().aclose()


@pytest.mark.parametrize("with_rules", [False, True])
async def test_what_is_started_again_works_and_has_forgotten_everything(rules, with_rules):
    cache = SharedPromptCache(watch=rules if with_rules else (), watcher=FakeWatcher())
    for number in range(3):
        async with cache:
            assert await cache.get_prompt(KEY) is None
            await cache.set_prompt(KEY, number)
            assert (await cache.get_prompt(KEY)).prompt == number
            with pytest.raises(LookupError):
                await cache.get_or_compute("failing", Counted(LookupError()), cache_errors_for=60)
        stats = cache.get_stats()
        assert (stats.entry_count, stats.memory_usage_mb, len(cache._computations.failures)) == (0, 0, 0)


async def test_it_may_be_started_and_closed_by_any_task(rules):
    cache = SharedPromptCache(watch=rules, watcher=FakeWatcher())
    await asyncio.create_task(cache.__aenter__())
    await asyncio.create_task(cache.set_prompt(KEY, "prompt"))
    assert (await cache.get_prompt(KEY)).prompt == "prompt"
    await asyncio.create_task(cache.__aexit__(None, None, None))
    with pytest.raises(CacheClosedError):
        await cache.get_prompt(KEY)


async def test_an_exception_inside_closes_it_and_comes_out():
    cache = SharedPromptCache()
    with pytest.raises(LookupError):
        async with cache:
            raise LookupError
    with pytest.raises(CacheClosedError):
        await cache.get_prompt(KEY)


async def test_who_waits_is_told_when_it_is_closed():
    cache = SharedPromptCache()
    compute = Counted("never", gate=asyncio.Event())
    callers = [asyncio.create_task(cache.get_or_compute(KEY, compute)) for _ in range(3)]
    await wait_until(lambda: compute.began == 1)
    await cache.aclose()
    for outcome in await asyncio.gather(*callers, return_exceptions=True):
        assert isinstance(outcome, CacheClosedError)
        assert str(outcome) == f"the cache was closed while '{KEY}' was computed; start it again"
    assert compute.cancelled == 1


async def test_a_computation_may_close_the_cache_it_runs_in():
    cache = SharedPromptCache()

    async def compute():
        await cache.aclose()
        return "too late"

    async with asyncio.timeout(10):
        with pytest.raises(CacheClosedError):
            await cache.get_or_compute(KEY, compute)
    await cache.aclose()


async def test_a_close_whose_caller_is_cancelled_is_a_close_all_the_same(rules):
    cache = SharedPromptCache(watch=rules, watcher=FakeWatcher())
    await cache.start()
    closing = asyncio.create_task(cache.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(CacheClosedError):
        await cache.get_prompt(KEY)
    async with cache:
        assert await cache.get_prompt(KEY) is None


async def test_a_start_waits_for_the_close_before_it(rules):
    cache = SharedPromptCache(watch=rules, watcher=FakeWatcher())
    await cache.start()
    closing, starting = asyncio.create_task(cache.aclose()), asyncio.create_task(cache.start())
    await asyncio.gather(closing, starting)
    assert await cache.get_prompt(KEY) is None
    await cache.aclose()


async def test_every_start_returns_only_when_the_watch_is_live(rules):
    watcher = GatedWatcher()
    cache = SharedPromptCache(watch=rules, watcher=watcher)
    first, second = (asyncio.create_task(cache.start()) for _ in range(2))
    await wait_until(lambda: watcher.starts == 1)
    await asyncio.wait([second], timeout=0.005)
    assert not second.done()
    watcher.gate.set()
    await asyncio.gather(first, second)
    assert watcher.watched
    assert watcher.starts == 1
    await cache.aclose()


async def test_a_close_during_the_start_ends_both(rules):
    watcher = GatedWatcher()
    cache = SharedPromptCache(watch=rules, watcher=watcher)
    starting = asyncio.create_task(cache.start())
    await wait_until(lambda: watcher.starts == 1)
    closing = asyncio.create_task(cache.aclose())
    await asyncio.sleep(0)
    watcher.gate.set()
    await closing
    with pytest.raises(CacheClosedError):
        await starting
    with pytest.raises(CacheClosedError):
        await cache.get_prompt(KEY)


async def test_a_start_that_is_cancelled_leaves_a_closed_cache(rules):
    watcher = GatedWatcher()
    cache = SharedPromptCache(watch=rules, watcher=watcher)
    starting = asyncio.create_task(cache.start())
    await wait_until(lambda: watcher.starts == 1)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(CacheClosedError, match="is closed"):
        await cache.get_prompt(KEY)
    watcher.gate.set()
    async with cache:
        assert await cache.get_prompt(KEY) is None


# Loops


def test_nothing_is_bound_before_the_first_await(rules):
    cache = SharedPromptCache(watch=rules, watcher=FakeWatcher())
    cache.get_stats()
    cache.health()
    cache.explain(KEY)
    cache.lock(KEY)
    cache.batch()
    assert cache._life.loop is None

    async def use():
        async with cache:
            await cache.set_prompt(KEY, "prompt")

    asyncio.run(use())
    asyncio.run(use())  # closed, it belongs to nobody again


@verbs
def test_another_loop_is_told_that_the_cache_is_not_its_own(verb):
    cache = SharedPromptCache(name="prompts")
    caught = []

    async def intrude():
        with pytest.raises(WrongLoopError, match=r"'prompts' belongs to another event loop; .* or cache\.blocking"):
            await VERBS[verb](cache)
        with pytest.raises(WrongLoopError):
            await cache.start()
        with pytest.raises(WrongLoopError):
            await cache.aclose()
        caught.append(True)

    async def own():
        await cache.set_prompt("another", "prompt")
        thread = threading.Thread(target=lambda: asyncio.run(intrude()))
        thread.start()
        while thread.is_alive():  # noqa: ASYNC110 - threads tell nobody of their end
            await asyncio.sleep(0.001)
        await cache.aclose()

    asyncio.run(own())
    assert caught == [True]


# Arguments


WRONG = [
    ({"max_size": 0}, "max_size is 0; expected a whole number of 1 or more"),
    ({"max_size": 2.5}, "max_size is 2.5; expected a whole number"),
    ({"max_size": True}, "max_size is True; expected a whole number"),
    ({"ttl_seconds": 0}, "ttl_seconds is 0; it must be more than 0 seconds; give seconds or a timedelta"),
    ({"ttl_seconds": -1}, "ttl_seconds is -1; it must be more than 0"),
    ({"ttl_seconds": math.nan}, "ttl_seconds is nan"),
    ({"ttl_seconds": "3600"}, "ttl_seconds is '3600', which is no span of time; give seconds"),
    ({"max_memory_mb": 0}, "max_memory_mb is 0; expected a number of megabytes above 0"),
    ({"max_memory_mb": math.inf}, "max_memory_mb is inf; expected"),
    ({"eviction_policy": "lur"}, "eviction_policy is 'lur'; did you mean lru?"),
    ({"eviction_policy": "sieve"}, "eviction_policy is 'sieve', which is not available; available: lru"),
    ({"freshness": "strikt"}, "freshness is 'strikt'; did you mean strict?"),
    ({"watcher": "inotify"}, "watcher is 'inotify'; known are auto, watchfiles, polling"),
    ({"name": ""}, "name is ''; expected a text of 1 to 200 characters"),
    ({"name": None}, "name is None; expected a text"),
    ({"watch": ["memories"]}, "watch"),
    ({"watch": 5}, "watch"),
    ({"clock": 5}, "clock is 5; give one such as testing.ManualClock"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_an_argument_that_cannot_be_used_is_named_with_the_way_out(arguments, said):
    with pytest.raises(ConfigError, match=said) as caught:
        SharedPromptCache(**arguments)
    (field,) = arguments
    assert caught.value.field.partition("[")[0] == field


async def test_the_two_arguments_of_the_original_come_first(open_cache):
    clock = ManualClock()
    cache = await open_cache(2, timedelta(seconds=5), clock=clock)
    for key in "abc":
        await cache.set_prompt(key, key)
    assert set(await cache.get_many(list("abc"))) == {"b", "c"}
    clock.advance(5)
    assert await cache.get_many(list("abc")) == {}
