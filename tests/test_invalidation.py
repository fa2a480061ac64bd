"""What each way of invalidating selects, what it counts, and what the event says.

Seen to fail on planted bugs: agents compared as they are written; a project's events that leave entries of no project
alone; an agent's invalidation in one project that reaches all; a project known by its path alone; a pattern without
regard to case; a folder that takes its neighbour with the longer name; a soft invalidation that removes; an event
without its project; a key's invalidation that does not count what was made from it.
"""

import asyncio
import os
from pathlib import Path

import pytest

from _support import Counted
from _ways import KEY, WAYS, invalidate, options
from shared_prompt_cache import ApiCall, FileChange, SharedPromptCache, WatchRule, glob_escape, presets
from shared_prompt_cache.testing import FakeWatcher, ManualClock, wait_until


async def fill(cache, entries):
    """Store a value for each key, with these labels."""
    for key, labels in entries.items():
        await cache.set_prompt(key, "prompt", **labels)


async def left(cache, entries):
    """Return which of the keys are still there."""
    return set(await cache.get_many(entries))


async def gone(cache, entries, invalidating):
    """Fill the cache, invalidate, and return which keys went; the count must say the same."""
    await fill(cache, entries)
    count = await invalidating
    went = set(entries) - await left(cache, entries)
    assert count == len(went)
    await cache.clear()
    return went


# Agents.

SPELLINGS = ["Python_Engineer", "python-engineer-agent", "python engineer", "agents/python__engineer.md"]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_agents_are_compared_normalised(cache, spelling):
    entries = {f"of {other}": {"agent": other} for other in SPELLINGS}
    others = {f"of {other}": {"agent": other} for other in ("engineer", "data-engineer", "python", "pythonengineer")}
    assert await gone(cache, entries | others, cache.invalidate_agent(spelling)) == set(entries)
    assert await gone(cache, entries | others, cache.invalidate_agent("engineer")) == {"of engineer"}


async def test_the_agent_and_the_project_may_stand_in_the_metadata(cache):
    entries = {
        "a": {"metadata": {"agent": "engineer", "version": "1.0"}},
        "b": {"metadata": {"agent": "engineer"}, "agent": "qa"},  # the parameter goes first
        "c": {"metadata": {"agent": 5, "project": None}},  # not what names one
        "d": {"metadata": {"agent": " ", "project": ""}},
    }
    assert await gone(cache, entries, cache.invalidate_agent("engineer")) == {"a"}
    entries = {
        "a": {"metadata": {"project": "web"}},
        "b": {"metadata": {"project": "web"}, "project": "shop"},
        "c": {"metadata": {"project": Path("/srv/web")}},
    }
    assert await gone(cache, entries, cache.invalidate_project("web")) == {"a", "c"}


IN_PROJECTS = {
    "in web": {"agent": "engineer", "project": "web"},
    "in shop": {"agent": "engineer", "project": "shop"},
    "in none": {"agent": "engineer"},
    "of qa": {"agent": "qa", "project": "web"},
    "of nobody": {"project": "web"},
    "bare": {},
}


async def test_an_agent_without_a_project_is_meant_in_every_project(cache):
    went = await gone(cache, IN_PROJECTS, cache.invalidate_agent("engineer"))
    assert went == {"in web", "in shop", "in none"}


async def test_an_agent_in_a_project_is_meant_there_and_where_no_project_is_named(cache):
    assert await gone(cache, IN_PROJECTS, cache.invalidate_agent("engineer", "web")) == {"in web", "in none"}


async def test_a_project_takes_its_entries_and_those_that_name_none(cache):
    went = await gone(cache, IN_PROJECTS, cache.invalidate_project("web"))
    assert went == {"in web", "in none", "of qa", "of nobody", "bare"}


SHAPES = {
    "python-engineer_1": True,
    "python_engineer:x": True,
    "Python_Engineer-x": True,
    "memory_python-engineer_processed": True,
    "MEMORY-python_engineer-x": True,
    "python-engineer": False,
    "python-engineers_1": False,
    "engineer_1": False,
    "data_python-engineer_1": False,
    "memory_python-engineer": False,
}


@pytest.mark.parametrize("project", [None, "web"])
async def test_without_an_agent_the_shape_of_the_key_names_it(cache, project):
    entries = {key: {} for key in SHAPES}
    went = await gone(cache, entries, cache.invalidate_agent("Python_Engineer", project))
    assert went == {key for key, named in SHAPES.items() if named}


async def test_the_shape_counts_only_where_the_project_fits_and_no_agent_is_named(cache):
    entries = {
        "engineer_1": {"project": "web"},
        "engineer_2": {"project": "shop"},
        "engineer_3": {},
        "engineer_4": {"agent": "qa"},
        "engineer_5": {"agent": "qa", "project": "web"},
    }
    assert await gone(cache, entries, cache.invalidate_agent("engineer", "web")) == {"engineer_1", "engineer_3"}
    went = await gone(cache, entries, cache.invalidate_agent("engineer"))
    assert went == {"engineer_1", "engineer_2", "engineer_3"}


async def test_shapes_of_agents_outside_ascii(cache):
    entries = {"ingénieur_1": {}, "INGÉNIEUR_2": {}, "ingenieur_3": {}}
    assert await gone(cache, entries, cache.invalidate_agent("Ingénieur")) == {"ingénieur_1", "INGÉNIEUR_2"}


# Projects.


@pytest.fixture
def web(tmp_path):
    """A project whose folder is called web, and another of that name."""
    for folder in ("a/web", "b/web", "a/webby"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path / "a" / "web"


def places(web):
    top = web.parent.parent
    return {
        "by path": {"project": web},
        "by text": {"project": f"{web}/"},
        "by detour": {"project": top / "b" / ".." / "a" / "web"},
        "by name": {"project": "web"},
        "the other": {"project": top / "b" / "web"},
        "longer": {"project": top / "a" / "webby"},
    }


ONE = {"by path", "by text", "by detour", "by name"}


@pytest.mark.parametrize("spelling", ["by path", "by text", "by detour"])
async def test_a_project_is_known_by_its_resolved_path_and_by_the_name_of_its_folder(cache, web, spelling):
    entries = places(web)
    assert await gone(cache, entries, cache.invalidate_project(entries[spelling]["project"])) == ONE


async def test_the_name_of_a_folder_means_every_project_of_that_name(cache, web):
    assert await gone(cache, places(web), cache.invalidate_project("web")) == ONE | {"the other"}


async def test_relative_paths_are_those_of_the_moment(cache, web, monkeypatch):
    top = web.parent.parent
    monkeypatch.chdir(top / "a")
    await cache.set_prompt("in a", "prompt", project=Path("web"))
    monkeypatch.chdir(top / "b")
    await cache.set_prompt("in b", "prompt", project="./web")
    assert await cache.invalidate_project(Path("web")) == 1
    assert await left(cache, ["in a", "in b"]) == {"in a"}
    assert await cache.invalidate_project(web) == 1


async def test_a_project_is_known_by_the_name_that_its_rules_give_it(open_cache, web):
    cache = await open_cache(watch=presets.claude_mpm(web, project="frontend"), watcher=FakeWatcher())
    entries = places(web) | {"by given name": {"project": "frontend"}, "another": {"project": "backend"}}
    for project in (web, "frontend"):
        assert await gone(cache, entries, cache.invalidate_project(project)) == ONE | {"by given name"}
    went = await gone(cache, entries, cache.invalidate_project("web"))
    assert went == ONE | {"by given name", "the other"}
    labelled = {key: {"agent": "engineer", **labels} for key, labels in entries.items()}
    assert await gone(cache, labelled, cache.invalidate_agent("engineer", "frontend")) == ONE | {"by given name"}


async def test_events_of_rules_reach_the_project_under_all_its_names(open_cache, web):
    watcher = FakeWatcher()
    memory = web / ".claude-mpm" / "memories" / "engineer_memories.md"
    memory.parent.mkdir(parents=True)
    cache = await open_cache(watch=presets.claude_mpm(web, project="frontend"), watcher=watcher)
    entries = {key: {"agent": "engineer", **labels} for key, labels in places(web).items()}
    entries |= {"by given name": {"agent": "engineer", "project": "frontend"}, "in none": {"agent": "engineer"}}
    await fill(cache, entries)
    subscription = cache.events.subscribe()
    memory.write_text("- use tabs\n")
    watcher.push(memory)
    await cache.sync()
    assert set(entries) - await left(cache, entries) == ONE | {"by given name", "in none"}
    event = await anext(subscription)
    assert (event.scope, event.name, event.project) == ("agent", "engineer", str(web))
    assert event.cause == FileChange(path=memory, kind="added")
    assert event.dropped == len(ONE) + 2
    assert str(event) == f"invalidated the agent 'engineer' in the project {str(web)!r}"
    assert str(event.cause) == f"the file {memory} was added"


# Tags, patterns, files.


async def test_tags_are_compared_as_they_are(cache):
    entries = {"a": {"tags": ["x"]}, "b": {"tags": ["x", "y"]}, "c": {"tags": ["X"]}, "d": {"tags": ["x "]}, "e": {}}
    assert await gone(cache, entries, cache.invalidate_tag("x")) == {"a", "b"}


KEYS = ["plan_1", "plan_22", "Plan_1", "plans", "plan*", "plan[1]", "a plan_1", "plan\n1"]


@pytest.mark.parametrize(
    ("pattern", "selected"),
    [
        ("plan_*", {"plan_1", "plan_22"}),
        ("plan_?", {"plan_1"}),
        ("plan_[0-9]", {"plan_1"}),
        ("plan_[!1]*", {"plan_22"}),
        ("*_1", {"plan_1", "Plan_1", "a plan_1"}),
        ("[Pp]lan_1", {"plan_1", "Plan_1"}),
        ("plan", set()),
        ("plan?1", {"plan_1", "plan\n1"}),
        ("*", set(KEYS)),
        (glob_escape("plan*"), {"plan*"}),
        (glob_escape("plan[1]"), {"plan[1]"}),
        (glob_escape("plan") + "*", {"plan_1", "plan_22", "plans", "plan*", "plan[1]", "plan\n1"}),
    ],
)
async def test_patterns_are_shell_globs_over_whole_keys(cache, pattern, selected):
    assert await gone(cache, {key: {} for key in KEYS}, cache.invalidate_pattern(pattern)) == selected


@pytest.fixture
def tree(tmp_path):
    for name in ("docs/a.md", "docs/deep/b.md", "docs2/a.md", "docs.md"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "selected"),
    [
        ("docs/a.md", {"docs/a.md", "both"}),
        ("docs", {"docs/a.md", "docs/deep/b.md", "both"}),
        ("docs/", {"docs/a.md", "docs/deep/b.md", "both"}),
        ("docs2/../docs/deep", {"docs/deep/b.md"}),
        (".", {"docs/a.md", "docs/deep/b.md", "docs2/a.md", "docs.md", "both"}),
        ("doc", set()),
        ("docs/missing.md", set()),
    ],
)
async def test_a_file_takes_what_was_made_from_it_and_a_folder_what_lies_below(cache, tree, path, selected):
    made = ("docs/a.md", "docs/deep/b.md", "docs2/a.md", "docs.md")
    entries = {name: {"depends_on": tree / name} for name in made}
    entries |= {"both": {"depends_on": [tree / "docs2" / "a.md", tree / "docs" / "a.md"]}, "neither": {}}
    if path == "docs2/a.md":
        selected = {*selected, "both"}
    assert await gone(cache, entries, cache.invalidate_file(os.path.join(tree, path))) == selected  # noqa: PTH118


async def test_a_relative_file_is_looked_for_where_the_program_is(cache, tree, monkeypatch):
    monkeypatch.chdir(tree)
    await cache.set_prompt("a", "prompt", depends_on="docs.md")
    monkeypatch.chdir(tree / "docs")
    assert await cache.invalidate_file("docs.md") == 0
    assert await cache.invalidate_file("../docs.md") == 1


# Counts, soft, events.


@pytest.mark.parametrize("way", WAYS)
async def test_the_count_is_of_what_was_dropped_here(cache, tmp_path, way):
    file = tmp_path / "memory.md"
    file.write_text("- use tabs\n")
    assert await invalidate(cache, way, file) == 0
    await cache.get_or_compute(KEY, Counted("prompt"), **options(file))
    assert await invalidate(cache, way, file) == 1
    assert await invalidate(cache, way, file) == 0
    assert cache.get_stats().invalidations == {way: 3}


async def test_the_count_leaves_out_what_had_expired(open_cache):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    await cache.set_prompt("a", "prompt", ttl=10)
    clock.advance(10)
    assert await cache.invalidate("a") is False


async def test_the_key_alone_is_what_invalidate_tells_and_the_event_counts_what_was_made_from_it(cache):
    async def derived():
        return (await cache.get_prompt("source")).prompt

    subscription = cache.events.subscribe()
    await cache.set_prompt("source", "prompt")
    await cache.get_or_compute("derived", derived)
    await cache.invalidate("source")
    assert (await anext(subscription)).dropped == 2
    assert await cache.get_many(["source", "derived"]) == {}
    assert await cache.invalidate("source") is False


@pytest.mark.parametrize("way", WAYS)
async def test_soft_expires_and_says_so(open_cache, tmp_path, way):
    clock = ManualClock()
    cache = await open_cache(clock=clock)
    file = tmp_path / "memory.md"
    file.write_text("- use tabs\n")
    subscription = cache.events.subscribe()
    await cache.get_or_compute(KEY, Counted("old"), **options(file))
    await cache.set_prompt("bystander", "stays", agent="qa", project="shop")
    assert await invalidate(cache, way, file, soft=True) == (2 if way == "all" else 1)
    event = await anext(subscription)
    assert event.soft
    assert str(event).startswith("expired ")
    assert await cache.get_prompt(KEY) is None
    assert cache.explain(KEY).state == "expired"
    assert cache.explain("bystander").state == ("expired" if way == "all" else "cached")
    clock.advance(59)
    gate = asyncio.Event()
    assert await cache.get_or_compute(KEY, Counted("new", gate=gate), stale_for=60) == "old"
    clock.advance(1)
    waiting = asyncio.create_task(cache.get_or_compute(KEY, Counted("new"), stale_for=60))
    await wait_until(lambda: cache.get_stats().shared_computations == 1)
    gate.set()
    assert await waiting == "new"  # a minute later the old value is too old


async def test_the_fields_of_an_event(open_cache):
    clock = ManualClock(wall=1_000_000)
    cache = await open_cache(name="prompts", clock=clock)
    subscription = cache.events.subscribe()
    await cache.set_prompt("a", "prompt", agent="engineer", project="web")
    await cache.invalidate_agent("Engineer_Agent", project="web")
    clock.advance(5)
    await cache.clear(soft=True)
    first, second = await anext(subscription), await anext(subscription)
    assert (first.scope, first.name, first.project, first.soft) == ("agent", "engineer", "web", False)
    assert (first.cause, first.sequence, first.at, first.dropped) == (
        ApiCall(verb="invalidate_agent"),
        1,
        1_000_000.0,
        1,
    )
    assert (second.scope, second.name, second.project, second.soft) == ("all", None, None, True)
    assert (second.cause, second.sequence, second.at, second.dropped) == (ApiCall(verb="clear"), 2, 1_000_005.0, 0)
    assert first.origin == second.origin
    assert ":prompts:" in first.origin
    assert str(first) == "invalidated the agent 'engineer' in the project 'web'"
    assert str(second) == "expired everything"
    assert str(first.cause) == "invalidate_agent() was called"


async def test_two_caches_of_one_name_have_two_origins(open_cache):
    origins = set()
    for _ in range(2):
        cache = await open_cache(name="prompts")
        subscription = cache.events.subscribe()
        await cache.clear()
        origins.add((await anext(subscription)).origin)
    assert len(origins) == 2


@pytest.mark.parametrize("way", WAYS)
async def test_who_is_cancelled_while_it_counts_has_invalidated_all_the_same(open_cache, tmp_path, way):
    cache = await open_cache(max_size=20_000)
    file = tmp_path / "memory.md"
    file.write_text("- use tabs\n")
    await cache.get_or_compute(KEY, Counted("old"), **options(file))
    many = 1 if way == "key" else 10_000
    for number in range(many):
        await cache.set_prompt(f"plan_{number}", "p", agent="engineer", project="web", tags=["planning"])
    subscription = cache.events.subscribe()
    call = asyncio.create_task(invalidate(cache, way, file))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    event = await anext(subscription)
    assert event.dropped == (1 if way in {"key", "file"} else many + 1)
    assert await cache.get_prompt(KEY) is None
    await wait_until(lambda: len(cache._memory.entries) == (many if way in {"key", "file"} else 0))


async def test_changes_of_files_are_put_in_force_together_and_told_in_order(open_cache, tmp_path):
    watcher = FakeWatcher()
    rule = WatchRule(tmp_path, "{agent}.md", "agent")
    cache: SharedPromptCache = await open_cache(watch=[rule], watcher=watcher)
    subscription = cache.events.subscribe()
    agents = [f"agent-{number}" for number in range(20)]
    await fill(cache, {f"of {agent}": {"agent": agent} for agent in agents})
    files = [tmp_path / f"{agent}.md" for agent in agents]
    for file in files:
        file.write_text("new")
    watcher.push(*files)
    await cache.sync()
    assert cache.get_stats().entry_count == 0
    events = [await anext(subscription) for _ in agents]
    assert {event.name for event in events} == {f"agent-{number}" for number in range(20)}
    assert [event.sequence for event in events] == list(range(1, 21))
    assert {event.dropped for event in events} == {1}
