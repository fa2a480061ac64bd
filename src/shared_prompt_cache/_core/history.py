"""What became of the keys that left: a bounded memory, for explanations."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from shared_prompt_cache.events import Invalidation, RemovalReason

_MOST_REMEMBERED: Final = 1000
FILE_CHANGED: Final = "a file it was made from changed"


class History:
    """What became of the keys that left last; the oldest of 1,000 is forgotten for each new one.

    Args:
        wall: The wall clock.
    """

    __slots__ = ("_gone", "_wall")

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._gone: OrderedDict[str, tuple[RemovalReason | str, Invalidation | None, float]] = OrderedDict()

    def removed(self, key: str, reason: RemovalReason, invalidation: Invalidation | None) -> None:
        """Note that the entry of `key` left; one that was replaced leaves nothing to explain."""
        if reason != "replaced":
            changed = reason == "invalidated" and invalidation is None
            self.note(key, FILE_CHANGED if changed else reason, invalidation)

    def note(self, key: str, reason: str, invalidation: Invalidation | None) -> None:
        """Note that `key` left, or was not kept."""
        gone = self._gone
        gone.pop(key, None)
        gone[key] = (reason, invalidation, self._wall())
        if len(gone) > _MOST_REMEMBERED:
            gone.popitem(last=False)

    def get(self, key: str) -> tuple[str, Invalidation | None, float] | None:
        """Return the reason, the invalidation and the moment."""
        return self._gone.get(key)
