"""Threads and processes for tests: a loop in a thread, many callers at once, a script of its own."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.testing import wait_until

PATIENCE = 60.0
"""Seconds after which a thread or a process counts as hanging."""

Run = Callable[[Awaitable[Any]], Any]


@contextmanager
def loop_in_a_thread() -> Iterator[Run]:
    """Run an event loop, as an async program does, in a thread; give a function that awaits something there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="the program", daemon=True)
    thread.start()

    async def awaited(awaitable: Awaitable[Any]) -> Any:
        return await awaitable

    try:
        yield lambda awaitable: asyncio.run_coroutine_threadsafe(awaited(awaitable), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


FACES = ("a script", "a worker thread")


@contextmanager
def opened(where: str, **options: Any) -> Iterator[SharedPromptCache]:
    """Open a cache for this thread: on a thread of its own, or on the loop of a program of which this is a worker."""
    cache = SharedPromptCache(**options)
    if where == "a script":
        with cache.blocking:
            yield cache
        return
    with loop_in_a_thread() as run:
        run(cache.start())
        yield cache
        run(cache.aclose())


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Call each function in a thread of its own, all at the same moment; return what they return or raise."""
    start = threading.Barrier(len(functions))

    def outcome(function: Callable[[], Any]) -> Any:
        start.wait(PATIENCE)
        try:
            return function()
        except BaseException as error:  # noqa: BLE001 - it is an outcome like any other
            return error

    with ThreadPoolExecutor(len(functions)) as threads:
        return [future.result(PATIENCE) for future in [threads.submit(outcome, function) for function in functions]]


def until(predicate: Callable[[], object]) -> None:
    """Wait in a plain thread until `predicate()` is true."""
    asyncio.run(wait_until(predicate, timeout=PATIENCE))


def run_script(text: str, *arguments: object, warnings: str = "error") -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, with warnings as errors."""
    command = [sys.executable, "-W", warnings, "-c", textwrap.dedent(text), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
