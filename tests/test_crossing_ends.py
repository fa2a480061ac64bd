"""What becomes of a call whose thread is interrupted, or whose event loop ends: an error of ours, never a standstill.

Seen to fail on planted bugs: an interrupted caller whose work, taken or not, is lost to those who wait for it; a thread
that waits for a loop without looking whether it runs; the error of a closed loop that comes through as it is.
"""

import asyncio
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context

import pytest

from _threads import PATIENCE, loop_in_a_thread, until
from shared_prompt_cache import CacheClosedError, ComputeCancelled, SharedPromptCache, _crossing
from shared_prompt_cache._crossing import Call, Work
from shared_prompt_cache.testing import wait_until


@pytest.fixture
def cache():
    cache = SharedPromptCache()
    with cache.blocking:
        yield cache


@pytest.fixture
def threads():
    with ThreadPoolExecutor() as threads:
        yield threads


def joined(cache):
    """Wait until somebody has joined a computation."""
    until(lambda: cache.get_stats().shared_computations == 1)


def interrupted_in(step, when, call):
    """Call, and interrupt the calling thread once in the function called `step`, when `when(frame)` has returned."""

    def look(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_name == step and code.co_filename == _crossing.__file__:
            sys.settrace(None)
            when(frame)
            raise KeyboardInterrupt

    sys.settrace(look)
    try:
        return call()
    finally:
        sys.settrace(None)


# The thread.


def test_ctrl_c_ends_the_waiting_of_the_main_thread_and_nothing_else(cache, threads):
    gate = threading.Event()

    def compute():
        joined(cache)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert gate.wait(PATIENCE)
        return "prompt"

    computing = threads.submit(cache.blocking.get_or_compute, "key", compute)
    until(lambda: cache.get_stats().computations == 1)
    with pytest.raises(KeyboardInterrupt):
        cache.blocking.get_or_compute("key", compute)
    gate.set()
    assert computing.result(PATIENCE) == "prompt"
    assert cache.blocking.get_or_compute("key", compute) == "prompt"


def test_interrupted_while_it_computes_a_thread_tells_those_who_wait(cache, threads):
    def compute():
        waiting.append(threads.submit(cache.blocking.get_or_compute, "key", lambda: "never"))
        joined(cache)
        raise KeyboardInterrupt

    waiting: list[Future[str]] = []
    with pytest.raises(KeyboardInterrupt):
        cache.blocking.get_or_compute("key", compute)
    with pytest.raises(ComputeCancelled, match="the thread that computed 'key' was interrupted by KeyboardInterrupt"):
        waiting[0].result(PATIENCE)
    assert cache.blocking.get_or_compute("key", lambda: "afresh") == "afresh"


def test_interrupted_before_it_computes_a_thread_passes_the_work_on(cache, threads):
    def when(frame):
        until(lambda: not frame.f_locals["self"]._inbox.empty())
        waiting.append(threads.submit(cache.blocking.get_or_compute, "key", lambda: "never"))
        joined(cache)

    waiting: list[Future[str]] = []
    computing = []

    def compute():
        computing.append(threading.current_thread())
        return "prompt"

    def call():
        with suppress(KeyboardInterrupt):
            interrupted_in("_next", when, lambda: cache.blocking.get_or_compute("key", compute))

    threads.submit(call).result(PATIENCE)
    assert waiting[0].result(PATIENCE) == "prompt"
    assert computing[0].name == "shared-prompt-cache-compute"


def test_interrupted_with_the_work_in_hand_a_thread_tells_those_who_wait(cache, threads):
    def when(_):
        waiting.append(threads.submit(cache.blocking.get_or_compute, "key", lambda: "never"))
        joined(cache)

    waiting: list[Future[str]] = []

    def call():
        with suppress(KeyboardInterrupt):
            interrupted_in("__call__", when, lambda: cache.blocking.get_or_compute("key", lambda: "never"))

    threads.submit(call).result(PATIENCE)
    with pytest.raises(ComputeCancelled, match="the thread that computed 'key' was interrupted"):
        waiting[0].result(PATIENCE)


def test_the_last_who_waits_takes_the_computation_along(cache, threads):
    """Nobody is left to take the value: what was not begun is not begun at all."""
    began = []

    def call():
        with suppress(KeyboardInterrupt):
            interrupted_in("_next", lambda _: None, lambda: cache.blocking.get_or_compute("key", began.append))

    threads.submit(call).result(PATIENCE)
    until(lambda: not cache._flights.running)
    assert cache.blocking.get_prompt("key") is None


def test_work_of_a_flight_that_was_cancelled_meanwhile_is_not_begun():
    posted: Future[tuple[object, Exception | None]] = Future()
    began = []
    work = Work(posted, copy_context(), lambda: began.append(1), "key")
    posted.cancel()
    work()
    work.drop("interrupted")
    assert began == []


# The loop.


def test_a_cache_whose_loop_has_ended_says_so():
    cache = SharedPromptCache()
    asyncio.run(cache.set_prompt("a", 1))
    for call in (
        lambda: cache.blocking.get_prompt("a"),
        lambda: cache.blocking.get_or_compute("a", lambda: 1),
        cache.blocking.get_stats,
        cache.blocking.start,
    ):
        with pytest.raises(CacheClosedError, match="has ended; close the cache before its loop ends, or make a new"):
            call()
    cache.blocking.close()


def test_a_cache_whose_loop_stands_still_says_so():
    cache = SharedPromptCache()
    with asyncio.Runner() as runner:
        runner.run(cache.set_prompt("a", 1))
        with pytest.raises(CacheClosedError, match="does not run any more"):
            cache.blocking.get_prompt("a")
        runner.run(cache.aclose())


def test_a_loop_that_ends_while_a_thread_waits_is_told(threads):
    """`asyncio.run` cancels what is left when its program is over, the calls of threads among it."""
    cache = SharedPromptCache()
    began = asyncio.Event()

    async def forever():
        began.set()
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(cache.get_or_compute("key", forever))
        await began.wait()
        waiting.append(threads.submit(cache.blocking.get_or_compute, "key", lambda: "never"))
        await wait_until(lambda: cache.get_stats().shared_computations == 1)
        return task

    waiting: list[Future[str]] = []
    asyncio.run(main())
    with pytest.raises(CacheClosedError, match="the event loop of the cache"):
        waiting[0].result(PATIENCE)


def test_a_loop_that_ends_while_a_thread_computes_for_it_is_told(threads):
    cache = SharedPromptCache()
    computing, gate = threading.Event(), threading.Event()

    def compute():
        computing.set()
        assert gate.wait(PATIENCE)
        return "too late"

    async def main():
        await cache.set_prompt("another", 1)
        call = threads.submit(cache.blocking.get_or_compute, "key", compute)
        await asyncio.to_thread(computing.wait, PATIENCE)
        return call

    call = asyncio.run(main())
    gate.set()
    with pytest.raises(CacheClosedError, match="the event loop of the cache"):
        call.result(PATIENCE)


def test_a_loop_that_stops_without_a_word_is_noticed(threads, monkeypatch):
    monkeypatch.setattr(_crossing, "_LOOK", 0.01)
    cache = SharedPromptCache()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(cache.set_prompt("a", 1))

    async def begin():
        call = threads.submit(cache.blocking.get_or_compute, "key", lambda: gate.wait(PATIENCE))
        await wait_until(lambda: cache.get_stats().computations == 1)
        return call

    gate = threading.Event()
    call = loop.run_until_complete(begin())
    gate.set()
    with pytest.raises(CacheClosedError, match="does not run any more"):
        call.result(PATIENCE)
    loop.run_until_complete(cache.aclose())
    loop.close()


def test_a_loop_that_only_pauses_is_waited_for(threads, monkeypatch):
    """One look in vain is none: programs run their loop piece by piece."""
    monkeypatch.setattr(_crossing, "_LOOK", 0.01)

    looks = [False, True, False, True]
    with loop_in_a_thread() as run:
        loop = run(running_loop())
        over = asyncio.Event()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "is_running", lambda: looks.pop(0) if looks else True)
            answer = threads.submit(Call[bool](loop).result, over.wait)
            until(lambda: not looks)
            loop.call_soon_threadsafe(over.set)
            assert answer.result(PATIENCE) is True


def test_a_loop_that_is_closed_between_a_look_and_the_call_is_told():
    with loop_in_a_thread() as run:
        loop = run(running_loop())

    with pytest.raises(CacheClosedError, match="the event loop of the cache has ended"):
        Call[None](loop).result(running_loop)


async def running_loop():
    return asyncio.get_running_loop()
