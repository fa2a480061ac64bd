"""The journal, and the baseline, which changes together with it. In a thread, in a transaction."""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Final

from shared_prompt_cache.stores._protocol import Journal, JournalEntry, Notice, Stamp, Swap
from shared_prompt_cache.stores._sqlite import entries, leases
from shared_prompt_cache.stores._sqlite.schema import (
    DamagedError,
    at_one_moment,
    dump_selection,
    load_selection,
    to_bytes,
    to_text,
)

MOST_REMEMBERED: Final = 10_000
_MOST: Final = (1 << 63) - (1 << 31)
"""No sequence gets as high by counting, nor by beginning anew in this millennium."""

_ENDS: Final = "SELECT (SELECT min(sequence) FROM journal), (SELECT max(sequence) FROM journal)"


def carry_out(raw: sqlite3.Connection, notices: Sequence[Notice]) -> list[int]:
    """Delete what the notices select, end the leases they touch, enter them; return their sequences."""
    sequences = []
    for notice in notices:
        entries.remove_selected(raw, notice.selection)
        leases.end_selected(raw, notice.selection)
        row = (to_bytes(notice.origin), notice.number, dump_selection(notice.selection), notice.body)
        cursor = raw.execute("INSERT INTO journal (origin, number, selection, body) VALUES (?, ?, ?, ?)", row)
        sequences.append(int(cursor.lastrowid or 0))
    if sequences:
        raw.execute("DELETE FROM journal WHERE sequence <= ?", (sequences[-1] - MOST_REMEMBERED,))
    return sequences


def swap(raw: sqlite3.Connection, swaps: Sequence[Swap], notices: Sequence[Notice]) -> list[int] | None:
    """Replace records of the baseline and carry the notices out; None, and nothing, if one is not as expected."""
    for change in swaps:
        found = raw.execute("SELECT record FROM baseline WHERE path = ?", (to_bytes(change.path),)).fetchone()
        if (None if found is None else found[0]) != change.old:
            return None
    for change in swaps:
        path = to_bytes(change.path)
        if change.new is None:
            raw.execute("DELETE FROM baseline WHERE path = ?", (path,))
        else:
            raw.execute("INSERT OR REPLACE INTO baseline (path, record) VALUES (?, ?)", (path, change.new))
    return carry_out(raw, notices)


def baseline(raw: sqlite3.Connection, root: str) -> dict[str, bytes]:
    """Return the records at or below `root`."""
    own, below = to_bytes(root), to_bytes(root.rstrip("/") + "/")
    rows = raw.execute(
        "SELECT path, record FROM baseline WHERE path = ? OR (path >= ? AND path < ?)", (own, below, below + b"\xff")
    ).fetchall()
    if not all(type(record) is bytes for _, record in rows):
        raise DamagedError("a record of the baseline is none")
    return {to_text(path): record for path, record in rows}


def read(raw: sqlite3.Connection, after: int) -> Journal:
    """Return what came after a sequence."""
    with at_one_moment(raw):
        forgotten, last = bounds(raw)
        rows = _rows(raw, after)
    return Journal(tuple(rows), forgotten <= after <= last, last)


class Unseen:
    """What may speak against entries that are to be put: the invalidations since their stamps.

    A computation that took long may have ten thousand of them behind it. Most name what they take, and are looked up.
    """

    def __init__(self, raw: sqlite3.Connection, stamps: Sequence[Stamp]) -> None:
        self._bounds = bounds(raw)
        oldest = min((stamp.sequence for stamp in stamps), default=0)
        self._by_name: dict[str, list[JournalEntry]] = {}
        self._others: list[JournalEntry] = []
        for entry in _rows(raw, oldest) if oldest < self._bounds[1] else ():
            for name in entry.selection.names:
                self._by_name.setdefault(name, []).append(entry)
            if entry.selection.prefixes:
                self._others.append(entry)

    def refuses(self, stamp: Stamp, names: Sequence[str]) -> bool:
        """Return whether one of them selects an entry with this stamp and these names, or that cannot be told."""
        forgotten, last = self._bounds
        if not forgotten <= stamp.sequence <= last:
            return True
        if stamp.sequence == last:
            return False
        among = frozenset(names)
        named = (entry for name in among for entry in self._by_name.get(name, ()))
        return any(stamp.is_before(entry) and entry.selection.selects(among) for entry in chain(named, self._others))


def bounds(raw: sqlite3.Connection) -> tuple[int, int]:
    """Return the last sequence that is forgotten, and the last there is."""
    found = raw.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal'").fetchone()
    last = 0 if found is None else found[0]
    first, highest = raw.execute(_ENDS).fetchone()
    if type(last) is not int or last >= _MOST or highest not in {None, last}:
        raise DamagedError("the journal does not know how long it is")
    return (last if first is None else first - 1), last


def begins_at(raw: sqlite3.Connection) -> int:
    """Return the number that this journal began at: 0, unless the database took the place of another."""
    found = raw.execute("SELECT value FROM meta WHERE name = 'begin'").fetchone()
    begin = 0 if found is None else found[0]
    if type(begin) is not int:
        raise DamagedError("the journal does not know where it begins")
    return begin


def begin_at(raw: sqlite3.Connection, number: int) -> None:
    """Forget the journal and go on at `number`, so that no earlier sequence is taken for one of it."""
    raw.execute("INSERT INTO meta (name, value) VALUES ('begin', ?)", (number,))
    for table in ("journal", "leases"):  # a lease of the old database must not be taken for one of the new
        raw.execute(f"DELETE FROM {table}")  # noqa: S608 - one of two constants
        raw.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        raw.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))


def _rows(raw: sqlite3.Connection, after: int) -> list[JournalEntry]:
    found = raw.execute(
        "SELECT sequence, origin, number, selection, body FROM journal WHERE sequence > ? ORDER BY sequence", (after,)
    ).fetchall()
    result = []
    for sequence, origin, number, selection, body in found:
        if type(number) is not int or type(body) is not bytes:
            raise DamagedError("an entry of the journal is none")
        result.append(JournalEntry(sequence, to_text(origin), number, load_selection(selection), body))
    return result
