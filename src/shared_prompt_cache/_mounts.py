"""Where a path really is: on which file system, and whether its events can be believed.

The system tells a watcher of the changes that pass through its own kernel. Those that another host makes to a shared
folder do not, and neither do most of those that a program behind a FUSE mount makes: there, only looking helps.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

_REMOTE = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "drvfs",
        "fuse",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "prl_fs",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
    }
)
_SILENT = frozenset({"cgroup", "cgroup2", "configfs", "debugfs", "proc", "securityfs", "sysfs", "tracefs"})
_TRIES = 8
_OCTAL = re.compile(r"\\([0-7]{3})")


def real(path: str | os.PathLike[str]) -> str:
    """Return a path with the symlinks on the way resolved. Never raises, whatever changes there meanwhile."""
    for _ in range(_TRIES):
        # Between a look at a link and reading it, it may become a file; then readlink fails.
        with suppress(OSError):
            return os.path.realpath(path)
    return os.path.abspath(path)


def parse_mountinfo(text: str) -> dict[str, str]:
    """The type of the file system at each mount point, from the text of `/proc/self/mountinfo`.

    Where several are mounted at one point, the last one hides the others. Lines that are none are passed over.
    """
    mounts: dict[str, str] = {}
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if separator and len(fields) > 4:  # noqa: PLR2004 - id, parent, device, root, mount point
            mounts[_unescape(fields[4])] = rest[0]
    return mounts


def _unescape(field: str) -> str:
    """A field with space, tab, newline and backslash as they are; mountinfo writes them in octal."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def _read_mountinfo() -> str:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            return table.read()
    except OSError:
        return ""


class MountTable:
    """The mounts of this process, read when asked and remembered for a while.

    As large as the system's own table and no larger; it may be asked from several threads.
    """

    def __init__(
        self,
        read: Callable[[], str] = _read_mountinfo,
        *,
        max_age: float = 5.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is read yet.

        Args:
            read: Gives the text of `/proc/self/mountinfo`, or "" where there is none.
            max_age: Seconds after which it is read again.
            now: The clock that these seconds are counted on.
        """
        self._read = read
        self._max_age = max_age
        self._now = now
        self._table: tuple[float, Mapping[str, str]] | None = None

    def refresh(self) -> None:
        """Forget what was read."""
        self._table = None

    def file_system(self, path: str | os.PathLike[str]) -> str:
        """The type of the file system that `path` is on, or would be created on; "" if it cannot be told.

        Follows symlinks, which touches the file system: not to be called on the event loop.
        """
        mounts = self._mounts()
        if not mounts:
            return ""
        # The longest mount point that is a prefix decides, also for what does not exist yet.
        place = real(path)
        while place not in mounts:
            parent = os.path.dirname(place)
            if parent == place:
                return ""
            place = parent
        return mounts[place]

    def is_remote(self, path: str | os.PathLike[str]) -> bool:
        """Whether others can change what is at `path` without this kernel's knowledge."""
        if sys.platform == "win32":
            return real(path).startswith("\\\\")
        kind = self.file_system(path)
        return kind in _REMOTE or kind.startswith("fuse.")

    def events_trusted(self, path: str | os.PathLike[str]) -> bool:
        """Whether each change at `path` makes an event, so that a native watcher is enough."""
        return not self.is_remote(path) and self.file_system(path) not in _SILENT

    def _mounts(self) -> Mapping[str, str]:
        table = self._table  # read once: another thread may replace it
        now = self._now()
        if table is None or now - table[0] > self._max_age:
            table = self._table = (now, parse_mountinfo(self._read()))
        return table[1]


_table = MountTable()

file_system = _table.file_system
is_remote = _table.is_remote
events_trusted = _table.events_trusted
