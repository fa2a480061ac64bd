"""Which watcher is used: the one that was asked for, or for each folder the one that its file system is good for."""

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Any, Literal

from shared_prompt_cache._files.watchers import Sink, Watcher
from shared_prompt_cache._mounts import events_trusted
from shared_prompt_cache._naming import shown
from shared_prompt_cache.errors import ConfigTypeError

InThread = Callable[..., Awaitable[Any]]


def choose(watcher: Literal["auto", "watchfiles", "polling"] | Watcher, in_thread: InThread) -> Watcher:
    """Return the watcher that a cache was told to use.

    Args:
        watcher: What it was told.
        in_thread: Runs a function in a thread of the cache.
    """
    if not isinstance(watcher, str):
        if not all(hasattr(watcher, name) for name in ("start", "watch", "aclose")):
            raise ConfigTypeError(
                f"watcher is {shown(watcher)}; give 'auto', 'watchfiles', 'polling' or a watcher", field="watcher"
            )
        return watcher
    if watcher == "auto":
        return AutoWatcher(in_thread)
    return _native() if watcher == "watchfiles" else _polling()


def _native() -> Watcher:
    from shared_prompt_cache._files.watchers._watchfiles import WatchfilesWatcher  # noqa: PLC0415 - loaded when used

    return WatchfilesWatcher()


def _polling() -> Watcher:
    from shared_prompt_cache._files.watchers._polling import PollingWatcher  # noqa: PLC0415 - loaded when used

    return PollingWatcher()


class AutoWatcher:
    """Watches by watchfiles, and by polling what lies where changes make no reliable events."""

    name = "auto"
    exact = False

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._sink: Sink | None = None
        self._native: Watcher | None = None
        self._polling: Watcher | None = None

    async def start(self, sink: Sink) -> None:
        """Begin; watchers are started when a folder needs them."""
        self._sink = sink

    async def watch(self, folders: AbstractSet[str]) -> AbstractSet[str]:
        """Watch exactly these folders."""
        native = frozenset(await self._in_thread(_trusted, folders)) if folders else frozenset[str]()
        polled = folders - native
        armed: AbstractSet[str] = frozenset()
        if native or self._native is not None:
            self._native = self._native or await self._started(_native)
            armed = await self._native.watch(native)
        if polled or self._polling is not None:
            self._polling = self._polling or await self._started(_polling)
            armed = frozenset(armed) | await self._polling.watch(polled)
        return armed

    async def _started(self, make: Callable[[], Watcher]) -> Watcher:
        assert self._sink is not None  # noqa: S101 - `start` came first
        watcher = make()
        await watcher.start(self._sink)
        return watcher

    def drain(self) -> None:
        """Do nothing: neither watcher is exact."""

    async def aclose(self) -> None:
        """End both."""
        for watcher in (self._native, self._polling):
            if watcher is not None:
                await watcher.aclose()
        self._native = self._polling = None


def _trusted(folders: AbstractSet[str]) -> set[str]:
    return {folder for folder in folders if events_trusted(folder)}
