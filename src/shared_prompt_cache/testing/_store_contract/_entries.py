"""Entries go in and come out."""

from __future__ import annotations

import asyncio

import pytest

from shared_prompt_cache.stores import Store
from shared_prompt_cache.testing._clock import ManualClock
from shared_prompt_cache.testing._store_contract._ground import (
    Ground,
    entry,
    fails,
    kept,
    lend,
    meanwhile,
    names,
    notice,
    now,
    of_scope,
    put,
    renewed,
    write,
)

_PAYLOADS = {
    "empty": b"",
    "a NUL": b"\0",
    "every byte": bytes(range(256)),
    "no UTF-8": b"\xff\xfe\xed\xa0\x80",
    "5 MB": bytes(range(251)) * 19_921,
}
_KEYS = {
    "ASCII": "k" * 1024,
    "Cyrillic": "ж" * 1024,
    "Chinese": "漢" * 1024,
    "Arabic": "مفتاح " * 170,
    "beyond the basic plane": "\U0001f600" * 1024,
    "the highest code point": "\U0010ffff" * 1024,
    "NULs": "\0" * 1024,
    "control characters": "".join(map(chr, range(32))),
    "marks of query languages": "'\"`;--/*%_?[]{}$1:a@b\\",
    "line ends": "a\r\nb\rc\u2028d",
    "one space": " ",
}
_ALIKE = [
    *("key", "Key", "KEY", " key", "key ", "key\0", "key\0x", "key\n", "\0key"),
    *("é", "e\u0301", "É", "ß", "ss", "\u017f", "İ", "i\u0307", "ﬁ", "fi", "Å", "Å"),
    *("0", "00", "0.0", "1", "1.0", "null", "None", "\u200bkey", "\ufeffkey", "kéy", "ke\u0301y"),
]


class EntryPromises(Ground):
    """`get`, `get_many`, `put_many`, `delete`."""

    @pytest.mark.parametrize("payload", _PAYLOADS.values(), ids=_PAYLOADS)
    async def test_a_payload_comes_back_byte_for_byte(self, store: Store, payload: bytes) -> None:
        await put(store, entry("key", payload))
        found = await store.get("key")
        assert found is not None, "get returned None for a key that was put"
        assert type(found.payload) is bytes, f"the payload came back as {type(found.payload).__name__}; return bytes"
        assert found.payload == payload, "the payload that came back is not the one that was put"

    async def test_so_do_codec_head_and_checksum(self, store: Store) -> None:
        for head, checksum, codec in ((b"", b"", ""), (b"\0\xff", bytes(range(64)), "zstd+msgpack/é")):
            wanted = entry("key", head=head, checksum=checksum, codec=codec)
            await put(store, wanted)
            assert await store.get("key") == wanted, "get returned another entry than was put"
            assert await store.get_many(["key"]) == {"key": wanted}, "get_many returned another entry than was put"

    @pytest.mark.parametrize("key", _KEYS.values(), ids=_KEYS)
    async def test_a_key_may_be_any_text_up_to_1024_characters(self, store: Store, key: str) -> None:
        await put(store, key)
        assert await store.get(key) == entry(key), "get does not find the key, or returned the entry with another key"
        assert await store.get_many([key]) == {key: entry(key)}, "get_many does not find the key"
        assert await kept(store) == [key], "keys does not list the key as it was put"
        assert await store.delete([key]) == 1, "delete does not find the key"
        assert await store.get(key) is None, "the entry is still there after it was deleted"

    async def test_keys_that_look_alike_are_different_keys(self, store: Store) -> None:
        wanted = {key: entry(key, str(number).encode()) for number, key in enumerate(dict.fromkeys(_ALIKE))}
        await put(store, *wanted.values())
        for key, one in wanted.items():
            assert await store.get(key) == one, (
                f"{key!r} returns the entry of another key; compare keys by code points, without folding case, "
                "normalising or stripping"
            )
        assert await store.get_many(list(wanted)) == wanted, "get_many mixes up keys that get does not"

    async def test_a_key_that_no_encoding_has_is_kept_or_refused_with_a_store_error(self, store: Store) -> None:
        lone = "half a pair: \ud800"
        stamp = await now(store)
        if not await fails(store.put_many([write(lone, stamp)])):
            assert (await store.get(lone)) in (None, entry(lone)), "get returned another entry for a lone surrogate"
        await put(store, "key")
        assert await store.get("key") == entry("key"), "after a key with a lone surrogate the store keeps nothing"

    async def test_what_is_not_there_is_none(self, store: Store) -> None:
        await put(store, "key")
        assert await store.get("other") is None, "get returned an entry for a key that was never put"
        assert await store.get_many(["other"]) == {}, "get_many names a key that was never put"

    async def test_nothing_asked_for_is_nothing_done(self, store: Store) -> None:
        await put(store, "key")
        assert await store.get_many([]) == {}, "get_many([]) must return {}"
        assert await store.put_many([]) == [], "put_many([]) must return []"
        assert await store.delete([]) == 0, "delete([]) must return 0"
        assert await store.invalidate([]) == [], "invalidate([]) must return []"
        assert await store.swap([], []) == [], "swap([], []) must return []: no record was another than expected"
        assert await store.most_used(0) == [], "most_used(0) must return []"
        assert await kept(store) == ["key"], "a call with nothing in it changed what is kept"
        assert (await store.journal(0)).entries == (), "a call with nothing in it entered something in the journal"

    async def test_an_entry_takes_the_place_of_the_older_one_of_its_key(self, store: Store) -> None:
        await put(store, entry("key", b"old"), names_=names("key", ("tag", "old")))
        await put(store, entry("key", b"new"), names_=names("key", ("tag", "new")))
        assert await store.get("key") == entry("key", b"new"), "the older entry is still there"
        assert (await store.stats()).entries == 1, "the older entry still counts"
        await store.invalidate([notice(of_scope("tag", "old"))])
        assert await store.get("key") is not None, "the entry went by a name that only its predecessor had"
        await store.invalidate([notice(of_scope("tag", "new"))])
        assert await store.get("key") is None, "the entry is not found by the names it was put with the second time"

    async def test_of_two_writes_of_a_key_in_one_call_the_last_stands(self, store: Store) -> None:
        await put(store, entry("key", b"first"), entry("key", b"second"))
        assert await store.get("key") == entry("key", b"second"), "the first of two writes of one call stands"

    async def test_an_expired_entry_is_returned_until_somebody_deletes_it(
        self, store: Store, clock: ManualClock
    ) -> None:
        stamp = await now(store)
        await store.put_many([write("key", stamp, expires_at=clock.wall() + 10)])
        clock.advance(11)
        assert await store.get("key") == entry("key"), "an expired entry is for the cache to judge: return it"
        assert await store.get_many(["key"]) == {"key": entry("key")}, "get_many left out what get returns"

    async def test_a_call_may_name_very_many_keys(self, store: Store) -> None:
        some = [f"key {number:05}" for number in range(2_000)]
        await put(store, *some)
        asked = [*(f"missing {number}" for number in range(40_000)), *some, *some]
        found = await store.get_many(asked)
        assert found == {key: entry(key) for key in some}, f"get_many of {len(asked)} keys found {len(found)} of 2,000"
        assert await store.delete(asked[:-1_000]) == 2_000, "delete counts what is not there, or a key twice"
        assert await kept(store) == [], "delete of very many keys left some"

    async def test_many_keys_are_seen_at_one_moment(self, store: Store, other: Store) -> None:
        stamp = await now(store)
        keys = ["a", "b", "c"]

        async def keep_writing() -> None:
            for edition in range(60):
                await other.put_many([write(entry(key, str(edition).encode()), stamp) for key in keys])

        async with meanwhile(keep_writing()) as writing:
            while not writing.done():
                found = await store.get_many(keys)
                editions = {key: one.payload for key, one in found.items()}
                assert len(set(editions.values())) <= 1, (
                    f"a, b and c are always put in one call, and get_many found them mixed: {editions}"
                )
                assert len(editions) in (0, 3), (
                    f"a, b and c are always put in one call; get_many found {sorted(editions)}"
                )
                await asyncio.sleep(0)

    async def test_delete_says_how_many_there_were(self, store: Store) -> None:
        await put(store, "a", "b", "c")
        assert await store.delete(["a", "b", "missing", "a"]) == 2, "delete returns how many entries it deleted"
        assert await kept(store) == ["c"], "delete must take what it is told, and nothing else"

    async def test_delete_by_checksum_spares_what_was_replaced(self, store: Store) -> None:
        seen = entry("key", b"seen")
        await put(store, seen, entry("same"))
        await put(store, entry("key", b"replaced meanwhile"))
        checksums = {"key": seen.checksum, "same": entry("same").checksum}
        assert await store.delete(["key", "same"], checksums=checksums) == 1, "one of the two still has its checksum"
        assert await kept(store) == ["key"], "delete took an entry with another checksum than it was told"

    async def test_delete_is_no_invalidation(self, store: Store) -> None:
        stamp = await now(store)
        lease = await lend(store, "key", "holder")
        await put(store, "key")
        await store.delete(["key"])
        assert (await store.journal(0)).entries == (), "delete must not enter anything in the journal"
        assert await renewed(store, lease), "delete must not end a lease"
        assert await store.put_many([write("key", stamp)]) == [True], "delete must not outdate a stamp"
