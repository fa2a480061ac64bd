"""Fingerprints: what a file looked like when it was read, and whether it still does.

The stat tuple (device, inode, size, mtime, ctime) may stand for the content only once it is settled: if the read began
more than a slack after both timestamps. A write moves the timestamp before the data, and two writes within one tick of
the clock leave the same one; so a younger file is compared by content. The rule is that of git's index for files
changed in the same tick ("racily clean" entries, https://git-scm.com/docs/racy-git), with the slack made explicit.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from typing import Final, Literal

from shared_prompt_cache._files.places import Way

Kind = Literal["file", "absent", "listing"]
Stat = tuple[int, int, int, int, int]
_SLACK_NS: Final = 20_000_000
_COARSE_SLACK_NS: Final = 2_100_000_000  # a tick of two seconds is the coarsest in use
_SECOND_NS: Final = 1_000_000_000

now_ns = time.time_ns
"""The clock that file timestamps are compared with: that of the machine, whatever clock the cache has."""
_stat = os.stat


class Dependency:
    """The record of something that was read.

    Attributes:
        path: Absolute, as it was asked for.
        kind: A file, its absence, or a listing of names in a folder.
        pattern: Which names a listing is about; None where it is none.
        digest: blake2b-128 of the content, or of the names; empty for what is absent, None if no state held still.
        settled: Whether equal stat tuples prove equal content.
        device: Of the file; 0 for others.
        inode: Likewise.
        size: In bytes.
        mtime: In nanoseconds.
        ctime: In nanoseconds.
        folders: For a listing: each folder that was looked into, with its stat tuple.
        way: Where the path led.
        remote: Whether others than this kernel can change it, so that nothing but content counts.
    """

    __slots__ = (
        "ctime",
        "device",
        "digest",
        "folders",
        "inode",
        "kind",
        "mtime",
        "path",
        "pattern",
        "remote",
        "settled",
        "size",
        "way",
    )

    def __init__(
        self,
        path: str,
        kind: Kind,
        way: Way,
        *,
        digest: bytes | None = b"",
        status: Stat = (0, 0, 0, 0, 0),
        settled: bool = False,
        pattern: str | None = None,
        folders: tuple[tuple[str, Stat], ...] = (),
        remote: bool = False,
    ) -> None:
        self.path = path
        self.kind: Kind = kind
        self.way = way
        self.digest = digest
        self.device, self.inode, self.size, self.mtime, self.ctime = status
        self.settled = settled
        self.pattern = pattern
        self.folders = folders
        self.remote = remote

    def led_by(self, way: Way) -> Dependency:
        """Return the same record with another way; `copy` would take six times as long."""
        return Dependency(
            self.path,
            self.kind,
            way,
            digest=self.digest,
            status=(self.device, self.inode, self.size, self.mtime, self.ctime),
            settled=self.settled,
            pattern=self.pattern,
            folders=self.folders,
            remote=self.remote,
        )

    def same_content(self, other: Dependency) -> bool:
        """Return whether both saw the same."""
        return self.kind == other.kind and self.digest is not None and self.digest == other.digest


def unchanged(dependencies: Iterable[Dependency]) -> bool:
    """Return whether everything is as it was, as far as stat can prove that.

    Called on the event loop at each strict hit: at most 1.3 times the cost of the bare `os.stat` calls. False says no
    more than that contents have to be compared.
    """
    try:
        for dependency in dependencies:
            if dependency.kind == "file":
                status = _stat(dependency.path)
                # The most telling first; attributes of the result cost less than building tuples of them.
                if (
                    status.st_ctime_ns != dependency.ctime
                    or status.st_ino != dependency.inode
                    or status.st_mtime_ns != dependency.mtime
                    or status.st_size != dependency.size
                    or status.st_dev != dependency.device
                    or not dependency.settled
                ):
                    return False
            elif dependency.digest == b"":  # nothing was there
                if exists(dependency.path):
                    return False
            elif not dependency.settled or any(tuple_of(_stat(name)) != then for name, then in dependency.folders):
                return False
    except OSError:
        return False
    return True


def exists(path: str) -> bool:
    """Return whether `path` leads to something.

    Raises:
        OSError: If that cannot be told.
    """
    try:
        _stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def tuple_of(status: os.stat_result) -> Stat:
    """Return what of a stat result is compared."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_settled(status: Stat, began_ns: int, *, remote: bool) -> bool:
    """Return whether a read that began at `began_ns` saw what every later read with this tuple will see.

    Args:
        status: The stat tuple, the same before and after the read.
        began_ns: When the read began, by the wall clock.
        remote: Whether the file lies where other hosts can write; then nothing is ever settled.
    """
    mtime, ctime = status[3], status[4]
    slack = _COARSE_SLACK_NS if ctime % _SECOND_NS == 0 else _SLACK_NS
    return not remote and began_ns - max(mtime, ctime) > slack


def digest_of(content: bytes) -> bytes:
    """Return the digest of a content."""
    return hashlib.blake2b(content, digest_size=16).digest()
