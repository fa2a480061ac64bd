"""F17 to F21: files that change at the worst moment of a computation, or of the arming of a watch.

Gates hold the computation, or a wrapped watcher the arming, at the moment in question. Seen to fail on planted bugs: a
watch that does not look again after it has armed, files that are not compared after a computation, callers who join
without a look at what was read.
"""

import asyncio
import shutil

import pytest

from _support import replace
from shared_prompt_cache import WatchRule
from shared_prompt_cache._files.watchers._watchfiles import WatchfilesWatcher
from shared_prompt_cache.testing import FakeWatcher, wait_until


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("old")
    return path


class Slow:
    """A computation that reads files one after the other and stops at gates before, between and after."""

    def __init__(self, cache, *files):
        self.cache, self.files = cache, files
        self.reached = [asyncio.Event() for _ in range(len(files) + 1)]
        self.gates = [asyncio.Event() for _ in range(len(files) + 1)]

    async def __call__(self):
        texts = []
        for number, file in enumerate((*self.files, None)):
            self.reached[number].set()
            await self.gates[number].wait()
            if file is not None:
                texts.append(await self.cache.files.read_text(file))
        return texts

    async def at(self, number):
        """Let it run until it stops at a gate."""
        for gate in self.gates[:number]:
            gate.set()
        await self.reached[number].wait()

    def go(self):
        for gate in self.gates:
            gate.set()


async def fresh(cache, *files):
    return [await cache.files.read_text(file) for file in files]


class Meddling(WatchfilesWatcher):
    """The watcher of the system, in front of which something happens each time it is told to arm."""

    def __init__(self):
        super().__init__()
        self.before = self.after = lambda: None

    async def watch(self, folders):
        await asyncio.to_thread(self.before)
        armed = await super().watch(folders)
        await asyncio.to_thread(self.after)
        return armed


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_f17_what_is_made_between_looking_and_arming_is_armed(open_cache, tmp_path, moment):
    watcher, late = Meddling(), tmp_path / "memories" / "late"
    (tmp_path / "memories").mkdir()

    def make():
        if not late.exists():
            late.mkdir()
            (late / "qa.md").write_text("late")

    setattr(watcher, moment, make)
    cache = await open_cache(watch=[WatchRule(tmp_path, "memories/**/{agent}.md", "agent")], watcher=watcher)
    await wait_until(lambda: str(late) in cache._proofs.armed)
    await cache.set_prompt("of qa", 1, agent="qa")
    events = []
    cache.events.listen(events.append)
    replace(late / "qa.md", "edited")
    await wait_until(lambda: events)
    assert await cache.get_prompt("of qa") is None


async def test_f17_what_comes_into_a_new_folder_before_that_is_armed_is_looked_at(open_cache, tmp_path):
    watcher, memories = Meddling(), tmp_path / "memories"
    memories.mkdir()
    cache = await open_cache(watch=[WatchRule(tmp_path, "memories/**/{agent}.md", "agent")], watcher=watcher)
    await cache.set_prompt("of qa", 1, agent="qa")
    events = []
    cache.events.listen(events.append)
    # The new folder was looked into, and was empty; that it gets a file now makes no event yet.
    watcher.before = (memories / "new" / "qa.md").touch
    (memories / "new").mkdir()
    await wait_until(lambda: events)
    assert await cache.get_prompt("of qa") is None


async def test_f17_a_folder_that_is_replaced_between_two_armings_is_looked_at_again(open_cache, tmp_path):
    watcher, memories = Meddling(), tmp_path / "memories"
    memories.mkdir()
    (memories / "qa.md").write_text("old")
    cache = await open_cache(watch=[WatchRule(tmp_path, "memories/**/{agent}.md", "agent")], watcher=watcher)
    await cache.set_prompt("of qa", 1, agent="qa")

    def replaced():
        watcher.before = lambda: None
        shutil.rmtree(memories)
        memories.mkdir()
        (memories / "qa.md").write_text("new")

    watcher.before = replaced
    (memories / "more").mkdir()  # a folder to arm
    await wait_until(lambda: not memories.joinpath("more").exists())
    await cache.sync()
    assert await cache.get_prompt("of qa") is None
    await wait_until(lambda: str(memories) in cache._proofs.armed)


async def test_f17_what_could_not_be_armed_proves_nothing_by_events(open_cache, file):
    watcher = FakeWatcher()
    watcher.refused.add(str(file.parent))
    cache = await open_cache(freshness="events", watcher=watcher)
    assert await cache.get_or_compute("key", lambda: fresh(cache, file)) == ["old"]
    file.write_text("new")  # nobody tells
    assert await cache.get_or_compute("key", lambda: fresh(cache, file)) == ["new"]


@pytest.mark.parametrize("freshness", ["strict", "events"])
@pytest.mark.parametrize("moment", ["before the first read", "between two reads", "after the last read"])
async def test_f18_nothing_old_is_stored(open_cache, tmp_path, file, moment, freshness):
    other = tmp_path / "other.md"
    other.write_text("other")
    cache = await open_cache(freshness=freshness)
    compute = Slow(cache, file, other)
    asking = asyncio.create_task(cache.get_or_compute("key", compute))
    gate = ["before the first read", "between two reads", "after the last read"].index(moment)
    await compute.at(gate)
    replace(file, "new")
    compute.go()
    assert await asking == ["new" if gate == 0 else "old", "other"]
    assert await cache.get_or_compute("key", lambda: fresh(cache, file, other)) == ["new", "other"]
    assert cache.get_stats().computations == (1 if gate == 0 else 2)


async def test_f19_who_asks_after_a_change_gets_the_new_value(open_cache, file):
    cache = await open_cache()
    compute = Slow(cache, file)
    first = asyncio.create_task(cache.get_or_compute("key", compute))
    await compute.at(1)
    second = asyncio.create_task(cache.get_or_compute("key", compute))
    await wait_until(lambda: cache.get_stats().shared_computations == 1)
    replace(file, "new")
    assert await cache.get_or_compute("key", lambda: fresh(cache, file)) == ["new"]
    compute.go()
    assert await asyncio.gather(first, second) == [["old"], ["old"]]  # they had asked before
    assert await cache.get_or_compute("key", lambda: fresh(cache, file)) == ["new"]
    assert cache.get_stats().computations == 2


@pytest.mark.parametrize("told", ["before the store", "after the store"])
async def test_f20_no_stale_entry_whenever_the_event_comes(open_cache, file, told):
    watcher = FakeWatcher()
    rule = WatchRule(file.parent, "{agent}.md", "agent")
    cache = await open_cache(freshness="events", watch=[rule], watcher=watcher)
    compute = Slow(cache, file)
    asking = asyncio.create_task(cache.get_or_compute("key", compute, agent="memory"))
    await compute.at(1)
    if told == "before the store":
        replace(file, "new")
        watcher.push(file)
        compute.go()
        await asking
    else:
        compute.go()
        await asking
        replace(file, "new")
        watcher.push(file)
    assert await cache.get_or_compute("key", lambda: fresh(cache, file), agent="memory") == ["new"]


async def test_f21_a_mix_of_old_and_new_is_not_stored(open_cache, tmp_path):
    cache = await open_cache()
    files = [tmp_path / "a.md", tmp_path / "b.md"]
    for file in files:
        file.write_text("old")
    compute = Slow(cache, *files)
    asking = asyncio.create_task(cache.get_or_compute("key", compute))
    await compute.at(1)
    for file in files:  # one after the other; there was no moment at which a was old and b was new
        replace(file, "new")
    compute.go()
    assert await asking == ["old", "new"]
    assert await cache.get_prompt("key") is None
    assert str(files[0]) in cache.explain("key").reason


async def test_f21_two_reads_of_one_file_that_differ_are_never_stored(open_cache, file):
    cache = await open_cache()
    compute = Slow(cache, file, file)
    asking = asyncio.create_task(cache.get_or_compute("key", compute))
    await compute.at(1)
    replace(file, "new")
    compute.gates[1].set()
    await compute.at(2)
    replace(file, "old")  # back again before anybody compares
    compute.go()
    assert await asking == ["old", "new"]
    assert await cache.get_prompt("key") is None
    assert "between two reads" in cache.explain("key").reason
