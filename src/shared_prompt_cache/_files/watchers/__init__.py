"""The seam to whatever tells about changes in folders.

A watcher is told which folders to watch and calls its sink, always on the thread of the event loop. It says where
something happened, never what: the order and the kind of events are lost on the way, so a path is dirty, no more.
"""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from typing import Protocol


class Sink(Protocol):
    """Who is told; its methods are synchronous, quick, and never raise."""

    def changed(self, paths: Collection[str]) -> None:
        """These absolute paths, or anything below them, may have changed."""
        ...

    def doubted(self, reason: str) -> None:
        """Changes may have been missed: anything may have changed."""
        ...

    def degraded(self, folder: str, reason: str | None) -> None:
        """`folder` cannot be watched, for this reason; with None: it can again."""
        ...


class Watcher(Protocol):
    """What watches folders.

    Attributes:
        name: What `health()` and the statistics call it.
        exact: Whether `drain()` delivers every change whose system call has returned before it was called.
    """

    name: str
    exact: bool

    async def start(self, sink: Sink) -> None:
        """Begin; nothing is watched yet."""
        ...

    async def watch(self, folders: AbstractSet[str]) -> AbstractSet[str]:
        """Watch exactly these folders (absolute paths), not what lies below them.

        A folder that was watched before and still is wanted is never without a watch in between: the new one is
        armed before the old one is closed. A folder that does not exist or cannot be watched is left out.

        Returns:
            The folders that are armed when this returns: a change in one of them after that reaches the sink.
        """
        ...

    def drain(self) -> None:
        """Deliver what the system has queued, if `exact`; else do nothing."""
        ...

    async def aclose(self) -> None:
        """End; no thread, task or descriptor is left when this returns."""
        ...
