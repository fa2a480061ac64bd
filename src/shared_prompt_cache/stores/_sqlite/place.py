"""The folder of a store, its files, and the lock among those who change them.

Nothing here is for the event loop. The folder and the files belong to the user alone: a link, another owner or a
folder that others may write to is refused, since whoever made it could put words into a prompt.

The files: `store.db` and what SQLite puts beside it, `store.lock`, `.gitignore`, and at most one `store.db.corrupt-…`.
No file of the database is ever opened by Python: closing any descriptor of it would drop SQLite's own locks.
"""

import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

if sys.platform != "win32":
    import fcntl

DATABASE: Final = "store.db"
BESIDE: Final = ("-wal", "-shm", "-journal")
_PRIVATE: Final = 0o600
_LOCK: Final = "store.lock"
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_PAUSE: Final = 0.0002
"""Seconds between two tries for the lock; short enough to find the gap between two transactions of a busy writer."""

Identity = tuple[int, int]


class RefusedError(OSError):
    """A folder or a file that is not safe to use; the message names it and the remedy."""


class Place:
    """A folder with a database in it.

    Attributes:
        folder: Its absolute path.
        database: That of the database.
        log_file: What SQLite writes to with each commit.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.folder = os.path.abspath(path)
        self.database = os.path.join(self.folder, DATABASE)
        self.log_file = self.database + "-wal"
        self._lock_file = os.path.join(self.folder, _LOCK)

    def identity(self) -> Identity | None:
        """Return which file is at the path of the database; None if there is none."""
        try:
            status = os.stat(self.database)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def log_inode(self) -> int | None:
        """Return which file is at the path of the log file; None if there is none."""
        try:
            return os.stat(self.log_file).st_ino
        except FileNotFoundError:
            return None

    def prepare(self) -> None:
        """Make the folder, if need be, and see that it and the files in it are safe.

        Raises:
            RefusedError: If they are not.
        """
        _make_folder(self.folder)
        self.check()
        with suppress(FileExistsError):
            _create(os.path.join(self.folder, ".gitignore"), b"*\n")

    def check(self) -> None:
        """See that the folder and the files in it are safe, and make nothing.

        Raises:
            RefusedError: If they are not.
            FileNotFoundError: If there is no folder.
        """
        _check_folder(self.folder)
        for name in (DATABASE, *(DATABASE + suffix for suffix in BESIDE), _LOCK):
            _check_file(os.path.join(self.folder, name))

    def create(self) -> None:
        """Begin an empty database, without what an earlier one left beside it; the lock is held."""
        for suffix in BESIDE:
            with suppress(FileNotFoundError):
                os.unlink(self.database + suffix)
        with suppress(FileExistsError):
            _create(self.database, b"")

    def set_aside(self, name: str) -> str:
        """Rename the database to `store.db.corrupt-<name>`, with what is beside it; any set aside before is removed.

        Returns the new path.
        """
        aside = f"{self.database}.corrupt-{name}"
        # The database first: SQLite, which still has it open, leaves the files beside it alone once it has moved.
        os.replace(self.database, aside)
        for suffix in BESIDE:
            with suppress(FileNotFoundError):
                os.replace(self.database + suffix, aside + suffix)
        self._remove_aside(but=os.path.basename(aside))
        return aside

    def discard(self) -> None:
        """Unlink the database, what is beside it, and what was set aside."""
        for suffix in ("", *BESIDE):
            with suppress(FileNotFoundError):
                os.unlink(self.database + suffix)
        self._remove_aside()

    def _remove_aside(self, but: str = "") -> None:
        for name in os.listdir(self.folder):
            if name.startswith(f"{DATABASE}.corrupt-") and name not in {but, *(but + suffix for suffix in BESIDE)}:
                with suppress(OSError):
                    os.unlink(os.path.join(self.folder, name))

    def bytes_on_disk(self) -> int:
        """Return what the database takes, with what is beside it."""
        total = 0
        for suffix in ("", *BESIDE):
            with suppress(FileNotFoundError):
                total += os.stat(self.database + suffix).st_size
        return total

    def open_lock(self) -> int:
        """Return a descriptor of the lock file."""
        return os.open(self._lock_file, os.O_RDWR | os.O_CREAT | _NOFOLLOW, _PRIVATE)

    def is_lock(self, descriptor: int) -> bool:
        """Return whether `descriptor` is of the lock file that is there now."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._lock_file))
        except FileNotFoundError:
            return False


class PlaceLock:
    """Held by one at a time, among all processes and their connections: by whoever writes, checkpoints or begins anew.

    SQLite's own lock would do for writing. But before version 3.51.3 two checkpoints and a commit that meet can damage
    a database, and nobody must write to one that is being set aside.
    """

    def __init__(self, place: Place, patience: float, given_up: Callable[[], bool]) -> None:
        """Nothing is opened yet.

        Args:
            place: What is locked.
            patience: Seconds to wait for it.
            given_up: Whether waiting has become pointless.
        """
        self._place = place
        self.patience = patience
        self._given_up = given_up
        self._descriptor: int | None = None
        self.waiting = False

    def __enter__(self) -> None:
        until = time.monotonic() + self.patience
        try:
            while not self._take():
                self.waiting = True
                if time.monotonic() > until or self._given_up():
                    raise TimeoutError(f"{self._place.folder} has been locked by others for {self.patience:g} s")
                time.sleep(_PAUSE)
        finally:
            self.waiting = False

    def is_free(self) -> bool:
        """Return whether nobody holds it at this moment; whoever did has committed by then, or never will."""
        if not self._take():
            return False
        self.__exit__()
        return True

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None and sys.platform != "win32":
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _take(self) -> bool:
        if self._descriptor is None:
            self._place.prepare()
            self._descriptor = self._place.open_lock()
        if sys.platform != "win32":
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        if self._place.is_lock(self._descriptor):
            return True
        self.close()  # the folder was removed, or made anew: this is the lock of something that is gone
        return False

    def close(self) -> None:
        """Give up the descriptor, and with it the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _make_folder(folder: str) -> None:
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
            os.chmod(path, 0o700)  # whatever the umask


def _check_folder(folder: str) -> None:
    status = os.lstat(folder)
    if stat.S_ISLNK(status.st_mode):
        raise RefusedError(f"{folder} is a symbolic link; give the folder it leads to")
    if not stat.S_ISDIR(status.st_mode):
        raise RefusedError(f"{folder} is no folder; give another path, or move that file away")
    _check_owner(folder, status)
    if sys.platform != "win32" and status.st_mode & _OTHERS_MAY_WRITE:
        raise RefusedError(f"{folder} may be written by others; chmod go-w it, and delete what you did not put there")


def _check_file(path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"{path} is a symbolic link or no file at all; remove it")
    _check_owner(path, status)
    if sys.platform != "win32" and stat.S_IMODE(status.st_mode) != _PRIVATE:
        os.chmod(path, _PRIVATE)  # no link, and in a folder that nobody else may write to


def _check_owner(path: str, status: os.stat_result) -> None:
    if sys.platform != "win32" and status.st_uid != os.geteuid():
        raise RefusedError(f"{path} belongs to the user {status.st_uid}; give a path of your own, or chown it")


def _create(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, _PRIVATE)
    try:
        if sys.platform != "win32":
            os.fchmod(descriptor, _PRIVATE)  # whatever the umask
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
