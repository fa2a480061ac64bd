"""Looking into a database that others may be using, without changing anything.

A store begins a missing database, sets a damaged one aside, and removes what it cannot read. Here all that is only
told. Each row is read at a moment of its own: a long look at one moment would keep the log file from ever being begun
anew. A connection that only reads neither writes nor checkpoints, so it needs no lock among those who do.
"""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.keys import glob_matcher, literal_prefix
from shared_prompt_cache.stores._protocol import StoredEntry
from shared_prompt_cache.stores._sqlite import entries, journal, schema
from shared_prompt_cache.stores._sqlite.database import is_damage
from shared_prompt_cache.stores._sqlite.place import Place
from shared_prompt_cache.stores._sqlite.root import Root
from shared_prompt_cache.stores._sqlite.schema import DamagedError, at_one_moment, to_bytes, to_text

T = TypeVar("T")

_PATIENCE: Final = 5.0
_PORTION: Final = 1000
_MOST_FAULTS: Final = 20

_KEYS: Final = "SELECT key FROM entries WHERE key > ? AND key >= ? ORDER BY key LIMIT ?"
_ROW: Final = "SELECT id, codec, payload, head, checksum FROM entries WHERE key = ?"
_NAMES: Final = """
SELECT names.name FROM life, json_each(life.names) AS kept
JOIN names ON names.id = kept.value JOIN named ON named.name = names.id AND named.entry = life.entry
WHERE life.entry = ?
"""


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as it stands in the database.

    Attributes:
        entry: The entry; of a damaged database its fields may be of any type.
        names: Those by which invalidations find it.
    """

    entry: StoredEntry
    names: frozenset[bytes]

    def is_found_by(self, names: tuple[str, ...]) -> bool:
        """Return whether invalidations find it by exactly these names."""
        return self.names == {to_bytes(name) for name in entries.kept_names(self.entry.key, names)}


class Inspection:
    """A look into the database of a place, which is there.

    Attributes:
        root: The root of the store, whose paths are kept relative to it; None if it has none yet.

    Raises:
        ForeignError: If it is the database of another program or version.
        DamagedError: If it is damaged. So do all methods.
        StoreError: If it cannot be read, for reasons that are not its own. So do all methods.
    """

    def __init__(self, place: Place) -> None:
        self.root: str | None = None
        self._database = place.database
        try:
            self._raw = sqlite3.connect(
                Path(place.database).as_uri() + "?mode=ro", uri=True, isolation_level=None, timeout=_PATIENCE
            )
        except sqlite3.Error as error:
            raise self._failure(error) from error
        try:
            levels = self._ask(_prepare)
            self._is_empty = levels is None
            if levels is not None:
                root = Root(place.folder, None)
                root.settle(levels)
                self.root = root.path
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def faults(self) -> list[str]:
        """Return what is wrong with the database but for its rows, which are judged by their seals."""
        if self._is_empty:
            return []
        found = self._ask(lambda raw: raw.execute(f"PRAGMA integrity_check({_MOST_FAULTS})").fetchall())
        faults = [str(text) for (text,) in found if text != "ok"]
        queries: tuple[Callable[[sqlite3.Connection], object], ...] = (
            lambda raw: journal.read(raw, 0),
            lambda raw: journal.baseline(raw, "/"),
            lambda raw: journal.baseline(raw, "./"),  # what lies below the root
        )
        for query in queries:
            try:
                self._ask(query)
            except DamagedError as error:
                faults.append(str(error))
        return faults

    def matching(self, pattern: str) -> Iterator[str]:
        """Yield the keys that match a glob, in order."""
        if self._is_empty:
            return
        matches, prefix, after = glob_matcher(pattern), to_bytes(literal_prefix(pattern)), b""
        while True:
            bounds = (after, prefix, _PORTION)
            portion = self._ask(lambda raw, bounds=bounds: raw.execute(_KEYS, bounds).fetchall())  # type: ignore[misc]
            for (kept,) in portion:
                if not kept.startswith(prefix):
                    return
                if matches(key := to_text(kept)):
                    yield key
            if len(portion) < _PORTION:
                return
            after = portion[-1][0]

    def row(self, key: str) -> Row | None:
        """Return an entry, None if it is not there (any more)."""
        return None if self._is_empty else self._ask(lambda raw: _row(raw, key))

    def _ask(self, query: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return query(self._raw)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> Exception:
        if is_damage(error):
            return DamagedError(str(error))
        return StoreError(f"{self._database} cannot be read: {error}", operation="read")


def _prepare(raw: sqlite3.Connection) -> int | None:
    """Set a new connection up; return where the root is, None if the database is empty, not even begun."""
    # A text that is none belongs to a row that is damaged, and says nothing of the others.
    raw.text_factory = lambda text: text.decode("utf-8", "replace")
    schema.pragma(raw, "trusted_schema = OFF")  # before anything of it is read
    schema.pragma(raw, "cell_size_check = ON")
    if schema.pragma(raw, "page_count") == 0:
        return None
    schema.check(raw)
    return schema.levels_of(raw)


def _row(raw: sqlite3.Connection, key: str) -> Row | None:
    with at_one_moment(raw):
        found = raw.execute(_ROW, (to_bytes(key),)).fetchone()
        if found is None:
            return None
        number, *fields = found
        names = frozenset([name for (name,) in raw.execute(_NAMES, (number,))])
    return Row(StoredEntry(key, *fields), names)
