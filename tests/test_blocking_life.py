"""The life of the thread that may stand behind `cache.blocking`, closed from either side or forgotten.

Seen to fail on planted bugs: a face for each thread that asks first; a start that does not wait until a closing is
over; an interrupted start that leaves its thread; a cache that is kept alive by what it watches; a closing from another
loop that is given up when its caller is cancelled.
"""

import asyncio
import gc
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from _support import replace
from _threads import PATIENCE, at_once, loop_in_a_thread, until
from shared_prompt_cache import CacheClosedError, SharedPromptCache, WatchRule
from shared_prompt_cache._blocking import BlockingCache
from shared_prompt_cache.testing import FakeWatcher, wait_until


def own_threads():
    """Return the threads with an event loop that caches keep for themselves."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("shared-prompt-cache-")]


class Stubborn:
    """An async computation that takes its time to end when it is cancelled."""

    def __init__(self):
        self.began, self.cancelled, self.gate = threading.Event(), threading.Event(), threading.Event()

    async def __call__(self):
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
            await wait_until(self.gate.is_set, timeout=PATIENCE)


def test_without_rules_no_start_is_needed():
    cache = SharedPromptCache(name="plain")
    cache.blocking.set_prompt("a", 1)
    assert [thread.name for thread in own_threads()] == ["shared-prompt-cache-plain"]
    assert cache.blocking.get_prompt("a").prompt == 1
    cache.blocking.close()
    assert own_threads() == []


def test_with_rules_it_has_to_be_started_and_watches(tmp_path):
    memory = tmp_path / "qa.md"
    memory.write_text("- test first\n")
    cache = SharedPromptCache(watch=[WatchRule(tmp_path, "{agent}.md", "agent")])
    with pytest.raises(CacheClosedError, match=r"not started; use it inside `with cache\.blocking:`"):
        cache.blocking.get_prompt("a")
    assert own_threads() == []
    with cache.blocking as face:
        assert face is cache.blocking
        face.start()
        face.set_prompt("a", 1, agent="qa")
        face.set_prompt("b", 2, agent="pm")
        replace(memory, "- test last\n")
        face.sync()
        assert list(face.get_many(["a", "b"])) == ["b"]
        assert face.explain("a").invalidation.name == "qa"


def test_after_the_end_it_says_so_and_may_be_started_again():
    cache = SharedPromptCache()
    cache.blocking.close()
    for _ in range(2):
        with cache.blocking as face:
            assert face.get_or_compute("a", lambda: 1) == 1
        with pytest.raises(CacheClosedError, match=r"is closed; use it inside `with cache\.blocking:`"):
            face.get_prompt("a")
        face.close()
        assert face.get_stats().entry_count == 0
        assert face.explain("a").state != "cached"
        assert face.health().status == "ok"


def test_an_interrupted_start_leaves_no_thread_and_may_be_tried_again(tmp_path):
    class Slow(FakeWatcher):
        slow = True

        async def start(self, sink):
            await super().start(sink)
            if self.slow:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                await asyncio.Event().wait()

    watcher = Slow()
    cache = SharedPromptCache(watch=[WatchRule(tmp_path, "*.md", "all")], watcher=watcher)
    with pytest.raises(KeyboardInterrupt):
        cache.blocking.start()
    assert own_threads() == []
    watcher.slow = False
    with cache.blocking as face:
        assert face.get_or_compute("a", lambda: 1) == 1


def test_what_async_code_has_opened_it_leaves_open():
    cache = SharedPromptCache()
    with loop_in_a_thread() as run:
        run(cache.start())
        with cache.blocking as face:
            face.set_prompt("a", 1)
        assert run(cache.get_prompt("a")).prompt == 1
        run(cache.aclose())


def test_async_code_may_close_what_a_script_has_opened():
    cache = SharedPromptCache()
    cache.blocking.set_prompt("a", 1)

    def compute():
        asyncio.run(cache.aclose())
        return 2

    with pytest.raises(CacheClosedError, match="was closed while 'b' was computed"):
        cache.blocking.get_or_compute("b", compute)
    assert own_threads() == []
    with pytest.raises(CacheClosedError):
        cache.blocking.get_prompt("a")
    asyncio.run(cache.aclose())


def test_cancelled_meanwhile_such_a_closing_goes_on():
    cache = SharedPromptCache()
    compute = Stubborn()

    async def close():
        closing = asyncio.create_task(cache.aclose())
        await wait_until(compute.cancelled.is_set)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()

    cache.blocking.set_prompt("a", 1)
    waiting = asyncio.run_coroutine_threadsafe(cache.get_or_compute("b", compute), cache._life.loop)
    until(compute.began.is_set)
    asyncio.run(close())
    compute.gate.set()
    until(lambda: not own_threads())
    assert isinstance(waiting.exception(PATIENCE), CacheClosedError)
    assert cache._life.state == "closed"


def test_a_thread_that_the_cache_does_not_live_on_ends_with_it():
    cache = SharedPromptCache()
    assert cache.blocking.get_many([]) == {}
    assert len(own_threads()) == 1

    async def use():
        async with cache:
            await cache.set_prompt("a", 1)
            assert (await asyncio.to_thread(cache.blocking.get_prompt, "a")).prompt == 1

    asyncio.run(use())
    assert own_threads() == []
    assert cache._life.state == "closed"


def test_it_may_be_closed_by_a_computation_and_by_a_callback():
    cache = SharedPromptCache()
    with pytest.raises(CacheClosedError):
        cache.blocking.get_or_compute("a", cache.blocking.close)
    assert own_threads() == []
    with cache.blocking as face:
        closed = threading.Event()

        async def close(_):
            await cache.aclose()
            closed.set()

        cache.events.listen(close)
        face.invalidate("a")
        assert closed.wait(PATIENCE)
        with pytest.raises(CacheClosedError):
            face.get_prompt("a")


def test_closing_ends_the_waiting_of_other_threads():
    cache = SharedPromptCache()
    computing = threading.Event()

    def compute():
        computing.set()
        until(lambda: cache._life.state == "closed")
        return "too late"

    with ThreadPoolExecutor() as threads:
        first = threads.submit(cache.blocking.get_or_compute, "a", compute)
        assert computing.wait(PATIENCE)
        second = threads.submit(cache.blocking.get_or_compute, "a", compute)
        until(lambda: cache.get_stats().shared_computations == 1)
        cache.blocking.close()
        for call in first, second:
            with pytest.raises(CacheClosedError, match="was closed while 'a' was computed"):
                call.result(PATIENCE)


def test_a_start_waits_until_a_closing_is_over():
    cache, compute = SharedPromptCache(), Stubborn()
    cache.blocking.start()
    asyncio.run_coroutine_threadsafe(cache.get_or_compute("a", compute), cache._life.loop)
    until(compute.began.is_set)
    with ThreadPoolExecutor() as threads:
        closing = threads.submit(cache.blocking.close)
        until(compute.cancelled.is_set)
        starting = threads.submit(cache.blocking.start)
        with pytest.raises(TimeoutError):
            starting.result(0.05)
        compute.gate.set()
        closing.result(PATIENCE)
        starting.result(PATIENCE)
    assert cache.blocking.get_or_compute("a", lambda: 1) == 1
    cache.blocking.close()


def test_a_start_while_the_loop_of_a_program_closes_it_is_refused():
    cache, compute = SharedPromptCache(), Stubborn()
    with loop_in_a_thread() as run:
        run(cache.start())
        asyncio.run_coroutine_threadsafe(cache.get_or_compute("a", compute), cache._life.loop)
        until(compute.began.is_set)
        closing = asyncio.run_coroutine_threadsafe(cache.aclose(), cache._life.loop)
        until(compute.cancelled.is_set)
        with pytest.raises(CacheClosedError, match="is being closed; start it when that is over"):
            cache.blocking.start()
        with pytest.raises(CacheClosedError, match="is closed"):
            cache.blocking.get_prompt("a")
        compute.gate.set()
        closing.result(PATIENCE)
    with cache.blocking as face:
        face.set_prompt("a", 1)


def test_all_threads_that_come_first_get_the_same_face(monkeypatch):
    both = threading.Barrier(2)

    class Slow(BlockingCache):
        def __init__(self, cache):
            both.wait(PATIENCE)
            super().__init__(cache)

    monkeypatch.setattr("shared_prompt_cache._blocking.BlockingCache", Slow)
    cache = SharedPromptCache()
    one, two = at_once(*[lambda: cache.blocking] * 2)
    assert one is two is cache.blocking


@pytest.mark.parametrize("watching", [False, True])
def test_a_cache_that_is_forgotten_unclosed_takes_its_thread_along(tmp_path, watching):
    cache = SharedPromptCache(watch=[WatchRule(tmp_path, "*.md", "all")] if watching else ())
    cache.blocking.start()
    assert cache.blocking.get_or_compute("a", lambda: 1) == 1
    assert len(own_threads()) == 1
    del cache
    gc.collect()
    until(lambda: not own_threads())


def test_a_thread_that_cannot_be_had_is_an_error_and_may_be_had_later(monkeypatch):
    cache = SharedPromptCache()
    with monkeypatch.context() as patched:
        patched.setattr("asyncio.events.new_event_loop", Mock(side_effect=OSError("too many open files")))
        with pytest.raises(OSError, match="too many open files"):
            cache.blocking.get_prompt("a")
    gc.collect()  # a coroutine that nobody awaits would complain
    assert own_threads() == []
    with cache.blocking as face:
        assert face.get_prompt("a") is None


def test_the_end_of_its_thread_by_force_is_told_and_it_may_still_be_closed(monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    cache = SharedPromptCache()
    face = cache.blocking
    face.set_prompt("a", 1)
    thread = own_threads()[0]
    cache._life.loop.call_soon_threadsafe(sys.exit)
    thread.join(PATIENCE)
    with pytest.raises(CacheClosedError, match="the event loop of the cache has ended"):
        face.get_prompt("a")
    with pytest.raises(CacheClosedError, match="the event loop of the cache has ended"):
        face.close()
    face.close()
