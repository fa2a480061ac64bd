"""Where a path leads: every place that its resolution touches, and the folders in which a change would be seen."""

import os
import stat
from typing import Final, NamedTuple

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
        places[place] = None
        folders[here] = None
        try:
            kind = os.lstat(place).st_mode
            target = os.readlink(place) if stat.S_ISLNK(kind) else None
        except OSError:
            break
        if target is None:
            here = place
        elif links == _MOST_LINKS:
            break
        else:
            links += 1
            here = os.sep if os.path.isabs(target) else here
            waiting += [step for step in target.split(os.sep) if step][::-1]
    # The root of the file system is never replaced, and its other children are nobody's concern.
    folders.pop(os.sep, None)
    return Way(tuple(places), tuple(folders))
