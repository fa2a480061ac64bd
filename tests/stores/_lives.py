"""Processes that are forks of one program, which has imported everything and has no thread and no loop meanwhile.

So hundreds of them can be begun and killed in a minute. What they have done they note in memory that all share.
"""

import mmap
import os
import select
import signal
import sqlite3
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60.0


class Numbers:
    """Numbers that processes share; one number is written by one process."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, 8 * count)

    def __getitem__(self, place: int) -> int:
        return struct.unpack_from("q", self._memory, 8 * place)[0]

    def __setitem__(self, place: int, number: int) -> None:
        struct.pack_into("q", self._memory, 8 * place, number)


class Child:
    """A process; what it writes to stderr is read when it has ended. One that hangs is killed after `patience` s."""

    def __init__(self, main: Callable[[], object], patience: int = 60) -> None:
        self._errors, errors = os.pipe()
        self._words, words = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            signal.alarm(patience)
            os.dup2(words, 1)
            os.dup2(errors, 2)
            for descriptor in (self._errors, self._words, errors, words):
                os.close(descriptor)
            main()
            sys.exit(0)  # up through all that has led here: an end as any program has
        os.close(errors)
        os.close(words)

    def word(self) -> None:
        """Wait until it says something."""
        assert select.select([self._words], [], [], PATIENCE)[0], "it says nothing"
        assert os.read(self._words, 100), self.end()

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def is_over(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> tuple[int, str]:
        """Wait until it is gone; return its code, negative for a signal, and what it wrote to stderr."""
        with os.fdopen(self._errors, "rb") as errors:
            said = errors.read().decode()
        os.close(self._words)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), said


def wait(predicate: Callable[[], object], child: Child) -> None:
    until = time.monotonic() + PATIENCE
    while not predicate():
        assert not child.is_over(), child.end()
        assert time.monotonic() < until, "it does not get on"
        time.sleep(0.0005)


def intact(folder: Path) -> None:
    """Nobody uses it any more: the database is whole, and none was ever set aside."""
    raw = sqlite3.connect(folder / "store.db")
    try:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        raw.close()
    assert not list(folder.glob("*.corrupt-*"))
