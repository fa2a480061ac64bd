"""Processes that use a cache over one store, and how they end: `python -m stores._lives WHAT FOLDER ROUNDS SEED`.

The processes are forks of one that has imported everything and has no thread and no loop of its own meanwhile, so that
hundreds of them can be killed in a minute. What they have done they note in memory that all of them share.
"""

import asyncio
import mmap
import os
import random
import select
import signal
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from _edits import in_place, rename_from_inside
from shared_prompt_cache import SharedPromptCache, WatchRule
from shared_prompt_cache.stores import SQLiteStore

PATIENCE = 60.0
Main = Callable[[], Coroutine[Any, Any, object]]


class Numbers:
    """Numbers that processes share; one number is written by one process."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, 8 * count)

    def __getitem__(self, place: int) -> int:
        return struct.unpack_from("q", self._memory, 8 * place)[0]

    def __setitem__(self, place: int, number: int) -> None:
        struct.pack_into("q", self._memory, 8 * place, number)


class Child:
    """A process; what it writes to stderr is read when it has ended. One that hangs is killed after `patience` s."""

    def __init__(self, main: Callable[[], object], patience: int = 60) -> None:
        self._errors, errors = os.pipe()
        self._words, words = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            signal.alarm(patience)
            os.dup2(words, 1)
            os.dup2(errors, 2)
            for descriptor in (self._errors, self._words, errors, words):
                os.close(descriptor)
            main()
            sys.exit(0)  # up through all that has led here: an end as any program has
        os.close(errors)
        os.close(words)

    def word(self) -> None:
        """Wait until it says something."""
        assert select.select([self._words], [], [], PATIENCE)[0], "it says nothing"
        assert os.read(self._words, 100), self.end()

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def is_over(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> tuple[int, str]:
        """Wait until it is gone; return its code, negative for a signal, and what it wrote to stderr."""
        with os.fdopen(self._errors, "rb") as errors:
            said = errors.read().decode()
        os.close(self._words)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), said


def wait(predicate: Callable[[], object], child: Child) -> None:
    until = time.monotonic() + PATIENCE
    while not predicate():
        assert not child.is_over(), child.end()
        assert time.monotonic() < until, "it does not get on"
        time.sleep(0.0005)


def intact(folder: Path) -> None:
    """Nobody uses it any more: the database is whole, and none was ever set aside."""
    raw = sqlite3.connect(folder / "store.db")
    try:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        raw.close()
    assert not list(folder.glob("*.corrupt-*"))


# F23: edits never stop, and whoever reads is killed.

FILES = 10
WORKERS = 2
_READS, _STALE, _HITS = FILES, FILES + WORKERS, FILES + 2 * WORKERS


def edit(root: Path, numbers: Numbers, seed: int) -> None:
    draw = random.Random(seed)
    version = 0
    while True:
        version += 1
        file = min(draw.randrange(FILES), draw.randrange(FILES))  # some are edited seldom
        draw.choice([in_place, rename_from_inside])(root / f"agent-{file}.md", f"{version:012}")
        numbers[file] = version
        time.sleep(draw.choice([0, 0.0005, 0.002, 0.01]))


async def read_and_compute(folder: Path, root: Path, numbers: Numbers, worker: int, seed: int) -> None:
    draw = random.Random(seed)
    rule = WatchRule(root, "{agent}.md", "agent")
    async with SharedPromptCache(4, store=SQLiteStore(folder), watch=[rule]) as cache:

        async def ask(file: int, *, by_rule: bool) -> None:
            path = root / f"agent-{file}.md"

            async def compute() -> str:
                # By the rule alone: it reads past the cache.
                return await (asyncio.to_thread(path.read_text) if by_rule else cache.files.read_text(path))

            written = numbers[file]
            if by_rule:
                await cache.sync()
            text = await cache.get_or_compute(f"{by_rule} {file}", compute, agent=f"agent-{file}")
            numbers[_READS + worker] += 1
            numbers[_HITS + worker] = max(numbers[_HITS + worker], cache.get_stats().store["hits"])
            if int(text) < written:
                numbers[_STALE + worker] += 1
                sys.stderr.write(f"{file} by {'rule' if by_rule else 'file'} is {text}, {written} was written\n")

        while True:
            await asyncio.gather(*[ask(draw.randrange(FILES), by_rule=draw.random() < 0.3) for _ in range(4)])
            if draw.random() < 0.1:
                await cache.flush()


def killed_readers(base: Path, kills: int, seed: int) -> None:
    draw, numbers = random.Random(seed), Numbers(FILES + 3 * WORKERS)
    folder, root = base / "store", base / "memories"
    root.mkdir()
    for file in range(FILES):
        (root / f"agent-{file}.md").write_text(f"{0:012}")

    def begin(worker: int, number: int) -> Child:
        return Child(lambda: asyncio.run(read_and_compute(folder, root, numbers, worker, seed + number)))

    editor = Child(lambda: edit(root, numbers, seed), patience=900)
    workers = [begin(worker, -worker) for worker in range(WORKERS)]
    hits, said = 0, ""
    for number in range(kills):
        worker = draw.randrange(WORKERS)
        before, more = numbers[_READS + worker], draw.choice([1, 1, 10, 40])
        wait(lambda: numbers[_READS + worker] >= before + more, workers[worker])  # noqa: B023
        time.sleep(draw.random() * 0.01)
        workers[worker].kill()
        said += workers[worker].end()[1]
        hits += numbers[_HITS + worker]
        numbers[_HITS + worker] = 0
        workers[worker] = begin(worker, number)
    for child in (editor, *workers):
        child.kill()
        said += child.end()[1]
    asyncio.run(look(folder, root, numbers))
    intact(folder)
    stale = sum(numbers[_STALE + worker] for worker in range(WORKERS))
    assert not said, f"{stale} stale\n{said[:2000]}"
    assert hits > kills // 4, f"{hits} entries came from the store"


async def look(folder: Path, root: Path, numbers: Numbers) -> None:
    """The first reads of yet another process."""
    async with SharedPromptCache(store=SQLiteStore(folder), watch=[WatchRule(root, "{agent}.md", "agent")]) as cache:
        for file in range(FILES):
            for by_rule in (False, True):
                entry = await cache.get_prompt(f"{by_rule} {file}")
                assert entry is None or int(entry.prompt) >= numbers[file], (file, by_rule)


# T9: what was acknowledged is there.

WRITERS = 2
KEYS = 12


def operation(seed: int, writer: int, number: int) -> tuple[str, list[str]]:
    """Return what a writer does as its nth: how, and with which keys; what it sets is the number."""
    draw = random.Random(f"{seed} {writer} {number}")
    how = draw.choice(["set", "set", "set", "compute", "batch", "invalidate", "invalidate_tag"])
    return how, [f"{writer} {key}" for key in draw.sample(range(KEYS), 1 if how == "invalidate" else 4)]


async def write(folder: Path, numbers: Numbers, seed: int, writer: int, number: int) -> None:
    async with SharedPromptCache(store=SQLiteStore(folder)) as cache:
        while True:
            number += 1
            how, keys = operation(seed, writer, number)
            labels: dict[str, Any] = {"tags": [f"of {writer}"]}
            if how == "invalidate":
                await cache.invalidate(keys[0])
            elif how == "invalidate_tag":
                await cache.invalidate_tag(f"of {writer}")
            elif how == "batch":
                async with cache.batch() as batch:
                    for key in keys:
                        batch.set_prompt(key, number, **labels)
            elif how == "compute":
                for key in keys:
                    await cache.invalidate(key)
                    await cache.get_or_compute(key, lambda number=number: asyncio.sleep(0, number), **labels)
            else:
                for key in keys:
                    await cache.set_prompt(key, number, **labels)
            if not how.startswith("invalidate"):
                await cache.flush()
            numbers[writer] = number  # acknowledged


def apply(kept: dict[str, set[int | None]], seed: int, writer: int, number: int, *, done: bool) -> None:
    """Change what may be found by one operation; one that is not `done` may or may not have been."""
    how, keys = operation(seed, writer, number)
    if how == "invalidate_tag":
        keys = [f"{writer} {key}" for key in range(KEYS)]
    for key in keys:
        new: set[int | None] = {None} if how.startswith("invalidate") else {number}
        between: set[int | None] = {None} if how == "compute" else set()
        kept[key] = new if done else kept[key] | between | new


def killed_writers(base: Path, rounds: int, seed: int) -> None:
    draw, numbers = random.Random(seed), Numbers(WRITERS)
    kept: dict[str, set[int | None]] = {f"{writer} {key}": {None} for writer in range(WRITERS) for key in range(KEYS)}
    folder = base / "store"
    for round_ in range(rounds):
        before = [numbers[writer] for writer in range(WRITERS)]
        # Numbers of a round that was killed are not used again: what was not acknowledged may be there.
        first = [number + 2 for number in before]
        children = [
            Child(lambda writer=writer: asyncio.run(write(folder, numbers, seed, writer, first[writer] - 1)))  # noqa: B023
            for writer in range(WRITERS)
        ]
        for writer, child in enumerate(children):
            wait(lambda writer=writer: numbers[writer] > before[writer], child)  # noqa: B023
        time.sleep(draw.random() * 0.1)
        for child in children:
            child.kill()
        for child in children:
            assert child.end() == (-signal.SIGKILL, "")
        for writer in range(WRITERS):
            for number in range(first[writer], numbers[writer] + 1):
                apply(kept, seed, writer, number, done=True)
            apply(kept, seed, writer, numbers[writer] + 1, done=False)
        asyncio.run(check(folder, kept, f"round {round_} of seed {seed}"))
        intact(folder)


async def check(folder: Path, kept: dict[str, set[int | None]], where: str) -> None:
    async with SharedPromptCache(store=SQLiteStore(folder)) as cache:
        found = {key: entry.prompt for key, entry in (await cache.get_many(kept)).items()}
        wrong = {key: (found.get(key), allowed) for key, allowed in kept.items() if found.get(key) not in allowed}
        assert not wrong, f"{where}: {wrong}"
        stats = cache.get_stats().store
        assert stats["corrupt"] == 0
        for key in kept:  # from here on it is known
            kept[key] = {found.get(key)}


# T14: ends of programs.


async def used(folder: Path) -> SharedPromptCache:
    cache = SharedPromptCache(store=SQLiteStore(folder), watch=[WatchRule(folder.parent, "*.md", "all")])
    await cache.start()
    await cache.get_or_compute("key", lambda: asyncio.sleep(0, "value"))
    await cache.flush()
    return cache


def ready() -> None:
    os.write(1, b"ready")


async def returns(folder: Path) -> None:
    await used(folder)
    ready()


async def holds(folder: Path) -> None:
    sys.held = await used(folder)  # type: ignore[attr-defined] # it outlives even this module
    ready()


async def loses(folder: Path) -> None:
    cache = await used(folder)
    del cache
    ready()
    await asyncio.sleep(0.01)


async def raises(folder: Path) -> None:
    _cache = await used(folder)
    ready()
    raise LookupError("of the program")


async def leaves(folder: Path) -> None:
    _cache = await used(folder)
    ready()
    sys.exit(3)


async def leaves_at_once(folder: Path) -> None:
    _cache = await used(folder)
    ready()
    os._exit(0)


async def waits(folder: Path) -> None:
    _cache = await used(folder)
    ready()
    await asyncio.sleep(PATIENCE)


async def waits_in_a_block(folder: Path) -> None:
    async with await used(folder):
        ready()
        await asyncio.sleep(PATIENCE)


async def writes(folder: Path) -> None:
    """Ends in the middle of it."""
    cache = await used(folder)
    for number in range(900):
        await cache.set_prompt(f"key {number}", "large " * 200)
    ready()
    await asyncio.sleep(0.002)


async def invalidates(folder: Path) -> None:
    """Ends with invalidations under way."""
    cache = await used(folder)
    tasks = [asyncio.create_task(cache.invalidate(f"key {number}")) for number in range(50)]
    await asyncio.sleep(0)
    ready()
    await asyncio.sleep(0.002)
    del tasks


def script(folder: Path) -> None:
    """No loop of its own, and no end of the cache's."""
    cache = SharedPromptCache(store=SQLiteStore(folder))
    cache.blocking.start()
    cache.blocking.get_or_compute("key", lambda: "value")
    cache.blocking.flush()
    for number in range(100):
        cache.blocking.set_prompt(f"key {number}", "large " * 200)
    ready()


ENDS: list[tuple[Callable[[Path], Any], int | None, tuple[int, str]]] = [
    (returns, None, (0, "")),
    (holds, None, (0, "")),
    (loses, None, (0, "")),
    (raises, None, (1, "LookupError: of the program")),
    (leaves, None, (3, "")),
    (leaves_at_once, None, (0, "")),
    (writes, None, (0, "")),
    (invalidates, None, (0, "")),
    (script, None, (0, "")),
    (waits, signal.SIGINT, (1, "KeyboardInterrupt")),
    (waits, signal.SIGTERM, (-signal.SIGTERM, "")),
    (waits_in_a_block, signal.SIGINT, (1, "KeyboardInterrupt")),
    (waits_in_a_block, signal.SIGTERM, (-signal.SIGTERM, "")),
]
"""What a program does last, the signal that it gets then, and how it ends: its code, and its last word."""


def ends(base: Path, processes: int, limit: int) -> None:
    """`limit` is in seconds."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell that started the tests ignores
    folder = base / "store"
    for number in range(processes):
        life, sent, expected = ENDS[number % len(ENDS)]
        name = life.__name__

        def main(life: Callable[[Path], Any] = life) -> None:
            outcome = life(folder)
            if outcome is not None:
                asyncio.run(outcome)

        child = Child(main)
        child.word()
        since = time.monotonic()
        if sent is not None:
            child.kill(sent)
        code, said = child.end()
        passed = time.monotonic() - since
        assert "Warning" not in said, f"{name}: {said}"
        assert "/shared_prompt_cache/" not in said, f"{name}: {said}"
        if code == -signal.SIGINT:
            code = 1  # as later interpreters end
        assert (code, said.strip().rpartition("\n")[2]) == expected, f"{name}: {said}"
        assert passed < limit, f"{name} took {passed:.1f} s to end"
        asyncio.run(is_there(folder))
        intact(folder)


async def is_there(folder: Path) -> None:
    async with SharedPromptCache(store=SQLiteStore(folder)) as cache:
        assert (await cache.get_prompt("key")).prompt == "value"  # type: ignore[union-attr]


if __name__ == "__main__":
    what = {"killed readers": killed_readers, "killed writers": killed_writers, "ends": ends}[sys.argv[1]]
    what(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
