"""A program whose processes are killed while they use a cache: `python -m stores._killed WHAT FOLDER ROUNDS SEED`."""

import asyncio
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from _edits import in_place, rename_from_inside
from shared_prompt_cache import SharedPromptCache, WatchRule
from shared_prompt_cache.stores import SQLiteStore
from stores._lives import Child, Numbers, intact, wait

# F23: edits never stop, and whoever reads is killed.

FILES, QUIET = 10, 2
WORKERS = 2
SOME = 10  # with fewer kills nobody may have lived long enough to find what another had stored
_READS, _STALE, _HITS = FILES, FILES + WORKERS, FILES + 2 * WORKERS


def edit(root: Path, numbers: Numbers, seed: int) -> None:
    draw = random.Random(seed)
    version = 0
    while True:
        version += 1
        file = min(draw.randrange(FILES - QUIET), draw.randrange(FILES - QUIET))  # some are edited seldom, or never
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
    assert kills < SOME or hits > SOME, f"{hits} entries came from the store"


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


if __name__ == "__main__":
    what = {"readers": killed_readers, "writers": killed_writers}[sys.argv[1]]
    what(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    print("intact")  # noqa: T201 - read by the test
