"""What the second tier costs: reads against a bare connection, writes against those who commit each row, the file.

Everything is done to real files in a folder for temporary ones. What is compared is done to files on the same disk, in
the same run, in turns. Whoever is compared writes ahead and does not wait for the disk at each commit, as the store
does; without that one commit for each row would be many times slower still.

A set is measured in three ways, since the writer works behind the caller. The first stops the clock when the last call
has returned, before the writer has had its turn. The second lets the writer work between the calls, and counts the
calls alone. The third counts all that the process has computed until everything is in the file.
"""

import asyncio
import os
import random
import string
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from importlib import import_module
from itertools import cycle
from pathlib import Path
from time import perf_counter, process_time
from typing import Final

import aiosqlite
from _entries import key_of, prompts
from _measure import (
    Chunk,
    Findings,
    Row,
    Size,
    chunk_of_calls,
    folder,
    interleaved,
    new_keys,
    ratios,
    row,
    unshared,
)
from _peers import release
from _store_holds import store_holds

from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.clock import SystemClock
from shared_prompt_cache.stores import SQLiteStore, Write
from shared_prompt_cache.stores._secret import VARIABLE

TEXT: Final = ("- Prefer small functions; say why, not what.\n" * 50)[:2048]
_PORTION: Final = 500
"""How many rows wait at once: fewer than the writer has room for, so that none is dropped."""
_AT_ONCE: Final = 100
_BARE_READ: Final = "SELECT codec, payload, head, checksum FROM entries WHERE key = ?"
_BARE_TABLE: Final = "CREATE TABLE prompts (key TEXT PRIMARY KEY, prompt TEXT)"
_BARE_WRITE: Final = "INSERT OR REPLACE INTO prompts VALUES (?, ?)"


def store(size: Size) -> Findings:
    """Measure everything about the store."""
    os.environ.setdefault(VARIABLE, "a secret of the benchmark alone")
    with folder() as root:
        return asyncio.run(_store(size, root))


async def _store(size: Size, root: Path) -> Findings:
    filled = root / "filled"
    await _fill(filled, size)
    return Findings(
        rows=(
            *await _reads(filled, size),
            *await _sets(root / "sets", size),
            *await _sustained(root, size),
            *await _on_disk(root, size),
            *await _opening(filled, root / "one", size),
            *await store_holds(filled, size),
        )
    )


async def _fill(path: Path, size: Size) -> None:
    """Write the rows that are read, each tenth of them with the tag `tenth`."""
    async with SharedPromptCache(store=SQLiteStore(path)) as cache:
        for number, (key, agent) in enumerate(prompts(size.rows, size.agents)):
            await cache.set_prompt(key, TEXT, agent=agent, tags=() if number % 10 else ("tenth",))
            if number % _PORTION == 0:
                await cache.flush()
        await cache.flush()
        _expect_written(cache, size.rows)


def _expect_written(cache: SharedPromptCache, rows: int) -> None:
    figures = cache.get_stats().store
    assert figures["written"] == rows, f"{rows} rows were to be written: {dict(figures)}"
    assert figures["dropped"] == 0, f"rows were dropped: {dict(figures)}"


# Reading.


async def _reads(path: Path, size: Size) -> Sequence[Row]:
    keys = [key_of(number) for number in range(min(size.rows, size.keys))]
    random.Random(7).shuffle(keys)
    calls = max(_AT_ONCE, size.calls // 10)
    async with AsyncExitStack() as stack:
        sqlite = SQLiteStore(path)
        await sqlite.open(SystemClock(), _nobody)
        stack.push_async_callback(sqlite.aclose)
        bare = await stack.enter_async_context(aiosqlite.connect(path / "store.db"))
        # Nothing that is asked for is in memory: what was promoted is evicted long before it is asked for again.
        cache = await stack.enter_async_context(SharedPromptCache(store=SQLiteStore(path), max_size=2))

        async def read_bare(key: str) -> object:
            (found,) = await bare.execute_fetchall(_BARE_READ, (key.encode(),))
            return found

        singles = await interleaved(
            {
                "bare": chunk_of_calls(read_bare, _batches(keys, calls)),
                "get": chunk_of_calls(sqlite.get, _batches(keys, calls)),
                "get_prompt": chunk_of_calls(cache.get_prompt, _batches(keys, calls)),
            },
            size.rounds,
        )
        many = await interleaved(
            {
                "get": chunk_of_calls(sqlite.get, _batches(keys, _AT_ONCE)),
                "get_many": _chunk_of_one(sqlite.get_many, _batches(keys, _AT_ONCE)),
                "get_prompt": chunk_of_calls(cache.get_prompt, _batches(keys, _AT_ONCE)),
                "cache.get_many": _chunk_of_one(cache.get_many, _batches(keys, _AT_ONCE)),
            },
            size.rounds,
        )
        assert cache.get_stats().misses == 0, "what was to be found in the store was not"
    return (
        row("get of 2 KB / bare execute_fetchall", ratios(singles["get"], singles["bare"]), target=1.5),
        row("promotion by get_prompt / bare execute_fetchall", ratios(singles["get_prompt"], singles["bare"])),
        row(f"get_many of {_AT_ONCE} / {_AT_ONCE} gets", ratios(many["get_many"], many["get"]), target=0.15),
        row(
            f"promotion of {_AT_ONCE} by cache.get_many / by {_AT_ONCE} get_prompt",
            ratios(many["cache.get_many"], many["get_prompt"]),
        ),
    )


def _batches(keys: Sequence[str], calls: int) -> Iterator[Sequence[str]]:
    """Return endless batches, in which a key comes again only when all others have been."""
    calls = min(calls, len(keys) // 2)
    return cycle([keys[start : start + calls] for start in range(0, len(keys) - calls + 1, calls)])


def _chunk_of_one(
    verb: Callable[[Sequence[str]], Awaitable[dict[str, object]]], batches: Iterator[Sequence[str]]
) -> Chunk:
    async def chunk() -> float:
        keys = next(batches)
        started = perf_counter()
        found = await verb(keys)
        taken = perf_counter() - started
        assert len(found) == len(keys)
        return taken

    return unshared(chunk)


def _nobody() -> None:
    """Nobody listens."""


# Writing.


async def _sets(path: Path, size: Size) -> Sequence[Row]:
    calls = min(_PORTION, size.calls)
    async with (
        SharedPromptCache(max_size=_PORTION) as plain,
        SharedPromptCache(max_size=_PORTION, store=SQLiteStore(path)) as stored,
    ):
        first, second, third = [
            await interleaved(
                {
                    "plain": unshared(make)(plain, new_keys(calls)),
                    "stored": unshared(make)(stored, new_keys(calls)),
                },
                size.rounds,
            )
            for make in (_chunk_of_sets, _chunk_of_sets_among_writes, _chunk_of_all_work)
        ]
        _expect_written(stored, 3 * calls * (size.rounds + 1))
    return (
        row("set_prompt with a store / without: the calls", ratios(first["stored"], first["plain"]), target=3),
        row(
            "set_prompt with a store / without: the calls, while the writer works",
            ratios(second["stored"], second["plain"]),
            target=3,
        ),
        row(
            "set_prompt with a store / without: all that is computed until it is written",
            ratios(third["stored"], third["plain"]),
        ),
    )


def _chunk_of_sets(cache: SharedPromptCache, batches: Iterator[Sequence[str]]) -> Chunk:
    async def chunk() -> float:
        keys = next(batches)
        started = perf_counter()
        for key in keys:
            await cache.set_prompt(key, TEXT)
        taken = perf_counter() - started
        await cache.flush()
        return taken

    return unshared(chunk)


def _chunk_of_sets_among_writes(cache: SharedPromptCache, batches: Iterator[Sequence[str]]) -> Chunk:
    async def chunk() -> float:
        taken = 0.0
        for key in next(batches):
            started = perf_counter()
            await cache.set_prompt(key, TEXT)
            taken += perf_counter() - started
            await asyncio.sleep(0)
        await cache.flush()
        return taken

    return unshared(chunk)


def _chunk_of_all_work(cache: SharedPromptCache, batches: Iterator[Sequence[str]]) -> Chunk:
    async def chunk() -> float:
        keys = next(batches)
        started = process_time()
        for key in keys:
            await cache.set_prompt(key, TEXT)
        await cache.flush()
        return process_time() - started

    return unshared(chunk)


class _Timed(SQLiteStore):
    """A store that notes how long it takes to put what the writer hands it, in the writer's portions."""

    seconds = 0.0

    async def put_many(self, writes: Sequence[Write]) -> list[bool]:
        started = perf_counter()
        put = await super().put_many(writes)
        self.seconds += perf_counter() - started
        return put


async def _sustained(root: Path, size: Size) -> Sequence[Row]:
    """Compare who writes most rows, one bulk after the other."""
    async with AsyncExitStack() as stack:
        ours = _Timed(root / "sustained")
        cache = await stack.enter_async_context(SharedPromptCache(store=ours))
        bare = await stack.enter_async_context(aiosqlite.connect(root / "bare.db"))
        await bare.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {_BARE_TABLE};")
        put: list[float] = []
        batches = new_keys(size.writes)

        async def until_written() -> float:
            keys, ours.seconds = next(batches), 0.0
            started = perf_counter()
            for key in keys:
                await cache.set_prompt(key, TEXT)
            await cache.flush()
            taken = perf_counter() - started
            put.append(ours.seconds)
            return taken

        async def commit(key: str) -> None:
            await bare.execute(_BARE_WRITE, (key, TEXT))
            await bare.commit()

        chunks = {"ours": unshared(until_written), "bare": chunk_of_calls(commit, new_keys(size.writes))}
        peer = _diskcache(root / "diskcache", stack)
        if peer is not None:
            chunks["diskcache"] = chunk_of_calls(peer, new_keys(size.writes))
        seconds = await interleaved(chunks, size.bulks)
        _expect_written(cache, size.writes * (size.bulks + 1))
    del put[0]  # that of the round which does not count
    rows = []
    for name, what, target in (
        ("bare", "one aiosqlite commit for each row", 0.2),
        ("diskcache", f"diskcache {release('diskcache')}", 0.25),
    ):
        if name in seconds:
            many = f"{size.writes:,}"
            rows.append(
                row(f"put_many of {many}, as the writer does / {what}", ratios(put, seconds[name]), target=target)
            )
            rows.append(
                row(f"{many} set_prompt until they are written / {what}", ratios(seconds["ours"], seconds[name]))
            )
    return rows


def _diskcache(path: Path, stack: AsyncExitStack) -> Callable[[str], Awaitable[object]] | None:
    """Return how diskcache sets a row, by a plain call, which is the fastest way; None if it is not installed."""
    if release("diskcache") is None:
        return None
    peer = import_module("diskcache").Cache(str(path))
    stack.callback(peer.close)

    async def put(key: str) -> object:
        return peer.set(key, TEXT)

    return put


# On disk.


async def _on_disk(root: Path, size: Size) -> Sequence[Row]:
    """Return how large the file is beside the values, once it is closed."""
    draw = random.Random(3)
    kinds: dict[str, Callable[[], str | bytes]] = {
        "2 KB of text": lambda: _words(draw, 2048),
        "2 KB of random bytes": lambda: draw.randbytes(2048),
        "4.2 kB of random bytes": lambda: draw.randbytes(4200),  # the worst: one to a page of 8 KB
        "450 kB of text": lambda: _words(draw, 450_000),
        "450 kB of random bytes": lambda: draw.randbytes(450_000),
    }
    rows = []
    for number, (kind, make) in enumerate(kinds.items()):
        path, total = root / f"kind-{number}", 0
        async with SharedPromptCache(store=SQLiteStore(path)) as cache:
            for key in range(max(4, size.writes * 2048 // len(make()))):
                value = make()
                total += len(value)
                await cache.set_prompt(f"engineer_{key}", value, agent="engineer")
                if key % 10 == 0:
                    await cache.flush()
            await cache.flush()
        taken = sum(file.stat().st_size for file in path.iterdir())
        rows.append(row(f"file / payload, {kind}", [taken / total], target=1.5))
    return rows


def _words(draw: random.Random, length: int) -> str:
    """Return text that is about as compressible as prose."""
    words = ["".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 9))) for _ in range(400)]
    return " ".join(draw.choices(words, k=length // 4))[:length]


async def _opening(filled: Path, one: Path, size: Size) -> Sequence[Row]:
    """Return what it adds to opening, and to the first hit, that there are many rows."""
    key = key_of(size.rows // 3)
    async with SharedPromptCache(store=SQLiteStore(one)) as cache:
        await cache.set_prompt(key, TEXT, agent="engineer")

    def opened(path: Path) -> Chunk:
        async def chunk() -> float:
            cache = SharedPromptCache(store=SQLiteStore(path))
            started = perf_counter()
            await cache.start()
            found = await cache.get_prompt(key)
            taken = perf_counter() - started
            await cache.aclose()
            assert found is not None
            return taken

        return unshared(chunk)

    seconds = await interleaved({"filled": opened(filled), "one": opened(one)}, size.bulks)
    added = [1000 * (many - few) for many, few in zip(seconds["filled"], seconds["one"], strict=True)]
    what = f"opening {size.rows:,} rows and the first hit"
    return (
        row(f"{what}, beyond the same with one row", added, unit="ms", target=30),
        row(f"{what} / the same with one row", ratios(seconds["filled"], seconds["one"])),
    )
