"""Several stores on one database, in one process and in many: each sees what the others do, and is told of it.

Seen to fail on planted bugs: a look that believes a status too young to be believed, or one of a commit that the disk
does not have; own commits that are told; a commit of another that is found by the next transaction of one's own and
told to nobody; a lease from before a reboot that never ends; a lease that two get; one that begins before it is given;
a journal that is trimmed to its last entry but one.
"""

import asyncio

import pytest

from _support import size
from shared_prompt_cache.stores import Lease, LeaseRequest, Notice, Selection
from shared_prompt_cache.stores._sqlite import poll as polls
from shared_prompt_cache.testing import ManualClock, wait_until
from stores._rows import ALL, end_of, entry, is_right, line_of, notice, opened, put, start, write
from stores.test_sqlite_cancellation import holding_the_lock

ASKED = LeaseRequest("key", ("all",))


class Told:
    """Counts how often it was called."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1


@pytest.fixture
def told():
    return Told()


@pytest.fixture
async def store(tmp_path, told):
    store = await opened(tmp_path / "store", changed=told)
    yield store
    await store.aclose()


@pytest.fixture
async def other(tmp_path):
    store = await opened(tmp_path / "store")
    yield store
    await store.aclose()


async def quiet(store):
    """Wait until the store has nothing to ask any more: all that was done is known."""
    poll = store._doors.poll
    await wait_until(lambda: poll._seen is not None and poll._seen == poll._status() and not poll._asking)


async def test_what_another_process_does_is_told_and_seen(tmp_path, store, told):
    program = start(
        tmp_path / "store",
        """
        for _ in range(3):
            await asyncio.to_thread(sys.stdin.readline)
            await store.invalidate([notice()])
            print("done", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await store.aclose()
        """,
    )
    for number in range(3):
        await put(store, "key")
        await quiet(store)
        before = told.times
        program.stdin.write("go on\n")
        program.stdin.flush()
        await wait_until(lambda before=before: told.times > before, what="the other's invalidation is told")
        assert await store.get("key") is None
        assert (await store.journal(number)).last == number + 1
        await line_of(program)
    program.stdin.write("end\n")
    program.stdin.flush()
    assert await end_of(program) == (0, "")


async def test_each_of_many_commits_is_told_however_close_they_follow(store, other, told):
    for number in range(size(50, 2000)):
        before = told.times
        await other.invalidate([notice(number=number)])
        await wait_until(lambda before=before: told.times > before, what=f"commit {number} is told")


async def test_what_it_does_itself_is_not_told(store, told):
    await put(store, "key")
    await store.invalidate([notice()])
    await store.sweep(10)
    await quiet(store)
    assert told.times == 0


async def test_it_is_told_although_a_transaction_of_its_own_was_the_first_to_find_it(store, other, told):
    await quiet(store)
    store._doors.poll._asking = True  # so that the poll finds nothing
    await put(other, "key")
    await put(store, "another")
    await asyncio.sleep(0)
    assert told.times == 1
    store._doors.poll._asking = False


async def test_a_store_with_nothing_to_hear_asks_nothing(store, other):
    await put(other, "key")
    await quiet(store)
    asked = []
    store._doors.writer.post = asked.append
    passes = []

    async def let_pass():
        while len(passes) < 5:
            passes.append(await asyncio.sleep(polls._INTERVAL))

    await let_pass()
    assert asked == []
    del store._doors.writer.post


async def test_while_anybody_writes_what_is_in_the_log_is_not_taken_for_committed(store, other):
    """With the disk to be waited for, much time passes between the two."""
    writer = store._doors.writer
    await quiet(store)
    held = await holding_the_lock(other)
    assert await writer.run(writer.check) == (False, False)
    store._doors.poll._seen = None
    for _ in range(3):
        store._doors.poll.look()
        await writer.run(lambda: None)
        assert store._doors.poll._seen is None
    held.set()
    await quiet(store)
    assert await writer.run(writer.check) == (False, True)


@pytest.mark.parametrize(
    ("changed", "looked", "settled"),
    [
        (100.5, 100.51, False),
        (100.5, 100.53, True),
        (100.0, 101.0, False),
        (100.0, 102.2, True),
        (100.5, 99.0, False),
    ],
)
def test_a_status_is_believed_once_it_is_old_enough(monkeypatch, changed, looked, settled):
    monkeypatch.setattr(polls.time, "time", lambda: looked)
    assert polls._is_settled((1, round(changed * 1e9), 1, 1)) == settled


async def test_one_computes_and_when_it_dies_another_takes_over(tmp_path):
    clock = ManualClock()
    one, two = [await opened(tmp_path / "store", clock=clock) for _ in range(2)]
    (lease,) = await one.acquire([ASKED], "one", 10)
    assert await two.acquire([ASKED], "two", 10) == ["held"]
    clock.advance(10)
    (taken,) = await two.acquire([ASKED], "two", 10)
    assert taken.fence > lease.fence
    assert await one.put_many([write("key", b"late", lease=lease)]) == [False]
    assert await two.put_many([write("key", b"in time", lease=taken)]) == [True]
    assert await one.get("key") == entry("key", b"in time")
    await one.aclose()
    await two.aclose()


async def test_a_lease_from_before_a_reboot_is_over(tmp_path):
    before = await opened(tmp_path / "store", clock=ManualClock(monotonic=1_000_000.0))
    (lease,) = await before.acquire([ASKED], "before", 10)
    await before.aclose()
    after = await opened(tmp_path / "store", clock=ManualClock(monotonic=5.0))
    assert await after.renew([lease], 10) == [False]
    assert isinstance((await after.acquire([ASKED], "after", 10))[0], Lease)
    await after.aclose()


async def test_a_lease_begins_when_it_is_given_however_long_that_was_waited_for(tmp_path):
    """By a time from before the waiting, one that was given to another meanwhile would seem to come from the future."""
    clock = ManualClock()
    store, other = [await opened(tmp_path / "store", clock=clock) for _ in range(2)]
    held = await holding_the_lock(other)
    asking = asyncio.create_task(store.acquire([ASKED], "one", 10))
    await wait_until(lambda: store._doors.writer.lock.waiting)
    clock.advance(8)
    held.set()
    (lease,) = await asking
    for _ in range(2):
        clock.advance(8)
        assert await other.acquire([ASKED], "two", 10) == ["held"]
        assert await store.renew([lease], 10) == [True]
    assert await store.put_many([write("key", lease=lease)]) == [True]
    await store.aclose()
    await other.aclose()


async def test_processes_that_write_and_invalidate_at_once_agree(tmp_path):
    """None loses a row, none sees one that was invalidated, and all read one journal."""
    rounds = size(10, 400)
    body = f"""
    for number in range({rounds}):
        key = f"{{os.getpid()}} {{number}}"
        await put(store, key, "shared")
        assert is_right(await store.get(key)), key
        if number % 5 == 0:
            [sequence] = await store.invalidate([notice(Selection(names=("key\\x1f" + key,)))])
            assert await store.get(key) is None
            assert (await store.journal(sequence - 1)).entries[0].sequence == sequence
    print(os.getpid(), flush=True)
    await store.aclose()
    """
    programs = [start(tmp_path / "store", body) for _ in range(3)]
    names = [await line_of(program) for program in programs]
    assert [await end_of(program) for program in programs] == [(0, "")] * 3
    store = await opened(tmp_path / "store")
    expected = [f"{name} {number}" for name in names for number in range(rounds) if number % 5]
    assert sorted(await store.keys(most=100_000)) == sorted([*expected, "shared"])
    found = await store.journal(0)
    assert [one.sequence for one in found.entries] == list(range(1, len(found.entries) + 1))
    assert len(found.entries) == 3 * len(range(0, rounds, 5))
    await store.aclose()


async def test_a_store_set_aside_by_one_is_left_by_all(store, other, told, tmp_path):
    await put(store, "key")
    writer = other._doors.writer

    def begin_anew():
        with writer.lock:
            writer._begin_anew(ValueError("as if damaged"))

    await writer.run(begin_anew)
    assert await store.get("key") is None
    await put(store, "new")
    assert is_right(await other.get("new"))
    await wait_until(lambda: told.times)
    there = (tmp_path / "store" / "store.db").stat()
    assert store._doors.writer._identity == other._doors.writer._identity == (there.st_dev, there.st_ino)


async def test_a_write_under_way_while_another_sets_the_database_aside_is_not_lost(store, other):
    """An invalidation that was committed to what is no database any more is made once more."""
    await put(store, "key")
    writer, place = store._doors.writer, store._place

    def change(raw, done=[]):  # noqa: B006 - to see the second time
        if not done:
            done.append(raw)
            place.set_aside("meanwhile")
        return raw.execute("INSERT INTO journal (origin, number, selection, body) VALUES (x'', 1, '[]', x'')").lastrowid

    sequence = await writer.run(lambda: writer.write(change, durable=True))
    last = await writer.run(lambda: writer._connection.execute("SELECT max(sequence) FROM journal").fetchone()[0])
    assert sequence == last > 1


async def test_the_journal_keeps_ten_thousand(store):
    selection = Selection(names=("tag\x1fnone",))
    await store.invalidate([Notice("me", number, selection, b"") for number in range(10_001)])
    found = await store.journal(1)
    assert (found.complete, found.last, len(found.entries)) == (True, 10_001, 10_000)
    assert not (await store.journal(0)).complete
    assert (await store.stats()).journal == 10_000
    assert await store.put_many([write("a", sequence=0), write("b", sequence=1)]) == [False, True]
    assert ALL.names == ("all",)
