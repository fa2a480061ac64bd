"""Paths, and where they lead: every place that the resolution touches, and the folders in which a change is seen."""

import os
import stat
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

Identity = tuple[int, int]
"""Device and inode."""
_MOST_LINKS: Final = 40


class Way(NamedTuple):
    """The way to a file, as it was when it was walked.

    Attributes:
        places: Each folder, each symlink and the end of it, or the first missing component.
        folders: The existing folders that have to be watched so that a change of where the path leads is seen.
    """

    places: tuple[str, ...]
    folders: tuple[str, ...]


def way(path: str) -> Way:
    """Return the way to an absolute path. Never raises: what cannot be looked at counts as missing."""
    places: dict[str, None] = {}
    folders: dict[str, None] = {}
    here = os.sep
    waiting = [part for part in path.split(os.sep) if part][::-1]
    links = 0
    while waiting:
        part = waiting.pop()
        if part == os.curdir:
            continue
        if part == os.pardir:
            here = os.path.dirname(here)
            continue
        place = os.path.join(here, part)
        kind, target = _look(place)
        if here != os.sep:
            folders[here] = None
        elif not stat.S_ISDIR(kind):
            # Watched only for what else than a folder lies there: on most ways nothing does, and much happens there.
            places[here] = folders[here] = None
        places[place] = None
        if not kind:
            break
        if target is None:
            here = place
        elif links == _MOST_LINKS:
            break
        else:
            links += 1
            here = os.sep if os.path.isabs(target) else here
            waiting += [step for step in target.split(os.sep) if step][::-1]
    return Way(tuple(places), tuple(folders))


def _look(place: str) -> tuple[int, str | None]:
    """Return the mode of what is there, 0 if that cannot be told, and where it leads if it is a symlink."""
    try:
        kind = os.lstat(place).st_mode
        return kind, os.readlink(place) if stat.S_ISLNK(kind) else None
    except OSError:
        return 0, None


def absolute(path: str | os.PathLike[str]) -> str:
    """Return a path as it is recorded: absolute, without `..`; relative ones resolve now."""
    return os.path.abspath(os.path.expanduser(path))


def parents(path: str) -> Iterable[str]:
    """Return the folders above a path, the nearest first."""
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent


def _identity(path: str) -> Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def identities(paths: Collection[str]) -> dict[str, Identity | None]:
    """Return what tells each folder from another of its name, None where there is none."""
    return {path: _identity(path) for path in paths}


def nearest(paths: Collection[str]) -> set[str]:
    """Return, for each path, the nearest folder on the way to it that exists."""
    return {next((place for place in (path, *parents(path)) if os.path.isdir(place)), os.sep) for path in paths}


def spellings(folders: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return, for each folder that others of these are the same as, those others."""
    same: dict[Identity | None, list[str]] = {}
    for folder in folders:
        same.setdefault(_identity(folder), []).append(folder)
    return {
        folder: tuple(other for other in group if other != folder)
        for identity, group in same.items()
        if identity is not None and len(group) > 1
        for folder in group
    }
