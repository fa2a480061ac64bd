"""Random edits of many files under many readers, with an oracle of what a reader may be given.

Each file holds its version. The editor, a thread, publishes the version it begins to write and the one it has written:
the latter after the last system call has returned. A reader notes what has been written before it asks; nothing older
may be in the answer. A file that is absent or half written in an answer must have been under edit meanwhile.
"""

import asyncio
import random
import shutil
import sys
import threading
import time
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
            self._replace_folder(name.partition("/")[0])
        elif kind < 0.16:
            self.draw.choice(list(HARMLESS.values()))(self.path(name))
        else:
            style = self.draw.choice(list(EDITS.values()))
            version = self.begun[name] = self.begun[name] + 1
            style(self.path(name), self.text(name, version))
            self.written[name] = version

    def _replace_folder(self, folder: str) -> None:
        names = [name for name in self.names if name.startswith(f"{folder}/")]
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
        answer = await self.read(key)
        self.reads += 1
        for name, version in answer.items():
            if version is None:
                wrong = self.tree.begun[name] <= floor[name]
            else:
                wrong = version != floor[name] if last else version < floor[name]
            if wrong:
                self.stale.append(f"{key}: {name} is {version}, written {floor[name]}{' at the end' if last else ''}")

    async def run(self, edits: int) -> None:
        """Let readers read while files are edited; then look whether anything is stale for ever."""
        stop = threading.Event()
        failure: list[BaseException] = []

        def editing() -> None:
            try:
                for _ in range(edits):
                    self.tree.edit()
                    if self.tree.draw.random() < 0.3:
                        time.sleep(self.tree.draw.random() / 500)
            except BaseException as error:  # noqa: BLE001 - it is raised in the test
                failure.append(error)
            finally:
                stop.set()

        async def reading() -> None:
            while not stop.is_set():
                await self.check(self.draw.choice(list(self.entries)))
                await asyncio.sleep(0)

        editor = threading.Thread(target=editing)
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_FINE)  # after each system call the editor waits for its turn that long
        try:
            editor.start()
            await asyncio.gather(*(reading() for _ in range(READERS)))
            editor.join()
        finally:
            sys.setswitchinterval(usual)
        for error in failure:
            raise error
        for key in self.entries:
            await self.check(key, last=True)
