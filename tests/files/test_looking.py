"""Whether files are as they were is proved by looking at them: by stat on the loop, by content in threads.

Seen to fail on planted bugs: stat of many files, or of remote ones, on the loop; one look instead of two; a comparison
that is shared with a reader who came after it began; readers who each compare for themselves; a comparison that is
never over because its reader was cancelled; an entry that is held again after it has gone; counts that know the path
and not where it led; and threads that outlive the cache.
"""

import asyncio
import random
import threading
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from _edits import EDITS
from _faults import Meddler
from _support import size
from shared_prompt_cache import ConfigError
from shared_prompt_cache._core.entry import Origin
from shared_prompt_cache._core.scopes import Scopes
from shared_prompt_cache._files import proof, reading
from shared_prompt_cache._files.proof import Proofs
from shared_prompt_cache._files.reading import compare, glob, read_file
from shared_prompt_cache._files.recorder import Recorder
from shared_prompt_cache.testing import FakeWatcher, wait_until

FEW, MANY = 64, 65


@pytest.fixture
async def proofs():
    proofs = Proofs(Scopes())
    yield proofs
    await proofs.aclose()


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.md" for number in range(MANY)]
    for path in paths:
        path.write_text("one")
    return paths


@pytest.fixture
def settled(monkeypatch):
    """Let time have passed, so that what is read next is settled."""
    now_ns = reading.now_ns
    monkeypatch.setattr(reading, "now_ns", lambda: now_ns() + 3_000_000_000)


@pytest.fixture
def remote(monkeypatch):
    """Let others be able to write, so that nothing is ever settled."""
    monkeypatch.setattr(reading, "is_remote", lambda _: True)


async def made_from(proofs, paths):
    origin = Origin(await records(proofs, paths), ())
    proofs.hold(origin)
    return origin


async def records(proofs, paths):
    return tuple([(await proofs.in_thread(read_file, str(path)))[1] for path in paths])


class Comparing:
    """The comparison of contents, held at a gate."""

    def __init__(self, monkeypatch):
        self.calls = 0
        self.gate = threading.Event()
        refreshed = proof.refreshed

        def gated(dependencies):
            self.calls += 1
            self.gate.wait()
            return refreshed(dependencies)

        monkeypatch.setattr(proof, "refreshed", gated)

    @asynccontextmanager
    async def begun(self, *readers):
        """Start readers; when the block is over, the gate opens."""
        tasks = [asyncio.create_task(reader) for reader in readers]
        try:
            await wait_until(lambda: self.calls)
            yield tasks
        finally:
            self.gate.set()


# On the loop, or in a thread


@pytest.mark.parametrize(("count", "local"), [(FEW, True), (MANY, False)])
async def test_more_than_64_files_are_not_looked_at_on_the_loop(proofs, files, settled, monkeypatch, count, local):
    """P8."""
    threads = set()
    unchanged = proof.unchanged

    def noted(dependencies):
        threads.add(threading.current_thread())
        return unchanged(dependencies)

    monkeypatch.setattr(proof, "unchanged", noted)
    origin = await made_from(proofs, files[:count])
    assert origin.local is local
    assert proofs.proved(origin, 7, strict=True) is local
    assert (origin.checked == 7) is local
    assert await proofs.unmoved(origin.dependencies)
    assert await proofs.moved(origin.dependencies) is None
    assert threads == ({threading.current_thread()} if local else set())
    assert await proofs.compare(origin)


async def test_what_others_can_write_is_not_looked_at_on_the_loop(proofs, files, settled, remote, monkeypatch):
    monkeypatch.setattr(proof, "unchanged", None)
    origin = await made_from(proofs, files[:1])
    assert not origin.local
    assert not proofs.proved(origin, 7, strict=True)
    assert await proofs.unmoved(origin.dependencies)
    assert await proofs.moved(origin.dependencies) is None
    EDITS["restored mtime"](files[0], "two")
    assert not await proofs.unmoved(origin.dependencies)
    assert await proofs.moved(origin.dependencies) == str(files[0])


async def test_what_has_not_settled_is_read(proofs, files):
    dependencies = await records(proofs, files[:2])
    assert await proofs.unmoved(dependencies)
    assert await proofs.moved(dependencies) is None
    files[1].write_text("two")
    assert not await proofs.unmoved(dependencies)
    assert await proofs.moved(dependencies) == str(files[1])


async def test_files_were_current_at_one_moment_or_they_have_moved(proofs, files, monkeypatch):
    """F21: the second file becomes what the computation saw only after the first is no longer that."""
    first, second = files[:2]
    second.write_text("two")
    dependencies = await records(proofs, [first, second])
    second.write_text("not yet")

    def turn(_):
        first.write_text("no longer")
        second.write_text("two")

    monkeypatch.setattr(proof, "compare", Meddler(compare, turn))
    assert await proofs.moved(dependencies) == str(first)


# One comparison for many readers


async def test_readers_share_comparisons_that_began_after_they_asked(proofs, files, remote, monkeypatch):
    origin = await made_from(proofs, files[:1])
    comparing = Comparing(monkeypatch)
    async with comparing.begun(*[proofs.compare(origin) for _ in range(50)]) as readers:
        await asyncio.sleep(0)
    assert await asyncio.gather(*readers) == [True] * 50
    assert comparing.calls == 2


async def test_a_comparison_that_settles_what_it_looked_at_is_enough_for_all(proofs, files, settled, monkeypatch):
    origin = await made_from(proofs, files[:1])
    files[0].touch()
    comparing = Comparing(monkeypatch)
    async with comparing.begun(*[proofs.compare(origin) for _ in range(50)]) as readers:
        await asyncio.sleep(0)
    assert await asyncio.gather(*readers) == [True] * 50
    assert comparing.calls == 1


async def test_a_comparison_that_had_begun_proves_nothing_to_who_comes_later(proofs, files, monkeypatch):
    origin = await made_from(proofs, files[:1])
    read, edited = threading.Event(), threading.Event()
    refreshed = proof.refreshed

    def slow(dependencies):
        found = refreshed(dependencies)
        read.set()
        edited.wait()
        return found

    monkeypatch.setattr(proof, "refreshed", slow)
    early = asyncio.create_task(proofs.compare(origin))
    await wait_until(read.is_set)
    files[0].write_text("two")
    late = [asyncio.create_task(proofs.compare(origin)) for _ in range(3)]
    await asyncio.sleep(0)
    edited.set()
    assert await early
    assert await asyncio.gather(*late) == [False] * 3


async def test_a_comparison_whose_reader_is_cancelled_is_made_again(proofs, files, remote, monkeypatch):
    """P2."""
    origin = await made_from(proofs, files[:1])
    comparing = Comparing(monkeypatch)
    async with comparing.begun(*[proofs.compare(origin) for _ in range(4)]) as readers:
        for number in range(2):
            readers[number].cancel()
            await wait_until(lambda calls=number + 2: comparing.calls == calls)
    with pytest.raises(asyncio.CancelledError):
        await readers[0]
    with pytest.raises(asyncio.CancelledError):
        await readers[1]
    assert await asyncio.gather(*readers[2:]) == [True, True]
    assert origin.comparing is None


async def test_a_content_that_has_not_changed_renews_the_record(proofs, files):
    origin = await made_from(proofs, files[:1])
    before = origin.dependencies
    files[0].touch()
    assert await proofs.compare(origin)
    assert origin.dependencies != before
    assert origin.dependencies[0].mtime == files[0].stat().st_mtime_ns
    assert origin.checked == proofs._scopes.revision


async def test_a_mark_that_comes_while_contents_are_compared_counts(proofs, files, monkeypatch):
    origin = await made_from(proofs, files[:1])
    proofs.arm(proofs.folders)
    comparing = Comparing(monkeypatch)
    async with comparing.begun(proofs.compare(origin)) as readers:
        proofs.mark([str(files[0])])
    assert await readers[0]
    monkeypatch.setattr(proof, "unchanged", lambda _: False)
    assert proofs.trusted(origin)
    assert not proofs.proved(origin, proofs._scopes.revision, strict=False)


# What is held


async def test_an_entry_that_goes_while_its_files_are_compared_stays_gone(proofs, files, monkeypatch):
    origin, other = await made_from(proofs, files[:1]), await made_from(proofs, files[:1])
    EDITS["retargeted symlink"](files[0], "one")
    comparing = Comparing(monkeypatch)
    async with comparing.begun(proofs.compare(origin)) as readers:
        proofs.release(origin)
    assert await readers[0]
    proofs.release(other)
    assert nothing_is_held(proofs)


def nothing_is_held(proofs):
    return not (proofs._held or proofs._ways or proofs._listings or proofs.folders)


class Walk:
    """Values come and go at random, made from files and listings that change at random."""

    def __init__(self, proofs, root, seed):
        self.proofs, self.root = proofs, root
        self.random = random.Random(seed)
        self.kept = []
        for name in ("a", "b", "a/c"):
            (root / name).mkdir()

    def path(self):
        return self.root / self.random.choice(["a/x", "b/x", "a/c/x", "link", "link/x", "none/x", "a/c/y"])

    def look(self):
        if self.random.random() < 0.5:
            return glob(str(self.random.choice([self.root, self.root / "a", self.root / "b"])), self.pattern())[1]
        with suppress(OSError, ConfigError):  # a circle of links, or a folder
            return read_file(str(self.path()))[1]
        return read_file(str(self.root / "none"))[1]

    def pattern(self):
        return self.random.choice(["*", "**", "**/x", "a/*"])

    async def keep(self):
        origin = Origin(tuple([await self.proofs.in_thread(self.look) for _ in range(self.random.randrange(4))]), ())
        self.proofs.hold(origin)
        self.kept.append(origin)

    def edit(self):
        path = self.path()
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.name == "link":
            path.symlink_to(self.random.choice(["a", "b", "a/c", "none", "link"]))
        elif path.parent.is_dir():
            path.touch()

    async def step(self):
        if not self.kept or self.random.random() < 0.4:
            await self.keep()
        origin = self.random.choice(self.kept)
        comparing = asyncio.create_task(self.proofs.compare(origin))
        if self.random.random() < 0.5:
            await comparing
        if self.random.random() < 0.4:
            self.proofs.release(origin)
            self.kept.remove(origin)
        self.edit()
        await comparing

    def check(self):
        dependencies = [dependency for origin in self.kept for dependency in origin.dependencies]
        assert set(self.proofs._ways) == {place for each in dependencies for place in each.way.places}
        assert set(self.proofs.folders) == {folder for each in dependencies for folder in each.way.folders}
        assert set(self.proofs._listings) == {name for each in dependencies for name, _ in each.folders}


@pytest.mark.parametrize("seed", range(size(5, 100)))
async def test_what_is_held_is_counted_to_the_end(proofs, tmp_path, seed):
    """P7."""
    walk = Walk(proofs, tmp_path, seed)
    for _ in range(60):
        await walk.step()
        walk.check()
    while walk.kept:
        proofs.release(walk.kept.pop())
    assert nothing_is_held(proofs)


# Declaring, and threads


async def test_what_is_declared_is_recorded_and_meanwhile_looked_at(proofs, files, monkeypatch):
    recorder = Recorder(proofs._scopes)
    gate = threading.Event()
    declared = proof.declared
    monkeypatch.setattr(proof, "declared", lambda path: gate.wait() and declared(path))
    declaring = asyncio.create_task(proofs.declare(recorder, [files[0], files[0].parent]))
    await wait_until(lambda: recorder.looks)
    gate.set()
    await declaring
    assert not recorder.looks
    assert [(each.path, each.pattern) for each in recorder.dependencies] == [
        (str(files[0]), None),
        (str(files[0].parent), "*"),
    ]


async def test_threads_are_the_cache_s_own_few_and_end_with_it(proofs):
    """P10."""
    found = set(await asyncio.gather(*[proofs.in_thread(threading.current_thread) for _ in range(20)]))
    assert len(found) <= 4
    assert all(thread.name.startswith("shared-prompt-cache") for thread in found)
    await proofs.aclose()
    assert not found & set(threading.enumerate())
    await proofs.aclose()
    assert await proofs.in_thread(Path.exists, Path("/"))


async def test_closing_waits_for_what_runs_in_a_thread(proofs):
    gate, ended = threading.Event(), []

    def work():
        gate.wait()
        ended.append(True)

    working = asyncio.create_task(proofs.in_thread(work))
    await asyncio.sleep(0)
    closing = asyncio.create_task(proofs.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await closing
    assert ended
    await working


async def test_an_event_between_the_last_look_and_the_keeping_of_a_value_counts(open_cache, tmp_path, monkeypatch):
    """Nothing kept depended on the file when the event came, so that it marked nothing."""
    watcher = FakeWatcher()
    cache = await open_cache(freshness="events", watcher=watcher)
    other, file = tmp_path / "other.md", tmp_path / "file.md"
    for path in (other, file):
        path.write_text("old")
    await cache.get_or_compute("other", lambda: cache.files.read_text(other))
    await wait_until(lambda: cache.health().unwatched == 0)
    looked, gate = threading.Event(), threading.Event()
    first_moved = proof._first_moved

    def late(dependencies):
        moved = first_moved(dependencies)
        if not looked.is_set():
            file.write_text("new")
            looked.set()
            gate.wait()
        return moved

    monkeypatch.setattr(proof, "_first_moved", late)
    computing = asyncio.create_task(cache.get_or_compute("key", lambda: cache.files.read_text(file)))
    await wait_until(looked.is_set)
    watcher.push(file)
    gate.set()
    await computing
    assert await cache.get_or_compute("key", lambda: cache.files.read_text(file)) == "new"
