"""A store is opened, shared, told of, closed, and opened again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.stores import Lease, LeaseRequest, Stamp, Store, Swap
from shared_prompt_cache.testing._clock import ManualClock
from shared_prompt_cache.testing._store_contract._ground import (
    ELSEWHERE,
    HERE,
    Ground,
    MakeStore,
    OpenStore,
    ask,
    entry,
    kept,
    lend,
    names,
    notice,
    now,
    of_scope,
    put,
    renewed,
    write,
)
from shared_prompt_cache.testing._waiting import wait_until

_STAMP = Stamp(0, HERE, 0)
_LEASE = Lease("key", "one", 1)

# One call of each method but `open` and `aclose`.
CALLS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "get": lambda store: store.get("key"),
    "get_many": lambda store: store.get_many(["key"]),
    "put_many": lambda store: store.put_many([write("key", _STAMP)]),
    "delete": lambda store: store.delete(["key"]),
    "invalidate": lambda store: store.invalidate([notice(of_scope("all"))]),
    "journal": lambda store: store.journal(0),
    "keys": lambda store: store.keys(most=1),
    "most_used": lambda store: store.most_used(1),
    "acquire": lambda store: store.acquire([LeaseRequest("key", names("key"))], "one", 60),
    "renew": lambda store: store.renew([_LEASE], 60),
    "release": lambda store: store.release([_LEASE]),
    "baseline": lambda store: store.baseline("/"),
    "swap": lambda store: store.swap([Swap("/a", None, b"1")], [notice(of_scope("all"))]),
    "sweep": lambda store: store.sweep(1),
    "stats": lambda store: store.stats(),
}


async def _swap(store: Store) -> None:
    old = (await store.baseline("/")).get("/a")
    await store.swap([Swap("/a", old, (old or b"") + b"1")], [])


_TOLD: dict[str, Callable[[Store], Awaitable[object]]] = {
    "put": lambda store: put(store, "key"),
    "invalidate": CALLS["invalidate"],
    "swap": _swap,
}


class LifePromises(Ground):
    """`open`, `aclose`, `changed`, and many calls at once."""

    @pytest.mark.parametrize("change", _TOLD.values(), ids=_TOLD)
    async def test_what_one_cache_changes_the_others_are_told(
        self, open_store: OpenStore, change: Callable[[Store], Awaitable[object]]
    ) -> None:
        first, second = _Told(), _Told()
        store = await open_store(first)
        other = await open_store(second)
        await change(other)
        await wait_until(lambda: first.calls, what="the function that was given to open is called for another's change")
        await change(store)
        await wait_until(lambda: second.calls, what="the store that was opened last is told as well")
        assert first.threads | second.threads == {threading.get_ident()}, (
            "changed was called off the event loop's thread"
        )

    async def test_who_waits_for_a_lease_is_told_that_it_is_free(self, open_store: OpenStore) -> None:
        told = _Told()
        store, other = await open_store(told), await open_store()
        for free in ("release", "put"):
            lease = await lend(other, "key", "one")
            assert await ask(store, "key", "two") == "held", "the lease is held"
            before = told.calls
            if free == "release":
                await other.release([lease])
            else:
                await other.put_many([write("key", await now(other), lease=lease)])
            await wait_until(lambda before=before: told.calls > before, what=f"changed is called after a {free}")  # type: ignore[misc] # a default is no argument of predicates

    async def test_after_it_is_closed_it_tells_nobody(self, open_store: OpenStore) -> None:
        closed, open_ = _Told(), _Told()
        store, _, writing = await open_store(closed), await open_store(open_), await open_store()
        await put(writing, "key")
        await store.aclose()  # perhaps between the change and the word of it
        before, seen = closed.calls, open_.calls
        await put(writing, "key")
        await wait_until(lambda: open_.calls > seen, what="a store that is open is told")
        assert closed.calls == before, "changed was called although its store is closed"

    async def test_all_who_share_it_know_the_same_root(self, store: Store, other: Store, open_store: OpenStore) -> None:
        root = store.root
        assert root is None or Path(root).is_absolute(), f"root is {root!r}; it is None or an absolute path"
        assert other.root == root, f"of two that share a place one has the root {root!r}, the other {other.root!r}"
        await other.aclose()
        assert (await open_store()).root == root, "the root is another for a store that is opened later"

    async def test_closing_may_be_repeated_and_done_by_several_at_once(
        self, make_store: MakeStore, clock: ManualClock
    ) -> None:
        store = make_store()
        await store.aclose()
        await store.open(clock, _Told())
        await asyncio.gather(store.aclose(), store.aclose())
        await store.aclose()

    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    async def test_a_call_on_a_store_that_is_not_open_raises_a_store_error(
        self, make_store: MakeStore, clock: ManualClock, call: Callable[[Store], Awaitable[object]]
    ) -> None:
        store = make_store()
        with pytest.raises(StoreError):
            await call(store)
        await store.open(clock, _Told())
        await call(store)
        await store.aclose()
        with pytest.raises(StoreError):
            await call(store)

    async def test_closing_one_store_leaves_the_others_open(self, store: Store, other: Store) -> None:
        await put(other, "key")
        await other.aclose()
        assert await store.get("key") == entry("key"), "when one cache closed its store, another lost an entry"
        await put(store, "key 2")

    async def test_closing_while_calls_are_under_way_leaves_none_waiting(self, store: Store) -> None:
        await put(store, "key")
        calls = [asyncio.ensure_future(call(store)) for _ in range(3) for call in CALLS.values()]
        await asyncio.sleep(0)
        await store.aclose()
        _, waiting = await asyncio.wait(calls, timeout=5)
        for call in waiting:
            call.cancel()
        assert not waiting, f"{len(waiting)} calls that were under way when the store was closed never end"
        wrong = [error for call in calls if not isinstance(error := call.exception(), StoreError | None)]
        assert not wrong, f"a call that was under way when the store was closed raised {wrong[0]!r}; raise StoreError"

    async def test_many_calls_at_once_disturb_each_other_in_nothing(self, store: Store, other: Store) -> None:
        stamp = await now(store)

        async def use(one: Store, number: int) -> None:
            key = f"key {number}"
            lease = await lend(one, key, str(number))
            wanted = entry(key, key.encode() * 100)
            assert await one.put_many([write(wanted, stamp, lease=lease)]) == [True], f"nothing speaks against {key}"
            assert await one.get(key) == wanted, f"{key} is not there behind its put_many"
            await one.swap([Swap(f"/{number}", None, b"1")], [notice(of_scope("tag", str(number)))])
            if number % 3 == 0:
                await one.invalidate([notice(of_scope("key", key))])
                assert await one.get(key) is None, f"{key} is there behind its invalidation"

        await asyncio.gather(*(use((store, other)[number % 2], number) for number in range(60)))
        assert await kept(store) == sorted(f"key {number}" for number in range(60) if number % 3), "some were lost"
        assert len(await store.baseline("/")) == 60, "60 records were swapped in"
        assert len((await store.journal(stamp.sequence)).entries) == 80, "60 notices of swaps and 20 of invalidate"

    async def test_what_one_store_did_the_next_call_on_another_sees(self, store: Store, other: Store) -> None:
        for number in range(10):
            key = f"key {number}"
            await put(store, key)
            assert await other.get(key) == entry(key), f"{key} was put before another cache asked for it"
            await other.invalidate([notice(of_scope("key", key))])
            assert await store.get(key) is None, f"{key} was invalidated before another cache asked for it"
            assert await other.delete([key]) == 0, f"{key} is still there behind its invalidation"

    async def test_what_was_closed_can_be_opened_again(self, make_store: MakeStore, clock: ManualClock) -> None:
        """The same object, and another one over the same place."""
        first = make_store()
        await first.open(clock, _Told())
        old = await now(first)
        await put(first, "gone")
        last = (await first.invalidate([notice(of_scope("key", "gone")), notice(of_scope("tag", "x"))]))[-1]
        stamp = await now(first, ELSEWHERE)
        await put(first, entry("key", b"\0kept"), names_=names("key", ("tag", "t")))
        await first.swap([Swap("/a", None, b"1")], [])
        lease = await lend(first, "leased", "one")
        await first.aclose()
        for store in (first, make_store()):
            await store.open(clock, _Told())
            journal = await store.journal(last - 1)
            if self.survives_closing:
                assert await store.get("key") == entry("key", b"\0kept"), "the entry did not survive closing"
                assert await kept(store) == ["key"], "after opening again other keys are there than before"
                assert [one.sequence for one in journal.entries] == [last], "the journal did not survive closing"
                assert journal.complete, "nothing of the journal is missing after opening again"
                assert await store.baseline("/") == {"/a": b"1"}, "the baseline did not survive closing"
                assert await ask(store, "leased", "two") == "held", "the lease did not survive closing"
                assert await renewed(store, lease), "the lease cannot be renewed after opening again"
                assert await store.put_many([write("late", stamp)]) == [True], "nothing was invalidated since"
                await store.delete(["late"])
            else:
                assert await kept(store) == [], "survives_closing is False, and an entry has survived"
                assert not journal.complete, "the store was begun anew: complete must be False"
            assert await store.put_many([write("gone", old)]) == [False], "it began before it was invalidated"
            await put(store, "new")
            await store.delete(["new"])
            await store.aclose()

    async def test_what_was_put_before_closing_is_found_by_its_names_after(
        self, make_store: MakeStore, clock: ManualClock
    ) -> None:
        if not self.survives_closing:
            return
        first = make_store()
        await first.open(clock, _Told())
        await put(first, "engineer_1", "qa_1")
        last = (await now(first)).sequence
        lease = await lend(first, "key", "one", names("key", ("tag", "t")))
        await first.aclose()
        store = make_store()
        await store.open(clock, _Told())
        sequences = await store.invalidate([notice(of_scope("key", "engineer_1")), notice(of_scope("tag", "t"))])
        assert sequences == [last + 1, last + 2], "sequences go on where they were when the store was closed"
        assert await kept(store) == ["qa_1"], "the names of entries did not survive closing"
        assert not await renewed(store, lease), "the names of leases did not survive closing"
        second = await lend(store, "key", "one", ())
        assert second.fence > lease.fence, "fences go on where they were when the store was closed"
        await store.aclose()


class _Told:
    """What is given to `open`: counts the calls, and remembers on which threads they came."""

    def __init__(self) -> None:
        self.calls = 0
        self.threads: set[int] = set()

    def __call__(self) -> None:
        self.calls += 1
        self.threads.add(threading.get_ident())
