"""P4: a value is served only while the files it was made from are what they were.

A tour, sentence by sentence; `tests/files/` has every style of edit, and the harness that edits at random. Seen to fail
on planted bugs: files that are not compared after a computation, an absent file that leaves no record, a consumed value
whose files are not taken over, a listing that goes by contents, a hit that is not proved.
"""

import asyncio
import contextvars
import os
from functools import partial

import pytest

from _support import Counted, replace
from shared_prompt_cache import presets
from shared_prompt_cache.testing import wait_until


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("old\n")
    return path


async def ask(cache, compute, key="prompt", **options):
    return await cache.get_or_compute(key, compute, **options)


def reading(cache, path):
    async def compute():
        return await cache.files.read_text(path)

    return compute


# What a value was made from.


async def test_the_very_next_read_after_a_write_is_new(cache, file):
    compute = reading(cache, file)
    assert await ask(cache, compute) == "old\n"
    file.write_text("new\n")  # no event is waited for
    assert await ask(cache, compute) == "new\n"
    assert await cache.get_prompt("prompt") is not None
    file.write_text("newer\n")
    assert await cache.get_prompt("prompt") is None


async def test_what_is_declared_counts_like_what_is_read(cache, file, tmp_path):
    other = tmp_path / "other.md"
    other.write_text("other\n")

    async def compute():
        await cache.files.depends_on(other)
        return file.read_text() + other.read_text()

    for _ in range(2):
        await ask(cache, compute, depends_on=[file])
    assert cache.get_stats().computations == 1
    assert (await cache.get_prompt("prompt")).dependencies == (str(file), str(other))
    replace(file, "new\n")
    assert await ask(cache, compute, depends_on=[file]) == "new\nother\n"
    replace(other, "newer\n")
    assert await ask(cache, compute, depends_on=[file]) == "new\nnewer\n"


async def test_a_file_that_was_looked_for_and_absent_counts(cache, tmp_path):
    path = tmp_path / "late" / "memory.md"

    async def compute():
        try:
            return await cache.files.read_text(path)
        except FileNotFoundError:
            return "nothing remembered"

    assert await ask(cache, compute) == "nothing remembered"
    path.parent.mkdir()
    assert await ask(cache, compute) == "nothing remembered"
    assert cache.get_stats().computations == 1
    path.write_text("something")
    assert await ask(cache, compute) == "something"
    path.unlink()
    assert await ask(cache, compute) == "nothing remembered"


async def test_a_listing_counts_by_the_names_in_it(cache, tmp_path):
    (tmp_path / "a.md").write_text("a")

    async def compute():
        return [path.name for path in await cache.files.glob(tmp_path, "*.md")]

    assert await ask(cache, compute) == ["a.md"]
    (tmp_path / "a.md").write_text("other content")
    (tmp_path / "b.txt").write_text("does not match")
    assert await ask(cache, compute) == ["a.md"]
    assert cache.get_stats().computations == 1
    (tmp_path / "b.md").write_text("b")
    assert await ask(cache, compute) == ["a.md", "b.md"]
    (tmp_path / "a.md").rename(tmp_path / "c.md")
    assert await ask(cache, compute) == ["b.md", "c.md"]


async def test_a_value_made_from_a_cached_value_has_its_files_too(cache, file):
    async def derived():
        return "from " + await ask(cache, reading(cache, file), key="source")

    async def twice():
        return "again " + await ask(cache, derived, key="derived")

    assert await ask(cache, twice) == "again from old\n"
    assert (await cache.get_prompt("prompt")).dependencies == (str(file),)
    file.write_text("new\n")
    assert await cache.get_prompt("prompt") is None
    assert await ask(cache, twice) == "again from new\n"


async def test_it_takes_them_over_as_that_value_saw_them(cache, file):
    gate, taken = asyncio.Event(), asyncio.Event()
    await ask(cache, reading(cache, file), key="source")

    async def derived():
        source = await cache.get_prompt("source")
        taken.set()
        await gate.wait()
        return "from " + source.prompt

    asking = asyncio.create_task(ask(cache, derived))
    await taken.wait()
    file.write_text("new\n")
    assert await ask(cache, reading(cache, file), key="source") == "new\n"
    gate.set()
    assert await asking == "from old\n"
    assert await cache.get_prompt("prompt") is None


@pytest.mark.parametrize("where", ["child task", "task group", "thread that asks the loop"])
async def test_what_is_read_elsewhere_on_behalf_of_a_computation_counts(cache, file, where):
    async def compute():
        read = reading(cache, file)
        if where == "child task":
            return await asyncio.create_task(read())
        if where == "task group":
            async with asyncio.TaskGroup() as group:
                task = group.create_task(read())
            return task.result()
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def in_thread():
            future = asyncio.run_coroutine_threadsafe(on_loop(), loop)
            return future.result()

        async def on_loop():
            return await loop.create_task(read(), context=context)

        return await asyncio.to_thread(in_thread)

    assert await ask(cache, compute) == "old\n"
    file.write_text("new\n")
    assert await ask(cache, compute) == "new\n"


async def test_a_thread_that_uses_the_blocking_face_counts_as_well(cache, file):
    def compute():
        return cache.blocking.files.read_text(file)

    assert await asyncio.to_thread(cache.blocking.get_or_compute, "prompt", compute) == "old\n"
    file.write_text("new\n")
    assert await asyncio.to_thread(cache.blocking.get_or_compute, "prompt", compute) == "new\n"


# While it is computed.


async def test_a_file_that_changes_while_a_value_is_computed_keeps_it_out(cache, file):
    gate, read = asyncio.Event(), asyncio.Event()

    async def compute():
        text = await cache.files.read_text(file)
        read.set()
        await gate.wait()
        return text

    asking = asyncio.create_task(ask(cache, compute))
    await read.wait()
    file.write_text("new\n")
    gate.set()
    assert await asking == "old\n"  # who was waiting already
    assert await cache.get_prompt("prompt") is None
    told = cache.explain("prompt")
    assert (told.state, told.reason) == ("not kept", f"{file} changed while it was computed")


async def test_who_asks_after_the_change_gets_the_new_value_and_waits_for_no_old_one(cache, file):
    gate, read = asyncio.Event(), asyncio.Event()

    async def slow():
        text = await cache.files.read_text(file)
        read.set()
        await gate.wait()
        return text

    asking = asyncio.create_task(ask(cache, slow))
    await read.wait()
    file.write_text("new\n")
    assert await ask(cache, reading(cache, file)) == "new\n"
    gate.set()
    assert await asking == "old\n"
    assert (await cache.get_prompt("prompt")).prompt == "new\n"


# What costs nothing.


async def test_a_touch_recomputes_nothing(cache, file):
    compute = reading(cache, file)
    await ask(cache, compute)
    for times in ((1, 1), (2**31, 2**31), None):
        os.utime(file, times)
        file.chmod(0o600 if times else 0o644)
        assert await ask(cache, compute) == "old\n"
    replace(file, "old\n")
    assert await ask(cache, compute) == "old\n"
    assert cache.get_stats().computations == 1


async def test_without_rules_and_dependencies_there_is_no_thread_and_no_task(cache):
    await ask(cache, Counted("plain"))
    assert cache._proofs._executor is None
    assert cache.get_stats().watcher == {}
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Scopes that watch rules name.


@pytest.fixture
async def watched(open_cache, tmp_path):
    memories = tmp_path / ".claude-mpm" / "memories"
    memories.mkdir(parents=True)
    for agent in ("engineer", "qa"):
        (memories / f"{agent}_memories.md").write_text("old\n")
    return await open_cache(watch=presets.claude_mpm(tmp_path, home=tmp_path / "home"))


async def test_scopes_that_rules_name_follow_by_event(watched, tmp_path):
    await watched.set_prompt("of the engineer", "old", agent="engineer")
    await watched.set_prompt("of qa", "old", agent="qa")
    replace(tmp_path / ".claude-mpm" / "memories" / "engineer_memories.md", "new\n")

    async def gone():
        return await watched.get_prompt("of the engineer") is None

    while not await gone():  # noqa: ASYNC110 - bounded by the time out of the test
        await asyncio.sleep(0.001)
    assert await watched.get_prompt("of qa") is not None


async def test_after_a_sync_you_read_your_own_writes(watched, tmp_path):
    for number in range(20):
        await watched.set_prompt("of the engineer", number, agent="engineer")
        replace(tmp_path / ".claude-mpm" / "memories" / "engineer_memories.md", f"new {number}\n")
        await watched.sync()
        assert await watched.get_prompt("of the engineer") is None


# Trusting events alone.


async def test_with_events_alone_a_change_is_seen_when_its_event_has_come(open_cache, file):
    cache = await open_cache(freshness="events")
    compute = reading(cache, file)
    await ask(cache, compute)
    await wait_until(lambda: cache._proofs.unwatched == 0)
    assert cache.health().unwatched == 0
    file.write_text("new\n")
    await cache.sync()
    assert await ask(cache, compute) == "new\n"


async def test_one_call_may_be_stricter_than_the_cache(open_cache, file):
    cache = await open_cache(freshness="events")
    compute = reading(cache, file)
    await ask(cache, compute)
    await wait_until(lambda: cache._proofs.unwatched == 0)
    file.write_text("new\n")
    assert await ask(cache, compute, freshness="strict") == "new\n"
    await cache.set_prompt("declared", 1, depends_on=file)
    file.write_text("newer\n")
    strict = partial(cache.get_prompt, freshness="strict")
    assert await strict("declared") is None


async def test_files_under_no_watch_are_verified_at_each_read_and_counted(open_cache, file):
    cache = await open_cache(freshness="strict")
    compute = reading(cache, file)
    await ask(cache, compute)
    file.write_text("new\n")
    assert await ask(cache, compute, freshness="events") == "new\n"
    assert cache.health().unwatched == 1
