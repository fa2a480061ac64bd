"""How everything here is measured, and the rows that come out.

Absolute times of a busy machine say nothing, so none is reported. What is compared runs in one process, in small
chunks that take turns, in an order that is drawn anew for every round, so that nobody always follows the one who
emptied the processor's caches. A round gives one ratio; the figure is the median of the ratios of all rounds, its
spread their quartiles. The garbage collector runs between rounds, not in them.
"""

import gc
import random
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, count, cycle
from pathlib import Path
from time import perf_counter
from types import FunctionType
from typing import Any, Literal, TypeVar, cast

Unit = Literal["x", "B", "ms", "count"]
Chunk = Callable[[], Awaitable[float]]
"""Runs once and returns the seconds of the part that counts."""
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything."""

    name: str
    rounds: int  # of interleaved chunks
    calls: int  # in a chunk
    keys: int  # in the tables of the hits
    waiters: int  # in a stampede
    stampedes: int
    files: tuple[int, ...]  # that an entry is made from
    entries: int  # in the tables of the invalidations
    agents: int
    invalidations: int  # of each kind
    holds: tuple[tuple[int, int], ...]  # entries and passes, for the longest hold of the loop
    footprint: int  # entries whose memory is counted
    imports: int
    replaces: int
    idle_pairs: int
    idle_seconds: float
    rows: int  # in a store
    writes: int  # to a store at once
    bulks: int  # of such writes, and openings


FULL = Size(
    name="full",
    rounds=200,
    calls=2000,
    keys=10_000,
    waiters=10_000,
    stampedes=15,
    files=(1, 10, 50),
    entries=1_000_000,
    agents=1000,
    invalidations=20,
    holds=((100_000, 5), (1_000_000, 1)),
    footprint=100_000,
    imports=40,
    replaces=500,
    idle_pairs=8,
    idle_seconds=4.0,
    rows=100_000,
    writes=1000,
    bulks=40,
)
QUICK = Size(
    name="quick",
    rounds=60,
    calls=1000,
    keys=10_000,
    waiters=10_000,
    stampedes=7,
    files=(1, 10, 50),
    entries=100_000,
    agents=1000,
    invalidations=15,
    holds=((100_000, 3),),
    footprint=100_000,
    imports=15,
    replaces=150,
    idle_pairs=4,
    idle_seconds=2.0,
    rows=100_000,
    writes=1000,
    bulks=20,
)
TINY = Size(
    name="tiny",
    rounds=3,
    calls=20,
    keys=100,
    waiters=50,
    stampedes=2,
    files=(1, 3),
    entries=2000,
    agents=100,
    invalidations=2,
    holds=((2000, 1),),
    footprint=2000,
    imports=2,
    replaces=6,
    idle_pairs=1,
    idle_seconds=0.2,
    rows=400,
    writes=60,
    bulks=2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        what: What was measured.
        value: The median.
        low: The lower quartile; equal to `high` for what was measured once.
        high: The upper quartile.
        unit: `"x"` for a ratio.
        target: What the value may be at most; None for a figure that only helps to read the others.
        note: What else there is to know.
    """

    what: str
    value: float
    low: float
    high: float
    unit: Unit = "x"
    target: float | None = None
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is met; True without one."""
        return self.target is None or self.value <= self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a section found: figures, and a table of facts, if it has one, whose first line is the heading."""

    rows: tuple[Row, ...]
    facts: tuple[tuple[str, ...], ...] = ()


def row(what: str, values: Sequence[float], *, unit: Unit = "x", target: float | None = None, note: str = "") -> Row:
    """Return the row of the median of `values`."""
    middle = statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (middle,) * 3
    return Row(what=what, value=middle, low=low, high=high, unit=unit, target=target, note=note)


async def interleaved(chunks: Mapping[str, Chunk], rounds: int) -> dict[str, list[float]]:
    """Run the chunks in turns and return the seconds of each, by name and round, after a round that does not count."""
    names = list(chunks)
    orders = random.Random(5)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with collected_between() as collect:
        for number in range(rounds + 1):
            collect()
            orders.shuffle(names)
            for name in names:
                taken = await chunks[name]()
                if number:
                    seconds[name].append(taken)
    return seconds


def ratios(seconds: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Return the ratio of each round."""
    return [ours / theirs for ours, theirs in zip(seconds, baseline, strict=True)]


@contextmanager
def collected_between() -> Iterator[Callable[[], object]]:
    """Keep the garbage collector out, but for the calls of what is yielded; what has outlived one is left alone."""

    def collect() -> None:
        gc.collect()
        gc.freeze()

    collect()
    gc.disable()
    try:
        yield collect
    finally:
        gc.enable()
        gc.unfreeze()


def unshared(function: F) -> F:
    """Return the function with bytecode of its own.

    The interpreter specialises bytecode for what it meets there. Closures of one function share theirs, and two
    candidates in one loop would each pay for the other.
    """
    assert isinstance(function, FunctionType)
    copy = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return cast(F, copy)


def chunk_of_calls(verb: Callable[[str], Awaitable[object]], batches: Iterator[Sequence[str]]) -> Chunk:
    """Return a chunk that awaits `verb(key)` for the keys of the next batch."""

    async def chunk() -> float:
        keys = next(batches)
        started = perf_counter()
        for key in keys:
            await verb(key)
        return perf_counter() - started

    return unshared(chunk)


def zipf(keys: Sequence[str], calls: int, *, seed: int = 11) -> Iterator[list[str]]:
    """Return endless batches of keys, the n-th of which is drawn with weight 1/n; the same ones for the same seed."""
    weights = list(accumulate(1 / rank for rank in range(1, len(keys) + 1)))
    drawn = random.Random(seed).choices(keys, cum_weights=weights, k=calls * 32)
    return cycle([drawn[start : start + calls] for start in range(0, len(drawn), calls)])


def new_keys(calls: int) -> Iterator[list[str]]:
    """Return endless batches of keys that no batch had before."""
    for batch in count():
        yield [f"writer_{batch}_{number}" for number in range(calls)]


def settle_time(folder: Path) -> float:
    """Return how long a file there has to rest until its timestamps may be believed, with room to spare."""
    stamps = []
    for number in range(4):
        path = folder / f".settle-{number}"
        path.touch()
        stamps.append(path.stat().st_ctime_ns)
        path.unlink()
    return 2.5 if all(stamp % 10**9 == 0 for stamp in stamps) else 0.1


@contextmanager
def folder() -> Iterator[Path]:
    """Yield a new folder, by its real path, and remove it."""
    with tempfile.TemporaryDirectory(prefix="prompt-cache-bench-") as name:
        yield Path(name).resolve()
