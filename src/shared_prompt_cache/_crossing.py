"""How a call crosses from a thread to an event loop, and work crosses back.

Theory of operation: a verb called in a thread becomes a task of the loop, in a copy of the thread's context, while the
thread waits at its inbox. What `compute` has to do comes back: the flight posts it there, and the thread runs it in a
copy of the flight's context. So what it reads is recorded, and computations that would wait for each other in a circle
are found as they are among coroutines. A caller who has been answered already, with a stale value say, is not there to
work any more; a daemon thread takes its place.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from inspect import isawaitable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import finalize

from shared_prompt_cache._naming import shown
from shared_prompt_cache.errors import CacheClosedError, ComputeCancelled, ConfigTypeError

T = TypeVar("T")
V = TypeVar("V")
_LOOK: Final = 1.0
"""How often, in seconds, a waiting thread looks whether the loop still runs; two looks in vain and it gives up."""


class Closing(Protocol):
    """What lives on a loop and is closed with it."""

    async def aclose(self) -> None: ...


class Work:
    """What `compute` has to do for a flight, in whatever thread that calls this; the outcome is handed to the flight.

    It is handed over as a value, since a future refuses some exceptions.
    """

    __slots__ = ("_compute", "_context", "_key", "_posted")

    def __init__(
        self, posted: Future[tuple[Any, Exception | None]], context: Context, compute: Callable[[], Any], key: str
    ) -> None:
        self._posted = posted
        self._context = context
        self._compute = compute
        self._key = key

    def __call__(self) -> None:
        if not self._posted.set_running_or_notify_cancel():
            return  # the flight has been cancelled meanwhile
        try:
            outcome = self._context.run(_called, self._compute), None
        except Exception as error:  # noqa: BLE001 - it reaches the callers as it is
            self._posted.set_result((None, error))
        except BaseException as interruption:
            # It is meant for this thread; those who wait elsewhere are told what it means to them.
            self.drop(f"interrupted by {type(interruption).__name__}")
            raise
        else:
            self._posted.set_result(outcome)

    def drop(self, why: str) -> None:
        """Tell those who wait, if they have no answer yet, that they get none from the thread that took the work."""
        if not self._posted.done():
            reason = f"the thread that computed {self._key!r} was {why}"
            self._posted.set_result((None, ComputeCancelled(reason, key=self._key)))


class Call(Generic[T]):
    """One call from a thread: its way to the event loop, and the work that comes back from there.

    `result` and `_next` run in the thread that calls, all else on the loop.

    Args:
        loop: The loop.
        lent: Whether the calling thread does the work; if not, or once it is answered, a thread of its own does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, lent: bool = True) -> None:
        self._loop = loop
        self._lent = lent
        self._inbox: SimpleQueue[Work | None] = SimpleQueue()
        self._given: Work | None = None
        self._task: asyncio.Task[None] | None = None
        self._value: Any = None
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None

    def result(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Run `verb` on the loop; work for it meanwhile, and return what it returns."""
        try:
            self._send(self._begin, verb, copy_context())
            while (work := self._next()) is not None:
                work()
        except BaseException:
            # Interrupted, or the loop is gone. The call is given up; work not begun passes to a thread of its own.
            with suppress(CacheClosedError):
                self._send(self._leave)
            raise
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)
        value: T = self._value
        return value

    def _send(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # it has been closed since somebody looked
            raise gone(self._loop) from None

    def _next(self) -> Work | None:
        looks = 0
        while True:
            try:
                return self._inbox.get(timeout=_LOOK)
            except Empty:
                looks = 0 if self._loop.is_running() else looks + 1
                if looks > 1 or self._loop.is_closed():
                    raise gone(self._loop) from None

    async def work(self, compute: Callable[[], V], key: str) -> V:
        """Return what `compute()` does in the thread that called; this runs in the task of the flight."""
        posted: Future[tuple[Any, Exception | None]] = Future()
        # With the context of the flight goes its recorder.
        self._post(Work(posted, copy_context(), compute, key))
        value, error = await asyncio.wrap_future(posted)
        if error is not None:
            raise error
        made: V = value
        return made

    def _post(self, work: Work) -> None:
        if self._lent:
            self._given = work
            self._inbox.put(work)
        else:
            threading.Thread(target=work, name="shared-prompt-cache-compute", daemon=True).start()

    def _begin(self, verb: Callable[[], Awaitable[T]], context: Context) -> None:
        self._error = gone(self._loop)  # unless the task says otherwise: it may be cancelled before its first step
        self._task = self._loop.create_task(self._perform(verb), context=context)
        self._task.add_done_callback(lambda _: self._inbox.put(None))

    async def _perform(self, verb: Callable[[], Awaitable[T]]) -> None:
        try:
            self._value, self._error = await verb(), None
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that called
            self._error, self._traceback = error, error.__traceback__
        finally:
            # No await since the answer: what this call left behind has not begun, and will find the caller gone.
            self._lent = False

    def _leave(self) -> None:
        self._lent = False
        if self._task is not None:
            self._task.cancel()
        taken = self._given
        while not self._inbox.empty():
            work = self._inbox.get_nowait()
            if work is not None:
                taken = None
                self._post(work)
        if taken is not None:
            taken.drop("interrupted")  # it may not have come as far as to say so itself


class OwnLoop:
    """A daemon thread with an event loop, for a cache that is used without one.

    Attributes:
        loop: The loop, running.
        thread: The thread.
        finalizer: Ends it with its owner, or with the interpreter.
    """

    def __init__(self, owner: object, name: str) -> None:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        # The thread knows nothing of its owner, so a cache that is forgotten unclosed takes its thread with it.
        self.thread = threading.Thread(
            target=_run_loop, args=(started,), name=f"shared-prompt-cache-{name}", daemon=True
        )
        self.thread.start()
        self.loop, self._stop = started.result()
        self.finalizer = finalize(owner, _set, self.loop, self._stop)

    async def end(self, cache: Closing | None) -> None:
        """Close `cache`, which lives here, and end."""
        try:
            if cache is not None:
                await cache.aclose()
        finally:
            self.stop()

    def stop(self) -> None:
        """Let the thread end; what still waits on the loop is cancelled."""
        self.finalizer()


def _run_loop(started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    async def until_stopped() -> None:
        stop = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    try:
        with asyncio.Runner() as runner:
            runner.get_loop()  # first: if there is none to be had, there is no coroutine that nobody awaits
            runner.run(until_stopped())
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(event.set)


def _called(compute: Callable[[], Any]) -> Any:
    value = compute()
    if isawaitable(value):
        if isinstance(value, Coroutine):
            value.close()
        name = getattr(compute, "__qualname__", shown(compute))
        raise ConfigTypeError(
            f"compute {name} is async; give cache.blocking a plain function, or await cache.get_or_compute",
            field="compute",
        )
    return value


def gone(loop: asyncio.AbstractEventLoop) -> CacheClosedError:
    """Return the error for those who need a loop that has stopped."""
    state = "has ended" if loop.is_closed() else "does not run any more"
    return CacheClosedError(
        f"the event loop of the cache {state}; close the cache before its loop ends, or make a new one"
    )
