"""The entries: how they are put, found, selected and removed. In a thread, in a transaction.

`used` is a number that rises with each use, not a time: its order is what counts, and no clock that is set can turn it.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, count
from typing import Final

from shared_prompt_cache.stores._protocol import StoredEntry, Write
from shared_prompt_cache.stores._selection import Selection
from shared_prompt_cache.stores._sqlite import bulk
from shared_prompt_cache.stores._sqlite.schema import DamagedError, at_one_moment, load_list, to_bytes, to_text

_SEPARATOR: Final = "\x1f"
_ALL_TEXT: Final = "all"
_MOST: Final = 1 << 62
"""No number gets as high by counting."""
_OWN_TEXT: Final = "key" + _SEPARATOR
_OWN: Final = to_bytes(_OWN_TEXT)

_READ: Final = "SELECT codec, payload, head, checksum FROM entries WHERE key = ?"
_READ_MANY: Final = "SELECT key, codec, payload, head, checksum FROM entries WHERE key IN"
_KNOWN: Final = "SELECT key, id, names FROM entries LEFT JOIN life ON entry = id WHERE key IN"
_LIVES: Final = "SELECT entry, names FROM life WHERE entry IN (SELECT value FROM json_each(?))"
_PUT: Final = """
INSERT INTO entries (id, key, codec, checksum, head, payload) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET codec = excluded.codec, checksum = excluded.checksum,
    head = excluded.head, payload = excluded.payload
"""
_LIVE: Final = "INSERT INTO life (entry, expires, used, size, names) VALUES"
_REVIVING: Final = """
ON CONFLICT (entry) DO UPDATE SET expires = excluded.expires, used = excluded.used,
    size = excluded.size, names = excluded.names
"""


def get(raw: sqlite3.Connection, key: str) -> StoredEntry | None:
    """Return an entry."""
    row = raw.execute(_READ, (to_bytes(key),)).fetchone()
    return None if row is None else _entry(key, row)


def get_many(raw: sqlite3.Connection, keys: Iterable[str]) -> dict[str, StoredEntry]:
    """Return the entries that are there, seen at one moment."""
    wanted = {to_bytes(key): key for key in keys}
    with at_one_moment(raw):
        rows = list(bulk.select(raw, _READ_MANY, list(wanted)))
    return {key: _entry(key, row) for kept, *row in rows if (key := wanted.get(kept)) is not None}


def _entry(key: str, row: Sequence[object]) -> StoredEntry:
    codec, payload, head, checksum = row
    if (
        isinstance(codec, str)
        and isinstance(payload, bytes)
        and isinstance(head, bytes)
        and isinstance(checksum, bytes)
    ):
        return StoredEntry(key, codec, payload, head, checksum)
    raise DamagedError("an entry is none")


def put(raw: sqlite3.Connection, writes: Iterable[Write]) -> None:
    """Put entries, each in the place of an older one of its key; of two with one key the last."""
    latest = {to_bytes(write.entry.key): write for write in writes}
    if not latest:
        return
    known = {key: (number, _ids(kept)) for key, number, kept in bulk.select(raw, _KNOWN, list(latest))}
    all_names = {key: kept_names(write.entry.key, write.names) for key, write in latest.items()}
    numbers = _number_names(raw, set(chain.from_iterable(all_names.values())))
    ids, used = count(_highest(raw, "SELECT max(id) FROM entries") + 1), count(_last_use(raw) + 1)
    rows, lives, added, freed = [], [], [], []
    for key, write in latest.items():
        number, before = known.get(key) or (next(ids), frozenset())
        entry, names = write.entry, {numbers[name] for name in all_names[key]}
        rows.append((number, key, entry.codec, entry.checksum, entry.head, entry.payload))
        lives.append((number, write.expires_at, next(used), len(entry.payload) + len(entry.head), str(list(names))))
        if names != before:
            added += [(name, number) for name in names - before]
            freed += [(name, number) for name in before - names]
    raw.executemany(_PUT, rows)  # each for itself: large ones would be copied once more
    bulk.insert(raw, _LIVE, lives, _REVIVING)
    bulk.insert(raw, "INSERT INTO named (name, entry) VALUES", added)
    _free(raw, freed)


def kept_names(key: str, names: Iterable[str]) -> list[str]:
    """Return those of the names of an entry that are written down."""
    # As they come: most are those of other entries, too, and need not be encoded each time.
    own = _OWN_TEXT + key
    return [name for name in names if name not in (own, _ALL_TEXT)]


def _number_names(raw: sqlite3.Connection, names: Collection[str]) -> dict[str, int]:
    """Return the numbers of names; new ones are written down."""
    kept = {to_bytes(name): name for name in names}
    rows = bulk.select(raw, "SELECT name, id FROM names WHERE name IN", list(kept))
    numbers = {kept[name]: number for name, number in rows}
    ids = count(_highest(raw, "SELECT max(id) FROM names") + 1)
    new = {bare: next(ids) for bare, name in kept.items() if name not in numbers}
    bulk.insert(raw, "INSERT INTO names (name, id) VALUES", list(new.items()))
    return numbers | {kept[bare]: number for bare, number in new.items()}


def use(raw: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Note that entries were read, in this order."""
    used = count(_last_use(raw) + 1)
    raw.executemany(
        "UPDATE life SET used = ? WHERE entry = (SELECT id FROM entries WHERE key = ?)",
        [(next(used), to_bytes(key)) for key in keys],
    )


def delete(raw: sqlite3.Connection, keys: Iterable[str], checksums: Mapping[str, bytes] | None) -> int:
    """Delete entries, with `checksums` only those that have theirs; return how many."""
    ids = []
    for key in dict.fromkeys(keys):
        found = raw.execute("SELECT id, checksum FROM entries WHERE key = ?", (to_bytes(key),)).fetchone()
        if found is not None and (checksums is None or checksums.get(key) == found[1]):
            ids.append(found[0])
    remove(raw, ids)
    return len(ids)


def remove(raw: sqlite3.Connection, ids: Collection[int]) -> None:
    """Remove entries, and the names that nothing else has."""
    if not ids:
        return
    kept = (json.dumps(list(ids)),)
    rows = raw.execute(_LIVES, kept).fetchall()
    freed = [(name, entry) for entry, names in rows for name in _ids(names)]
    raw.execute("DELETE FROM life WHERE entry IN (SELECT value FROM json_each(?))", kept)
    raw.execute("DELETE FROM entries WHERE id IN (SELECT value FROM json_each(?))", kept)
    _free(raw, freed)


def _free(raw: sqlite3.Connection, freed: Collection[tuple[int, int]]) -> None:
    if freed:
        raw.executemany("DELETE FROM named WHERE name = ? AND entry = ?", freed)
        raw.executemany(
            "DELETE FROM names WHERE id = ? AND NOT EXISTS (SELECT 1 FROM named WHERE named.name = names.id)",
            [(name,) for name in {name for name, _ in freed}],
        )


def remove_selected(raw: sqlite3.Connection, selection: Selection) -> None:
    """Remove what a selection holds."""
    if _ALL_TEXT in selection.names:
        for table in ("named", "names", "life", "entries"):
            raw.execute(f"DELETE FROM {table}")  # noqa: S608 - one of four constants
        return
    remove(raw, _with_names(raw, selection.names) | _with_prefixes(raw, selection))


def _with_names(raw: sqlite3.Connection, names: Iterable[str]) -> set[int]:
    ids: set[int] = set()
    for text in names:
        name = to_bytes(text)
        if name.startswith(_OWN):
            ids.update(_column(raw, "SELECT id FROM entries WHERE key = ?", (name[len(_OWN) :],)))
        ids.update(_column(raw, "SELECT entry FROM named WHERE name = (SELECT id FROM names WHERE name = ?)", (name,)))
    return ids


def _with_prefixes(raw: sqlite3.Connection, selection: Selection) -> set[int]:
    """Narrow down by the index, then ask the selection itself."""
    ids: set[int] = set()
    # One name shows whether an entry is held, unless a second one, that of a project, is asked for.
    by_name = Selection(prefixes=selection.prefixes, pattern=selection.pattern)
    for text in selection.prefixes:
        prefix = to_bytes(text)
        for number, name in _range(raw, "SELECT id, name FROM names WHERE name >= ? AND name < ?", prefix):
            if by_name.selects((to_text(name),)):
                ids.update(_column(raw, "SELECT entry FROM named WHERE name = ?", (number,)))
        if prefix.startswith(_OWN) or _OWN.startswith(prefix):
            keys = _range(raw, "SELECT id, key FROM entries WHERE key >= ? AND key < ?", prefix[len(_OWN) :])
            ids.update([number for number, key in keys if by_name.selects((to_text(_OWN + key),))])
    if selection.projects is None:
        return ids
    return {number for number in ids if selection.selects(_names_of(raw, number))}


def _names_of(raw: sqlite3.Connection, number: int) -> list[str]:
    found = raw.execute("SELECT key, names FROM entries JOIN life ON entry = id WHERE id = ?", (number,)).fetchone()
    if found is None:
        raise DamagedError("an entry has no life")
    names = [_ALL_TEXT, to_text(_OWN + found[0])]
    for name in _ids(found[1]):
        names += [to_text(kept) for kept in _column(raw, "SELECT name FROM names WHERE id = ?", (name,))]
    return names


def keys(raw: sqlite3.Connection, most: int, after: str) -> list[str]:
    """Return keys in order."""
    found = _column(raw, "SELECT key FROM entries WHERE key > ? ORDER BY key LIMIT ?", (to_bytes(after), most))
    return [to_text(key) for key in found]


def most_used(raw: sqlite3.Connection, most: int) -> list[str]:
    """Return the keys that were used last, latest first."""
    statement = "SELECT key FROM life JOIN entries ON id = entry ORDER BY used DESC LIMIT ?"
    return [to_text(key) for key in _column(raw, statement, (most,))]


def remove_expired(raw: sqlite3.Connection, now: float, most: int) -> int:
    """Remove at most so many expired entries; return how many."""
    ids = _column(raw, "SELECT entry FROM life WHERE expires <= ? ORDER BY expires LIMIT ?", (now, most))
    remove(raw, ids)
    return len(ids)


def remove_least_used(raw: sqlite3.Connection, max_bytes: int, most: int) -> int:
    """Remove at most so many entries, least recently used first, until the others are within the limit."""
    surplus = totals(raw)[1] - max_bytes
    ids = []
    rows = raw.execute("SELECT entry, size FROM life ORDER BY used LIMIT ?", (most if surplus > 0 else 0,))
    for entry, size in rows.fetchall():
        if surplus <= 0:
            break
        ids.append(entry)
        surplus -= size
    remove(raw, ids)
    return len(ids)


def totals(raw: sqlite3.Connection) -> tuple[int, int]:
    """Return how many entries there are, and the bytes of their payloads and heads."""
    number, size = raw.execute("SELECT count(*), total(size) FROM life").fetchone()
    return number, int(size)


def _last_use(raw: sqlite3.Connection) -> int:
    return _highest(raw, "SELECT max(used) FROM life")


def _highest(raw: sqlite3.Connection, statement: str) -> int:
    found = raw.execute(statement).fetchone()[0]
    if found is None:
        return 0
    if type(found) is not int or not 0 <= found < _MOST:
        raise DamagedError("a number is none")
    return found


def _ids(kept: object) -> set[int]:
    numbers = load_list(kept)
    if not all(type(number) is int and 0 < number < _MOST for number in numbers):
        raise DamagedError("a number of a name is none")
    return set(numbers)


def _range(raw: sqlite3.Connection, statement: str, prefix: bytes) -> list[tuple[int, bytes]]:
    # No byte of UTF-8 is 255.
    return raw.execute(statement, (prefix, prefix + b"\xff")).fetchall()


def _column(raw: sqlite3.Connection, statement: str, arguments: Sequence[object]) -> list[int]:
    return [row[0] for row in raw.execute(statement, arguments).fetchall()]
