"""What the caches of one store tell each other: notices of invalidations, and what was read of them.

What is remembered of the journal serves one purpose: a row that somebody put back after it was invalidated is told by
its stamp. It is bounded: what is older than what is remembered is believed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Final

import msgspec

from shared_prompt_cache._files.baseline import Seen
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache.events import Invalidation, ScopeKind
from shared_prompt_cache.stores import JournalEntry, Notice, Stamp

_MOST_REMEMBERED: Final = 10_000
_MOST_BEGINNINGS: Final = 256


class Told(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The body of a notice.

    Attributes:
        scope: As in `Invalidation`; so are the next four.
        name: Which one.
        project: The project that an agent's invalidation is limited to.
        soft: Whether entries are expired instead of removed.
        at: When.
        origin: The cache in which it began.
        cause: Why, as text.
        change: Tells the changes of watched files that one cache has found apart; 0: none of them raised this.
        rules: By which rules it was raised; see `Baseline.rules`.
        files: With the first that a change raised: what became of each of the files.
        last: Whether it is the last that the change raised.
        again: Whether others have told of it before, in fewer names.
    """

    scope: ScopeKind
    name: str | None
    project: str | None
    soft: bool
    at: float
    origin: str
    cause: str
    change: int = 0
    rules: bytes = b""
    files: dict[str, Seen] = {}
    last: bool = False
    again: bool = False


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Told)


EVERYTHING: Final = _ENCODER.encode(
    Told(scope="all", name=None, project=None, soft=False, at=0.0, origin="", cause="more than is told one by one")
)
"""The body of a notice that stands for many."""


def written(told: Invalidation, *, again: bool = False) -> bytes:
    """Return the body of a notice; `again`: others have told of it before."""
    cause = str(told.cause).encode("utf-8", "replace").decode()
    try:
        return _ENCODER.encode(_body(told, told.name, told.project, cause, again=again))
    except UnicodeEncodeError:  # half of a surrogate pair in a name: others are told of everything
        return _ENCODER.encode(_body(told, None, None, cause, again=again))


def _body(told: Invalidation, name: str | None, project: str | None, cause: str, *, again: bool) -> Told:
    return Told(
        scope=told.scope if name is not None else "all",
        name=name,
        project=project,
        soft=told.soft,
        at=told.at,
        origin=told.origin,
        cause=cause,
        again=again,
    )


def of_change(notices: Sequence[Notice], rules: bytes, files: dict[str, Seen]) -> list[Notice]:
    """Return the notices that one change of watched files has raised, so that others know it again.

    Args:
        notices: In order.
        rules: By which rules.
        files: What became of each of the files, by path as it is kept.
    """
    marked = []
    for place, notice in enumerate(notices):
        body = msgspec.structs.replace(
            _DECODER.decode(notice.body),
            change=notices[0].number,
            rules=rules,
            files={} if place else files,
            last=place == len(notices) - 1,
        )
        marked.append(replace(notice, body=_ENCODER.encode(body)))
    return marked


def kept(notice: Notice, relative: Relative) -> Notice:
    """Return a notice as it goes into the journal, with paths as they are kept."""
    if relative.root is None:
        return notice
    body = _ENCODER.encode(_renamed(_DECODER.decode(notice.body), relative.kept))
    return replace(notice, selection=relative.selection(notice.selection), body=body)


def read(body: bytes, relative: Relative) -> Told | None:
    """Return what a notice tells, None if it cannot be read."""
    try:
        told = _DECODER.decode(body)
    except (msgspec.DecodeError, ValueError):
        return None
    return _renamed(told, relative.absolute) if told.name or told.scope == "all" else None


def _renamed(told: Told, spelled: Callable[[str | None], str | None]) -> Told:
    """Return it with paths spelled in another way."""
    name = spelled(told.name) if told.scope in ("file", "project") else told.name
    return msgspec.structs.replace(told, name=name, project=spelled(told.project))


class Remembered:
    """The part of the journal that was read last."""

    def __init__(self) -> None:
        self._entries: deque[JournalEntry] = deque()
        self._by_name: dict[str, deque[JournalEntry]] = {}
        self._beginnings: deque[JournalEntry] = deque(maxlen=_MOST_BEGINNINGS)  # those that select by prefix, too

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: JournalEntry) -> None:
        """Remember one more."""
        self._entries.append(entry)
        for name in entry.selection.names:
            self._by_name.setdefault(name, deque()).append(entry)
        if entry.selection.prefixes:
            self._beginnings.append(entry)
        if len(self._entries) > _MOST_REMEMBERED:
            for name in self._entries.popleft().selection.names:
                known = self._by_name[name]
                known.popleft()
                if not known:
                    del self._by_name[name]

    def clear(self) -> None:
        """Forget all: it is another journal now."""
        self._entries.clear()
        self._by_name.clear()
        self._beginnings.clear()

    def selects(self, names: Collection[str], stamp: Stamp) -> bool:
        """Return whether an invalidation after `stamp` takes an entry with these names."""
        if not self._entries or self._entries[-1].sequence <= stamp.sequence:
            return False
        return any(
            stamp.is_before(entry) for name in names for entry in _since(self._by_name.get(name, ()), stamp)
        ) or any(stamp.is_before(entry) and entry.selection.selects(names) for entry in _since(self._beginnings, stamp))


def _since(entries: Sequence[JournalEntry], stamp: Stamp) -> Iterable[JournalEntry]:
    """Return those that came after `stamp`, latest first."""
    return takewhile(lambda entry: entry.sequence > stamp.sequence, reversed(entries))
