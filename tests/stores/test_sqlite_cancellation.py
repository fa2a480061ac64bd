"""T5, the database: whoever is cancelled, no transaction, handle or thread is left, and what was begun is done.

Seen to fail on planted bugs: BEGIN and COMMIT as two calls of the thread; a function that is dropped when its caller
has gone.
"""

import asyncio
import random
import threading

import anyio
import pytest

from _support import size
from shared_prompt_cache.clock import SystemClock
from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.stores import LeaseRequest, SQLiteStore, Swap
from shared_prompt_cache.testing import wait_until
from stores._rows import entry, in_transaction, notice, opened, put, write

CALLS = size(500, 10_000)
SEED = 20_260


def calls(store, draw, number):
    """Return one of the calls that write or read."""
    key = f"key {draw.randrange(20)}"
    return draw.choice(
        [
            lambda: store.put_many([write(key, sequence=10**18), write(f"other {number % 7}")]),
            lambda: store.invalidate([notice(number=number)]),
            lambda: store.get(key),
            lambda: store.get_many([key, "other 1"]),
            lambda: store.delete([key]),
            lambda: store.acquire([LeaseRequest(key, ("all",))], "me", 5),
            lambda: store.swap([Swap(key, None, b"seen")], [notice(number=number)]),
            lambda: store.sweep(10),
            lambda: store.journal(0),
        ]
    )


async def test_after_thousands_of_cancelled_calls_no_transaction_is_open_and_all_works(tmp_path):
    draw = random.Random(SEED)
    store = await opened(tmp_path / "store")
    cancelled = 0
    for number in range(CALLS // 10):
        tasks = [asyncio.create_task(calls(store, draw, number)()) for _ in range(10)]
        for _ in range(draw.randrange(6)):
            await asyncio.sleep(draw.choice([0, 0, 0.0001, 0.0005]))
        for task in tasks:
            if draw.random() < 0.5:
                cancelled += task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} <= {asyncio.CancelledError}
        if number % 20 == 0:
            assert not await in_transaction(store), f"seed {SEED}, round {number}"
    assert cancelled > CALLS // 10
    assert not await in_transaction(store)
    await put(store, "still works")
    assert await store.get("still works") == entry("still works")
    await store.aclose()


async def test_so_it_is_under_the_cancel_scopes_of_anyio(tmp_path):
    draw = random.Random(SEED)
    store = await opened(tmp_path / "store")
    for number in range(CALLS // 20):
        with anyio.move_on_after(draw.choice([0, 0.0002, 0.001])):
            await calls(store, draw, number)()
    assert not await in_transaction(store)
    await store.aclose()


async def blocked(database):
    """Hold a thread of a store until the event that is returned is set."""
    held, go_on = threading.Event(), threading.Event()
    database.post(lambda: (held.set(), go_on.wait(10)))
    await asyncio.to_thread(held.wait, 10)
    return go_on


async def test_what_was_asked_for_by_one_who_was_cancelled_is_carried_out(tmp_path):
    store = await opened(tmp_path / "store")
    await put(store, "old")
    go_on = await blocked(store._doors.writer)
    call = asyncio.create_task(store.invalidate([notice()]))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    go_on.set()
    await store.sweep(1)  # comes behind it
    assert await store.get("old") is None
    assert len((await store.journal(0)).entries) == 1
    await store.aclose()


async def test_an_invalidation_under_way_is_carried_out_although_the_store_is_closed(tmp_path):
    store = await opened(tmp_path / "store")
    await put(store, "old")
    go_on = await blocked(store._doors.writer)
    call = asyncio.create_task(store.invalidate([notice()]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    assert await call == [1]
    store = await opened(tmp_path / "store")
    assert await store.get("old") is None
    await store.aclose()


async def test_closing_ends_calls_that_wait_for_another_process(tmp_path):
    store, other = await opened(tmp_path / "store"), await opened(tmp_path / "store")
    held = await holding_the_lock(other)
    call = asyncio.create_task(store.put_many([write("key")]))
    await wait_until(lambda: store._doors.writer.lock.waiting)
    await store.aclose()
    with pytest.raises(StoreError, match="closed"):
        await call
    held.set()
    await other.aclose()


async def holding_the_lock(store):
    """Have a store hold the lock of its place until the event that is returned is set."""
    held, go_on, writer = threading.Event(), threading.Event(), store._doors.writer

    def hold():
        with writer.lock:
            held.set()
            go_on.wait(10)

    writer.post(hold)
    await asyncio.to_thread(held.wait, 10)
    return go_on


async def test_an_open_that_is_cancelled_leaves_no_handle_and_no_thread(tmp_path):
    """That nothing is left is looked at after each test; here, that it was cancelled at every moment there is."""
    draw = random.Random(SEED)
    ended = 0
    for _ in range(size(40, 1000)):
        store = SQLiteStore(tmp_path / "store")
        opening = asyncio.create_task(store.open(SystemClock(), lambda: None))
        await asyncio.sleep(draw.choice([0, 0.0005, 0.001, 0.002, 0.003, 0.006]))
        opening.cancel()
        try:
            await opening
        except asyncio.CancelledError:
            ended += 1
        await store.aclose()
    assert ended > 0
    await wait_until(lambda: not [t for t in threading.enumerate() if "store" in t.name], what="the threads end")
    store = await opened(tmp_path / "store")
    await put(store, "works")
    await store.aclose()


async def test_a_close_that_is_cancelled_goes_on(tmp_path):
    store = await opened(tmp_path / "store")
    await put(store, "key")
    log = tmp_path / "store" / "store.db-wal"
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await wait_until(lambda: not log.exists(), what="the database is closed")
