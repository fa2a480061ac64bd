"""Lists, sweeps and figures."""

from __future__ import annotations

from shared_prompt_cache.stores import Store
from shared_prompt_cache.testing._clock import ManualClock
from shared_prompt_cache.testing._store_contract._ground import Ground, entry, kept, notice, now, of_scope, put, write

_MEGABYTE = 1 << 20


class UpkeepPromises(Ground):
    """`keys`, `most_used`, `sweep`, `stats`."""

    async def test_keys_come_in_the_order_of_their_code_points(self, store: Store) -> None:
        some = ["b", "a", "B", "é", "z", "\uffff", "\U00010000", "a\0", "ab", "_", "10", "9", "\ue000", "漢"]
        await put(store, *some)
        found = await kept(store)
        assert found == sorted(some), f"keys came as {found!r}; order them by code points, as the bytes of UTF-8"

    async def test_pages_of_keys_have_each_once(self, store: Store) -> None:
        some = [f"key {number:03}" for number in range(50)]
        await put(store, *some)
        found: list[str] = []
        while page := await store.keys(most=7, after=found[-1] if found else ""):
            assert len(page) <= 7, f"keys(most=7) returned {len(page)}"
            found += page
            assert len(found) <= 50, "pages go on for ever; keys(after=...) begins behind that key"
        assert found == some, "pages of keys, one after the other, are not all keys"
        assert await store.keys(most=1, after="key 010x") == ["key 011"], "after= may name a key that is not there"

    async def test_most_used_are_those_that_were_read_last(self, store: Store, clock: ManualClock) -> None:
        await put(store, "a", "b", "c", "d")
        for read in (["c"], ["d"], ["a"], ["b"], ["c"]):
            clock.advance(60)
            await store.get_many(read) if read == ["a"] else await store.get(read[0])
        found = await store.most_used(3)
        assert found == ["c", "b", "a"], f"c, d, a, b, c were read in this order, and most_used(3) returned {found}"
        assert await store.most_used(100) == ["c", "b", "a", "d"], "most_used(100) of four entries must return all"

    async def test_a_sweep_deletes_expired_entries_as_many_as_it_is_told(
        self, store: Store, clock: ManualClock
    ) -> None:
        stamp = await now(store)
        soon, later = clock.wall() + 10, clock.wall() + 1_000
        await store.put_many([write(f"old {number}", stamp, expires_at=soon) for number in range(5)])
        await store.put_many([write("later", stamp, expires_at=later), write("never", stamp)])
        assert await store.sweep(100) == 0, "nothing has expired by the clock that was given to open"
        clock.advance(11)
        assert await store.sweep(3) == 3, "five have expired, and sweep(3) returns how many it deleted: 3"
        assert len(await kept(store)) == 4, "sweep(3) must delete three"
        assert await store.sweep(3) == 2, "two expired entries were left"
        assert await store.sweep(3) == 0, "none was left"
        assert await kept(store) == ["later", "never"], "sweep took an entry that had not expired"
        clock.set_wall(soon - 100)
        assert await store.sweep(3) == 0, "sweep took an entry that had not expired"

    async def test_expiry_is_by_the_wall_clock(self, store: Store, clock: ManualClock) -> None:
        await store.put_many([write("key", await now(store), expires_at=clock.wall() + 10)])
        clock.jump_wall(11)
        assert await store.sweep(100) == 1, "expires_at is in seconds since the epoch: compare it with clock.wall()"

    async def test_an_entry_that_was_put_anew_expires_anew(self, store: Store, clock: ManualClock) -> None:
        stamp = await now(store)
        await store.put_many([write("key", stamp, expires_at=clock.wall() + 10)])
        await store.put_many([write("key", stamp, expires_at=clock.wall() + 100)])
        clock.advance(11)
        assert await store.sweep(100) == 0, "sweep goes by the expiry of the entry that was replaced"

    async def test_a_sweep_deletes_the_least_recently_used_beyond_the_limit(
        self, store: Store, clock: ManualClock
    ) -> None:
        if self.max_size_mb is None:
            assert await store.sweep(100) == 0, "nothing has expired, and max_size_mb says that there is no limit"
            return
        limit = int(self.max_size_mb * _MEGABYTE)
        payload = bytes(limit // 8)
        for number in range(12):
            clock.advance(60)
            await put(store, entry(f"{number:02}", payload))
            assert await store.get("00") is not None, "an entry that is read all the time was evicted"
            await _sweep(store)
        found = await kept(store)
        assert found[0] == "00", "the entry that was read last went; the least recently used must go first"
        assert found[-1] == "11", "the entry that was put last went; the least recently used must go first"
        assert found[1:] == [f"{number:02}" for number in range(13 - len(found), 12)], (
            f"12 entries were put in order, and {found} are left; the least recently used must go first"
        )
        stats = await store.stats()
        assert stats.payload_bytes <= limit, f"{stats.payload_bytes} bytes are left, and the limit is {limit}"
        assert stats.payload_bytes >= limit // 4, f"only {stats.payload_bytes} bytes are left of {limit}; keep more"
        assert stats.evictions == 12 - len(found), "stats().evictions counts what went for want of room"

    async def test_what_has_expired_goes_before_what_was_not_used(self, store: Store, clock: ManualClock) -> None:
        if self.max_size_mb is None:
            return
        payload = bytes(int(self.max_size_mb * _MEGABYTE) * 40 // 100)
        await put(store, entry("oldest", payload))
        clock.advance(60)
        stamp = await now(store)
        await store.put_many([write(entry("expired", payload), stamp, expires_at=clock.wall() + 10)])
        clock.advance(60)
        await put(store, entry("newest", payload))
        await _sweep(store)
        assert await kept(store) == ["newest", "oldest"], "without the expired entry there was room for both others"

    async def test_what_was_put_anew_was_used_last(self, store: Store, clock: ManualClock) -> None:
        if self.max_size_mb is None:
            return
        payload = bytes(int(self.max_size_mb * _MEGABYTE) * 40 // 100)
        for key in ("a", "b", "a", "c"):
            clock.advance(60)
            await put(store, entry(key, payload))
        await _sweep(store)
        assert await kept(store) == ["a", "c"], "a, b, a and c were put in this order: b is the least recently used"

    async def test_figures_are_those_of_what_is_kept(self, store: Store) -> None:
        stats = await store.stats()
        assert (stats.entries, stats.payload_bytes) == (0, 0), f"an empty store says {stats}"
        await put(store, entry("a", b"12345", head=b"123"), entry("b", b"", head=b"1"))
        await put(store, entry("b", b"1234567890", head=b""))
        stats = await store.stats()
        assert stats.entries == 2, f"two keys were put, and stats().entries is {stats.entries}"
        assert stats.payload_bytes == 18, f"payloads and heads take 18 bytes, not {stats.payload_bytes}"
        await store.invalidate([notice(of_scope("key", "a")), notice(of_scope("tag", "x"))])
        stats = await store.stats()
        assert (stats.entries, stats.payload_bytes) == (1, 10), f"10 bytes in one entry are left; stats() says {stats}"
        assert stats.journal == 2, f"two invalidations are remembered, and stats().journal is {stats.journal}"
        assert (stats.evictions, stats.corrupt) == (0, 0), f"nothing was evicted or damaged; stats() says {stats}"


async def _sweep(store: Store) -> None:
    for _ in range(1_000):
        if not await store.sweep(10):
            return
    raise AssertionError("sweep has something to delete for ever")
