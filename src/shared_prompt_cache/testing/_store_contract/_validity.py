"""An invalidation takes what it selects, and keeps out what began before it."""

from __future__ import annotations

import asyncio

import pytest

from shared_prompt_cache.stores import Selection, Stamp, Store, StoredEntry
from shared_prompt_cache.stores._selection import select_agent, select_file, select_pattern, select_scopes
from shared_prompt_cache.testing._store_contract._ground import (
    ELSEWHERE,
    HERE,
    Ground,
    OpenStore,
    entry,
    kept,
    meanwhile,
    names,
    notice,
    now,
    of_scope,
    put,
    write,
)

_ENGINEER = (("agent", "engineer"), ("agent", "engineer", "shop"), ("project", "shop"))

# What is selected, and the entries it takes and spares, each by its key and names.
_CASES: dict[str, tuple[Selection, list[tuple[str, tuple[str, ...]]], list[tuple[str, tuple[str, ...]]]]] = {
    "nothing": (Selection(), [], [("a", names("a"))]),
    "everything": (
        of_scope("all"),
        [("a", names("a")), ("engineer_1", names("engineer_1", *_ENGINEER))],
        [],
    ),
    "an agent": (
        of_scope("agent", "engineer"),
        [("a", names("a", *_ENGINEER))],
        [("b", names("b", ("agent", "engineer2"))), ("c", names("c", ("agent", "Engineer"))), ("d", names("d"))],
    ),
    "an agent in a project": (
        of_scope("agent", "engineer", "shop"),
        [("a", names("a", *_ENGINEER))],
        [("b", names("b", ("agent", "engineer"), ("agent", "engineer", "web"), ("project", "web")))],
    ),
    "several scopes": (
        select_scopes([("project", "shop"), ("project", "")]),
        [("a", names("a", ("project", "shop"))), ("b", names("b", ("project", "")))],
        [("c", names("c", ("project", "web"))), ("d", names("d", ("tag", "shop")))],
    ),
    "a tag with marks of query languages": (
        of_scope("tag", "100%_'\"\\*?["),
        [("a", names("a", ("tag", "100%_'\"\\*?[")))],
        [("b", names("b", ("tag", "100 percent_'\"\\*?["))), ("c", names("c", ("tag", "100%x'\"\\*?[")))],
    ),
    "a key, and what was made from it": (
        of_scope("key", "base"),
        [("base", names("base")), ("made", names("made", made_from=[("base", True)]))],
        [("base2", names("base2")), ("bas", names("bas")), ("Base", names("Base"))],
    ),
    "the pattern engineer_*": (
        select_pattern("engineer_*"),
        [("engineer_1", names("engineer_1")), ("engineer_", names("engineer_", *_ENGINEER))],
        [("engineer-1", names("engineer-1")), ("Engineer_1", names("Engineer_1")), ("engineer", names("engineer"))],
    ),
    "the pattern v[!a]*": (
        select_pattern("v[!a]*"),
        [("vb1", names("vb1")), ("v!", names("v!")), ("v^", names("v^")), ("v\n", names("v\n"))],
        [("va1", names("va1")), ("v", names("v")), ("wb1", names("wb1"))],
    ),
    "the pattern [ab]?[[]x]": (
        select_pattern("[ab]?[[]x]"),
        [("a1[x]", names("a1[x]")), ("b漢[x]", names("b漢[x]")), ("c", names("c", made_from=[("a\n[x]", False)]))],
        [("a1x]", names("a1x]")), ("a[x]", names("a[x]")), ("c1[x]", names("c1[x]"))],
    ),
    "a pattern without a beginning": (
        select_pattern("*_end"),
        [("a_end", names("a_end")), ("_end", names("_end"))],
        [("a_end2", names("a_end2")), ("b", names("b", ("tag", "a_end")))],
    ),
    "a pattern that has marks of query languages": (
        select_pattern("100%_'*"),
        [("100%_'", names("100%_'")), ("100%_'1", names("100%_'1"))],
        [("100%x'", names("100%x'")), ("1000_'", names("1000_'"))],
    ),
    "a pattern without wildcards": (
        select_pattern("key"),
        [("key", names("key"))],
        [("key2", names("key2")), ("Key", names("Key"))],
    ),
    "a pattern that begins with the highest code point": (
        select_pattern("\U0010ffff*"),
        [("\U0010ffff", names("\U0010ffff")), ("\U0010ffff\U0010ffff", names("\U0010ffff\U0010ffff"))],
        [("\U0010fffe", names("\U0010fffe")), ("\uffff", names("\uffff"))],
    ),
    "a pattern that ends with the last letter before the surrogates": (
        select_pattern("a\ud7ff*"),
        [("a\ud7ff", names("a\ud7ff")), ("a\ud7ffb", names("a\ud7ffb"))],
        [("a\ue000", names("a\ue000")), ("a\ud7fe", names("a\ud7fe"))],
    ),
    "a file": (
        select_file("/home/a/notes.md"),
        [("a", names("a", paths=["/home/a/notes.md"])), ("b", names("b", paths=["/etc/x", "/home/a/notes.md"]))],
        [("c", names("c", paths=["/home/a/notes.md2"])), ("d", names("d", paths=["/home/a"]))],
    ),
    "a folder": (
        select_file("/home/a_b"),
        [("a", names("a", paths=["/home/a_b/c/d.md"])), ("b", names("b", paths=["/home/a_b"]))],
        [
            *[("c", names("c", paths=["/home/a_bc/d.md"])), ("d", names("d", paths=["/home/axb/d.md"]))],
            *[("e", names("e", paths=["/home"])), ("f", names("f", paths=["/home/A_b/d.md"]))],
            ("/home/a_b/c", names("/home/a_b/c")),
        ],
    ),
    "an agent, and keys of its shapes": (
        select_agent([("agent", "engineer")], "engineer", None),
        [
            *[("x", names("x", *_ENGINEER)), ("engineer_1", names("engineer_1"))],
            *[("Engineer-1", names("Engineer-1")), ("memory_engineer_1", names("memory_engineer_1"))],
            ("y", names("y", ("agent", "qa"), made_from=[("engineer:1", True)])),
        ],
        [
            *[("engineer", names("engineer")), ("engineers_1", names("engineers_1"))],
            ("engineer_2", names("engineer_2", ("agent", "qa"))),
            ("z", names("z", ("agent", "qa"), made_from=[("engineer_2", False)])),
        ],
    ),
    "an agent in projects, and keys of its shapes there": (
        select_agent([("agent", "engineer", "shop"), ("agent", "engineer", "")], "engineer", ("shop", "")),
        [
            *[("x", names("x", *_ENGINEER)), ("engineer_1", names("engineer_1", ("project", "shop")))],
            ("engineer_2", names("engineer_2", ("project", ""))),
        ],
        [
            *[("engineer_3", names("engineer_3", ("project", "web"))), ("engineer_4", names("engineer_4"))],
            ("y", names("y", ("agent", "engineer"), ("agent", "engineer", "web"), ("project", "web"))),
        ],
    ),
    "keys of a shape in no project at all": (
        select_agent([], "engineer", ()),
        [],
        [("engineer_1", names("engineer_1", ("project", "shop"))), ("engineer_2", names("engineer_2"))],
    ),
    "one pattern or one name": (
        Selection(names=("tag\x1fx",), prefixes=("key\x1fa", "key\x1fb"), pattern="?1"),
        [("a1", names("a1")), ("b1", names("b1")), ("c1", names("c1", ("tag", "x")))],
        [("a2", names("a2")), ("c2", names("c2")), ("d1", names("d1", ("tag", "y")))],
    ),
}


class ValidityPromises(Ground):
    """`invalidate`, and the condition of `put_many`."""

    @pytest.mark.parametrize("case", _CASES.values(), ids=_CASES)
    async def test_an_invalidation_takes_what_it_selects_and_nothing_else(
        self,
        store: Store,
        case: tuple[Selection, list[tuple[str, tuple[str, ...]]], list[tuple[str, tuple[str, ...]]]],
    ) -> None:
        selection, taken, spared = case
        stamp = await now(store)
        writes = [write(key, stamp, names_=found) for key, found in (*taken, *spared)]
        assert all(await store.put_many(writes)), "put_many refused, although nothing was invalidated"
        await store.invalidate([notice(selection)])
        left = set(await kept(store))
        survivors, victims = left & {key for key, _ in taken}, {key for key, _ in spared} - left
        assert not survivors, f"{selection} selects {sorted(survivors)}, which are still there"
        assert not victims, f"{selection} does not select {sorted(victims)}, which are gone"
        again = dict(zip([write.entry.key for write in writes], await store.put_many(writes), strict=True))
        late = [key for key, _ in taken if again[key]]
        lost = [key for key, _ in spared if not again[key]]
        assert not late, f"{late} began before an invalidation that selects them, and put_many put them"
        assert not lost, f"put_many refused {lost}, which the invalidation after their stamp does not select"

    async def test_what_began_before_an_invalidation_is_not_put_and_what_began_after_is(self, store: Store) -> None:
        before = await now(store)
        await store.invalidate([notice(of_scope("key", "key"))])
        after = await now(store)
        assert await store.put_many([write("key", before)]) == [False], "the value may have been made from the old"
        assert await store.get("key") is None, "put_many returned False, and put the entry all the same"
        assert await store.put_many([write("key", after)]) == [True], "the value began after the invalidation"
        assert await store.get("key") == entry("key"), "put_many returned True, and put nothing"

    async def test_each_write_of_a_call_is_judged_by_itself(self, store: Store) -> None:
        before = await now(store)
        await store.invalidate([notice(of_scope("key", "b"))])
        answer = await store.put_many([write("a", before), write("b", before), write("c", before)])
        assert answer == [True, False, True], f"b alone was invalidated since the stamp; put_many returned {answer}"
        assert await kept(store) == ["a", "c"], "put_many says in its order which entries were put"

    async def test_what_is_refused_leaves_the_entry_that_is_there(self, store: Store) -> None:
        before = await now(store)
        await store.invalidate([notice(of_scope("key", "key"))])
        await put(store, entry("key", b"new"))
        assert await store.put_many([write(entry("key", b"old"), before)]) == [False], "it began before"
        assert await store.get("key") == entry("key", b"new"), "an entry that was refused took the place of another"

    async def test_every_later_invalidation_counts_not_the_last_alone(self, store: Store) -> None:
        before = await now(store)
        await store.invalidate([notice(of_scope("key", "key"))])
        await store.invalidate([notice(of_scope("tag", "x")), notice(of_scope("tag", "y"))])
        assert await store.put_many([write("key", before)]) == [False], "the first of three invalidations selects it"

    async def test_an_invalidation_of_ones_own_that_was_in_force_does_not_count(self, store: Store) -> None:
        """It reached the journal late: the computation had begun behind it."""
        before = (await now(store)).sequence
        await store.invalidate([notice(of_scope("key", "key"), origin=HERE, number=5)])
        late, exact = Stamp(before, HERE, 4), Stamp(before, HERE, 5)
        foreign = Stamp(before, ELSEWHERE, 5)
        assert await store.put_many([write("key", late)]) == [False], "number 5 came after the 4 of the stamp"
        assert await store.put_many([write("key", foreign)]) == [False], "number 5 is of another cache than the stamp"
        assert await store.put_many([write("key", exact)]) == [True], "number 5 of the same cache was in force already"

    async def test_a_stamp_that_the_journal_has_forgotten_is_refused(self, store: Store) -> None:
        await store.invalidate([notice(of_scope("tag", "first"))])
        old = await now(store)
        await self._forget(store, old)
        assert await store.put_many([write("key", old)]) == [False], (
            "what was invalidated since the stamp is forgotten in part, so nobody can tell whether the entry stands"
        )
        recent = await now(store)
        await store.invalidate([notice(of_scope("tag", "last"))])
        assert await store.put_many([write("key", recent)]) == [True], "all since this stamp is remembered"

    async def _forget(self, store: Store, stamp: Stamp) -> None:
        """Invalidate so often that the journal cannot hold it all."""
        for _ in range(self.most_remembered // 1_000 + 1):
            await store.invalidate([notice(of_scope("tag", str(number))) for number in range(1_000)])
        await store.sweep(100)
        journal = await store.journal(stamp.sequence)
        assert not journal.complete, (
            f"{journal.last - stamp.sequence} invalidations are remembered; see most_remembered"
        )
        remembered = (await store.stats()).journal
        assert remembered <= self.most_remembered, f"{remembered} invalidations are remembered; see most_remembered"

    async def test_a_stamp_from_ahead_of_the_journal_is_refused(self, store: Store) -> None:
        ahead = Stamp((await now(store)).sequence + 1, HERE, 0)
        assert await store.put_many([write("key", ahead)]) == [False], (
            "the stamp is of a journal that is no more, so nobody can tell what was invalidated since"
        )

    async def test_whichever_comes_first_nothing_old_is_left(self, store: Store, open_store: OpenStore) -> None:
        others = [await open_store() for _ in range(3)]
        for turn in range(40):
            stamp = await now(store)
            calls = [one.put_many([write("a", stamp), write("b", stamp)]) for one in (store, *others[:2])]
            calls.insert(turn % 4, others[2].invalidate([notice(of_scope("all"), number=turn)]))  # type: ignore[arg-type] # of another kind
            await asyncio.gather(*calls)
            left = await kept(store)
            assert not left, f"{left} began before an invalidation of everything, and are there behind it"

    async def test_an_invalidation_of_two_is_seen_in_full_or_not_at_all(self, store: Store, other: Store) -> None:
        async def keep_invalidating() -> None:
            for number in range(30):
                await put(other, "a", "b")
                await other.invalidate([notice(of_scope("all"), number=number)])

        async with meanwhile(keep_invalidating()) as invalidating:
            while not invalidating.done():
                found: dict[str, StoredEntry] = await store.get_many(["a", "b"])
                assert len(found) != 1, "a and b are put and invalidated together, and get_many found one alone"
                await asyncio.sleep(0)
