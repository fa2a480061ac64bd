"""Each folder is watched by what its file system is good for, unless the cache was told what to use.

Seen to fail on planted bugs: events trusted everywhere; a watcher that is started without a folder for it; a folder
that stays with a watcher it no longer belongs to; a look at the mounts on the loop; and one of the two watchers that is
never closed.
"""

import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.watcher import RecordingSink
from shared_prompt_cache import ConfigError, ConfigTypeError, SharedPromptCache, WatchRule
from shared_prompt_cache._files.watchers import choice
from shared_prompt_cache._files.watchers.choice import AutoWatcher, choose
from shared_prompt_cache._mounts import MountTable
from shared_prompt_cache.testing import FakeWatcher, wait_until

MOUNTED = """
1 0 0:1 / / rw - ext4 /dev/vda rw
2 1 0:2 / {root}/nfs rw - nfs4 server:/ rw
3 1 0:3 / {root}/fuse rw - fuse.sshfs server: rw
4 1 0:4 / {root}/proc rw - proc proc rw
"""


@pytest.fixture
async def in_thread():
    with ThreadPoolExecutor(1, "a test") as executor:

        async def run(function, *args):
            return await asyncio.get_running_loop().run_in_executor(executor, functools.partial(function, *args))

        yield run


@pytest.fixture
async def watcher(in_thread):
    return AutoWatcher(in_thread)


@pytest.fixture
def made(monkeypatch):
    """Put fake watchers in the place of both kinds, and return those that are made, by kind."""
    found = {"watchfiles": [], "polling": []}

    def make(kind):
        found[kind].append(FakeWatcher())
        return found[kind][-1]

    monkeypatch.setattr(choice, "_native", lambda: make("watchfiles"))
    monkeypatch.setattr(choice, "_polling", lambda: make("polling"))
    return found


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Return folders by the kind of file system that is mounted there."""
    root = tmp_path.resolve()
    table = MountTable(lambda: MOUNTED.format(root=root))
    monkeypatch.setattr(choice, "events_trusted", table.events_trusted)
    folders = {name: root / name for name in ("local", "nfs", "fuse", "proc")}
    for folder in folders.values():
        folder.mkdir()
    return {name: str(folder) for name, folder in folders.items()}


def watched(made):
    """Return what each of the watchers that were made watches."""
    return {kind: [set(watcher.watched) for watcher in watchers] for kind, watchers in made.items()}


async def test_folders_are_polled_where_events_cannot_be_trusted(watcher, made, mounted):
    await watcher.start(RecordingSink())
    assert await watcher.watch(set(mounted.values())) == set(mounted.values())
    assert watched(made) == {
        "watchfiles": [{mounted["local"]}],
        "polling": [{mounted["nfs"], mounted["fuse"], mounted["proc"]}],
    }
    await watcher.aclose()


async def test_a_watcher_is_started_when_a_folder_needs_it(watcher, made, mounted):
    await watcher.start(RecordingSink())
    assert await watcher.watch(set()) == set()
    assert watched(made) == {"watchfiles": [], "polling": []}
    await watcher.watch({mounted["local"]})
    assert watched(made) == {"watchfiles": [{mounted["local"]}], "polling": []}
    await watcher.watch({mounted["nfs"]})
    assert watched(made) == {"watchfiles": [set()], "polling": [{mounted["nfs"]}]}
    await watcher.watch({mounted["local"]})
    assert watched(made) == {"watchfiles": [{mounted["local"]}], "polling": [set()]}
    await watcher.aclose()


async def test_what_neither_can_watch_is_left_out(watcher, made, mounted):
    await watcher.start(RecordingSink())
    await watcher.watch({mounted["local"], mounted["nfs"]})
    made["watchfiles"][0].refused.add(mounted["local"])
    assert await watcher.watch({mounted["local"], mounted["nfs"]}) == {mounted["nfs"]}
    made["polling"][0].refused.add(mounted["nfs"])
    assert await watcher.watch({mounted["local"], mounted["nfs"]}) == set()
    await watcher.aclose()


async def test_what_either_tells_reaches_the_sink(watcher, made, mounted):
    sink = RecordingSink()
    await watcher.start(sink)
    await watcher.watch({mounted["local"], mounted["nfs"]})
    for kind, name in (("watchfiles", "local"), ("polling", "nfs")):
        made[kind][0].push(f"{mounted[name]}/a.md")
        made[kind][0].lose(kind)
    assert sink.paths == [f"{mounted['local']}/a.md", f"{mounted['nfs']}/a.md"]
    assert sink.doubts == ["watchfiles", "polling"]
    watcher.drain()
    assert not watcher.exact
    await watcher.aclose()


async def test_closed_both_are_and_it_can_be_started_again(watcher, made, mounted):
    await watcher.aclose()
    for _ in range(2):
        await watcher.start(RecordingSink())
        await watcher.watch(set(mounted.values()))
        await watcher.aclose()
    assert [len(watchers) for watchers in made.values()] == [2, 2]
    assert not any(each._sink for watchers in made.values() for each in watchers)


async def test_mounts_are_not_looked_at_on_the_loop(watcher, made, mounted, monkeypatch):
    """P8: a mount whose server is gone answers late."""
    threads = set()
    trusted = choice.events_trusted

    def noted(folder):
        threads.add(threading.current_thread())
        return trusted(folder)

    monkeypatch.setattr(choice, "events_trusted", noted)
    await watcher.start(RecordingSink())
    await watcher.watch(set(mounted.values()))
    assert threads
    assert threading.current_thread() not in threads
    await watcher.aclose()


async def test_a_change_on_such_a_mount_invalidates(open_cache, made, mounted, tmp_path):
    memory = tmp_path.resolve() / "nfs" / "engineer.md"
    memory.write_text("one")
    cache = await open_cache(watch=[WatchRule(mounted["nfs"], "{agent}.md", "agent")])
    await cache.set_prompt("of engineer", "prompt", agent="engineer")
    memory.write_text("two")
    made["polling"][0].push(memory)
    await wait_until(lambda: cache.get_stats().entry_count == 0)
    assert cache.get_stats().watcher["name"] == "auto"


# What it is told to use


@pytest.mark.parametrize("kind", ["auto", "watchfiles", "polling"])
async def test_a_name_chooses_its_kind_wherever_the_folders_lie(in_thread, kind):
    assert choose(kind, in_thread).name == kind


async def test_a_watcher_that_is_given_is_used(in_thread):
    watcher = FakeWatcher()
    assert choose(watcher, in_thread) is watcher


@pytest.mark.parametrize("watcher", ["inotify", "", "AUTO"])
async def test_a_name_that_names_none_is_refused_by_the_cache(watcher):
    """T17."""
    with pytest.raises(ConfigError, match="watcher is"):
        SharedPromptCache(watcher=watcher)


@pytest.mark.parametrize("watcher", [3, b"auto", object(), None])
async def test_what_is_no_watcher_is_refused_when_it_is_needed(watcher, tmp_path):
    """T17."""
    cache = SharedPromptCache(watch=[WatchRule(tmp_path, "*", "all")], watcher=watcher)
    with pytest.raises(ConfigTypeError, match="give 'auto', 'watchfiles', 'polling' or a watcher") as caught:
        await cache.start()
    assert caught.value.field == "watcher"
    await cache.aclose()
