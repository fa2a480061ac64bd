"""What became of the keys that left: a bounded memory, for explanations."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final, Literal, NamedTuple

from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache.events import Invalidation, RemovalReason

_MOST_REMEMBERED: Final = 1000
_MOST_SOURCES: Final = 3


class Departure(NamedTuple):
    """What became of one key.

    Attributes:
        state: Whether it was there before.
        reason: Why it left, or was not kept.
        invalidation: What invalidated it.
        at: When, in seconds since the epoch.
        sources: The keys of values it was made from, if it left because of them.
    """

    state: Literal["removed", "not kept"]
    reason: str
    invalidation: Invalidation | None
    at: float
    sources: tuple[str, ...] = ()


class History:
    """What became of the keys that left last; the oldest of 1,000 is forgotten for each new one.

    Args:
        wall: The wall clock.
    """

    __slots__ = ("_gone", "_wall")

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._gone: OrderedDict[str, Departure] = OrderedDict()

    def removed(self, entry: Entry, reason: RemovalReason, invalidation: Invalidation | None) -> None:
        """Note that an entry left; one that was replaced leaves nothing to explain."""
        if reason == "replaced":
            return
        why: str = reason
        sources: tuple[str, ...] = ()
        if reason == "invalidated" and invalidation is None:
            changed = None if entry.origin is None else entry.origin.changed
            why = "the cache was closed" if changed is None else f"the file {changed} changed"
        elif invalidation is not None:
            sources = _sources(entry)
        self._note(entry.key, Departure("removed", why, invalidation, self._wall(), sources))

    def refused(self, key: str, reason: str, invalidation: Invalidation | None) -> None:
        """Note that a value of `key` was not kept."""
        self._note(key, Departure("not kept", reason, invalidation, self._wall()))

    def _note(self, key: str, departure: Departure) -> None:
        gone = self._gone
        gone.pop(key, None)
        gone[key] = departure
        if len(gone) > _MOST_REMEMBERED:
            gone.popitem(last=False)

    def get(self, key: str) -> Departure | None:
        """Return what became of `key`."""
        return self._gone.get(key)


def _sources(entry: Entry) -> tuple[str, ...]:
    """Return the keys by which an invalidation reached an entry that was made from others; none if it names itself."""
    moved = [scope for scope, number in entry.pairs if scope.number != number]
    if not moved or any(scope in entry.labels.scopes for scope in moved):
        return ()
    keys = [scope.id[1] for scope in moved if scope.id[0] == "key"] or [key for key, _ in entry.consumed]
    return tuple(islice(keys, _MOST_SOURCES))
