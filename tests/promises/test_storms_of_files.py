"""T8: storms, overflow, roots that vanish, watchers that die: afterwards nothing is missed, and health says why.

The storm and the roots are real; that events were lost is told by a fake watcher, or by the death of the real one. Seen
to fail on planted bugs: lost events that lead to no comparison, a watcher that is not replaced when it has died.
"""

import asyncio
import os
import shutil

import pytest

from _support import replace, size
from shared_prompt_cache import WatchRule
from shared_prompt_cache._files import heartbeat
from shared_prompt_cache.testing import FakeWatcher, wait_until

FILES = size(1_500, 20_000)
TIMES = size(1, 10)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "memories"
    folder.mkdir()
    for number in range(10):
        (folder / f"agent-{number}.md").write_text("old")
    return folder


def rules(root):
    return [WatchRule(root, "**/{agent}.md", "agent")]


async def fill(cache):
    for number in range(10):
        await cache.set_prompt(f"prompt {number}", "old", agent=f"agent-{number}")


async def left(cache):
    return [number for number in range(10) if await cache.get_prompt(f"prompt {number}") is not None]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("attempt", range(TIMES))
async def test_a_storm_of_files_hides_no_edit(open_cache, root, attempt):
    cache = await open_cache(watch=rules(root))
    await fill(cache)

    def storm():
        for number in range(FILES):
            (root / f"other-{number}.txt").write_text("nobody's concern")
            if number == FILES // 2:
                replace(root / "agent-3.md", "new")

    await asyncio.to_thread(storm)
    await cache.sync()
    assert await left(cache) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    replace(root / "agent-4.md", "new")
    await wait_until(lambda: cache.get_stats().invalidations.get("agent", 0) >= 2)
    assert await left(cache) == [0, 1, 2, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("attempt", range(TIMES))
async def test_lost_events_lead_to_a_look_at_everything(open_cache, root, attempt):
    watcher = FakeWatcher()
    cache = await open_cache(watch=rules(root), watcher=watcher)
    await fill(cache)
    replace(root / "agent-3.md", "new")  # nobody tells of it
    (root / "agent-4.md").unlink()
    os.utime(root / "agent-5.md")
    watcher.lose("the queue of events overflowed")
    assert await left(cache) == [0, 1, 2, 5, 6, 7, 8, 9]
    told = cache.health().parts["watcher"]
    assert (told.status, told.reason) == ("ok", "the queue of events overflowed")
    assert told.since is not None


@pytest.mark.parametrize("attempt", range(TIMES))
async def test_a_root_that_is_removed_and_made_again_is_watched_again(open_cache, root, monkeypatch, attempt):
    monkeypatch.setattr(heartbeat, "TICK", 0.02)
    cache = await open_cache(watch=rules(root))
    await fill(cache)
    await asyncio.to_thread(shutil.rmtree, root)
    root.mkdir()
    for number in range(10):
        (root / f"agent-{number}.md").write_text("new" if number < 5 else "old")
    await cache.sync()
    assert set(await left(cache)) <= {5, 6, 7, 8, 9}  # what has its old content may stay
    await wait_until(lambda: str(root) in cache._proofs.armed)
    await fill(cache)
    told = cache.get_stats().invalidations["agent"]
    replace(root / "agent-7.md", "newer")
    await wait_until(lambda: cache.get_stats().invalidations["agent"] > told)
    assert 7 not in await left(cache)


@pytest.mark.parametrize("attempt", range(TIMES))
async def test_a_watcher_that_dies_is_replaced_and_what_it_missed_is_found(open_cache, root, attempt):
    cache = await open_cache(watch=rules(root))
    await fill(cache)
    # A name that is not UTF-8 kills the native watcher for ever.
    root.joinpath(os.fsdecode(b"not-\xff-text")).touch()
    await wait_until(lambda: "restarted" in (cache.health().parts["watcher"].reason or ""), timeout=20)
    await wait_until(lambda: str(root) in cache._proofs.armed, timeout=20)
    replace(root / "agent-3.md", "new")
    await wait_until(lambda: cache.get_stats().invalidations.get("agent", 0) >= 1, timeout=20)
    assert 3 not in await left(cache)
    assert 4 in await left(cache)
    assert cache.health().status == "ok"
