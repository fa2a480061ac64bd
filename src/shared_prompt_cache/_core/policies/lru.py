"""Least recently used: the order of the table is the order of use."""

from collections import OrderedDict

from shared_prompt_cache._core.entry import Entry


class LRU:
    """Evicts what has not been asked for for the longest time."""

    __slots__ = ("entries", "touch")

    def __init__(self) -> None:
        self.entries: OrderedDict[str, Entry] = OrderedDict()
        self.touch = self.entries.move_to_end

    def victim(self) -> str | None:
        """Return the key at the cold end."""
        return next(iter(self.entries), None)
