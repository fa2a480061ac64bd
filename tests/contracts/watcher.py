"""What every watcher promises, and a sink that remembers what it was told."""

import asyncio
import contextlib
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from shared_prompt_cache._files.watchers._worker import _end_all
from shared_prompt_cache.errors import CacheClosedError

PATIENCE = 10.0

PROGRAM = """
import asyncio, sys, time, warnings
from contracts.watcher import RecordingSink, threads
from {module} import {name}

async def main():
    global watcher
    watcher = {name}()
    await watcher.start(RecordingSink())
    assert await watcher.watch({{sys.argv[1]}})
    assert len(threads()) == 1

class LongGoodbye:
    def __del__(self, sleep=time.sleep):
        sleep(0.05)  # other threads run while the interpreter is being finalized

goodbye = LongGoodbye()
loop = asyncio.new_event_loop()
"""

ENDINGS = {
    "closed loop": """
loop.run_until_complete(main())
loop.close()
until = time.monotonic() + 0.1
while threads() and time.monotonic() < until:
    time.sleep(0.001)
assert not threads(), threads()
print(time.time())
""",
    "open loop": """
warnings.simplefilter("ignore", ResourceWarning)  # asyncio's own, about the loop
loop.run_until_complete(main())
print(time.time())
""",
    "exit from within": """
async def leave():
    await main()
    print(time.time(), flush=True)
    raise SystemExit(0)
loop.close()
asyncio.run(leave())
""",
}


class RecordingSink:
    def __init__(self):
        self.told = asyncio.Event()
        self.paths = []
        self.calls = []
        self.doubts = []
        self.degradations = []

    def changed(self, paths):
        self.calls.append(len(paths))
        self.paths.extend(paths)
        self.told.set()

    def doubted(self, reason):
        self.doubts.append(reason)
        self.told.set()

    def degraded(self, folder, reason):
        self.degradations.append((folder, reason))
        self.told.set()

    def forget(self):
        self.paths.clear()
        self.calls.clear()

    def covers(self, path):
        """Whether the path, or a folder that it is in, was told."""
        told = set(self.paths)
        return any(str(place) in told for place in (Path(path), *Path(path).parents))

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.told.clear()
                await self.told.wait()

    async def until_told(self, *paths):
        await self.until(lambda: all(self.covers(path) for path in paths))


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("shared-prompt-cache")]


async def until(condition):
    """For what no sink is told of, such as the end of a thread."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody would set an event
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def running(watcher):
    sink = RecordingSink()
    await watcher.start(sink)
    try:
        yield sink
    finally:
        await watcher.aclose()
    assert threads() == []


class WatcherContract:
    """Subclass it with a fixture `watcher`, not started."""

    @pytest.fixture
    async def sink(self, watcher):
        async with running(watcher) as sink:
            yield sink

    async def test_an_armed_folder_tells_of_every_kind_of_edit(self, watcher, sink, tmp_path):
        file = tmp_path / "a.md"
        file.write_text("one")
        assert await watcher.watch({str(tmp_path)}) == {str(tmp_path)}

        def write():
            with file.open("r+") as there:
                there.write("two")

        def append():
            with file.open("a") as there:
                there.write("more")

        def replace():
            (tmp_path / "temporary").write_text("three")
            (tmp_path / "temporary").replace(file)

        def delete_and_create():
            file.unlink()
            file.write_text("four")

        for edit in (write, append, replace, delete_and_create, write, file.unlink):
            sink.forget()
            edit()
            await sink.until_told(file)
        assert sink.doubts == []

    async def test_a_folder_made_in_an_armed_one_is_told(self, watcher, sink, tmp_path):
        await watcher.watch({str(tmp_path)})
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "a.md").write_text("one")
        await sink.until_told(tmp_path / "new" / "a.md")

    async def test_a_folder_moved_out_of_an_armed_one_is_told(self, watcher, sink, tmp_path):
        root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
        (root / "inner").mkdir(parents=True)
        (root / "inner" / "a.md").write_text("one")
        await watcher.watch({str(root)})
        (root / "inner").rename(elsewhere)
        await sink.until_told(root / "inner" / "a.md")

    async def test_what_does_not_exist_is_left_out_and_armed_once_it_does(self, watcher, sink, tmp_path):
        later, file = tmp_path / "later", tmp_path / "file"
        file.write_text("")
        wanted = {str(tmp_path), str(later), str(file), "/not/there", str(tmp_path) + "\0"}
        assert await watcher.watch(wanted) == {str(tmp_path)}
        later.mkdir()
        assert await watcher.watch(wanted) == {str(tmp_path), str(later)}
        (later / "a.md").write_text("one")
        await sink.until_told(later / "a.md")

    async def test_a_folder_added_later_is_armed_when_watch_returns(self, watcher, sink, tmp_path):
        folders = [tmp_path / str(number) for number in range(12)]
        for count, folder in enumerate(folders, 1):
            folder.mkdir()
            wanted = {str(folder) for folder in folders[:count]}
            assert await watcher.watch(wanted) == wanted
            (folder / "a.md").write_text("one")
        await sink.until_told(*(folder / "a.md" for folder in folders))

    async def test_no_edit_is_lost_while_folders_are_added_and_merged(self, watcher, sink, tmp_path):
        first = tmp_path / "first"
        first.mkdir()
        wanted, written = {str(first)}, []
        await watcher.watch(wanted)
        for number in range(60):
            if number % 5 == 0:
                folder = tmp_path / str(number)
                folder.mkdir()
                wanted = wanted | {str(folder)}
                adding = asyncio.create_task(watcher.watch(wanted))
            written.append(first / f"{number}.md")
            written[-1].write_text("one")
            await asyncio.sleep(0.005)
            await adding
        await sink.until_told(*written)
        assert sink.doubts == []

    async def test_a_folder_that_was_removed_and_made_again_is_armed_again(self, watcher, sink, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        await watcher.watch({str(folder)})
        for number in range(4):
            shutil.rmtree(folder)
            await sink.until_told(folder)
            assert await watcher.watch({str(folder)}) == set()
            folder.mkdir()
            assert await watcher.watch({str(folder)}) == {str(folder)}
            sink.forget()
            (folder / f"{number}.md").write_text("one")
            await sink.until_told(folder / f"{number}.md")
            sink.forget()

    async def test_a_folder_that_another_took_the_place_of_is_armed_again(self, watcher, sink, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        await watcher.watch({str(folder)})
        folder.rename(tmp_path / "old")
        folder.mkdir()
        assert await watcher.watch({str(folder)}) == {str(folder)}
        await sink.until_told(folder)
        sink.forget()
        (folder / "a.md").write_text("one")
        await sink.until_told(folder / "a.md")

    async def test_two_paths_of_one_folder_are_both_told(self, watcher, sink, tmp_path):
        folder, alias = tmp_path / "folder", tmp_path / "alias"
        folder.mkdir()
        alias.symlink_to(folder)
        await watcher.watch({str(folder), str(alias)})
        (folder / "a.md").write_text("one")
        await sink.until_told(folder / "a.md", alias / "a.md")

    async def test_many_changes_come_in_portions(self, watcher, sink, tmp_path):
        await watcher.watch({str(tmp_path)})
        for number in range(3_000):
            (tmp_path / str(number)).touch()
        await sink.until(lambda: len(set(sink.paths)) == 3_000)
        assert max(sink.calls) <= 2_000

    async def test_without_folders_there_is_no_thread(self, watcher, sink, tmp_path):
        assert await watcher.watch(set()) == set()
        assert threads() == []
        await watcher.watch({str(tmp_path)})
        assert len(threads()) == 1
        assert watcher.watched == 1
        assert await watcher.watch(set()) == set()
        await until(lambda: threads() == [])
        assert watcher.watched == 0

    async def test_drain_does_nothing(self, watcher, sink, tmp_path):
        assert not watcher.exact
        await watcher.watch({str(tmp_path)})
        watcher.drain()
        assert sink.paths == []

    async def test_a_cancelled_watch_leaks_nothing_and_the_next_one_counts(self, watcher, sink, tmp_path):
        for turns in range(6):
            folder = tmp_path / str(turns)
            folder.mkdir()
            task = asyncio.create_task(watcher.watch({str(folder)}))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert await watcher.watch({str(tmp_path)}) == {str(tmp_path)}
        (tmp_path / "a.md").write_text("one")
        await sink.until_told(tmp_path / "a.md")

    async def test_a_cancelled_watch_then_close_leaves_no_thread(self, watcher, sink, tmp_path):
        task = asyncio.create_task(watcher.watch({str(tmp_path)}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await watcher.aclose()
        assert threads() == []

    async def test_closing_during_a_watch_ends_it_with_an_error_of_ours(self, watcher, sink, tmp_path):
        task = asyncio.create_task(watcher.watch({str(tmp_path)}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await watcher.aclose()
        with pytest.raises(CacheClosedError):
            await task

    async def test_closing_leaves_no_thread_and_may_be_repeated(self, watcher, sink, tmp_path):
        await watcher.watch({str(tmp_path)})
        await asyncio.gather(watcher.aclose(), watcher.aclose())
        assert threads() == []
        await watcher.aclose()
        sink.forget()
        (tmp_path / "a.md").write_text("one")
        with pytest.raises(CacheClosedError, match="closed"):
            await watcher.watch({str(tmp_path)})
        assert sink.paths == []

    async def test_a_cancelled_close_goes_on_to_the_end(self, watcher, sink, tmp_path):
        await watcher.watch({str(tmp_path)})
        task = asyncio.create_task(watcher.aclose())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await watcher.aclose()
        assert threads() == []

    async def test_it_can_be_started_again_after_it_was_closed(self, watcher, sink, tmp_path):
        with pytest.raises(RuntimeError, match="running"):
            await watcher.start(sink)
        await watcher.watch({str(tmp_path)})
        await watcher.aclose()
        await watcher.start(sink)
        await watcher.watch({str(tmp_path)})
        (tmp_path / "a.md").write_text("one")
        await sink.until_told(tmp_path / "a.md")

    async def test_before_the_start_it_watches_nothing_and_can_be_closed(self, watcher, tmp_path):
        await watcher.aclose()
        with pytest.raises(CacheClosedError, match="not started"):
            await watcher.watch({str(tmp_path)})

    async def test_its_thread_ends_when_it_is_collected(self, tmp_path, watcher):
        kind = type(watcher)
        orphan = kind()
        sink = RecordingSink()
        await orphan.start(sink)
        await orphan.watch({str(tmp_path)})
        assert len(threads()) == 1
        del orphan
        await until(lambda: threads() == [])

    async def test_without_threads_it_watches_nothing_until_there_are_some(self, watcher, sink, tmp_path, monkeypatch):
        start = threading.Thread.start

        def refuse(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert await watcher.watch({str(tmp_path)}) == set()
        assert sink.degradations == [(str(tmp_path), "can't start new thread")]
        monkeypatch.setattr(threading.Thread, "start", start)
        assert await watcher.watch({str(tmp_path)}) == {str(tmp_path)}
        assert sink.degradations[1:] == [(str(tmp_path), None)]

    async def test_the_interpreter_waits_for_its_thread(self, watcher, sink, tmp_path):
        """A thread that returns from native code into a finalized interpreter is killed where it stands."""
        await watcher.watch({str(tmp_path)})
        assert len(threads()) == 1
        _end_all()
        assert threads() == []

    @pytest.mark.parametrize("ending", ["closed loop", "open loop", "exit from within"])
    async def test_the_end_of_a_loop_or_of_the_interpreter_needs_no_close(self, watcher, tmp_path, ending):
        """No output either, which a thread killed in the middle of native code would make."""
        kind = type(watcher)
        program = PROGRAM.format(module=kind.__module__, name=kind.__name__) + ENDINGS[ending]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", program, str(tmp_path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        async with asyncio.timeout(30):
            output, errors = await process.communicate()
        ended_at = time.time()
        assert (process.returncode, errors) == (0, b"")
        assert ended_at - float(output) < 1.0
