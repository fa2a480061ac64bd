"""Every way in which programs edit a file is seen: by the next read, and by the rules that match the file.

Seen to fail on planted bugs: a fingerprint without ctime ("restored mtime"), a watcher that watches the file and not
its folder (every replacement, from the second edit on), a comparison that trusts a fingerprint before it has settled.
"""

import os
from functools import partial

import pytest

from _edits import EDITS, HARMLESS, UNSEEN
from _support import size
from shared_prompt_cache import WatchRule, presets
from shared_prompt_cache.testing import wait_until

TIMES = size(2, 20)


@pytest.fixture
def project(tmp_path):
    memories = tmp_path / ".claude-mpm" / "memories"
    memories.mkdir(parents=True)
    for agent in ("engineer", "qa"):
        memories.joinpath(f"{agent}_memories.md").write_text("version 0\n")
    return tmp_path


def memory(project, agent):
    return project / ".claude-mpm" / "memories" / f"{agent}_memories.md"


def at_least(count, events):
    return len(events) >= count


async def prompt(cache, project, agent):
    async def compute():
        return await cache.files.read_text(memory(project, agent))

    return await cache.get_or_compute(f"prompt of {agent}", compute)


@pytest.mark.parametrize("style", EDITS)
async def test_the_next_read_is_new(open_cache, project, style):
    """F1, F2, F3, F12."""
    cache = await open_cache()
    assert await prompt(cache, project, "engineer") == "version 0\n"
    for version in range(1, TIMES + 1):
        EDITS[style](memory(project, "engineer"), f"version {version}\n")
        assert await prompt(cache, project, "engineer") == f"version {version}\n"
        assert await prompt(cache, project, "qa") == "version 0\n"
    assert cache.get_stats().computations == TIMES + 2


@pytest.mark.parametrize("style", sorted(EDITS.keys() - UNSEEN))
async def test_rules_see_each_edit_once_and_drop_what_they_name(open_cache, project, style):
    cache = await open_cache(watch=presets.claude_mpm(project))
    events = []
    cache.events.listen(events.append)
    for version in range(1, TIMES + 1):
        await cache.set_prompt("of engineer", version, agent="engineer", project=project)
        await cache.set_prompt("of qa", version, agent="qa", project=project)
        EDITS[style](memory(project, "engineer"), f"version {version}\n")
        await wait_until(partial(at_least, version, events), what=f"event {version}")
        assert await cache.get_prompt("of engineer") is None
        assert (await cache.get_prompt("of qa")).prompt == version
    await cache.sync()
    assert {(event.scope, event.name, event.project) for event in events} == {("agent", "engineer", str(project))}
    assert {os.fspath(event.cause.path) for event in events} == {str(memory(project, "engineer"))}
    if style not in {"append", "vim", "delete and create", "truncate and write", "restored mtime", "sed -i"}:
        assert len(events) == TIMES  # the others pass through a state that is a change of its own


@pytest.mark.parametrize("style", EDITS)
async def test_with_events_alone_a_read_after_sync_is_new(open_cache, project, style):
    cache = await open_cache(watch=presets.claude_mpm(project), freshness="events")
    await prompt(cache, project, "engineer")
    for version in range(1, TIMES + 1):
        EDITS[style](memory(project, "engineer"), f"version {version}\n")
        await cache.sync()
        assert await prompt(cache, project, "engineer") == f"version {version}\n"


@pytest.mark.parametrize("style", ["in place", "rename from inside", "vim", "retargeted symlink"])
async def test_polling_sees_them_too(open_cache, project, style):
    rule = WatchRule(project / ".claude-mpm" / "memories", "{agent}_memories.md", "agent")
    cache = await open_cache(watch=[rule], watcher="polling")
    await cache.set_prompt("of engineer", 0, agent="engineer")
    EDITS[style](memory(project, "engineer"), "version 1\n")
    await cache.sync()
    assert await cache.get_prompt("of engineer") is None


@pytest.mark.parametrize("style", HARMLESS)
async def test_what_leaves_the_content_alone_recomputes_nothing(open_cache, project, style):
    """F6, for a few."""
    cache = await open_cache(watch=presets.claude_mpm(project))
    events = []
    cache.events.listen(events.append)
    for agent in ("engineer", "qa"):
        await prompt(cache, project, agent)
        await cache.set_prompt(f"of {agent}", "kept", agent=agent, project=project)
    for _ in range(TIMES):
        for agent in ("engineer", "qa"):
            HARMLESS[style](memory(project, agent))
        await cache.sync()
        for agent in ("engineer", "qa"):
            assert await prompt(cache, project, agent) == "version 0\n"
            assert (await cache.get_prompt(f"of {agent}")).prompt == "kept"
    assert cache.get_stats().computations == 2
    assert events == []
