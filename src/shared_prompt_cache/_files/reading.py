"""Reading so that the record tells of the very content that was read; and reading again to compare.

All of it blocks and runs in worker threads.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from shared_prompt_cache import _globs
from shared_prompt_cache._files.fingerprint import (
    Dependency,
    Stat,
    digest_of,
    exists,
    is_settled,
    now_ns,
    tuple_of,
    unchanged,
)
from shared_prompt_cache._files.places import Way, way
from shared_prompt_cache._mounts import is_remote
from shared_prompt_cache.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES: Final = 16 * 1024 * 1024
_TRIES: Final = 8
_PART: Final = 64 * 1024
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # a FIFO must not block, a terminal not adopt
CHILDREN: Final = "*"


def read_file(path: str) -> tuple[bytes | None, Dependency]:
    """Return the content of a file and its record; None and the record of its absence if it is not there.

    A file that is written while it is read is read again, eight times at most; then the last content is returned with
    a record that nothing will ever equal. So is that of a file whose size is not that of its content, as in `/proc`.

    Raises:
        OSError: If it cannot be opened or read.
        ConfigError: If it is no regular file, or larger than 16 MiB.
    """
    remote = is_remote(path)
    content = None
    for _ in range(_TRIES):
        began = now_ns()
        try:
            descriptor = os.open(path, _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            if not _present(path):
                return None, Dependency(path, "absent", way(path), settled=not remote, remote=remote)
            continue
        try:
            before = os.fstat(descriptor)
            _check_kind(path, before)
            content = _content(descriptor, path, before.st_size)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        try:
            here = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        status = tuple_of(before)
        if status == tuple_of(after) == tuple_of(here) and len(content) == before.st_size:
            settled = is_settled(status, began, remote=remote)
            digest = digest_of(content)
            return content, Dependency(
                path, "file", way(path), digest=digest, status=status, settled=settled, remote=remote
            )
    return content, Dependency(path, "file", way(path), digest=None)


def _present(path: str) -> bool:
    try:
        return exists(path)
    except OSError:  # a loop of symlinks, or no right to look: the reading reports it
        return True


def _check_kind(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise ConfigError(f"{path!r} is {what}; read regular files, and list folders with files.glob()", field="path")
    _check_size(path, status.st_size)


def _check_size(path: str, size: int) -> None:
    if size > MOST_BYTES:
        raise ConfigError(
            f"{path!r} has {size} bytes, at most {MOST_BYTES} are read; declare it with depends_on() where "
            "it is small enough, or cache a part of it",
            field="path",
        )


def _content(descriptor: int, path: str, size: int) -> bytes:
    """Return all there is; that may be more than `size`, of a file that grows or has no size of its own."""
    parts = []
    length = 0
    while part := os.read(descriptor, max(size + 1 - length, _PART)):
        parts.append(part)
        length += len(part)
        _check_size(path, length)
    return b"".join(parts)


def glob(root: str, pattern: str) -> tuple[list[Path], Dependency]:
    """Return the paths below `root` that match, sorted, and the record of which they are.

    Symlinked folders are not entered. A root that does not exist has no names, and its creation is a change. If folders
    never hold still, the names that were last seen are returned with a record that nothing will ever equal.

    Raises:
        ConfigError: If the pattern cannot be used.
        OSError: If a folder cannot be looked into.
    """
    read = _globs.read(_globs.check(pattern, "pattern"), "pattern")
    from pathlib import Path  # noqa: PLC0415 - loaded when used

    remote = is_remote(root)
    names: list[str] = []
    for _ in range(_TRIES):
        began = now_ns()
        visited: list[tuple[str, Stat]] = []
        names = []
        steady = _collect(root, read, names, visited)
        names.sort()
        if not steady:
            continue
        settled = bool(visited) and all(is_settled(status, began, remote=remote) for _, status in visited)
        if not visited:
            # Nothing to list: like a file that is absent, proved by looking for it.
            dependency = Dependency(root, "listing", way(root), pattern=pattern, remote=remote)
        else:
            dependency = Dependency(
                root,
                "listing",
                _way_of_listing(root, visited),
                digest=digest_of("\0".join(names).encode("utf-8", "surrogateescape")),
                settled=settled,
                pattern=pattern,
                folders=tuple(visited),
                remote=remote,
            )
        return [Path(root, name) for name in names], dependency
    return [Path(root, name) for name in names], Dependency(root, "listing", way(root), digest=None, pattern=pattern)


def _way_of_listing(root: str, visited: Iterable[tuple[str, Stat]]) -> Way:
    found = way(root)
    return Way(
        tuple(dict.fromkeys((*found.places, *(name for name, _ in visited)))),
        tuple(dict.fromkeys((*found.folders, *(name for name, _ in visited)))),
    )


def _collect(root: str, read: _globs.Glob, names: list[str], visited: list[tuple[str, Stat]]) -> bool:
    """Add what matches below a folder; return whether all that were looked into held still meanwhile."""
    steady = True
    waiting = [("", 0)]
    while waiting:
        below, level = waiting.pop()
        folder = os.path.join(root, below) if below else root
        try:
            before = os.stat(folder)
            if not stat.S_ISDIR(before.st_mode):
                continue
            with os.scandir(folder) as entries:
                children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            after = os.stat(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        steady = steady and tuple_of(before) == tuple_of(after)
        visited.append((folder, tuple_of(before)))
        for name, is_folder in children:
            relative = f"{below}/{name}" if below else name
            if read.regex.fullmatch(relative):
                names.append(relative)
            if is_folder and (
                read.folders[level].fullmatch(name) is not None if level < len(read.folders) else read.depth is None
            ):
                waiting.append((relative, level + 1))
    return steady


def declared(path: str) -> Dependency:
    """Return the record of a declared path: the content of a file, or the names of the children of a folder.

    Raises:
        OSError: If it cannot be read.
        ConfigError: If it is neither, or larger than 16 MiB.
    """
    if os.path.isdir(path):
        return glob(path, CHILDREN)[1]
    return read_file(path)[1]


def compare(dependency: Dependency) -> Dependency | None:
    """Return the record as of now if what was read is unchanged, by content where need be; None if it changed."""
    if not dependency.remote and unchanged((dependency,)):
        return dependency
    if dependency.digest is None:
        return None
    try:
        if dependency.pattern is not None:
            now = glob(dependency.path, dependency.pattern)[1]
        else:
            now = read_file(dependency.path)[1]
    except (OSError, ConfigError):
        return None
    if not dependency.same_content(now):
        return None
    if now.way == dependency.way:
        now.way = dependency.way  # shared by all records of the file
    return now


def led_now(dependency: Dependency) -> Dependency:
    """Return the record of something unchanged with the way that leads to it now."""
    here = dependency.path
    found = _way_of_listing(here, dependency.folders) if dependency.folders else way(here)
    if found == dependency.way:
        return dependency
    return dependency.led_by(found)
