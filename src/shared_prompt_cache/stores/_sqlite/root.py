"""The root of a store: the folder whose paths are kept relative to it, so that it can be moved with the store in it.

All who share a store must spell a path alike, or else an invalidation of one would miss the entries of another. So the
root is neither the choice of a cache nor found out anew: it is recorded in the database, as the number of levels that
it lies above the folder of the store, and taken from there by whoever opens it.
"""

import os

from shared_prompt_cache.errors import ConfigError


class Root:
    """The root of one store, as long as that is open.

    Attributes:
        path: Its real path; None until a database has been opened.

    Args:
        folder: The folder of the store.
        given: What the user says it is, None if nothing.
    """

    def __init__(self, folder: str, given: str | None) -> None:
        self.path: str | None = None
        self._folder = folder
        self._given = given
        self._levels: int | None = None

    def levels(self) -> int:
        """Return how many levels it lies above the folder, for a database that is begun.

        Raises:
            ConfigError: If what was given does not hold the folder.
        """
        if self._levels is not None:
            return self._levels
        folder = os.path.realpath(self._folder)
        if self._given is None:
            return _levels_by_name(folder)
        given = os.path.realpath(self._given)
        if not folder.startswith(given.rstrip(os.sep) + os.sep):
            raise ConfigError(
                f"root is {given}, and the store {folder} does not lie below it; give a folder above it, or none",
                field="root",
            )
        return len(folder.rstrip(os.sep).split(os.sep)) - len(given.rstrip(os.sep).split(os.sep))

    def settle(self, levels: int) -> None:
        """Take what a database has recorded.

        Raises:
            ConfigError: If something else was given.
            OSError: If it was another when the store was opened: what is in use here is named by that.
        """
        path = os.path.realpath(self._folder)
        for _ in range(levels):
            path = os.path.dirname(path)
        if self.path is None:
            if self._given is not None and os.path.realpath(self._given) != path:
                raise ConfigError(
                    f"root is {self._given}, but the store {self._folder} was made with the root {path}; give that or "
                    "none, or delete the store",
                    field="root",
                )
            self.path, self._levels = path, levels
        elif path != self.path:
            raise OSError(f"the root of {self._folder} was {self.path} and is {path} now; open the store anew")


def _levels_by_name(folder: str) -> int:
    """Return how many levels above a real path the parent of the last hidden folder lies, or else the parent of all."""
    parts = folder.split(os.sep)[::-1]
    return 1 + next((level for level, part in enumerate(parts) if part.startswith(".")), 0)
