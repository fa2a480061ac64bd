"""A caller that is cancelled, wherever it waits, leaves all of what it asked for, or nothing.

The call is driven by hand, and cancelled at its first wait, at its second, and so on: once as it begins to wait, and
once as what it waited for has come and before it hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import pytest

from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.stores import Lease, Store, Swap
from shared_prompt_cache.testing._clock import ManualClock
from shared_prompt_cache.testing._store_contract._ground import (
    Ground,
    MakeStore,
    ask,
    entry,
    kept,
    lend,
    notice,
    now,
    of_scope,
    put,
    write,
)
from shared_prompt_cache.testing._store_contract._life import CALLS
from shared_prompt_cache.testing._waiting import wait_until

_MOST_WAITS = 25
_WITHOUT_A_TRACE = [name for name in CALLS if name not in ("put_many", "invalidate", "swap")]


class CancellationPromises(Ground):
    """Cancelled at every wait."""

    @pytest.mark.parametrize("name", _WITHOUT_A_TRACE)
    async def test_a_call_that_is_cancelled_leaves_a_store_that_works(
        self, store: Store, other: Store, name: str
    ) -> None:
        async for cancelled in _cancelled_everywhere(store, CALLS[name]):
            await cancelled
            await _works(store, other)

    async def test_a_put_that_is_cancelled_is_done_in_full_or_not_at_all(self, store: Store, other: Store) -> None:
        async def put_two(store: Store) -> list[bool]:
            stamp = await now(store)
            return await store.put_many([write("a", stamp), write("b", stamp)])

        async for cancelled in _cancelled_everywhere(store, put_two):
            await cancelled
            await _works(store, other)
            found = await kept(store)
            assert found in ([], ["a", "b"]), f"put_many of a and b was cancelled, and left {found}"
            await store.delete(["a", "b"])

    async def test_an_invalidation_that_is_cancelled_is_done_in_full(self, store: Store, other: Store) -> None:
        async def prepare(store: Store) -> None:
            await put(store, "a", "b")
            assert isinstance(await ask(store, "a", "one"), Lease), "nobody holds the lease"

        notices = [notice(of_scope("key", "a"), number=1), notice(of_scope("key", "b"), number=2)]
        async for cancelled in _cancelled_everywhere(store, lambda store: store.invalidate(notices), prepare=prepare):
            before = (await now(store)).sequence
            waited = await cancelled

            async def is_done(before: int = before) -> bool:
                told = [one.number for one in (await store.journal(before)).entries]
                return told == [1, 2] and await kept(store) == []

            await wait_until(
                is_done, what=f"an invalidation is carried out whose caller was cancelled at wait {waited}"
            )
            lease = await ask(store, "a", "two")
            assert isinstance(lease, Lease), "an invalidation whose caller was cancelled must end the leases it touches"
            await store.release([lease])
            await _works(store, other)

    async def test_a_swap_that_is_cancelled_is_done_in_full_or_not_at_all(self, store: Store, other: Store) -> None:
        async def prepare(store: Store) -> None:
            await put(store, "key")

        swaps, notices = [Swap("/a", None, b"1"), Swap("/b", None, b"1")], [notice(of_scope("key", "key"))]
        async for cancelled in _cancelled_everywhere(store, lambda store: store.swap(swaps, notices), prepare=prepare):
            before = (await now(store)).sequence
            await cancelled

            async def is_whole(before: int = before) -> bool:
                seen = (
                    len((await store.journal(before)).entries),
                    sorted(await store.baseline("/")),
                    await kept(store),
                )
                return seen in ((0, [], ["key"]), (1, ["/a", "/b"], []))

            await wait_until(is_whole, what="records, entries and journal agree after a swap that was cancelled")
            await _works(store, other)
            await wait_until(is_whole, what="they go on to agree")
            await store.swap([Swap(path, old, None) for path, old in (await store.baseline("/")).items()], [])
            await store.delete(["key"])

    async def test_an_open_that_is_cancelled_can_be_tried_again(
        self, make_store: MakeStore, clock: ManualClock
    ) -> None:
        for late in (False, True):
            for number in range(1, _MOST_WAITS):
                store = make_store()
                call = _Cancelling(store.open(clock, _nothing), number, late=late)
                await call.ended()
                await store.aclose()
                await store.open(clock, _nothing)
                await _works(store, store)
                await store.aclose()
                if call.waits < number:
                    break

    async def test_a_close_that_is_cancelled_can_be_repeated(self, make_store: MakeStore, clock: ManualClock) -> None:
        for late in (False, True):
            for number in range(1, _MOST_WAITS):
                store = make_store()
                await store.open(clock, _nothing)
                await put(store, "key")
                call = _Cancelling(store.aclose(), number, late=late)
                await call.ended()
                await store.aclose()
                await store.open(clock, _nothing)
                await _works(store, store)
                await store.aclose()
                if call.waits < number:
                    break


class _Cancelling:
    """Await a call in a task of its own, and cancel that as the call waits for the n-th time.

    Attributes:
        waits: How often it has waited.
    """

    def __init__(self, call: Awaitable[object], number: int, *, late: bool) -> None:
        self.waits = 0
        self._call = call
        self._number = number
        self._late = late

    async def ended(self) -> int:
        """Wait until the call is over, one way or another; return how often it waited.

        Raises:
            AssertionError: If that takes too long.
        """
        task = asyncio.ensure_future(self._awaited())
        _, waiting = await asyncio.wait({task}, timeout=5)
        if waiting:
            task.cancel()
            raise AssertionError(f"a call that was cancelled at its wait {self._number} does not end")
        error = None if task.cancelled() else task.exception()
        assert isinstance(error, StoreError | None), f"a call that was cancelled raised {error!r}"
        return self.waits

    async def _awaited(self) -> None:
        await self

    def __await__(self) -> Generator[Any, Any, object]:
        task = asyncio.current_task()
        assert task is not None, "a task awaits it"
        steps: Any = self._call.__await__()
        step, value = steps.send, None
        while True:
            try:
                awaited = step(value)
            except StopIteration as end:
                return end.value
            self.waits += 1
            if self.waits == self._number:
                if self._late and awaited is not None:  # None is a mere pass of the loop
                    awaited.add_done_callback(lambda _: task.cancel())  # before the callback that wakes the task
                else:
                    task.cancel()
            try:
                step, value = steps.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001 - it is the call's, a cancellation too
                step, value = steps.throw, error


async def _cancelled_everywhere(
    store: Store,
    call: Callable[[Store], Awaitable[object]],
    *,
    prepare: Callable[[Store], Awaitable[object]] | None = None,
) -> AsyncIterator[Awaitable[int]]:
    """For each wait of a call, prepare the store, and give what awaits the call until it was cancelled there."""
    for late in (False, True):
        for number in range(1, _MOST_WAITS):
            if prepare is not None:
                await prepare(store)
            cancelling = _Cancelling(call(store), number, late=late)
            yield cancelling.ended()
            if cancelling.waits < number:
                break


async def _works(store: Store, other: Store) -> None:
    """Assert that nothing is locked, lost or left open."""

    async def use() -> None:
        for one in (store, other):
            await put(one, entry("still works"))
            assert await store.get("still works") is not None, "after a call was cancelled the store loses an entry"
            assert await one.delete(["still works"]) == 1, "after a call was cancelled the store does not delete"
            lease = await lend(one, "still works", "one")
            await one.release([lease])

    try:
        await asyncio.wait_for(use(), 5)
    except (TimeoutError, StoreError) as error:
        raise AssertionError(f"after a call was cancelled the store is of no use any more: {error!r}") from error


def _nothing() -> None:
    pass
