"""Random edits of many files under many readers, with an oracle of what a reader may be given.

Each file holds its version. The editor, a thread, publishes the version it begins to write and the one it has written:
the latter after the last system call has returned. A reader notes what has been written before it asks; nothing older
may be in the answer. A file that is absent or half written in an answer must have been under edit meanwhile; an edit
that leaves the content as it was counts too, since it may truncate the file before it writes the same again.
"""

import asyncio
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _edits import EDITS, HARMLESS
from shared_prompt_cache import SharedPromptCache

FILES, FOLDERS, READERS = 80, 8, 20
_FINE = 0.0001
Answer = dict[str, int | None]


class Tree:
    """Files with versions, and the one who edits them."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.draw = random.Random(seed)
        self.names = [f"folder-{n % FOLDERS}/file-{n:02}.md" for n in range(FILES)]
        self.begun = dict.fromkeys(self.names, 0)
        self.written = dict.fromkeys(self.names, 0)
        self.edits_begun = dict.fromkeys(self.names, 0)
        self.edits_ended = dict.fromkeys(self.names, 0)
        for name in self.names:
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            self.path(name).write_text(self.text(name, 0))

    def path(self, name: str) -> Path:
        """Return where a file lies."""
        return self.root / name

    def text(self, name: str, version: int) -> str:
        """Return its content; of the same size for every version."""
        return f"{name} {version:08}\n"

    def version(self, name: str, text: str) -> int | None:
        """Return the version that a content is of, None if it is not whole."""
        known, _, number = text.partition(" ")
        return int(number) if known == name and len(text) == len(self.text(name, 0)) else None

    def edit(self) -> None:
        """Edit one file, or a folder of them, in one of all styles."""
        name = self.draw.choice(self.names)
        kind = self.draw.random()
        if kind < 0.06:
            folder = name.partition("/")[0]
            with self._editing(*[name for name in self.names if name.startswith(f"{folder}/")]) as names:
                self._replace_folder(folder, names)
        elif kind < 0.16:
            with self._editing(name):
                self.draw.choice(list(HARMLESS.values()))(self.path(name))
        else:
            style = self.draw.choice(list(EDITS.values()))
            with self._editing(name):
                version = self.begun[name] = self.begun[name] + 1
                style(self.path(name), self.text(name, version))
                self.written[name] = version

    @contextmanager
    def _editing(self, *names: str) -> Iterator[tuple[str, ...]]:
        for name in names:
            self.edits_begun[name] += 1
        yield names
        for name in names:
            self.edits_ended[name] += 1

    def _replace_folder(self, folder: str, names: Iterable[str]) -> None:
        new, old = self.root / f"{folder}.new", self.root / f"{folder}.old"
        new.mkdir()
        for name in names:
            self.begun[name] += 1
            (new / name.partition("/")[2]).write_text(self.text(name, self.begun[name]))
        (self.root / folder).rename(old)
        new.rename(self.root / folder)
        for name in names:
            self.written[name] = self.begun[name]
        shutil.rmtree(old)


class Harness:
    """A tree, a cache over it, and readers.

    Attributes:
        stale: What readers were given that they must not have been.
    """

    def __init__(self, cache: SharedPromptCache, root: Path, seed: int) -> None:
        self.cache, self.tree, self.seed = cache, Tree(root, seed), seed
        self.draw = random.Random(seed + 1)
        self.stale: list[str] = []
        self.reads = 0
        names = self.tree.names
        self.entries = {f"one {name}": (name,) for name in names}
        self.entries |= {f"some {n}": tuple(self.draw.sample(names, self.draw.randint(2, 5))) for n in range(20)}
        self.entries |= {f"derived {n}": tuple(self.draw.sample(names, 3)) for n in range(20)}
        self.entries |= {
            f"folder {n}": tuple(name for name in names if name.startswith(f"folder-{n}/")) for n in range(FOLDERS)
        }

    async def read(self, key: str) -> Answer:
        """Get or compute an entry: the versions of the files it was made from."""
        names = self.entries[key]

        async def from_files() -> Answer:
            return {name: await self._version(name) for name in names}

        async def from_values() -> Answer:
            answer: Answer = {}
            for name in names:
                answer |= await self.read(f"one {name}")
            return answer

        async def from_listing() -> Answer:
            folder = key.replace("folder ", "folder-")
            found = await self.cache.files.glob(self.tree.root / folder, "*.md")
            listed = {f"{folder}/{path.name}" for path in found}
            return {name: await self._version(name) if name in listed else None for name in names}

        computes: dict[str, Any] = {"one": from_files, "some": from_files, "derived": from_values}
        return await self.cache.get_or_compute(key, computes.get(key.split(maxsplit=1)[0], from_listing))

    async def _version(self, name: str) -> int | None:
        try:
            text = await self.cache.files.read_text(self.tree.path(name))
        except FileNotFoundError:
            return None
        return self.tree.version(name, text)

    async def check(self, key: str, *, last: bool = False) -> None:
        """Read an entry and compare the answer with what is allowed."""
        floor = {name: self.tree.written[name] for name in self.entries[key]}
        ended = {name: self.tree.edits_ended[name] for name in self.entries[key]}
        answer = await self.read(key)
        self.reads += 1
        for name, version in answer.items():
            if version is None:
                wrong = self.tree.edits_begun[name] == ended[name]
            else:
                wrong = version != floor[name] if last else version < floor[name]
            if wrong:
                self.stale.append(f"{key}: {name} is {version}, written {floor[name]}{' at the end' if last else ''}")

    async def run(self, edits: int) -> None:
        """Let readers read while files are edited; then look whether anything is stale for ever."""
        stop = threading.Event()
        failures: list[BaseException] = []
        editor = threading.Thread(target=self._edit, args=(edits, stop, failures))
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_FINE)  # after each system call the editor waits for its turn that long
        try:
            editor.start()
            async with asyncio.TaskGroup() as readers:
                for _ in range(READERS):
                    readers.create_task(self._read_on(stop))
        finally:
            stop.set()
            editor.join()
            sys.setswitchinterval(usual)
        for error in failures:
            raise error
        for key in self.entries:
            await self.check(key, last=True)

    def _edit(self, edits: int, stop: threading.Event, failures: list[BaseException]) -> None:
        try:
            for _ in range(edits):
                if stop.is_set():
                    break
                self.tree.edit()
                if self.tree.draw.random() < 0.3:
                    time.sleep(self.tree.draw.random() / 500)
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            failures.append(error)
        finally:
            stop.set()

    async def _read_on(self, stop: threading.Event) -> None:
        while not stop.is_set():
            await self.check(self.draw.choice(list(self.entries)))
            await asyncio.sleep(0)
