"""The journal tells what was invalidated, in order, and says when it cannot."""

from __future__ import annotations

import asyncio

from shared_prompt_cache.stores import JournalEntry, Notice, Selection, Store
from shared_prompt_cache.stores._selection import select_agent, select_file, select_pattern
from shared_prompt_cache.testing._store_contract._ground import Ground, OpenStore, notice, of_scope

_SELECTIONS = [
    Selection(),
    Selection(names=("all",)),
    Selection(
        names=("tag\x1fé\0'\U0001f600", "all"), prefixes=("key\x1f", "file\x1f/a/"), pattern="[!a]*", projects=()
    ),
    Selection(projects=("", "shop", "*/shop")),
    Selection(pattern=""),
    select_pattern("v[!a]*"),
    select_file("/home/a b/ü.md"),
    select_agent([("agent", "engineer")], "engineer", None),
]


class JournalPromises(Ground):
    """`journal`, and what `invalidate` returns."""

    async def test_a_store_without_invalidations_has_an_empty_journal(self, store: Store) -> None:
        journal = await store.journal(0)
        assert journal.entries == (), "nothing has been invalidated"
        assert journal.complete, "nothing has been invalidated, so nothing is missing"
        assert journal.last == 0, "last is 0 as long as nothing was invalidated"

    async def test_an_invalidation_is_told_as_it_was_given(self, store: Store, other: Store) -> None:
        notices = [
            Notice(f"cache {number} é", 2**40 + number, selection, bytes([0, 255, number]) * number)
            for number, selection in enumerate(_SELECTIONS)
        ]
        sequences = await store.invalidate(notices)
        for reader in (store, other):
            journal = await reader.journal(sequences[0] - 1)
            for found, given, sequence in zip(journal.entries, notices, sequences, strict=True):
                wanted = JournalEntry(sequence, given.origin, given.number, given.selection, given.body)
                assert found == wanted, f"{given} came back from the journal as {found}"

    async def test_sequences_rise_by_one_in_the_order_of_the_notices(self, store: Store, other: Store) -> None:
        first = await store.invalidate([notice(of_scope("tag", str(number)), number=number) for number in range(3)])
        second = await other.invalidate([notice(of_scope("tag", "3"), number=3)])
        sequences = [*first, *second]
        assert sequences == list(range(sequences[0], sequences[0] + 4)), f"the sequences of four are {sequences}"
        journal = await store.journal(sequences[0] - 1)
        assert [one.number for one in journal.entries] == [0, 1, 2, 3], "the journal has another order than the notices"
        assert [one.sequence for one in journal.entries] == sequences, "invalidate returned other sequences"
        assert journal.last == sequences[-1], "last is not the sequence of the last invalidation"

    async def test_it_tells_what_came_after_and_no_more(self, store: Store) -> None:
        sequences = await store.invalidate([notice(of_scope("tag", str(number))) for number in range(5)])
        for number, sequence in enumerate(sequences):
            journal = await store.journal(sequence)
            assert [one.sequence for one in journal.entries] == sequences[number + 1 :], (
                f"journal({sequence}) must begin behind {sequence}"
            )
            assert journal.complete, "five invalidations are all remembered"
            assert journal.last == sequences[-1], "last does not depend on where one begins to read"

    async def test_what_selects_nothing_is_told_too(self, store: Store) -> None:
        sequences = await store.invalidate([notice(of_scope("tag", "nobody has it"))])
        assert len(sequences) == 1, "each notice has a sequence"
        assert len((await store.journal(sequences[0] - 1)).entries) == 1, (
            "an entry that is still being computed elsewhere may be selected: the journal has every notice"
        )

    async def test_what_is_forgotten_is_admitted(self, store: Store) -> None:
        first = (await store.invalidate([notice(of_scope("tag", "first"))]))[0]
        for _ in range(self.most_remembered // 1_000 + 1):
            await store.invalidate([notice(of_scope("tag", str(number))) for number in range(1_000)])
        await store.sweep(100)
        journal = await store.journal(first)
        assert not journal.complete, "invalidations after the sequence are forgotten, so complete is False"
        assert len(journal.entries) <= self.most_remembered, "the journal grows without end; see most_remembered"
        sequences = [one.sequence for one in journal.entries]
        assert sequences == list(range(journal.last - len(sequences) + 1, journal.last + 1)), (
            "what is remembered is the newest, without a gap"
        )
        assert len(sequences) >= min(self.most_remembered // 2, 1_000), "the journal forgets too soon"
        rest = await store.journal(sequences[0] - 1)
        assert rest.complete, f"all after {sequences[0] - 1} is remembered, so complete is True"
        assert rest.entries == journal.entries, "the same part of the journal was told in two ways"
        assert (await store.journal(journal.last)).complete, "nothing came after the last, so nothing is missing"

    async def test_who_is_ahead_of_it_is_told_that_it_is_another_one(self, store: Store) -> None:
        last = (await store.invalidate([notice(of_scope("tag", "x"))]))[0]
        journal = await store.journal(last + 5)
        assert not journal.complete, (
            "the reader has seen sequences that this journal does not have: the store was begun anew"
        )
        assert (journal.entries, journal.last) == ((), last), "nothing came after a sequence that is ahead"

    async def test_caches_that_invalidate_at_once_share_one_order(self, store: Store, open_store: OpenStore) -> None:
        stores = [store, await open_store(), await open_store()]
        calls = [
            one.invalidate([notice(of_scope("tag", "x"), origin=f"cache {place}", number=number) for number in pair])
            for place, one in enumerate(stores)
            for pair in ((1, 2), (3, 4), (5, 6))
        ]
        answers = await asyncio.gather(*calls)
        sequences = sorted(sequence for answer in answers for sequence in answer)
        assert sequences == list(range(sequences[0], sequences[0] + 18)), "two invalidations share a sequence"
        journal = await store.journal(sequences[0] - 1)
        assert len(journal.entries) == 18, f"18 were invalidated, and the journal has {len(journal.entries)}"
        for answer in answers:
            assert answer[1] == answer[0] + 1, "the notices of one call stand side by side in the journal"
