"""Of all caches that see a file change, one applies it."""

from __future__ import annotations

import asyncio

from shared_prompt_cache.stores import Store, Swap
from shared_prompt_cache.testing._store_contract._ground import (
    Ground,
    OpenStore,
    kept,
    meanwhile,
    notice,
    now,
    of_scope,
    put,
    write,
)


class BaselinePromises(Ground):
    """`baseline`, `swap`."""

    async def test_records_come_back_by_path_below_the_root(self, store: Store, other: Store) -> None:
        records = {
            path: path.encode() + b"\0\xff"
            for path in (
                *("/", "/a", "/a/b", "/a/b/c", "/ab", "/a b/ü", "/A/b", "/a_/x", "/ax/x", "/a%/x", "/a*/x", "/a\0/x"),
                *("/a/\U0010ffff", "/a.", "/a0", "/a/" + "x" * 4_000),
                *("./", ".//a", ".//a/b", ".//ab"),  # of a store that has a root
            )
        }
        assert await store.swap([Swap(path, None, record) for path, record in records.items()], []) == [], (
            "swap of records that were not there, without notices, must return []"
        )
        for root in ("/", "/a", "/a/b", "/ab", "/a_", "/a%", "/a*", "/missing", "/a b/ü", "./", ".//a"):
            below = root.rstrip("/") + "/"
            wanted = {path: one for path, one in records.items() if path == root or path.startswith(below)}
            assert await other.baseline(root) == wanted, f"baseline({root!r}) is what is {root}, or below it"

    async def test_a_record_is_replaced_and_removed(self, store: Store) -> None:
        await store.swap([Swap("/a", None, b"1"), Swap("/b", None, b"")], [])
        assert await store.swap([Swap("/a", b"1", b"2"), Swap("/b", b"", None)], []) == [], "both records were there"
        assert await store.baseline("/") == {"/a": b"2"}, "/a was replaced and /b removed"

    async def test_if_one_record_is_another_than_expected_nothing_changes(self, store: Store) -> None:
        await store.swap([Swap("/a", None, b"1"), Swap("/empty", None, b"")], [])
        await put(store, "key")
        everything = [notice(of_scope("all"))]
        for wrong in (
            *(Swap("/a", b"2", b"3"), Swap("/a", None, b"3"), Swap("/a", b"", None)),
            *(Swap("/missing", b"1", b"2"), Swap("/missing", b"", None), Swap("/empty", None, b"1")),
        ):
            for swaps in ([Swap("/new", None, b"1"), wrong], [wrong, Swap("/new", None, b"1")]):
                assert await store.swap(swaps, everything) is None, f"swap carried {wrong} out, on another record"
                assert await store.baseline("/") == {"/a": b"1", "/empty": b""}, "swap returned None and changed some"
        assert await kept(store) == ["key"], "swap returned None, and carried its notices out"
        assert (await store.journal(0)).entries == (), "swap returned None, and entered its notices in the journal"

    async def test_its_notices_are_carried_out_with_it(self, store: Store, other: Store) -> None:
        stamp = await now(store)
        await put(store, "a", "b")
        notices = [notice(of_scope("key", "a"), number=1), notice(of_scope("key", "c"), number=2, body=b"\0body")]
        sequences = await store.swap([Swap("/a", None, b"1")], notices)
        assert sequences is not None, "swap returned None, although there was no record"
        assert await other.baseline("/") == {"/a": b"1"}, "swap returned sequences, and the record is not there"
        assert await kept(other) == ["b"], "the first notice selects a"
        journal = await other.journal(sequences[0] - 1)
        assert [(one.sequence, one.number, one.body) for one in journal.entries] == [
            (sequences[0], 1, b""),
            (sequences[0] + 1, 2, b"\0body"),
        ], "the notices of swap are in the journal like those of invalidate"
        assert await store.put_many([write("c", stamp)]) == [False], "c began before a notice that selects it"

    async def test_without_records_its_notices_are_carried_out(self, store: Store) -> None:
        await put(store, "key")
        assert await store.swap([], [notice(of_scope("all"))]) == [(await store.journal(0)).last], "no record differs"
        assert await kept(store) == [], "the notice selects everything"

    async def test_of_all_that_see_a_change_at_once_one_applies_it(self, store: Store, open_store: OpenStore) -> None:
        stores = [store, await open_store(), await open_store()]
        before = await now(store)
        old = None
        for turn in range(20):
            new = str(turn).encode()
            calls = [one.swap([Swap("/a", old, new)], [notice(of_scope("all"), number=turn)]) for one in stores]
            applied = [answer for answer in await asyncio.gather(*calls) if answer is not None]
            assert len(applied) == 1, f"three caches saw one change, and {len(applied)} of them applied it"
            old = new
        journal = await store.journal(before.sequence)
        assert [one.number for one in journal.entries] == list(range(20)), "one invalidation for each change"

    async def test_a_baseline_is_seen_at_one_moment(self, store: Store, other: Store) -> None:
        await store.swap([Swap("/a", None, b"0"), Swap("/b", None, b"0")], [])

        async def keep_swapping() -> None:
            for number in range(40):
                old, new = str(number).encode(), str(number + 1).encode()
                await other.swap([Swap("/a", old, new), Swap("/b", old, new)], [])

        async with meanwhile(keep_swapping()) as swapping:
            while not swapping.done():
                found = await store.baseline("/")
                assert found["/a"] == found["/b"], f"/a and /b are swapped together, and were found apart: {found}"
                await asyncio.sleep(0)

    async def test_an_invalidation_leaves_the_baseline(self, store: Store) -> None:
        await store.swap([Swap("/a", None, b"1")], [])
        await store.invalidate([notice(of_scope("all"))])
        assert await store.baseline("/") == {"/a": b"1"}, "an invalidation is about entries and leases alone"
