"""F15, F24 and F30: processes that are stopped, limits of the system, names that are no text, abrupt ends.

What a machine may not be able to refuse is refused by a fake of the system call; each test says so. Seen to fail on
planted bugs: a pause that nobody notices, refused folders at which nobody looks, a watcher whose thread
outlives its loop, threads that a close forgets.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace as changed

import pytest

from _support import replace, size
from _watched import dropped, fill, hasten, rules
from shared_prompt_cache._files.watchers import _native
from shared_prompt_cache._files.watchers._watchfiles import WatchfilesWatcher
from shared_prompt_cache.testing import wait_until

NOT_TEXT = os.fsdecode(b"not-\xff-text")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for agent in ("engineer", "qa"):
        (folder / f"{agent}.md").write_text("old")
    return folder


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


async def read(cache, path):
    async def compute():
        return await cache.files.read_text(path)

    return await cache.get_or_compute(f"made from {path}", compute)


async def gone(cache, *agents):
    return await dropped(cache, *agents) == {*agents}


# F15

STOPPED = """
import asyncio, json, sys
from pathlib import Path
from shared_prompt_cache import SharedPromptCache, WatchRule

async def main(root, freshness):
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    rule = WatchRule(root, "{agent}.md", "agent")
    async with SharedPromptCache(watch=[rule], freshness=freshness) as cache:
        async def compute():
            return await cache.files.read_text(root / "engineer.md")

        assert await cache.get_or_compute("made from it", compute) == "old"
        await cache.set_prompt("of its agent", "old", agent="engineer")
        await cache.set_prompt("of another", "kept", agent="qa")
        await cache.sync()
        await cache.get_or_compute("made from it", compute)
        loop.add_reader(0, asked.set)
        print("ready", flush=True)
        await asyncio.wait_for(asked.wait(), 100)
        found = [await cache.get_prompt(key) for key in ("made from it", "of its agent", "of another")]
        told = cache.health().parts["watcher"]
        print(json.dumps({
            "found": [None if each is None else each.prompt for each in found],
            "new": await cache.get_or_compute("made from it", compute),
            "reason": told.reason,
            "pauses": cache.get_stats().watcher["pauses"],
        }))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("freshness", ["strict", "events"])
def test_f15_the_first_read_after_a_stop_is_new_and_health_counts_the_pause(root, freshness):
    """The queue of the system holds 16,384 events, some three for each file: that of the edit is lost."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, root, freshness],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
            stopped_at = time.monotonic()
            for number in range(size(8_000, 40_000)):
                (root / f"other-{number}.txt").touch()
            replace(root / "engineer.md", "new")
            time.sleep(max(0.0, stopped_at + 1 - time.monotonic()))  # a stop that is short loses nothing
            process.stdin.write("read\n")
            process.stdin.flush()
            process.send_signal(signal.SIGCONT)
            told = json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGCONT)
    assert told["found"] == [None, None, "kept"]
    assert told["new"] == "new"
    assert told["pauses"] >= 1
    assert "the loop did not run for" in told["reason"]


# F24


async def test_f24_names_that_are_not_text_hide_nothing(open_cache, root, monkeypatch):
    hasten(monkeypatch)
    (root / NOT_TEXT).mkdir()
    (root / NOT_TEXT / "ops.md").write_text("old")
    (root / f"{NOT_TEXT}.md").write_text("old")
    cache = await open_cache(watch=rules(root))
    assert cache.health().parts[f"folder:{root / NOT_TEXT}"].status == "degraded"
    assert await read(cache, root / NOT_TEXT / "ops.md") == "old"
    await fill(cache, "ops", "qa", "engineer")
    replace(root / NOT_TEXT / "ops.md", "new")
    assert await read(cache, root / NOT_TEXT / "ops.md") == "new"
    await wait_until(lambda: gone(cache, "ops"), timeout=20)
    replace(root / "qa.md", "new")
    await wait_until(lambda: gone(cache, "qa"), timeout=20)
    assert await dropped(cache, "engineer") == set()


async def test_f24_an_unreadable_folder_is_said_and_nothing_in_it_is_stale(open_cache, root, monkeypatch):
    """As root every folder can be read; so the listing of it is refused."""
    inner = root / "inner"
    inner.mkdir()
    (inner / "ops.md").write_text("old")
    scandir = os.scandir

    def refuse(path):
        if path == str(inner):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        cache = await open_cache(watch=rules(root))
        assert cache.health().parts[f"folder:{inner}"].reason == "it cannot be read"
        assert cache.health().status == "degraded"
        assert await read(cache, inner / "ops.md") == "old"
        replace(inner / "ops.md", "new")
        assert await read(cache, inner / "ops.md") == "new"
        await fill(cache, "qa")
        replace(root / "qa.md", "new")
        await wait_until(lambda: gone(cache, "qa"))
    await fill(cache, "ops")
    inner.chmod(0o755 if inner.stat().st_mode & 0o777 == 0o700 else 0o700)  # what the parent of the folder is told
    await wait_until(lambda: cache.health().status == "ok")
    assert await gone(cache, "ops")  # it is new to the rules


@pytest.mark.parametrize("when", ["at the start", "later"])
async def test_f24_at_the_limit_of_watches_what_is_not_watched_is_looked_at(open_cache, root, monkeypatch, when):
    """The limit is faked where the native watcher is opened: it refuses one folder."""
    hasten(monkeypatch)
    more = root / "more"
    beyond = {str(more)}
    open_native = _native.open_native

    def open_some(folders):
        refused = dict.fromkeys(beyond.intersection(folders), "the limit fs.inotify.max_user_watches is 1")
        opened = open_native([folder for folder in folders if folder not in beyond])
        return changed(opened, refused=opened.refused | refused)

    monkeypatch.setattr(_native, "open_native", open_some)
    if when == "at the start":
        more.mkdir()
    watcher = WatchfilesWatcher(merge_after=0.05, retry_after=0.05)
    cache = await open_cache(watch=rules(root), watcher=watcher, freshness="events")
    more.mkdir(exist_ok=True)
    (more / "ops.md").write_text("version 0")
    await wait_until(lambda: f"folder:{more}" in cache.health().parts, timeout=20)
    assert "max_user_watches" in cache.health().parts[f"folder:{more}"].reason
    assert cache.health().status == "degraded"
    for version in range(1, 4):
        await fill(cache, "ops")
        replace(more / "ops.md", f"version {version}")
        assert await read(cache, more / "ops.md") == f"version {version}"
        await wait_until(lambda: gone(cache, "ops"), timeout=20)
    beyond.clear()
    await wait_until(lambda: cache.health().status == "ok", timeout=20)
    await fill(cache, "ops")
    replace(more / "ops.md", "last")
    await wait_until(lambda: gone(cache, "ops"), timeout=20)


# F30

ENDINGS = {
    "cancelled": """
async def cancelled():
    task = asyncio.ensure_future(used())
    await ready.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await ended(), threading.enumerate()
    left()
asyncio.run(cancelled())
""",
    "loop closed": """
loop = asyncio.new_event_loop()
loop.run_until_complete(used(forever=False, close=False))
for task in asyncio.all_tasks(loop):
    task.cancel()
loop.run_until_complete(asyncio.sleep(0))
loop.close()
until = time.monotonic() + 10
while watchers() and time.monotonic() < until:
    time.sleep(0.001)
assert not watchers(), watchers()
left()
""",
    "interpreter exits": """
async def exits():
    await used(forever=False, close=False)
    left()
    raise SystemExit(0)
asyncio.run(exits())
""",
}

USE = """
import asyncio, sys, threading, time
from pathlib import Path
from shared_prompt_cache import SharedPromptCache, presets
ready = asyncio.Event()
kept = []

def left():
    print(time.time(), flush=True)

def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("shared-prompt-cache")]

def watchers():
    return [thread for thread in threads() if "watchfiles" in thread.name]

async def ended():
    until = time.monotonic() + 10
    while threads() and time.monotonic() < until:
        await asyncio.sleep(0.001)
    return not threads()

async def used(forever=True, close=True):
    root = Path(sys.argv[1])
    cache = SharedPromptCache(watch=presets.claude_code(root, home=root / "home"), freshness="events")
    kept.append(cache)
    await cache.start()
    try:
        await cache.get_or_compute("prompt", lambda: cache.files.read_text(root / "qa.md"))
        assert watchers() and len(threads()) > 1
        ready.set()
        if forever:
            await asyncio.Event().wait()
    finally:
        if close:
            await cache.aclose()
"""


@pytest.mark.parametrize("ending", ENDINGS)
def test_f30_no_end_is_held_up_and_none_leaves_a_word(root, ending):
    program = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE + ENDINGS[ending], root],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    ended_at = time.time()
    assert (program.returncode, program.stderr) == (0, "")
    assert ended_at - float(program.stdout) < size(10, 1)
