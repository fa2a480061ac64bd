"""Whatever happens, in whatever order, a store answers as the model and the store in memory do."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared_prompt_cache.stores import Lease, LeaseRequest, MemoryStore, Notice, Selection, Stamp, Store, Swap
from shared_prompt_cache.stores._selection import (
    names_of,
    select_agent,
    select_file,
    select_pattern,
    select_scopes,
)
from shared_prompt_cache.testing._clock import ManualClock
from shared_prompt_cache.testing._store_contract._ground import (
    ELSEWHERE,
    HERE,
    Ground,
    entry,
    kept,
    lend,
    notice,
    now,
    renewed,
    write,
)

# The fixtures are made once for all examples, which clean up behind themselves; subclasses run the same examples.
_LENIENT = settings(
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
)

_LETTERS = "aaaabAé-_:./*?[]!^%'\\\n\0\x1f\ud7ff\ue000\uffff\U00010000\U0010ffff"
_TEXTS = st.text(_LETTERS, min_size=1, max_size=4)
_AGENTS = st.sampled_from(["a", "b", "a-b", "é"])
_PROJECTS = st.sampled_from(["", "a", "*/a", "/a", "b"])
_PATHS = st.lists(st.sampled_from(["a", "b", "a_", "a%", "A", "é", "\U0010ffff"]), max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
_KEYS = _TEXTS | st.builds("".join, st.tuples(st.sampled_from(["a_", "A:", "memory_a_", "a-b_", "b"]), _TEXTS))
_SCOPES = st.one_of(
    st.just(("all",)),
    st.tuples(st.just("agent"), _AGENTS),
    st.tuples(st.just("agent"), _AGENTS, _PROJECTS),
    st.tuples(st.just("project"), _PROJECTS),
    st.tuples(st.just("tag"), _TEXTS),
    st.tuples(st.just("key"), _KEYS),
)
_PATTERNS = st.text("aaabA*?[]!^-_:\\é\n", min_size=1, max_size=6) | st.builds("{}*".format, _KEYS)
_SELECTIONS = st.one_of(
    st.lists(_SCOPES, max_size=3).map(select_scopes),
    _PATTERNS.map(select_pattern),
    _PATHS.map(select_file),
    st.builds(
        select_agent, st.lists(_SCOPES, max_size=2), _AGENTS, st.none() | st.lists(_PROJECTS, max_size=2).map(tuple)
    ),
)


@st.composite
def _subjects(draw: st.DrawFn) -> tuple[str, tuple[str, ...]]:
    """Draw a key, and the names of an entry that has it."""
    key = draw(_KEYS)
    return key, names_of(
        key,
        [("all",), *draw(st.lists(_SCOPES, max_size=3))],
        draw(st.lists(st.tuples(_KEYS, st.booleans()), max_size=2)),
        draw(st.lists(_PATHS, max_size=2)),
        unowned=draw(st.booleans()),
    )


_ORIGINS = st.sampled_from([HERE, ELSEWHERE])
_FEW = st.sampled_from(["a", "a_1", "b"])
_SMALL = st.integers(0, 3)
_CAUSES = st.lists(
    st.tuples(_ORIGINS, _SMALL, st.sampled_from([select_scopes([("key", key)]) for key in ("a", "b")]) | _SELECTIONS),
    max_size=2,
)
_SUMS = b"sum of 0", b"sum of 1", b"sum of 2"
_RECORDS = st.sampled_from([None, b"", b"1", b"2"])
_SWAPS = st.lists(
    st.tuples(st.sampled_from(["/a", "/a/b", "/b"]), _RECORDS, _RECORDS), max_size=2, unique_by=lambda swap: swap[0]
)
# The name of a method, and what decides about its arguments.
_STEPS = st.one_of(
    st.tuples(st.just("put"), _FEW, st.tuples(_SMALL, _ORIGINS, _SMALL), st.sampled_from([5, 20, math.inf]), _SMALL),
    st.tuples(st.just("invalidate"), _CAUSES),
    st.tuples(st.just("swap"), _SWAPS, _CAUSES),
    st.tuples(st.just("delete"), st.lists(_FEW, max_size=2), st.sampled_from([None, *_SUMS])),
    st.tuples(st.just("acquire"), _FEW, _ORIGINS, st.sampled_from([5, 20]), st.sampled_from([None, *_SUMS])),
    st.tuples(st.just("renew"), _SMALL, st.sampled_from([5, 20])),
    st.tuples(st.just("release"), _SMALL),
    st.tuples(st.just("sweep"), st.just(100)),  # which of several expired ones goes first is left open
    st.tuples(st.just("advance"), st.sampled_from([1, 6, 21])),
)


class HistoryPromises(Ground):
    """Random entries, selections and histories."""

    @_LENIENT
    @given(
        subjects=st.lists(_subjects(), max_size=6, unique_by=lambda subject: subject[0]),
        selections=st.lists(_SELECTIONS, min_size=1, max_size=2),
    )
    async def test_entries_leases_and_stamps_go_by_the_selection_and_nothing_else(
        self, store: Store, subjects: list[tuple[str, tuple[str, ...]]], selections: list[Selection]
    ) -> None:
        before = await now(store)
        writes = [write(key, before, names_=names) for key, names in subjects]
        await store.put_many(writes)
        leases = [await lend(store, key, HERE, names) for key, names in subjects]
        await store.invalidate([notice(selection) for selection in selections])
        left = await kept(store)
        held = await store.renew(leases, 60)
        put = await store.put_many(writes)
        await store.delete([key for key, _ in subjects])  # for the next example
        for (key, names), is_held, was_put in zip(subjects, held, put, strict=True):
            selected = any(selection.selects(names) for selection in selections)
            what = f"an entry with the names {names}, and {selections}: selects() is {selected}"
            assert (key not in left) == selected, f"{what}, but the entry {'stayed' if selected else 'went'}"
            assert is_held != selected, f"{what}, but its lease {'is held' if selected else 'ended'}"
            assert was_put != selected, f"{what}, but a put from before was {'put' if selected else 'refused'}"

    @_LENIENT
    @given(steps=st.lists(_STEPS, min_size=3, max_size=20))
    async def test_a_history_has_the_same_outcome_as_in_memory(
        self, store: Store, clock: ManualClock, steps: list[tuple[Any, ...]]
    ) -> None:
        model = MemoryStore()
        await model.open(clock, lambda: None)
        before = await _Run(store).cleaned()
        runs = _Run(store, before), _Run(model)
        try:
            for number, (name, *arguments) in enumerate(steps, 1):
                if name == "advance":
                    clock.advance(arguments[0])
                    continue
                answers = [await getattr(run, name)(*arguments) for run in runs]
                states = [await run.state() for run in runs]
                shown = "\n".join(map(repr, steps[:number]))
                assert answers[0] == answers[1], f"the last of these returned {answers[0]}, not {answers[1]}:\n{shown}"
                assert states[0] == states[1], f"these left\n{states[0]}\nand not\n{states[1]}:\n{shown}"
        finally:
            await model.aclose()


class _Run:
    """A history on one store; sequences are counted from where it began, leases from the first."""

    def __init__(self, store: Store, before: int = 0) -> None:
        self._store = store
        self._before = before
        self._leases: list[Lease] = []
        self._puts = 0

    async def cleaned(self) -> int:
        """Leave nothing of an earlier history; return the last sequence there is."""
        await self._store.delete(await kept(self._store))
        records = await self._store.baseline("/")
        await self._store.swap([Swap(path, old, None) for path, old in records.items()], [])
        return (await self._store.invalidate([notice(select_scopes([("all",)]))]))[0]

    async def state(self) -> object:
        store = self._store
        journal = await store.journal(self._before)
        stats = await store.stats()
        return (
            await store.get_many(await kept(store)),
            [(one.sequence - self._before, one.origin, one.number, one.selection) for one in journal.entries],
            journal.last - self._before,
            await store.baseline("/"),
            (stats.entries, stats.payload_bytes),
        )

    async def put(self, key: str, stamp: tuple[int, str, int], ttl: float, lease: int) -> list[bool]:
        self._puts += 1
        age, origin, number = stamp
        last = (await self._store.journal(self._before)).last
        writes = [
            write(
                entry(key, str(self._puts % 3).encode()),
                Stamp(max(self._before, last - age), origin, number),
                names_=names_of(key, [("all",), ("agent", "a")], [("b", True)], ["/a/b"], unowned=False),
                expires_at=ManualClock().wall() + ttl,
                lease=self._lease(lease),
            )
        ]
        return await self._store.put_many(writes)

    def _lease(self, number: int) -> Lease | None:
        """Return one of the last three leases; for 0 or without any none."""
        return self._leases[-number] if 0 < number <= len(self._leases) else None

    async def invalidate(self, causes: list[tuple[str, int, Selection]]) -> list[int]:
        return [sequence - self._before for sequence in await self._store.invalidate(_notices(causes))]

    async def swap(
        self, swaps: list[tuple[str, bytes | None, bytes | None]], causes: list[tuple[str, int, Selection]]
    ) -> list[int] | None:
        sequences = await self._store.swap([Swap(*swap) for swap in swaps], _notices(causes))
        return None if sequences is None else [sequence - self._before for sequence in sequences]

    async def delete(self, keys: list[str], checksum: bytes | None) -> int:
        checksums = None if checksum is None else dict.fromkeys(keys, checksum)
        return await self._store.delete(keys, checksums=checksums)

    async def acquire(self, key: str, holder: str, ttl: float, seen: bytes | None) -> str:
        request = LeaseRequest(key, names_of(key, [("all",)], [], [], unowned=True), seen)
        (answer,) = await self._store.acquire([request], holder, ttl)
        if isinstance(answer, Lease):
            self._leases.append(answer)
            return "lent"
        return answer

    async def renew(self, number: int, ttl: float) -> bool:
        lease = self._lease(number)
        return lease is not None and await renewed(self._store, lease, ttl)

    async def release(self, number: int) -> None:
        if (lease := self._lease(number)) is not None:
            await self._store.release([lease])

    async def sweep(self, most: int) -> int:
        return await self._store.sweep(most)


def _notices(causes: list[tuple[str, int, Selection]]) -> list[Notice]:
    return [Notice(origin, number, selection, b"") for origin, number, selection in causes]
