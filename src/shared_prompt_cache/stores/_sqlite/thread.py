"""A connection of aiosqlite whose thread obeys.

As it comes, that thread keeps an unclosed program alive for ever, complains on stderr when the loop is closed under it,
keeps what it ran last from being collected, and loses the handle of a connect that is cancelled. There is no public way
to give a connection another thread, so this one is put in its place before it is started.
"""

import asyncio
import atexit
import os
import sqlite3
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread, get_ident
from typing import Any, Final, TypeVar

import aiosqlite

T = TypeVar("T")
_Job = tuple["asyncio.Future[Any] | None", Callable[[], Any]]

_STOP: Final = object()
_PATIENCE_AT_EXIT: Final = 0.5

_running: dict[Thread, "weakref.ref[ObedientConnection]"] = {}


class ObedientConnection(aiosqlite.Connection):
    """A connection with a thread of its own, which ends with the connection, its owner, or the interpreter.

    Each function given to `run` is run in full, whether or not anybody still waits for it. So a transaction that is
    one function is carried out or rolled back, and never left open.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], name: str) -> None:
        super().__init__(connect, iter_chunk_size=64)
        self._pid = os.getpid()
        self._lent: set[sqlite3.Connection] = set()
        self._thread = Thread(
            target=_serve, args=(self._tx, self._lent), name=f"shared-prompt-cache {name}", daemon=True
        )

    async def open(self) -> None:
        """Start the thread and connect in it.

        Cancelled meanwhile, the thread has connected or will: `stop` has it closed, since it comes behind.
        """
        _running[self._thread] = weakref.ref(self)
        try:
            self._thread.start()
        except BaseException:
            _running.pop(self._thread, None)
            raise
        connected = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((connected, self._connect_here))
        await connected

    def _connect_here(self) -> None:
        self._lend(self._connector())

    def _lend(self, connection: sqlite3.Connection) -> None:
        """Use `connection` from now on; in the thread."""
        self._connection = connection
        self._lent.add(connection)

    def _take_back(self) -> sqlite3.Connection | None:
        """Return what is used, to be closed, and use nothing from now on; in the thread."""
        connection, self._connection = self._connection, None
        self._lent.clear()
        return connection

    async def run(self, function: Callable[[], T]) -> T:
        """Return what `function()` returned in the thread; cancelling forgets the answer and changes nothing else.

        Unlike `_execute` it needs no open handle: the function may be the one that gets a new one.
        """
        if not self._running:
            raise ValueError("the connection is closed")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((answer, function))
        return await answer

    def post(self, function: Callable[[], object]) -> None:
        """Have `function()` called in the thread; it must not raise, for nobody would know."""
        if self._running:
            self._tx.put_nowait((None, function))

    @property
    def stopped(self) -> bool:
        """Whether no further function is taken."""
        return not self._running

    def stop(self) -> None:
        """Have the thread finish what it was given, close the connection, and end. Idempotent."""
        if self._running:
            self._running = False
            self._tx.put_nowait((None, self._close_here))

    def _close_here(self) -> object:
        connection = self._take_back()
        if connection is not None:
            connection.close()
        return _STOP

    async def close(self) -> None:
        """Close the connection and wait until the thread is gone. Idempotent."""
        self.stop()
        # Cancelled here: the thread ends all the same. A look each millisecond, since the last thing that a thread
        # could signal it would signal while it still runs.
        while self._thread.is_alive():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.001)

    def join(self) -> None:
        """Wait until the thread is gone, in another thread."""
        if self._thread.is_alive():
            self._thread.join()

    def hurry(self) -> None:
        """Break off the statement that runs; its transaction is rolled back."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def __del__(self) -> None:
        if self._pid == os.getpid():  # a forked child has the object, but not the thread
            self.stop()


def _serve(jobs: "SimpleQueue[_Job]", lent: set[sqlite3.Connection]) -> None:  # noqa: ARG001 - it is held here
    # The thread holds the handle: if the owner is collected unclosed, the handle is not garbage before it is closed.
    try:
        while True:
            future, function = jobs.get()
            result = None
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - the one who awaits gets it
                _answer(future, _fail, error)
            else:
                _answer(future, _succeed, result)
                if result is _STOP:
                    return
            # While the thread waits for the next, nothing of this one is kept alive.
            del future, function, result
    finally:
        for thread in [thread for thread in _running if not thread.is_alive() or thread.ident == get_ident()]:
            _running.pop(thread, None)


def _answer(
    future: "asyncio.Future[Any] | None", settle: Callable[["asyncio.Future[Any]", Any], None], outcome: object
) -> None:
    if future is not None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            future.get_loop().call_soon_threadsafe(settle, future, outcome)


def _succeed(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


@atexit.register
def _end_all() -> None:
    # A daemon thread that is still inside SQLite when the interpreter is finalized would be killed there.
    threads = [thread for thread in list(_running) if thread.is_alive()]
    for thread in threads:
        connection = _running[thread]() if thread in _running else None
        if connection is not None:
            connection.stop()
            with suppress(sqlite3.Error):  # closed at this moment
                connection.hurry()
    for thread in threads:
        thread.join(_PATIENCE_AT_EXIT)
