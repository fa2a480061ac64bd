"""One cache at a time has the right to compute a key."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from shared_prompt_cache.stores import Lease, LeaseRequest, Store, Swap
from shared_prompt_cache.stores._selection import select_pattern
from shared_prompt_cache.testing._clock import ManualClock
from shared_prompt_cache.testing._store_contract._ground import (
    Ground,
    OpenStore,
    ask,
    entry,
    lend,
    names,
    notice,
    now,
    of_scope,
    put,
    renewed,
    write,
)


class LeasePromises(Ground):
    """`acquire`, `renew`, `release`, and the lease of a write."""

    async def test_a_lease_says_what_it_is_of(self, store: Store) -> None:
        lease = await lend(store, "ключ \0", "a cache")
        assert (lease.key, lease.holder) == ("ключ \0", "a cache"), f"the lease says {lease}"

    async def test_while_one_holds_a_key_no_other_gets_it(self, store: Store, other: Store) -> None:
        lease = await lend(store, "key", "one")
        for door in (store, other):
            assert await ask(door, "key", "two") == "held", "two caches hold the lease of one key"
        assert isinstance(await ask(other, "Key", "two"), Lease), "Key is another key than key"
        assert await renewed(store, lease), "that another asked for it must not end a lease"

    async def test_of_all_that_ask_at_once_one_gets_it(self, store: Store, open_store: OpenStore) -> None:
        stores = [store, await open_store(), await open_store()]
        for turn in range(20):
            key = f"key {turn}"
            calls = [
                ask(one, key, f"cache {place} {number}") for place, one in enumerate(stores) for number in range(3)
            ]
            lent = [lease for lease in await asyncio.gather(*calls) if isinstance(lease, Lease)]
            assert len(lent) == 1, f"nine asked at once for the lease of one key, and {len(lent)} got it"

    async def test_who_holds_it_and_asks_again_gets_another_in_its_place(self, store: Store) -> None:
        first = await lend(store, "key", "one")
        second = await ask(store, "key", "one")
        assert isinstance(second, Lease), "held means that another has it; here it is the same holder who asks"
        assert second.fence > first.fence, "the fence tells two leases of one holder apart"
        assert not await renewed(store, first), "the first lease ended when its holder got another"
        await store.release([first])
        assert await renewed(store, second), "to release the first lease must not end the second"

    async def test_who_has_not_seen_the_entry_that_is_there_is_told_to_look(self, store: Store, other: Store) -> None:
        """So nobody computes what another has just put, however close the two came."""
        first = LeaseRequest("key", names("key"))
        await put(other, entry("key", b"new"))
        assert await store.acquire([first], "one", 60) == ["changed"], "there is an entry that the cache has not seen"
        await lend(store, "key", "one")  # who has seen it, and finds it useless, may compute
        assert await other.acquire([first], "two", 60) == ["changed"], "held or not, there is an entry to look at"
        await other.delete(["key"])
        seen = LeaseRequest("key", names("key"), b"sum of new")
        assert await other.acquire([seen], "two", 60) == ["changed"], "the entry that was seen is gone"
        assert await other.acquire([first], "two", 60) == ["held"], "there is no entry, as was seen"

    async def test_many_are_asked_for_renewed_and_released_at_once(self, store: Store, other: Store) -> None:
        held = await lend(other, "b", "two")
        await put(store, "c")
        requests = [LeaseRequest(key, names(key)) for key in "abcd"]
        a, *denials, d = await store.acquire(requests, "one", 60)
        assert denials == ["held", "changed"], f"b is held and c has an entry; the answers are {denials}"
        assert isinstance(a, Lease), "nothing speaks against the first"
        assert isinstance(d, Lease), "nothing speaks against the last, whatever is said of those before it"
        await store.release([a])
        assert await store.renew([d, a, held], 60) == [True, False, True], "a was released, the others are held"
        await store.release([a, d, held])
        assert await other.renew([d, a, held], 60) == [False, False, False], "all of them were released"
        assert not await store.acquire([], "one", 60), "nothing was asked for"

    async def test_the_fence_rises_with_each_lease_of_the_store(
        self, store: Store, other: Store, clock: ManualClock
    ) -> None:
        fences = []
        for number in range(6):
            lease = await lend((store, other)[number % 2], f"key {number // 3}", f"cache {number}")
            fences.append(lease.fence)
            if number % 3 == 0:
                await store.release([lease])
            elif number % 3 == 1:
                clock.advance(61)
                await store.sweep(100)
            else:
                await store.invalidate([notice(of_scope("all"))])
        assert fences == sorted(set(fences)), f"the fences of six leases, one after the other, are {fences}"

    async def test_it_ends_by_itself_when_its_time_is_up(self, store: Store, clock: ManualClock) -> None:
        lease = await lend(store, "key", "one")
        clock.advance(59)
        assert await ask(store, "key", "two") == "held", "a lease of 60 s is held after 59 s"
        clock.advance(2)
        assert not await renewed(store, lease), "a lease of 60 s is lost after 61 s"
        taken_over = await lend(store, "key", "two")
        assert not await renewed(store, lease), "another has taken it over"
        await store.release([lease])
        assert await renewed(store, taken_over), "to release a lost lease must not end that of another"

    async def test_to_renew_it_is_to_hold_it_from_now_on(self, store: Store, other: Store, clock: ManualClock) -> None:
        lease = await lend(store, "key", "one")
        clock.advance(50)
        assert await renewed(other, lease), "renew returned False for a lease that is held"
        clock.advance(50)
        assert await ask(store, "key", "two") == "held", "it was renewed for 60 s, 50 s ago"
        assert await renewed(store, lease, 10), "it was renewed for 60 s, 50 s ago"
        clock.advance(11)
        assert isinstance(await ask(store, "key", "two"), Lease), "it was renewed for 10 s, 11 s ago"

    async def test_what_is_released_can_be_had_at_once(self, store: Store, other: Store) -> None:
        lease = await lend(store, "key", "one")
        await store.release([lease])
        assert not await renewed(store, lease), "a lease that was released cannot be renewed"
        await lend(other, "key", "two")
        await store.release([lease])  # nothing happens
        assert await ask(store, "key", "one") == "held", "release took the lease of another"

    async def test_only_the_very_lease_counts(self, store: Store) -> None:
        lease = await lend(store, "key", "one")
        for forged in (
            replace(lease, fence=lease.fence + 1),
            replace(lease, holder="two"),
            replace(lease, key="another key"),
        ):
            assert not await renewed(store, forged), f"{forged} was renewed, while {lease} is held"
            await store.release([forged])
            assert await store.put_many([write("key", await now(store), lease=forged)]) == [False], (
                f"an entry was put under {forged}, while {lease} is held"
            )
        assert await renewed(store, lease), "the lease ended although nobody released it"

    async def test_a_write_under_a_lease_is_put_and_ends_it(self, store: Store, other: Store) -> None:
        lease = await lend(store, "key", "one")
        assert await store.put_many([write("key", await now(store), lease=lease)]) == [True], "the lease is held"
        assert not await renewed(store, lease), "the lease of an entry that was put is released"
        await lend(other, "key", "two")

    async def test_a_write_under_a_lost_lease_is_refused(self, store: Store, clock: ManualClock) -> None:
        """Each way to lose one."""
        stamp = await now(store)
        released = await lend(store, "released", "one")
        await store.release([released])
        expired = await lend(store, "expired", "one")
        taken = await lend(store, "taken", "one")
        clock.advance(61)
        await lend(store, "taken", "two")
        used = await lend(store, "used", "one")
        assert await store.put_many([write(entry("used", b"first"), stamp, lease=used)]) == [True], "it is held"
        for lease in (released, expired, taken, used):
            assert await store.put_many([write(lease.key, stamp, lease=lease)]) == [False], (
                f"an entry was put under a lease that is lost, since it was {lease.key}"
            )
        assert await store.get("used") == entry("used", b"first"), "an entry that was refused took another's place"
        await put(store, "free")  # without a lease nothing speaks against it

    async def test_an_invalidation_ends_the_leases_it_touches_and_no_other(self, store: Store, other: Store) -> None:
        hit = await lend(store, "a", "one", names("a", ("agent", "engineer")))
        made = await lend(store, "b", "one", names("b", made_from=[("engineer_1", True)]))
        missed = await lend(store, "engineers", "one", names("engineers", ("agent", "qa")))
        await other.invalidate([notice(of_scope("agent", "engineer")), notice(select_pattern("engineer_*"))])
        assert not await renewed(store, hit), "the invalidation touches the lease: its value would be an old one"
        assert not await renewed(store, made), "the pattern of the invalidation touches the lease"
        assert await renewed(store, missed), "the invalidation does not touch this lease"
        stamp = await now(store)
        assert await store.put_many([write("a", stamp, lease=hit)]) == [False], (
            "the lease was ended by an invalidation, whatever stamp the entry has"
        )
        await lend(other, "a", "two")  # at once: who computes anew never waits for the old computation

    async def test_so_do_the_notices_of_a_swap(self, store: Store) -> None:
        lease = await lend(store, "key", "one")
        await store.swap([Swap("/a", None, b"1")], [notice(of_scope("key", "key"))])
        assert not await renewed(store, lease), "a notice of swap touches the lease"

    async def test_a_lease_touched_by_names_that_no_entry_has_ends_too(self, store: Store) -> None:
        await put(store, "key")
        lease = await lend(store, "key", "one", names("key", ("tag", "new")))
        await store.invalidate([notice(of_scope("tag", "new"))])
        assert not await renewed(store, lease), "a lease has names of its own, apart from those of the entry"
        assert await store.get("key") is not None, "the entry has no such name"

    async def test_a_sweep_leaves_leases_that_are_held(self, store: Store, clock: ManualClock) -> None:
        lease = await lend(store, "key", "one")
        clock.advance(59)
        await store.sweep(100)
        assert await renewed(store, lease), "sweep ended a lease that was held"
