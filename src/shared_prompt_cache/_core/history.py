"""What became of the keys that left: a bounded memory, for explanations."""

from collections import OrderedDict
from typing import Final

from shared_prompt_cache.events import Invalidation, RemovalReason

_MOST_REMEMBERED: Final = 1000
FILE_CHANGED: Final = "a file it was made from changed"


class History:
    """What became of the keys that left last; the oldest of 1,000 is forgotten for each new one."""

    __slots__ = ("_gone",)

    def __init__(self) -> None:
        self._gone: OrderedDict[str, tuple[RemovalReason | str, Invalidation | None, float]] = OrderedDict()

    def note(self, key: str, reason: str, invalidation: Invalidation | None, at: float) -> None:
        """Note that `key` left, or was not kept."""
        gone = self._gone
        gone.pop(key, None)
        gone[key] = (reason, invalidation, at)
        if len(gone) > _MOST_REMEMBERED:
            gone.popitem(last=False)

    def get(self, key: str) -> tuple[str, Invalidation | None, float] | None:
        """Return the reason, the invalidation and the moment."""
        return self._gone.get(key)
