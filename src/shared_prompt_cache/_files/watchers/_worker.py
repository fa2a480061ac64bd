"""A thread that serves one owner on one event loop, and outlives neither.

It is a daemon and watches its own leash: it ends when it is told to, when its loop is closed, when its owner has been
collected, and before the interpreter is finalized. A daemon thread that comes back from native code into a finalized
interpreter is killed on the spot, inside frames of another language; hence the interpreter waits for it here.
"""

import asyncio
import atexit
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import cycle, islice
from typing import Any, Protocol, TypeVar

from shared_prompt_cache._files.watchers import Sink

T = TypeVar("T")

SLICE = 2_000
"""How many paths a sink is handed at once: more would hold the loop."""

_PATIENCE_AT_EXIT = 0.5

_running: "set[Worker]" = set()


class Owner(Protocol):
    """What a worker works for."""

    @property
    def sink(self) -> Sink | None:
        """Who is told; None once the owner is closed."""
        ...


class Worker:
    """A thread on a leash, made on the thread of the loop."""

    def __init__(self, owner: object) -> None:
        self._owner = weakref.ref(owner)
        self._loop = weakref.ref(asyncio.get_running_loop())
        self.told_to_end: list[bool] = []  # true once there is something in it; see `StopEvent`
        self._thread: threading.Thread | None = None

    def start(self, name: str, target: Callable[[], None]) -> None:
        """Start the thread; `target` returns soon after `over()` turned true."""
        thread = threading.Thread(target=self._run, args=(target,), name=f"shared-prompt-cache {name}", daemon=True)
        _running.add(self)
        try:
            thread.start()
        except BaseException:
            _running.discard(self)
            raise
        self._thread = thread

    def _run(self, target: Callable[[], None]) -> None:
        try:
            target()
        finally:
            _running.discard(self)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def end(self) -> None:
        """Ask the thread to end."""
        self.told_to_end.append(True)

    def over(self) -> bool:
        """Whether the thread has to end: it was told to, or nobody is left whom it could serve."""
        if self.told_to_end:
            return True
        loop = self._loop()
        return loop is None or loop.is_closed() or self._owner() is None

    def post(self, callback: Callable[..., object], *args: object) -> None:
        """Have `callback(owner, *args)` called on the loop; without owner or loop nothing happens."""
        owner, loop = self._owner(), self._loop()
        if owner is None or loop is None:
            return
        try:
            loop.call_soon_threadsafe(callback, owner, *args)
        except RuntimeError:  # the loop is closed
            self.told_to_end.append(True)

    async def join(self) -> None:
        """Wait until the thread is gone.

        A look each millisecond, since the last thing a thread could signal it would signal while it still runs.
        """
        while self.alive:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.001)

    def wait(self, timeout: float) -> None:
        """Wait in the calling thread until the thread is gone, for `timeout` seconds at most."""
        if self._thread is not None:
            self._thread.join(timeout)


class StopEvent:
    """What a worker shows native code that asks, at each of its steps, whether it has to stop.

    It is asked hundreds of times a second for as long as the process lives. So most answers are the worker's list
    itself, empty until it is told to end, which costs no Python code; the whole question is put at one in `every`.
    """

    def __init__(self, worker: Worker, *, every: int) -> None:
        self._answers = cycle([worker.told_to_end] * (every - 1) + [_Over(worker)])
        self.is_set: Callable[[], bool] = self._answers.__next__  # type: ignore[assignment] # true or false they are


class _Over:
    __slots__ = ("_worker",)

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __bool__(self) -> bool:
        return self._worker.over()


async def run_in_thread(owner: object, function: Callable[..., T], /, *args: object) -> T:
    """Run `function` in a thread that is gone when this returns; cancelling waits for it, so let it be quick."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    worker = Worker(owner)

    def run() -> None:
        try:
            result = function(*args)
        except Exception as error:  # noqa: BLE001 - the one who awaits gets it
            worker.post(settle, future, None, error)
        else:
            worker.post(settle, future, result, None)

    worker.start("errand", run)
    try:
        return await future
    finally:
        await worker.join()


def settle(_owner: object, future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    """Give a future its outcome, unless nobody waits for it any more."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def in_slices(paths: Iterable[str]) -> list[Collection[str]]:
    """The paths in portions that a sink can be handed at once."""
    rest = iter(paths)
    slices: list[Collection[str]] = []
    while portion := list(islice(rest, SLICE)):
        slices.append(portion)
    return slices


def hand_over(owner: Owner, slices: Sequence[Collection[str]], position: int = 0) -> None:
    """Give the sink one slice, and the next one after the loop has run what else was ready."""
    if owner.sink is None or position >= len(slices):
        return
    owner.sink.changed(slices[position])
    if position + 1 < len(slices):
        asyncio.get_running_loop().call_soon(hand_over, owner, slices, position + 1)


@atexit.register
def _end_all() -> None:
    workers = list(_running)
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.wait(_PATIENCE_AT_EXIT)
