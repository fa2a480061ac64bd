"""The list of all entries, in buckets by the first word of their keys.

Entries are nodes of doubly linked lists, so that filing one costs two pointers and never the growth of a table, and
a walk can be left and taken up again while entries come and go: a marker node keeps the place.
"""

from collections.abc import Iterable
from typing import Any, Final

from shared_prompt_cache._core.conditions import head
from shared_prompt_cache._core.entry import Entry

_BUCKETS: Final = 4096


class _Node:
    """The head of a bucket, or the marker of a walk; entries are the other nodes."""

    __slots__ = ("after", "before")

    def __init__(self) -> None:
        self.before: Any = self
        self.after: Any = self


class Index:
    """Entries by the first word of their keys; bounded, since many words share one of 4,096 buckets."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[int, _Node] = {}

    def add(self, entry: Entry) -> None:
        """File an entry."""
        number = hash(head(entry.key)) % _BUCKETS
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = _Node()
        _link(entry, bucket)

    def remove(self, entry: Entry) -> None:
        """Take it out."""
        _unlink(entry)
        entry.before = entry.after = None

    def walk(self, heads: Iterable[str] | None = None) -> "Walk":
        """Return a walk over the entries with these heads (and some others), or over all."""
        if heads is None:
            return Walk(list(self._buckets.values()))
        numbers = {hash(word) % _BUCKETS for word in heads}
        return Walk([self._buckets[number] for number in numbers if number in self._buckets])


class Walk:
    """A walk over entries in steps. Each entry that is there from the beginning to the end of it is taken once."""

    __slots__ = ("_buckets", "_marker")

    def __init__(self, buckets: list[_Node]) -> None:
        self._buckets = buckets
        self._marker: _Node | None = None

    def take(self, most: int) -> list[Entry]:
        """Return the next entries, `most` at the most; fewer only at the end, none after it."""
        taken: list[Entry] = []
        while self._buckets:
            bucket = self._buckets[-1]
            marker = self._marker
            if marker is None:
                node = bucket.after
            else:
                node = marker.after
                _unlink(marker)
                self._marker = None
            while node is not bucket:
                if type(node) is Entry:  # else the marker of another walk
                    if len(taken) == most:
                        self._marker = marker = _Node()
                        _link(marker, node.before)
                        return taken
                    taken.append(node)
                node = node.after
            self._buckets.pop()
        return taken

    @property
    def over(self) -> bool:
        """Whether no entry is left."""
        return not self._buckets

    def close(self) -> None:
        """Leave the walk where it is."""
        if self._marker is not None:
            _unlink(self._marker)
            self._marker = None
        self._buckets.clear()


def _link(node: Any, place: Any) -> None:
    """Put `node` behind `place`."""
    after = place.after
    node.before, node.after = place, after
    place.after = after.before = node


def _unlink(node: Any) -> None:
    node.before.after = node.after
    node.after.before = node.before
