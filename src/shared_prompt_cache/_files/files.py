"""`cache.files`: reading and declaring what a value is made from."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from shared_prompt_cache._files.places import absolute
from shared_prompt_cache._files.proof import Proofs
from shared_prompt_cache._files.reading import glob, read_file
from shared_prompt_cache._files.recorder import current, looking
from shared_prompt_cache._naming import shown
from shared_prompt_cache._options import check_paths
from shared_prompt_cache.errors import ConfigTypeError

if TYPE_CHECKING:
    from pathlib import Path

    from shared_prompt_cache._files.fingerprint import Dependency

T = TypeVar("T")
_Path = str | os.PathLike[str]


class Files:
    """Reads files for computations, and records what was read; outside of a computation it only reads.

    Relative paths resolve at the call. Reading happens in a thread of the cache.
    """

    def __init__(self, proofs: Proofs) -> None:
        self._proofs = proofs

    async def read_bytes(self, path: _Path) -> bytes:
        """Return the content of a regular file of at most 16 MiB.

        Raises:
            FileNotFoundError: If it does not exist; that is recorded too, so that its creation is noticed.
            OSError: If it cannot be read.
            ConfigError: If it is no regular file, or larger.
        """
        (name,) = check_paths((path,), "path")
        content = (await self._record(read_file, absolute(name)))[0]
        if content is None:
            raise FileNotFoundError(2, os.strerror(2), str(path))
        return content

    async def read_text(self, path: _Path, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the text of a file; otherwise as `read_bytes`.

        Raises:
            UnicodeDecodeError: If the content is not of that encoding.
        """
        return (await self.read_bytes(path)).decode(encoding, errors)

    async def glob(self, root: _Path, pattern: str) -> list[Path]:
        """Return the paths below `root` that match a pattern (`*`, `?`, `[abc]`, `**`), sorted; record which they are.

        Contents are not recorded: read those that matter.

        Raises:
            ConfigError: If the pattern cannot be used.
            OSError: If a folder cannot be looked into.
        """
        (name,) = check_paths((root,), "root")
        if not isinstance(pattern, str):
            raise ConfigTypeError(f"pattern is {shown(pattern)}; give a string such as '*.md'", field="pattern")
        return (await self._record(glob, absolute(name), pattern))[0]

    async def depends_on(self, *paths: _Path) -> None:
        """Record files that are read in other ways, and the names of the children of folders.

        Raises:
            OSError: If one cannot be read.
            ConfigError: If one is no path, neither file nor folder, or a file larger than 16 MiB.
        """
        names = check_paths(paths, "paths")
        recorder = current()
        if recorder is not None:
            await self._proofs.declare(recorder, names)

    async def _record(self, look: Callable[..., tuple[T, Dependency]], *args: str) -> tuple[T, Dependency]:
        recorder = current()
        with looking():
            found = await self._proofs.in_thread(look, *args)
            if recorder is not None:
                recorder.read(found[1])
        return found
