"""An event loop that tries other orders than the usual one, on virtual time."""

import asyncio
import math
import random
import selectors
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_RESOLUTION: Final = 1e-9


class ShuffleLoop(asyncio.SelectorEventLoop):
    """An event loop that runs what is ready in a random order, repeatable by its seed, and never sleeps.

    A test on the usual event loop tries one schedule of its tasks. On this one every seed is another schedule, so a
    few thousand seeds find the one in which an update is lost:

    ```python
    for seed in range(2_000):
        with asyncio.Runner(loop_factory=partial(ShuffleLoop, seed)) as runner:
            runner.run(scenario())
    ```

    With pytest-asyncio 1.4 or newer, name the loops in the hook `pytest_asyncio_loop_factories` of a `conftest.py`;
    every asynchronous test then runs once on each of them, or on those that
    `@pytest.mark.asyncio(loop_factories=["shuffled-0"])` selects:

    ```python
    def pytest_asyncio_loop_factories(config, item):
        return {f"shuffled-{seed}": partial(ShuffleLoop, seed) for seed in range(20)}
    ```

    **Order.** Of all that is ready, one is drawn at random each time. Only steps of tasks change places; plain
    callbacks (`call_soon`, `call_soon_threadsafe`, callbacks of futures) keep the order among themselves which
    asyncio promises them. The same seed gives the same order, as long as no thread or socket has a say in it.

    **Time.** `loop.time()` begins at 0 and stands still while anything is ready. When nothing is, it jumps to the next
    timer: an hour of `asyncio.sleep` takes no time. While a call made by `run_in_executor` or `asyncio.to_thread` is
    under way, time passes as it does on the wall, so a timeout does not fire just because a thread needs a moment.
    Of other threads and of sockets the loop knows nothing: give a `grace` if the test has some.

    Args:
        seed: Which schedule.
        grace: Real seconds to wait for sockets and for other threads each time before the clock jumps.

    Attributes:
        seed: As given.
    """

    # What asyncio's own loops are made of, the same from Python 3.11 to 3.14.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _selector: selectors.BaseSelector
    _stopping: bool
    _clock_resolution: float

    def __init__(self, seed: int = 0, *, grace: float = 0.0) -> None:
        super().__init__()
        self.seed = seed
        self._grace = grace
        self._now = 0.0
        self._outside = 0
        self._ready = _Shuffled(random.Random(seed))  # noqa: S311 - repeatable is the point

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> "asyncio.Future[_T]":
        """Call `func` in a thread; until it has returned the clock does not jump."""
        future = super().run_in_executor(executor, func, *args)
        self._outside += 1
        future.add_done_callback(self._came_back)
        return future

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """Wait for the threads to end; meanwhile the clock does not jump to the timeout."""
        self._outside += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._outside -= 1

    def _came_back(self, _: object) -> None:
        self._outside -= 1

    def _run_once(self) -> None:
        if not self._ready and not self._stopping:
            self._idle()
        super()._run_once()  # type: ignore[misc]

    def _idle(self) -> None:
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]
        following = min(timers, default=math.inf)
        if following == math.inf:
            return  # only something from outside can go on: asyncio waits for it
        began = time.monotonic()
        patience = max(0.0, following - self._now) if self._outside else self._grace
        self._process_events(self._selector.select(patience))  # type: ignore[attr-defined]
        if self._outside:
            self._now += time.monotonic() - began
        elif not self._ready:
            self._now = max(self._now, following)
        # What is due within it is due: less than a step of the float, and no timer would ever be.
        self._clock_resolution = max(_RESOLUTION, 2 * math.ulp(self._now))


class _Shuffled(deque[asyncio.Handle]):
    """The ready queue: `popleft`, by which the loop takes what it runs next, draws at random."""

    def __init__(self, random: random.Random) -> None:
        super().__init__()
        self._draw = random.randrange

    def popleft(self) -> asyncio.Handle:
        place = self._draw(len(self))
        if not _is_step(self[place]):
            place = next(i for i in range(len(self)) if not _is_step(self[i]))
        handle = self[place]
        del self[place]
        return handle


def _is_step(handle: asyncio.Handle) -> bool:
    callback = handle._callback  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio's own test for this
    return isinstance(getattr(callback, "__self__", None), asyncio.Task)
