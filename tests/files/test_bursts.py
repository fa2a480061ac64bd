"""Many files at once: one batch, each agent once, nothing else; and readers that write do not drive themselves.

Seen to fail on planted bugs: a burst that is not gathered, a comparison that raises what has not changed.
"""

import pytest

from _support import replace, size
from shared_prompt_cache import presets
from shared_prompt_cache.testing import wait_until

AGENTS = [f"agent-{number:02}" for number in range(85)]


@pytest.fixture
async def project(open_cache, tmp_path):
    """A project of 85 agents as claude-mpm lays it out, with a cache over it."""
    for folder in (".claude/agents", ".claude-mpm/memories"):
        (tmp_path / folder).mkdir(parents=True)
    for agent in [*AGENTS, "bystander"]:
        (tmp_path / f".claude/agents/{agent}.md").write_text("edition 0")
    return await open_cache(watch=presets.claude_mpm(tmp_path, home=tmp_path / "home")), tmp_path


@pytest.mark.parametrize("attempt", range(size(3, 20)))
async def test_85_files_are_one_batch_and_each_agent_is_told_once(project, attempt):
    cache, root = project
    for agent in [*AGENTS, "bystander", "pm"]:
        await cache.set_prompt(f"prompt of {agent}", 0, agent=agent, project=root)
    events = []
    cache.events.listen(events.append)
    for agent in AGENTS:  # as a checkout does it, between two passes of the loop
        replace(root / f".claude/agents/{agent}.md", "edition 1")
    await cache.sync()
    await wait_until(lambda: len(events) >= 86)
    await cache.sync()
    assert sorted(event.name for event in events) == sorted([*AGENTS, "pm"])  # pm knows what each of them can do
    assert {(event.scope, event.dropped, event.project) for event in events} == {("agent", 1, str(root))}
    assert cache.get_stats().watcher["batches"] == 1
    assert (await cache.get_prompt("prompt of bystander")).prompt == 0
    assert cache.get_stats().entry_count == 1


async def test_without_sync_a_burst_is_one_batch_as_well(project):
    cache, root = project
    await cache.set_prompt("prompt of bystander", 0, agent="bystander", project=root)
    events = []
    cache.events.listen(events.append)
    for agent in AGENTS:
        replace(root / f".claude/agents/{agent}.md", "edition 1")
    await wait_until(lambda: len(events) >= 86)
    assert cache.get_stats().watcher["batches"] == 1
    assert (await cache.get_prompt("prompt of bystander")).prompt == 0


async def test_a_reader_that_renames_what_it_reads_does_not_drive_itself(project):
    """claude-mpm renames memories of older forms when it reads them, and so does each computation here."""
    cache, root = project
    memories = root / ".claude-mpm" / "memories"
    computed = []

    async def compute():
        computed.append(True)
        for old in await cache.files.glob(memories, "*_agent.md"):
            old.rename(old.with_name(old.name.replace("_agent.md", "_memories.md")))
        found = await cache.files.glob(memories, "*_memories.md")
        return [await cache.files.read_text(path) for path in found]

    for number in range(17):
        (memories / f"agent-{number:02}_agent.md").write_text(f"memory {number}")
    await cache.sync()
    events = []
    cache.events.listen(events.append)
    for _ in range(10):
        prompts = await cache.get_or_compute("all memories", compute, project=root)
        await cache.sync()
    assert len(prompts) == 17
    assert len(computed) <= 3  # the first renames, and what it changed is read once more
    told = len(events)
    assert {event.name for event in events} <= {f"agent-{number:02}" for number in range(17)}
    for _ in range(5):
        assert await cache.get_or_compute("all memories", compute, project=root) == prompts
        await cache.sync()
    assert len(events) == told
    assert len(computed) <= 3
