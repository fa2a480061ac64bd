"""What holds for every test: no blocking call of the package on a loop, and nothing is left behind."""

import asyncio
import gc
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster
from hypothesis import settings

import shared_prompt_cache
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.stores._secret import VARIABLE
from shared_prompt_cache.testing import wait_until

PACKAGE = str(Path(shared_prompt_cache.__file__).parent)
TESTS = str(Path(__file__).parent)
DESCRIPTORS = Path("/proc/self/fd")
PATIENCE = 2.0

Open = Callable[..., Awaitable[SharedPromptCache]]

settings.register_profile("project", deadline=None)  # how long an example takes says nothing on a busy machine
settings.load_profile("project")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what it runs in the background like that
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_the_tests(*_: Any, **__: Any) -> bool:
    """Say whether a blocking call was made by a test, or by something else that the package has not called."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            return False
        if name.startswith(TESTS):
            return True
        frame = frame.f_back
    return True


@pytest.fixture(autouse=True, scope="session")
def _nothing_of_the_package_blocks_a_loop() -> Iterator[None]:
    blockbuster = BlockBuster(PACKAGE.rpartition("/")[2])
    for function in blockbuster.functions.values():
        allowed = function.can_block_predicate
        function.can_block_predicate = lambda *args, _allowed=allowed, **options: (
            _is_the_tests() or _allowed(*args, **options)
        )
    # A path is made absolute without a look at the file system, but for the name of the working directory.
    blockbuster.functions["os.path.abspath"].can_block_predicate = lambda *_, **__: True
    blockbuster.functions["os.getcwd"].can_block_predicate = lambda *_, **__: True
    # At the exit of the interpreter nobody waits for a loop any more.
    blockbuster.functions["threading.Lock.acquire"].can_block_in("watchers/_worker.py", "_end_all")
    # The measurement of coverage takes a lock of its own, in whatever code it measures.
    blockbuster.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
    blockbuster.activate()
    yield
    blockbuster.deactivate()


@pytest.fixture(autouse=True, scope="session")
def _no_key_file_of_the_user_is_read() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "a secret of the tests alone")
        yield


def pytest_collection_finish() -> None:
    """Let the collections of garbage that tests ask for pass over what was there before them."""
    gc.collect()
    gc.freeze()


def _descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.is_dir() else 0


@pytest.fixture(autouse=True)
def _no_thread_and_no_descriptor_is_left() -> Iterator[None]:
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    until = time.monotonic() + PATIENCE
    while True:
        left = [thread for thread in threading.enumerate() if thread not in threads]
        more = _descriptors() - descriptors
        if (not left and more <= 0) or time.monotonic() > until:
            break
        gc.collect()
        time.sleep(0.01)
    assert not left, f"these threads are left: {left}"
    assert more <= 0, f"{more} file descriptors are left"


@pytest.fixture
async def _loop_without_tasks() -> AsyncIterator[None]:
    yield
    own = asyncio.current_task()
    await wait_until(
        lambda: asyncio.all_tasks() <= {own}, timeout=PATIENCE, what=f"no task is left of {asyncio.all_tasks()}"
    )


@pytest.fixture(autouse=True)
def _no_task_is_left(request: pytest.FixtureRequest, _no_thread_and_no_descriptor_is_left: None) -> None:
    if request.node.get_closest_marker("asyncio") is not None:
        request.getfixturevalue("_loop_without_tasks")


@pytest.fixture
async def open_cache() -> AsyncIterator[Open]:
    """Open caches with the arguments of `SharedPromptCache`; at the end they are closed and must have kept nothing."""
    async with AsyncExitStack() as stack:
        caches = []

        async def opened(*args: Any, **options: Any) -> SharedPromptCache:
            cache = await stack.enter_async_context(SharedPromptCache(*args, **options))
            caches.append(cache)
            return cache

        yield opened
    for cache in caches:
        assert not cache._flights.running, f"flights are left: {list(cache._flights.running)}"
        assert not cache._flights.table, f"places are taken: {list(cache._flights.table)}"


@pytest.fixture
async def cache(open_cache: Open) -> SharedPromptCache:
    """Return an open cache with default settings."""
    return await open_cache()
