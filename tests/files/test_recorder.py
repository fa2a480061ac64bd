"""A value carries what it was made from, whoever read it on its behalf: tasks, threads, blocks and other caches.

Seen to fail on planted bugs: two unequal reads that are taken for one; a block that keeps to itself what is read in it,
or that it is being read; a recorder that records after it is over; numbers of another cache taken for its own; and a
value of two states of a scope that is kept.
"""

import asyncio
import threading
from contextlib import AsyncExitStack

import pytest

from _support import Counted
from shared_prompt_cache._core.entry import Origin
from shared_prompt_cache._core.scopes import Scopes
from shared_prompt_cache._files import files as files_module
from shared_prompt_cache._files.fingerprint import Dependency
from shared_prompt_cache._files.places import Way
from shared_prompt_cache._files.recorder import ACTIVE, CURRENT, Recorder, current, looking
from shared_prompt_cache.testing import wait_until


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("one")
    return path


def record(digest, path="/a", pattern=None):
    return Dependency(path, "file" if pattern is None else "listing", Way((), ()), digest=digest, pattern=pattern)


@pytest.fixture
def nested():
    """Return the recorders of a computation, of a block in it, and of a block in that."""
    outer = Recorder(Scopes())
    middle = Recorder(outer.scopes, outer)
    inner = Recorder(outer.scopes, middle)
    ACTIVE.update((outer, middle, inner))
    yield outer, middle, inner
    ACTIVE.difference_update((outer, middle, inner))


# What is read


def test_each_file_and_each_pattern_is_recorded_once():
    recorder = Recorder(Scopes())
    assert recorder.origin() is None
    reads = [record(b"1"), record(b"2", "/b"), record(b"3", "/b", "*"), record(b"4", "/b", "*.md")]
    for dependency in (*reads, record(b"1")):
        recorder.read(dependency)
    assert recorder.dependencies == tuple(reads)
    assert recorder.origin().dependencies == tuple(reads)
    assert recorder.spoiled is None


@pytest.mark.parametrize("second", [b"2", None])
def test_two_unequal_reads_of_one_file_spoil_the_value(second):
    recorder = Recorder(Scopes())
    recorder.read(record(b"1"))
    recorder.read(record(second))
    assert recorder.spoiled == "/a changed between two reads of one computation"
    recorder.spoil("a later reason")
    assert recorder.spoiled.startswith("/a")


def test_what_a_block_reads_everything_around_it_has_read(nested):
    outer, middle, inner = nested
    inner.read(record(b"1"))
    middle.read(record(b"2", "/b"))
    assert [len(each.reads) for each in nested] == [2, 2, 1]
    inner.read(record(b"3"))
    assert outer.spoiled
    assert middle.spoiled
    assert inner.spoiled


def test_a_block_that_is_over_tells_nobody(nested):
    outer, _, inner = nested
    ACTIVE.discard(inner)
    inner.read(record(b"1"))
    inner.consume(inner.scopes, "key", None, (), Origin((record(b"2", "/b"),), ()))
    assert outer.origin() is None


def test_a_block_in_which_something_is_looked_at_is_one_for_all_around_it(nested):
    with inner_looking(nested[2]):
        assert [len(each.looks) for each in nested] == [1, 1, 1]
    assert not any(each.looks for each in nested)
    with inner_looking(nested[1]):
        assert [len(each.looks) for each in nested] == [1, 1, 0]


def inner_looking(recorder):
    token = CURRENT.set(recorder)
    try:
        return looking()
    finally:
        CURRENT.reset(token)


async def test_who_asks_waits_for_the_looks_of_that_moment():
    recorder = Recorder(Scopes())
    await recorder.looked()
    async with asyncio.timeout(5):
        with recorder.looking():
            asking = asyncio.create_task(recorder.looked())
            await asyncio.sleep(0)
            with pytest.raises(LookupError), recorder.looking():
                raise LookupError
            assert not asking.done()
        with recorder.looking():
            await asking


def test_no_recorder_runs_outside_of_computations():
    assert current() is None
    with looking():
        pass
    over, other = Recorder(Scopes()), Recorder(Scopes())
    token = CURRENT.set(over)
    ACTIVE.add(other)
    assert current() is None, "it is over, though others are not"
    ACTIVE.discard(other)
    CURRENT.reset(token)


# What is consumed


def test_consumed_values_hand_on_files_scopes_and_keys():
    scopes = Scopes()
    recorder, agent, tag = Recorder(scopes), scopes.scope(("agent", "qa")), scopes.scope(("tag", "x"))
    recorder.consume(scopes, "b", "qa", ((agent, 1), (tag, 4)), Origin((record(b"1"),), (("a", True),)))
    recorder.consume(scopes, "c", None, ((tag, 4),), None)
    assert recorder.pairs == {agent: 1, tag: 4}
    assert recorder.origin().consumed == (("b", False), ("a", True), ("c", True))
    assert recorder.origin(without="a").consumed == (("b", False), ("c", True))
    assert recorder.origin().dependencies == (recorder.dependencies[0],)
    assert recorder.spoiled is None


def test_the_key_of_the_value_itself_is_no_origin():
    recorder = Recorder(Scopes())
    recorder.consume(recorder.scopes, "key", None, (), None)
    assert recorder.origin(without="key") is None


def test_two_states_of_one_scope_spoil_the_value(nested):
    outer, _, inner = nested
    scope = outer.scopes.scope(("tag", "x"))
    outer.consume(outer.scopes, "a", None, ((scope, 1),), None)
    inner.consume(outer.scopes, "b", None, ((scope, 2),), None)
    assert outer.spoiled == f"{scope.id} was invalidated between two values of one computation"
    assert inner.spoiled is None


def test_what_a_recorder_takes_over_is_all_it_knows():
    scopes = Scopes()
    one, other = Recorder(scopes), Recorder(scopes)
    scope = scopes.scope(("tag", "x"))
    other.read(record(b"1"))
    other.consume(scopes, "b", None, ((scope, 3),), None)
    one.take(other)
    assert (one.reads, one.pairs, one.consumed) == (other.reads, other.pairs, other.consumed)
    assert one.spoiled is None
    other.spoil("two states")
    one.take(other)
    assert one.spoiled == "two states"


# Through the cache


async def read_here(cache, file):
    return await cache.files.read_text(file)


async def read_in_a_task(cache, file):
    return await asyncio.create_task(cache.files.read_text(file))


async def read_in_a_group(cache, file):
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(cache.files.read_text(file))
        group.create_task(asyncio.sleep(0))
    return reading.result()


async def read_in_a_thread(cache, file):
    return await asyncio.to_thread(cache.blocking.files.read_text, file)


async def read_in_blocks(cache, file):
    async with cache.lock("a lock"), cache.batch():
        return await cache.files.read_text(file)


async def read_by_another_computation(cache, file):
    return await cache.get_or_compute("inner", lambda: cache.files.read_text(file))


READS = [read_here, read_in_a_task, read_in_a_group, read_in_a_thread, read_in_blocks, read_by_another_computation]


@pytest.mark.parametrize("read", READS)
async def test_a_value_is_made_from_what_is_read_on_its_behalf(cache, file, read):
    """P4."""
    compute = Counted(lambda: read(cache, file))
    assert await cache.get_or_compute("key", compute) == "one"
    assert (await cache.get_prompt("key")).dependencies == (str(file),)
    file.write_text("two")
    assert await cache.get_or_compute("key", compute) == "two"
    assert compute.ended == 2


@pytest.mark.parametrize("read", READS)
async def test_a_value_of_another_cache_hands_on_its_files_alone(open_cache, file, read):
    first, second = await open_cache(name="first"), await open_cache(name="second")

    async def derived():
        return "from " + await first.get_or_compute("key", lambda: read(first, file), tags=["x"])

    assert await second.get_or_compute("derived", derived) == "from one"
    assert (await second.get_prompt("derived")).dependencies == (str(file),)
    await first.invalidate_tag("x")
    await second.invalidate_tag("y")  # so that it looks at the numbers of its entries again
    assert await second.get_prompt("derived") is not None, "nobody has told the second cache"
    file.write_text("two")
    assert await second.get_prompt("derived") is None


async def test_two_reads_of_two_states_keep_the_value_out(cache, file):
    """F18."""

    async def compute():
        before = await cache.files.read_text(file)
        file.write_text("two")
        return before + await cache.files.read_text(file)

    assert await cache.get_or_compute("key", compute) == "onetwo"
    assert await cache.get_prompt("key") is None
    assert "changed" in cache.explain("key").reason


async def test_a_value_of_two_states_of_a_scope_is_kept_out(cache):
    async def compute():
        old = await cache.get_or_compute("old", Counted("old"), tags=["x"])
        await cache.invalidate_tag("x")
        return old + await cache.get_or_compute("new", Counted("new"), tags=["x"])

    assert await cache.get_or_compute("key", compute) == "oldnew"
    assert await cache.get_prompt("key") is None


async def test_what_ends_after_its_computation_is_recorded_for_nobody(cache, file):
    gate, others = asyncio.Event(), []

    async def straggle():
        await gate.wait()
        return await cache.files.read_text(file)

    async def compute():
        others.append(asyncio.create_task(straggle()))
        return "prompt"

    await cache.get_or_compute("key", compute)
    gate.set()
    assert await others[0] == "one"
    assert (await cache.get_prompt("key")).dependencies == ()
    assert not ACTIVE


async def test_a_look_is_over_when_it_fails_or_is_cancelled(cache, file, monkeypatch):
    gate = threading.Event()

    def slow(path):
        gate.wait()
        raise PermissionError

    async def compute():
        recorder = current()
        reading = asyncio.create_task(cache.files.read_text(file))
        await wait_until(lambda: recorder.looks)
        reading.cancel()
        await wait_until(lambda: not recorder.looks)
        gate.set()
        with pytest.raises(PermissionError):
            await cache.files.read_text(file)
        assert not recorder.looks
        return "prompt"

    monkeypatch.setattr(files_module, "read_file", slow)
    assert await cache.get_or_compute("key", compute) == "prompt"
    assert (await cache.get_prompt("key")).dependencies == ()


async def test_computations_side_by_side_record_each_their_own(cache, tmp_path):
    for number in range(10):
        (tmp_path / str(number)).write_text(str(number))

    async def one(number):
        async with AsyncExitStack() as stack:
            if number % 2:
                await stack.enter_async_context(cache.batch())
            return await cache.files.read_text(tmp_path / str(number))

    await asyncio.gather(*[cache.get_or_compute(f"key {n}", lambda n=n: one(n)) for n in range(10)])
    for number in range(10):
        assert (await cache.get_prompt(f"key {number}")).dependencies == (str(tmp_path / str(number)),)
