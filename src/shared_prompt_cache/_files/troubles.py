"""What a watch tells of its state: which part is in trouble, why and since when. Each trouble is logged once."""

import logging
from collections.abc import Callable, Collection, Mapping

from shared_prompt_cache._core.stats import PartHealth
from shared_prompt_cache._files.places import Identity
from shared_prompt_cache._logging import log


class Troubles:
    """The troubles of one watch.

    Args:
        wall: The wall clock.

    Attributes:
        refused: The folders that cannot be watched.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self.refused: dict[str, PartHealth] = {}
        self._wall = wall
        self._watcher = PartHealth(status="ok")
        self._unread: dict[str, PartHealth] = {}

    def doubted(self, reason: str) -> None:
        """Note that changes may have been missed, so that everything is compared."""
        log(logging.WARNING, "watch.doubted", reason=reason)
        if self._watcher.status == "ok":
            self._watcher = PartHealth(status="ok", reason=reason, since=self._wall())

    def refuse(self, folder: str, reason: str) -> None:
        """Note that a folder cannot be watched."""
        if folder not in self.refused:
            log(logging.WARNING, "watch.degraded", folder=folder, reason=reason)
            self.refused[folder] = PartHealth(status="degraded", reason=reason, since=self._wall())

    def failed(self, error: Exception) -> None:
        """Note that the watch does not do its work."""
        if self._watcher.status == "ok":
            log(logging.ERROR, "watch.failed", exc_info=error)
            self._watcher = PartHealth(status="degraded", reason=repr(error), since=self._wall())

    def recovered(self) -> None:
        """Note that it does again."""
        if self._watcher.status == "degraded":
            log(logging.WARNING, "watch.recovered", reason=self._watcher.reason)
            reason = f"it failed, and began anew: {self._watcher.reason}"
            self._watcher = PartHealth(status="ok", reason=reason, since=self._wall())

    def unread(self, folders: Collection[tuple[str, str]]) -> None:
        """Note which folders the last walk could not look into."""
        known, now = self._unread, self._wall()
        self._unread = {}
        for folder, reason in folders:
            trouble = known.get(folder)
            if trouble is None or trouble.reason != reason:
                trouble = PartHealth(status="degraded", reason=reason, since=now)
            self._unread[folder] = trouble

    def health(self, roots: Mapping[str, Identity | None]) -> dict[str, PartHealth]:
        """Return the state of the watcher, of each root, and of each folder that is in trouble."""
        parts = {"watcher": self._watcher}
        parts |= {f"folder:{folder}": health for folder, health in self.refused.items()}
        for root, identity in roots.items():
            parts[f"root:{root}"] = PartHealth(
                status="ok", reason="waiting until it exists" if identity is None else None
            )
        for folder, trouble in self._unread.items():
            parts[f"root:{folder}" if folder in roots else f"folder:{folder}"] = trouble
        return parts
