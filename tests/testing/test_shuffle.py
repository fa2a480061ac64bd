"""The shuffling loop finds what depends on the order of tasks, repeatably, and in no time."""

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial

import pytest

from shared_prompt_cache.testing import ShuffleLoop

SEEDS = range(2_000 if os.environ.get("STRESS") else 200)


def run(main, seed=0, **options):
    with asyncio.Runner(loop_factory=partial(ShuffleLoop, seed, **options)) as runner:
        return runner.run(main)


class Counter:
    """Loses an update if another task comes between its two halves."""

    def __init__(self):
        self.value = 0

    async def add(self, pause):
        await asyncio.sleep(0)
        value = self.value
        if pause:
            await asyncio.sleep(0)
        self.value = value + 1


async def count(*, pause):
    counter = Counter()
    await asyncio.gather(counter.add(pause), counter.add(pause))
    return counter.value


def test_a_planted_lost_update_is_found():
    results = {run(count(pause=True), seed) for seed in SEEDS}
    assert results == {1, 2}
    assert {run(count(pause=False), seed) for seed in SEEDS} == {2}


async def late_write(stored):
    """Store after invalidate: right in the order in which asyncio runs it, wrong in others."""
    valid = True

    async def compute():
        for _ in range(3):
            await asyncio.sleep(0)
        if valid:
            await asyncio.sleep(0)
            stored.append("old")

    async def invalidate():
        nonlocal valid
        for _ in range(2):
            await asyncio.sleep(0)
        valid = False
        stored.clear()

    await asyncio.gather(invalidate(), compute())
    return stored


def test_it_finds_a_bug_that_the_usual_loop_never_shows():
    assert all(asyncio.run(late_write([])) == [] for _ in range(20))
    assert ["old"] in [run(late_write([]), seed) for seed in SEEDS]


async def order_of(count, steps):
    seen = []

    async def walk(name):
        for step in range(steps):
            seen.append((name, step))
            await asyncio.sleep(0)

    await asyncio.gather(*(walk(name) for name in range(count)))
    return seen


def test_the_same_seed_gives_the_same_order():
    assert run(order_of(5, 5), 7) == run(order_of(5, 5), 7)
    assert len({tuple(run(order_of(5, 5), seed)) for seed in range(20)}) == 20


def test_a_task_may_run_ahead_of_another():
    orders = [run(order_of(2, 3), seed) for seed in SEEDS]
    assert len({tuple(order) for order in orders}) == 20  # all that there are: 6 over 3


def test_plain_callbacks_keep_their_order():
    async def main():
        seen = []
        loop = asyncio.get_running_loop()
        for number in range(50):
            loop.call_soon(seen.append, number)
        await asyncio.sleep(1)
        return seen

    assert all(run(main(), seed) == list(range(50)) for seed in range(20))


def test_an_hour_takes_no_time():
    async def main():
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(7200))
        return loop.time() - began

    began = time.monotonic()
    assert run(main()) == 7200
    assert time.monotonic() - began < 5


def test_time_goes_on_after_a_thousand_years():
    async def main():
        await asyncio.sleep(1000 * 365 * 86400.0)
        await asyncio.sleep(0.1)
        return "there"

    assert run(main()) == "there"


def test_timers_fire_in_their_order_and_a_cancelled_one_moves_nothing():
    async def main():
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(3600):
            await asyncio.sleep(1)
        await asyncio.wait_for(asyncio.sleep(2), 50)
        assert loop.time() == 3
        seen = []
        for delay in (3, 1, 2):
            loop.call_later(delay, seen.append, delay)
        await asyncio.sleep(5)
        return seen

    assert run(main()) == [1, 2, 3]


def test_a_timeout_ends_what_never_comes():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1000):
                await asyncio.Event().wait()

    run(main())


def test_a_thread_is_waited_for_and_no_timeout_fires_meanwhile():
    """Seen to fail with a loop that jumps to the next timer while a thread works."""

    async def main():
        async with asyncio.timeout(5):
            return await asyncio.to_thread(lambda: time.sleep(0.05) or "from a thread")

    assert all(run(main(), seed) == "from a thread" for seed in range(3))


def test_a_thread_that_waits_for_a_timer_of_the_loop_gets_it():
    async def main():
        loop = asyncio.get_running_loop()
        gate = threading.Event()
        loop.call_later(0.02, gate.set)
        assert await loop.run_in_executor(None, gate.wait, 10)

    run(main())


def test_an_own_executor_and_a_failure_in_it():
    async def main():
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(executor, lambda: 1 / 0)
            began = loop.time()
            await asyncio.sleep(1000)  # the count is back at nothing: time jumps again
            return loop.time() - began

    assert run(main()) == 1000


def test_grace_lets_a_thread_of_somebody_else_answer():
    async def main():
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        thread = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(answer.set_result, "answer"))
        thread.start()
        try:
            async with asyncio.timeout(5):
                return await answer
        finally:
            thread.join()

    assert run(main(), grace=5.0) == "answer"
    with pytest.raises(TimeoutError):
        run(main())


def test_sockets_work():
    async def main():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
        return line

    assert all(run(main(), seed) == b"hello\n" for seed in range(20))


def test_debug_mode_works():
    async def main():
        asyncio.get_running_loop().set_debug(True)
        return await count(pause=True)

    assert run(main()) in {1, 2}


def test_it_plugs_into_pytest_asyncio(tmp_path):
    """As its docstring says: by the hook, and by the mark that selects."""
    (tmp_path / "conftest.py").write_text(
        textwrap.dedent("""
        from functools import partial
        from shared_prompt_cache.testing import ShuffleLoop

        def pytest_asyncio_loop_factories(config, item):
            return {f"shuffled-{seed}": partial(ShuffleLoop, seed) for seed in range(20)}
        """)
    )
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
        import asyncio
        import pytest
        from shared_prompt_cache.testing import ShuffleLoop

        @pytest.mark.asyncio
        async def test_all():
            await asyncio.sleep(3600)
            assert isinstance(asyncio.get_running_loop(), ShuffleLoop)

        @pytest.mark.asyncio(loop_factories=["shuffled-3"])
        async def test_one():
            assert asyncio.get_running_loop().seed == 3
        """)
    )
    scope = "asyncio_default_fixture_loop_scope=function"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "-o", scope, "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "21 passed" in done.stdout, done.stdout + done.stderr
