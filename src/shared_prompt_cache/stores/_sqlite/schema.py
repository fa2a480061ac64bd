"""The tables, and how texts and numbers stand in them.

Texts that come from outside (keys, names, paths) are kept as UTF-8 bytes that let halves of surrogate pairs through:
SQLite compares them as Python compares texts, and no key or file name is refused.

What is read with every hit is apart from what is written behind it: `entries` has the large rows, `life` the small
ones. Names are kept once, in `names`; two are kept by nobody, since they follow from the entry: `all`, and that of its
own key.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from shared_prompt_cache.stores._selection import Selection

APPLICATION_ID: Final = 0x53_50_43_53  # "SPCS"
VERSION: Final = 3
PAGE_SIZE: Final = 8192
CACHE_KIB: Final = 16_384
CHECKPOINT_PAGES: Final = 4000
_MOST_LEVELS: Final = 4096

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE,
    codec TEXT NOT NULL, checksum BLOB NOT NULL, head BLOB NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE life (
    entry INTEGER PRIMARY KEY, expires REAL NOT NULL, used INTEGER NOT NULL, size INTEGER NOT NULL, names TEXT NOT NULL
);
CREATE INDEX life_by_expiry ON life (expires);
CREATE INDEX life_by_use ON life (used, size);
CREATE TABLE names (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);
CREATE TABLE named (name INTEGER NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (name, entry)) WITHOUT ROWID;
CREATE TABLE journal (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    origin BLOB NOT NULL, number INTEGER NOT NULL, selection TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE leases (
    fence INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE, holder BLOB NOT NULL, since REAL NOT NULL, ttl REAL NOT NULL, names TEXT NOT NULL
);
CREATE TABLE baseline (path BLOB PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
"""


class DamagedError(Exception):
    """A database that is damaged, or none of ours."""


def prepare(raw: sqlite3.Connection, *, wal: bool, levels: int) -> bool:
    """Set a new connection up, make the tables if the database is empty; return whether it has a write-ahead log.

    Args:
        raw: The connection.
        wal: Whether it is to have one.
        levels: How many levels the root of an empty one lies above its folder.

    Raises:
        DamagedError: If it is the database of another program, or of another version of this one.
        sqlite3.Error: If it cannot be read.
    """
    pragma(raw, "trusted_schema = OFF")  # before anything of it is read
    pragma(raw, "cell_size_check = ON")
    pragma(raw, "mmap_size = 0")
    pragma(raw, "secure_delete = OFF")
    pragma(raw, "temp_store = MEMORY")
    pragma(raw, f"cache_size = {-CACHE_KIB}")
    if pragma(raw, "page_count") == 0:
        pragma(raw, f"page_size = {PAGE_SIZE}")
        pragma(raw, "auto_vacuum = INCREMENTAL")
        begun = f"INSERT INTO meta (name, value) VALUES ('root', {levels:d});"  # noqa: S608 - a number
        has_wal = _set_journal_mode(raw, wal=wal)
        raw.executescript(
            f"BEGIN; {_TABLES} {begun}"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        )
    else:
        found = pragma(raw, "application_id"), pragma(raw, "user_version")
        if found != (APPLICATION_ID, VERSION) or _layout(raw) != _expected_layout():
            raise DamagedError(f"a database of another program or version: {found[0]:#x}, {found[1]}")
        has_wal = _set_journal_mode(raw, wal=wal)
    pragma(raw, f"wal_autocheckpoint = {CHECKPOINT_PAGES}")
    pragma(raw, f"journal_size_limit = {PAGE_SIZE * CHECKPOINT_PAGES}")
    pragma(raw, "synchronous = " + ("NORMAL" if has_wal else "FULL"))
    return has_wal


def levels_of(raw: sqlite3.Connection) -> int:
    """Return how many levels the root lies above the folder of the database.

    Raises:
        DamagedError: If it does not say.
    """
    found = raw.execute("SELECT value FROM meta WHERE name = 'root'").fetchone()
    if found is None or type(found[0]) is not int or not 0 < found[0] <= _MOST_LEVELS:
        raise DamagedError("it does not say where its root is")
    return found[0]


@contextmanager
def at_one_moment(raw: sqlite3.Connection) -> Iterator[None]:
    """Have several queries see the same."""
    raw.execute("BEGIN")
    try:
        yield
    finally:
        if raw.in_transaction:
            raw.execute("ROLLBACK")


def pragma(raw: sqlite3.Connection, text: str) -> Any:
    """Run a pragma; return the first value that it gives, if any."""
    row = raw.execute("PRAGMA " + text).fetchone()
    return None if row is None else row[0]


def _set_journal_mode(raw: sqlite3.Connection, *, wal: bool) -> bool:
    return bool(pragma(raw, "journal_mode = " + ("WAL" if wal else "DELETE")) == "wal")


def _layout(raw: sqlite3.Connection) -> set[tuple[object, ...]]:
    return set(raw.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"))


@cache
def _expected_layout() -> set[tuple[object, ...]]:
    raw = sqlite3.connect(":memory:")
    try:
        raw.executescript(_TABLES)
        return _layout(raw)
    finally:
        raw.close()


def to_bytes(text: str) -> bytes:
    """Return a text as it is kept."""
    return text.encode("utf-8", "surrogatepass")


def to_text(kept: object) -> str:
    """Return a text that was kept.

    Raises:
        DamagedError: If it is none.
    """
    if type(kept) is not bytes:
        raise DamagedError("not a text")
    try:
        return kept.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise DamagedError("not a text") from error


def dump_selection(selection: Selection) -> str:
    """Return a selection as it is kept."""
    return json.dumps([selection.names, selection.prefixes, selection.pattern, selection.projects])


def load_selection(kept: object) -> Selection:
    """Return a selection that was kept.

    Raises:
        DamagedError: If it is none.
    """
    names, prefixes, pattern, projects = load_list(kept, 4)
    if not (
        _are_texts(names)
        and _are_texts(prefixes)
        and isinstance(pattern, str | None)
        and (projects is None or _are_texts(projects))
    ):
        raise DamagedError("not a selection")
    return Selection(tuple(names), tuple(prefixes), pattern, None if projects is None else tuple(projects))


def load_texts(kept: object) -> tuple[str, ...]:
    """Return texts that were kept as a list.

    Raises:
        DamagedError: If they are none.
    """
    texts = load_list(kept)
    if not _are_texts(texts):
        raise DamagedError("not a list of texts")
    return tuple(texts)


def load_list(kept: object, length: int | None = None) -> list[Any]:
    """Return a list that was kept.

    Raises:
        DamagedError: If it is none, or not of this length.
    """
    try:
        found = json.loads(kept) if isinstance(kept, str) else None
    except (ValueError, RecursionError) as error:
        raise DamagedError("not a list") from error
    if not isinstance(found, list) or length not in (None, len(found)):
        raise DamagedError("not a list")
    return found


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
