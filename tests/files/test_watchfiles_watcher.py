import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from watchfiles import _rust_notify as rust

from contracts.watcher import WatcherContract, running, threads, until
from shared_prompt_cache._files.watchers import _native, _watchfiles
from shared_prompt_cache._files.watchers._watchfiles import WatchfilesWatcher
from shared_prompt_cache._files.watchers._worker import hand_over, in_slices
from shared_prompt_cache.testing import wait_until

NOT_UTF8 = os.fsdecode(b"\xff\xfe")


@pytest.fixture
async def watcher():
    return WatchfilesWatcher(merge_after=0.1)


class TestWatchfilesWatcher(WatcherContract):
    pass


def make_folders(root, count):
    folders = [root / str(number) for number in range(count)]
    for folder in folders:
        folder.mkdir()
    return [str(folder) for folder in folders]


async def native_watchers():
    """How many inotify descriptors this process has."""
    return len(await asyncio.to_thread(_native._inotify_descriptors))


async def until_native_watchers(count):
    async def are_that_many():
        return await native_watchers() == count

    await wait_until(are_that_many)


async def test_in_the_steady_state_there_is_one_native_watcher_and_one_thread(watcher, tmp_path):
    at_first = await native_watchers()
    folders = make_folders(tmp_path, 5)
    async with running(watcher) as sink:
        for count in range(1, 6):
            await watcher.watch(set(folders[:count]))
        assert len(watcher._natives) == 2
        await until(lambda: len(threads()) == 1)
        await until_native_watchers(at_first + 1)
        assert watcher.watched == 5
        assert sink.paths == []
        files = [Path(folder, "a.md") for folder in folders]
        for file in files:
            file.touch()
        await sink.until_told(*files)
    await until_native_watchers(at_first)


async def test_a_large_second_native_watcher_is_merged_at_once(watcher, tmp_path, monkeypatch):
    monkeypatch.setattr(_watchfiles, "_LARGE", 3)
    folders = make_folders(tmp_path, 5)
    async with running(watcher):
        sizes = []
        for count in range(1, 6):
            await watcher.watch(set(folders[:count]))
            sizes.append([native.size for native in watcher._natives])
        assert sizes == [[1], [1, 1], [1, 2], [1, 3], [5]]


async def test_folders_that_are_no_longer_wanted_go_with_the_next_merge(watcher, tmp_path):
    folders = make_folders(tmp_path, 5)
    async with running(watcher):
        await watcher.watch(set(folders))
        first = watcher._natives[0]
        assert await watcher.watch(set(folders[:3])) == set(folders[:3])
        assert watcher._tidying is None
        assert await watcher.watch(set(folders[:1])) == set(folders[:1])
        await until(lambda: watcher._natives[0] is not first)
        assert watcher._natives[0].size == 1
        await until(lambda: len(threads()) == 1)


async def test_many_additions_in_a_row_do_not_pile_up_native_watchers(watcher, tmp_path, monkeypatch):
    monkeypatch.setattr(_watchfiles, "_CROWD", 2)
    at_first = await native_watchers()
    folders, most = make_folders(tmp_path, 12), 0
    async with running(watcher):
        for count in range(1, 13):
            await watcher.watch(set(folders[:count]))
            most = max(most, await native_watchers() - at_first)
    assert most <= 6


async def test_a_folder_made_again_at_once_is_not_taken_for_the_old_one(watcher, tmp_path):
    """Many file systems give it the same inode."""
    folder = tmp_path / "folder"
    folder.mkdir()
    async with running(watcher) as sink:
        await watcher.watch({str(folder)})
        for number in range(4):
            sink.forget()
            folder.rmdir()
            folder.mkdir()
            await sink.until_told(folder)
            assert await watcher.watch({str(folder)}) == {str(folder)}
            sink.forget()
            (folder / f"{number}.md").write_text("one")
            await sink.until_told(folder / f"{number}.md")
            (folder / f"{number}.md").unlink()


async def test_a_name_that_is_not_utf8_is_survived(watcher, tmp_path, caplog):
    """The native watcher answers every call with the same error from then on."""
    async with running(watcher) as sink:
        await watcher.watch({str(tmp_path)})
        for turns in range(1, 4):
            (tmp_path / NOT_UTF8).touch()
            await sink.until(lambda turns=turns: len(sink.doubts) >= turns)
            assert watcher.watched == 1
            sink.forget()
            (tmp_path / f"{turns}.md").write_text("one")
            await sink.until_told(tmp_path / f"{turns}.md")
        assert watcher.restarts == 3
        assert await watcher.watch({str(tmp_path)}) == {str(tmp_path)}
        await until(lambda: len(threads()) == 1)
    assert [record.event for record in caplog.records] == ["watcher.restarted"]


async def test_a_call_that_comes_before_the_restart_arms_and_tells_the_doubt(watcher, tmp_path, monkeypatch):
    monkeypatch.setattr(_watchfiles, "_FIRST_DELAY", 60)
    async with running(watcher) as sink:
        await watcher.watch({str(tmp_path)})
        (tmp_path / NOT_UTF8).touch()
        await until(lambda: watcher.restarts == 1)
        assert watcher.watched == 0
        assert sink.doubts == []
        assert await watcher.watch({str(tmp_path)}) == {str(tmp_path)}
        assert len(sink.doubts) == 1


async def test_a_panic_of_native_code_is_survived_too(watcher, tmp_path, monkeypatch):
    class PanicException(BaseException):
        pass

    read = _native.Native._read

    def panic(self, rust):
        if not watcher.restarts:
            raise PanicException("called `Option::unwrap()` on a `None` value")
        read(self, rust)

    monkeypatch.setattr(_native.Native, "_read", panic)
    async with running(watcher) as sink:
        await watcher.watch({str(tmp_path)})
        await sink.until(lambda: sink.doubts)
        (tmp_path / "a.md").write_text("one")
        await sink.until_told(tmp_path / "a.md")


async def test_a_native_watcher_that_died_while_it_was_armed_does_not_count(watcher, tmp_path, monkeypatch):
    arm = _native.Native.arm

    async def die(self):
        refused = await arm(self)
        if not watcher.restarts:
            watcher._native_died(self, RuntimeError("dead on arrival"))
        return refused

    monkeypatch.setattr(_native.Native, "arm", die)
    async with running(watcher) as sink:
        assert await watcher.watch({str(tmp_path)}) == set()
        await sink.until(lambda: sink.doubts)
        assert watcher.watched == 1
        assert len(watcher._natives) == 1


async def test_a_restart_that_fails_is_tried_again(watcher, tmp_path, monkeypatch):
    arm, failures = _native.Native.arm, []

    async def fail(self):
        if watcher.restarts and len(failures) < 2:
            failures.append(self)
            raise RuntimeError("can't start new thread")
        return await arm(self)

    monkeypatch.setattr(_native.Native, "arm", fail)
    async with running(watcher) as sink:
        await watcher.watch({str(tmp_path)})
        (tmp_path / NOT_UTF8).touch()
        await sink.until(lambda: sink.doubts)
        assert len(failures) == 2
        assert watcher.watched == 1
        assert sink.degradations == [(str(tmp_path), "can't start new thread"), (str(tmp_path), None)]


async def test_a_folder_whose_name_is_not_utf8_is_degraded(watcher, tmp_path):
    (tmp_path / NOT_UTF8).mkdir()
    folder = str(tmp_path / NOT_UTF8)
    async with running(watcher) as sink:
        assert await watcher.watch({folder, str(tmp_path)}) == {str(tmp_path)}
        assert sink.degradations == [(folder, "its name is not UTF-8")]
        await watcher.watch({folder, str(tmp_path)})
        assert len(sink.degradations) == 1
        await watcher.watch({str(tmp_path)})
        assert sink.degradations[1:] == [(folder, None)]


async def test_a_folder_that_vanishes_between_looking_and_arming_is_left_out(watcher, tmp_path, monkeypatch):
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.mkdir()
    gone.mkdir()
    identify = _native.identify

    def vanish(folders):
        found = identify(folders)
        shutil.rmtree(gone, ignore_errors=True)
        return found

    monkeypatch.setattr(_native, "identify", vanish)
    async with running(watcher) as sink:
        assert await watcher.watch({str(here), str(gone)}) == {str(here)}
        assert sink.degradations == []


async def test_a_folder_that_is_replaced_while_it_is_armed_is_armed_again(watcher, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    identify, turns = _native.identify, []

    def replace(folders):
        found = identify(folders)
        if len(turns) < 3:
            folder.rename(tmp_path / f"old {len(turns)}")
            folder.mkdir()
            turns.append(found)
        return found

    monkeypatch.setattr(_native, "identify", replace)
    async with running(watcher) as sink:
        assert await watcher.watch({str(folder)}) == {str(folder)}
        (folder / "a.md").write_text("one")
        await sink.until_told(folder / "a.md")


async def test_a_folder_that_never_holds_still_is_left_out(watcher, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    identify = _native.identify

    def replace(folders):
        found = identify(folders)
        folder.rename(tmp_path / str(time.monotonic_ns()))
        folder.mkdir()
        return found

    async with running(watcher) as sink:
        monkeypatch.setattr(_native, "identify", replace)
        assert await watcher.watch({str(folder)}) == set()
        monkeypatch.undo()
        assert await watcher.watch({str(folder)}) == {str(folder)}
        assert sink.degradations == []


@pytest.fixture
def native(monkeypatch):
    """Lets a test fail the constructor of the native watcher; the real one is given to it."""
    real = rust.RustNotify

    def replace(failing):
        monkeypatch.setattr(rust, "RustNotify", lambda *arguments: failing(*arguments) or real(*arguments))

    return replace


def refuse(folders, debug, force_polling, poll_delay, recursive, ignore_permission_denied):
    if not ignore_permission_denied:
        raise PermissionError("Permission denied (os error 13)")


def test_of_folders_that_cannot_be_read_the_others_are_armed(tmp_path, monkeypatch, native):
    folders = make_folders(tmp_path, 3)
    native(refuse)
    monkeypatch.setattr(_native, "_readable", lambda folder: folder != folders[1])
    opened = _native.open_native(folders)
    assert opened.armed.keys() == {folders[0], folders[2]}
    assert opened.refused == {folders[1]: "permission denied"}
    opened.rust.close()


def test_where_no_folder_can_be_read_none_is_armed(tmp_path, monkeypatch, native):
    folders = make_folders(tmp_path, 2)
    native(refuse)
    monkeypatch.setattr(_native, "_readable", lambda folder: False)
    opened = _native.open_native(folders)
    assert (opened.rust, opened.armed) == (None, {})
    assert opened.refused == dict.fromkeys(folders, "permission denied")


def test_where_nothing_tells_what_was_refused_all_that_can_be_read_counts_as_armed(tmp_path, monkeypatch, native):
    native(refuse)
    monkeypatch.setattr(_native.sys, "platform", "darwin")
    opened = _native.open_native([str(tmp_path)])
    assert opened.armed.keys() == {str(tmp_path)}
    opened.rust.close()


def test_what_the_system_cannot_be_asked_about_counts_as_refused(tmp_path, monkeypatch, native):
    native(refuse)
    monkeypatch.setattr(_native, "_inotify_descriptors", set)
    monkeypatch.setattr(_native, "_limit", str)
    opened = _native.open_native([str(tmp_path)])
    assert (opened.rust, opened.armed) == (None, {})
    assert opened.refused == {str(tmp_path): "the system refused to watch it (Permission denied (os error 13))"}


def test_a_native_watcher_that_cannot_be_made_refuses_all(tmp_path, native):
    def fail(*arguments):
        refuse(*arguments)
        raise rust.WatchfilesRustInternalError("Error creating recommended watcher")

    native(fail)
    opened = _native.open_native([str(tmp_path)])
    assert opened.refused == {str(tmp_path): "Error creating recommended watcher"}


async def test_an_error_nobody_thought_of_refuses_all(watcher, tmp_path, native):
    def fail(*arguments):
        raise LookupError

    native(fail)
    async with running(watcher) as sink:
        assert await watcher.watch({str(tmp_path)}) == set()
        assert sink.degradations == [(str(tmp_path), "LookupError")]


def outcome(program, *arguments, wrapper=(), covered=True):
    # Another user cannot write where the coverage of this one is kept.
    environment = {name: value for name, value in os.environ.items() if covered or not name.startswith("COVERAGE")}
    result = subprocess.run(
        [*wrapper, sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert result.stderr == ""
    return result.stdout.split()


UNREADABLE = """
import asyncio, os, sys
from contracts.watcher import running
from shared_prompt_cache._files.watchers._watchfiles import WatchfilesWatcher

async def main():
    root = sys.argv[1]
    readable, unreadable = root + "/readable", root + "/unreadable"
    watcher = WatchfilesWatcher(merge_after=0.05, retry_after=0.05)
    async with running(watcher) as sink:
        assert await watcher.watch({readable, unreadable, unreadable + "/inner"}) == {readable}
        reason = "permission denied"
        assert set(sink.degradations) == {(unreadable, reason), (unreadable + "/inner", reason)}, sink.degradations
        open(readable + "/a.md", "w").close()
        await sink.until_told(readable + "/a.md")
        os.chmod(unreadable, 0o700)
        await sink.until(lambda: (unreadable, None) in sink.degradations)
        await sink.until_told(unreadable)
        await sink.until(lambda: watcher.watched == 3)
        open(unreadable + "/inner/a.md", "w").close()
        await sink.until_told(unreadable + "/inner/a.md")
        print("done")

if os.getuid() == 0:
    os.chown(sys.argv[1] + "/unreadable", 65534, 65534)
    os.chown(sys.argv[1] + "/unreadable/inner", 65534, 65534)
    os.chown(sys.argv[1] + "/readable", 65534, 65534)
    for folder in reversed([sys.argv[1], *map(str, __import__("pathlib").Path(sys.argv[1]).parents)][:-2]):
        os.chmod(folder, 0o755)
    __import__("watchfiles")
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(main())
"""


def test_an_unreadable_folder_is_degraded_until_it_can_be_read(tmp_path):
    (tmp_path / "readable").mkdir()
    (tmp_path / "unreadable" / "inner").mkdir(parents=True)
    (tmp_path / "unreadable").chmod(0)
    assert outcome(UNREADABLE, str(tmp_path), covered=False) == ["done"]


LIMITED = """
import asyncio, pathlib, sys
from contracts.watcher import running, threads
from shared_prompt_cache._files.watchers._watchfiles import WatchfilesWatcher

LIMIT = pathlib.Path("/proc/sys/user/max_inotify_watches")

async def main():
    root = sys.argv[1]
    folders = [f"{root}/{number}" for number in range(8)]
    watcher = WatchfilesWatcher(merge_after=0.05, retry_after=0.2)
    async with running(watcher) as sink:
        LIMIT.write_text("5")
        assert await watcher.watch(set(folders[:3])) == set(folders[:3])
        armed = await watcher.watch(set(folders))
        assert len(armed) == 5 and armed > set(folders[:3]), armed
        refused = set(folders) - armed
        assert {folder for folder, _ in sink.degradations} == refused
        assert all("fs.inotify.max_user_watches" in reason for _, reason in sink.degradations), sink.degradations
        for folder in folders:
            open(folder + "/a.md", "w").close()
        await sink.until_told(*(folder + "/a.md" for folder in armed))
        await asyncio.sleep(0.3)  # merging cannot succeed and must not lose a folder
        assert watcher.watched == 5
        LIMIT.write_text("100")
        await sink.until(lambda: {f for f, reason in sink.degradations if reason is None} == refused)
        assert await watcher.watch(set(folders)) == set(folders)
        while len(threads()) > 1 or len(watcher._natives) > 1:
            await asyncio.sleep(0.01)
        print("done")

asyncio.run(main())
"""

TOO_MANY = """
import asyncio, pathlib, sys
from contracts.watcher import running
from shared_prompt_cache._files.watchers._watchfiles import WatchfilesWatcher

LIMIT = pathlib.Path("/proc/sys/user/max_inotify_instances")

async def main():
    folders = [f"{sys.argv[1]}/{number}" for number in range(3)]
    watcher = WatchfilesWatcher(merge_after=0.05, retry_after=0.1)
    async with running(watcher) as sink:
        LIMIT.write_text("1")
        assert await watcher.watch({folders[0]}) == {folders[0]}
        assert await watcher.watch(set(folders)) == {folders[0]}
        assert all("fs.inotify.max_user_instances" in reason for _, reason in sink.degradations), sink.degradations
        LIMIT.write_text("100")
        await sink.until(lambda: len(sink.degradations) == 4)
        assert await watcher.watch(set(folders)) == set(folders)
        print("done")

asyncio.run(main())
"""


@pytest.mark.parametrize("program", [LIMITED, TOO_MANY])
def test_at_a_limit_of_the_system_what_is_armed_stays_and_the_rest_is_degraded(tmp_path, program):
    wrapper = ("unshare", "--user", "--map-root-user")
    if not shutil.which("unshare") or subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a user namespace of its own")
    make_folders(tmp_path, 8)
    assert outcome(program, str(tmp_path), wrapper=wrapper) == ["done"]


def test_watchfiles_is_not_imported_before_it_is_used():
    program = (
        f"import sys; from {_watchfiles.__name__} import *; WatchfilesWatcher(); print('watchfiles' in sys.modules)"
    )
    assert outcome(program) == ["False"]


async def test_a_large_batch_is_handed_over_in_portions_between_which_others_run():
    order = []

    class Owner:
        class sink:  # noqa: N801 - an object with one method
            @staticmethod
            def changed(paths):
                order.append(len(paths))

    loop = asyncio.get_running_loop()
    paths = [str(number) for number in range(4_500)]
    loop.call_soon(hand_over, Owner, in_slices(paths))
    loop.call_soon(order.append, "another")
    await until(lambda: len(order) == 4)
    assert order == [2_000, "another", 2_000, 500]
    assert [len(portion) for portion in in_slices(paths[:2_000])] == [2_000]
