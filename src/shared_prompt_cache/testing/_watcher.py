"""A watcher that reports what a test tells it to."""

import os
from collections.abc import Set as AbstractSet
from pathlib import Path

from shared_prompt_cache._files.watchers import Sink
from shared_prompt_cache.errors import CacheClosedError

_Path = str | os.PathLike[str]


class FakeWatcher:
    """A watcher without an operating system: a test pushes the events.

    ```python
    watcher = FakeWatcher()
    async with SharedPromptCache(watch=rules, watcher=watcher) as cache:
        memory.write_text("new")
        watcher.push(memory)      # as an operating system would, now
        await cache.sync()
    ```

    Attributes:
        watched: The folders that the cache wants watched.
        refused: Folders that it is told cannot be watched.
    """

    name = "fake"
    exact = False

    def __init__(self) -> None:
        self.watched: frozenset[str] = frozenset()
        self.refused: set[str] = set()
        self._sink: Sink | None = None

    async def start(self, sink: Sink) -> None:
        """Called by the cache."""
        self._sink = sink

    async def watch(self, folders: AbstractSet[str]) -> AbstractSet[str]:
        """Called by the cache."""
        self.watched = frozenset(folders)
        return self.watched - self.refused

    def drain(self) -> None:
        """Called by the cache."""

    async def aclose(self) -> None:
        """Called by the cache."""
        self._sink = None

    def push(self, *paths: _Path) -> None:
        """Report that these paths, or what lies below them, may have changed. Call it on the thread of the loop."""
        self._started().changed([str(Path(path).absolute()) for path in paths])

    def lose(self, reason: str = "the test lost events") -> None:
        """Report that events may have been missed."""
        self._started().doubted(reason)

    def degrade(self, folder: _Path, reason: str | None) -> None:
        """Report that a folder cannot be watched, or with None that it can again."""
        self._started().degraded(str(Path(folder).absolute()), reason)

    def _started(self) -> Sink:
        if self._sink is None:
            raise CacheClosedError("the watcher is not started; push inside `async with cache:`")
        return self._sink
