"""What the commands for a store have in common: where it is, the key of this user, and what a row is worth."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from shared_prompt_cache._files.fingerprint import Dependency
from shared_prompt_cache._files.reading import compare
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache._tier.rows import dependency_of, proved
from shared_prompt_cache.errors import ConfigError, StoreError
from shared_prompt_cache.stores import StoredEntry
from shared_prompt_cache.stores._codec import Unreadable
from shared_prompt_cache.stores._seal import Head, Sealer, StoredDependency, Unpacked, unpack
from shared_prompt_cache.stores._secret import VARIABLE, key_file, load_secret
from shared_prompt_cache.stores._sqlite.inspection import Inspection, Row
from shared_prompt_cache.stores._sqlite.place import DATABASE, Place
from shared_prompt_cache.stores._sqlite.schema import DamagedError, ForeignError

State = Literal["holds", "changed", "left behind", "expired", "unreadable", "not ours"]
MEANINGS: Final[dict[State, str]] = {
    "holds": "every file that it was made from is as it was",
    "changed": "it was made from files that have changed since",
    "left behind": "the store was moved, and what it was made from has not come along",
    "expired": "its time is over",
    "unreadable": "another version of this package wrote it",
    "not ours": "it is damaged, or sealed with another key",
}
"""What can be told of an entry by itself; the first that is true, from below."""


def tally(states: Mapping[str, int]) -> str:
    """Return how many entries are in which state."""
    words = {state: "hold" if state == "holds" and states.get(state) != 1 else state for state in MEANINGS}
    return ", ".join([f"{states[state]:,} {word}" for state, word in words.items() if states.get(state)])


def place_of(path: str) -> Place:
    """Return the place of a store that is there; nothing is made.

    Args:
        path: The folder that was given to `SQLiteStore`, or the database in it.

    Raises:
        ConfigError: If there is no store.
        StoreError: If it is not safe to use, or cannot be looked at.
    """
    given = Path(path).expanduser()
    try:
        folder = given.parent if given.name == DATABASE and not given.is_dir() else given
        place = Place(folder)
        if not os.path.lexists(folder) or (folder.is_dir() and place.identity() is None):
            raise ConfigError(
                f"there is no store in {folder}; give the folder that SQLiteStore was given, or the {DATABASE} in it",
                field="path",
            )
        place.check()
    except OSError as error:
        raise StoreError(str(error), operation="open") from error
    return place


def look_into(place: Place) -> Inspection:
    """Return a look into the database of a place.

    Raises:
        StoreError: If it cannot be looked into, is damaged, or not a store.
    """
    try:
        return Inspection(place)
    except ForeignError as error:
        raise foreign(place, error) from error
    except DamagedError as error:
        raise damaged(place, error) from error


def foreign(place: Place, error: Exception) -> StoreError:
    """Return the error for the database of somebody else."""
    return StoreError(
        f"{place.database} is {error}, and is left alone; a cache that is given this folder would set it aside",
        operation="open",
    )


def damaged(place: Place, error: Exception) -> StoreError:
    """Return the error for a database that cannot be read to its end."""
    return StoreError(
        f"{place.database} is damaged: {error}; `verify {place.folder} --repair` sets it aside, as the next cache will "
        "that uses it",
        operation="read",
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A row, and what it is worth.

    Attributes:
        row: The row.
        unpacked: What it holds, None if it cannot be read.
        reason: Why it cannot be read.
        state: What can be told of it.
        project: Its project; a path is that of today.
        files: What it was made from, each with whether it still is as it was.
    """

    row: Row
    unpacked: Unpacked | None
    reason: str
    state: State
    project: str | None = None
    files: tuple[tuple[Dependency, bool], ...] = ()

    @property
    def entry(self) -> StoredEntry:
        """The stored entry."""
        return self.row.entry

    @property
    def head(self) -> Head | None:
        """All of it but the value, None if it cannot be read."""
        return None if self.unpacked is None else self.unpacked.head

    @property
    def changed(self) -> int:
        """How many of the files are others now."""
        return sum(not holds for _, holds in self.files)

    @property
    def stored(self) -> int:
        """How many bytes it takes; 0 for what is none."""
        parts = (self.entry.payload, self.entry.head)
        return sum(len(part) for part in parts if isinstance(part, bytes))


class Judge:
    """Says what rows are worth: whether they are sealed with the key of this user, and whether their files hold.

    Attributes:
        key: Where that key comes from, in words.
    """

    def __init__(self, root: str | None) -> None:
        """Nothing is made: a user without a key has sealed nothing.

        Args:
            root: The root of the store.

        Raises:
            ConfigError: If the key cannot be used.
            StoreError: If its file cannot be read, or is not to be trusted.
        """
        self._sealer: Sealer | None = None
        self._relative = Relative(root)
        self._held: dict[StoredDependency, bool] = {}  # the same few files are behind many entries
        if os.environ.get(VARIABLE, "").strip():
            self.key = f"comes from the environment variable {VARIABLE}"
        else:
            path = key_file(os.environ)
            self.key = f"is in {path}"
            if not os.path.lexists(path):
                self.key = f"would be in {path}, where there is none"
                return
        self._sealer = Sealer(load_secret())

    def judge(self, row: Row) -> Found:
        """Return a row with what it is worth now. It reads files."""
        if self._sealer is None or not self._sealer.holds(row.entry):
            return Found(row, None, "its checksum does not hold", "not ours")
        try:
            unpacked = unpack(self._sealer, row.entry)
        except Unreadable as error:
            return Found(row, None, error.reason, "unreadable")
        head = unpacked.head
        files = tuple([(dependency_of(file, self._relative), self._holds(file)) for file in head.dependencies])
        project = self._relative.absolute(head.project)
        return Found(row, unpacked, "", self._state(head, [holds for _, holds in files]), project, files)

    def _state(self, head: Head, holding: list[bool]) -> State:
        if head.expires_at <= time.time():
            return "expired"
        if not all(holding):
            return "changed"
        if head.root != self._relative.mark and proved(head, self._relative) is None:
            return "left behind"
        return "holds"

    def _holds(self, file: StoredDependency) -> bool:
        known = self._held.get(file)
        if known is None:
            known = self._held[file] = compare(dependency_of(file, self._relative)) is not None
        return known

    def hint(self, total: int, not_ours: int) -> str | None:
        """Return what is to be said if none of the entries is sealed with the key of this user."""
        if not total or not_ours < total:
            return None
        what = "the only entry" if total == 1 else f"none of the {total:,} entries"
        verb = "is not sealed" if total == 1 else "is sealed"
        return (
            f"{what} {verb} with your key, which {self.key}. Use that of the program that wrote them, as its user or "
            f"by {VARIABLE}; a cache with yours believes none of them."
        )
