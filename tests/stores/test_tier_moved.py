"""A project that is moved together with its store keeps its cache, and nothing else comes of the move.

Seen to fail on planted bugs: records of watched files that stay absolute; a label that does; the folders of a listing
that do; a notice whose selection, or whose words, do; notices from before the store was open that do; a name of the
root's folder that is filed once; the same mark for all roots; a link that may have been left behind.
"""

import os
import shutil

import pytest

from _support import Counted, replace
from shared_prompt_cache import SharedPromptCache, WatchRule, presets
from shared_prompt_cache.stores import SQLiteStore, Stamp, Write
from shared_prompt_cache.testing import ChaosStore, FakeWatcher, wait_until

AGENTS = ("same", "edited before", "edited after", "deleted", "created", "rewritten", "absent")


def store_of(project):
    return SQLiteStore(project / ".cache" / "prompts")


def memory_of(project, agent):
    return project / ".claude-mpm" / "memories" / f"{agent}_memories.md"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a project with a memory of each agent but those that are yet to be created, or never are."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "here" / "web"
    memory_of(folder, "").parent.mkdir(parents=True)
    for agent in AGENTS:
        if agent not in ("created", "absent"):
            memory_of(folder, agent).write_text(f"memory of {agent}\n")
    return folder


def rename(old, new):
    new.parent.mkdir()
    old.rename(new)


def copy(old, new):
    """Copy as to another machine: nothing but contents is the same."""
    shutil.copytree(old, new, copy_function=shutil.copyfile)
    for path in (new / ".cache", new / ".cache" / "prompts"):
        path.chmod(0o700)
    shutil.rmtree(old)


@pytest.fixture(params=[rename, copy])
def move(request, project, tmp_path):
    """Return a function that moves the project, and returns where it is then."""

    def moved(to=tmp_path / "there" / "shop"):
        request.param(project, to)
        return to

    return moved


async def computed(project, *, watch=True):
    """Ask for every prompt, as a program does that has just been started; return what had to be computed."""
    rules = presets.claude_mpm(project) if watch else ()
    found = set()
    async with SharedPromptCache(store=store_of(project), watch=rules, watcher=FakeWatcher()) as cache:

        async def of_agent(agent):
            found.add(agent)
            try:
                return await cache.files.read_text(memory_of(project, agent))
            except FileNotFoundError:
                return "nothing"

        async def of_all():
            found.add("list")
            return str([path.name for path in await cache.files.glob(project, ".claude-mpm/*/*.md")])

        for agent in AGENTS:
            await cache.get_or_compute(agent, lambda agent=agent: of_agent(agent), agent=agent, project=project)
            entry = await cache.get_prompt(agent)
            assert entry.project == str(project)
            assert entry.dependencies == (str(memory_of(project, agent)),)
        await cache.get_or_compute("list", of_all, project=project)
        changes = cache.get_stats().invalidations
    return found, changes


@pytest.mark.parametrize("watch", [True, False], ids=["watched", "unwatched"])
async def test_a_moved_project_keeps_its_cache(project, move, watch):
    assert await computed(project, watch=watch) == ({*AGENTS, "list"}, {})
    assert await computed(project, watch=watch) == (set(), {})
    assert await computed(move(), watch=watch) == (set(), {})


@pytest.mark.parametrize("watch", [True, False], ids=["watched", "unwatched"])
async def test_exactly_what_was_made_from_changed_files_is_computed_behind_a_move(project, move, watch):
    await computed(project, watch=watch)
    replace(memory_of(project, "edited before"), "another memory\n")
    memory_of(project, "deleted").unlink()
    replace(memory_of(project, "rewritten"), "memory of rewritten\n")
    project = move()
    replace(memory_of(project, "edited after"), "another memory\n")
    memory_of(project, "created").write_text("new\n")
    changed = {"edited before", "edited after", "deleted", "created"}
    assert await computed(project, watch=watch) == ({*changed, "list"}, {"agent": 4} if watch else {})
    assert await computed(project, watch=watch) == (set(), {})


async def test_it_may_be_moved_again_and_back(project, tmp_path):
    await computed(project)
    for place in (tmp_path / "a" / "b" / "c", tmp_path / "d" / "web", project):
        place.parent.mkdir(parents=True, exist_ok=True)
        project = project.rename(place)
        assert await computed(project) == (set(), {})


INVALIDATIONS = {
    "file": lambda cache, project: cache.invalidate_file(memory_of(project, "same")),
    "folder": lambda cache, project: cache.invalidate_file(project),
    "folder above": lambda cache, project: cache.invalidate_file(project.parent),
    "project by path": lambda cache, project: cache.invalidate_project(project),
    "project by folder": lambda cache, project: cache.invalidate_project(project.name),
    "agent in project": lambda cache, project: cache.invalidate_agent("qa", project=project),
    "agent in project by folder": lambda cache, project: cache.invalidate_agent("qa", project=project.name),
}


@pytest.mark.parametrize("name", INVALIDATIONS)
async def test_behind_a_move_an_invalidation_takes_what_was_stored_before(project, move, tmp_path, name):
    outside = tmp_path / "outside.md"
    outside.write_text("outside\n")
    async with SharedPromptCache(store=store_of(project)) as cache:
        await cache.get_or_compute(
            "taken", Counted(1), depends_on=memory_of(project, "same"), agent="qa", project=project
        )
        await cache.get_or_compute("left", Counted(2), depends_on=outside, agent="qa", project="/elsewhere/cart")
    project = move()
    async with SharedPromptCache(store=store_of(project)) as cache, SharedPromptCache(store=store_of(project)) as other:
        assert set(await other.get_many(["taken", "left"])) == {"taken", "left"}
        # Here the store has to find it, there the journal has to tell of it.
        await INVALIDATIONS[name](cache, project)
        assert list(await cache.get_many(["taken", "left"])) == ["left"]
        await wait_until(lambda: other.get_stats().invalidations)
        assert list(await other.get_many(["taken", "left"])) == ["left"]


async def test_what_is_filed_under_the_name_of_the_folder_falls_under_the_new_name(project, move):
    async with SharedPromptCache(store=store_of(project)) as cache:
        await cache.get_or_compute("a", Counted(1), project="web")
        await cache.get_or_compute("b", Counted(1), project="web")
        await cache.get_or_compute("c", Counted(1), project=project)
    project = move()
    async with SharedPromptCache(store=store_of(project)) as cache:
        assert (await cache.get_prompt("a")).project == "web"
        await cache.invalidate_project("shop")
        assert await cache.get_many(["a", "b", "c"]) == {}


async def test_what_lies_outside_of_the_root_stays_where_it_was(project, move, tmp_path):
    outside = tmp_path / "outside.md"
    outside.write_text("old\n")
    async with SharedPromptCache(store=store_of(project)) as cache:
        await cache.get_or_compute("a", Counted("old"), depends_on=outside, project=tmp_path / "other")
    project = move()
    async with SharedPromptCache(store=store_of(project)) as cache:
        entry = await cache.get_prompt("a")
        assert (entry.prompt, entry.project) == ("old", str(tmp_path / "other"))
        assert entry.dependencies == (str(outside),)
    replace(outside, "new\n")
    async with SharedPromptCache(store=store_of(project)) as cache:
        assert await cache.get_prompt("a") is None


async def test_the_store_has_no_absolute_path_of_the_project(project):
    """Of what it is asked for; causes, which are for people, and values may name one."""
    async with SharedPromptCache(store=store_of(project), watch=presets.claude_mpm(project)) as cache:
        await cache.get_or_compute(
            "a", Counted("a"), depends_on=[memory_of(project, "same"), project], agent="qa", project=project
        )
        await cache.flush()
        row = await cache._tier._store.get("a")
        found = await cache._tier._store.baseline("./")
    assert os.fsencode(project) not in row.head
    assert set(found) == {".//.claude-mpm/memories/" + path.name for path in memory_of(project, "").parent.iterdir()}
    assert os.fsencode(project) not in (project / ".cache" / "prompts" / "store.db").read_bytes()


async def test_caches_with_and_without_rules_agree_on_names(project):
    """Nobody's rules have a say in how a path is spelled; nor has how the store is."""
    link = project.parent / "link"
    link.symlink_to(project)
    rules = presets.claude_mpm(project)
    async with (
        SharedPromptCache(store=store_of(project), watch=rules, watcher=FakeWatcher()) as ruled,
        SharedPromptCache(store=store_of(link)) as bare,
    ):
        for one, other in ((ruled, bare), (bare, ruled)):
            for way, invalidate in INVALIDATIONS.items():
                await one.get_or_compute(
                    way, Counted(1), depends_on=memory_of(project, "same"), agent="qa", project=project
                )
                await one.flush()
                assert await other.get_or_compute(way, Counted(AssertionError())) == 1
                await other.evict_oldest(10)
                await invalidate(other, project)
                assert await other.get_prompt(way) is None, way
                await wait_until(lambda: one._tier._follower.applied == other._tier._follower.applied)  # noqa: B023
                assert await one.get_prompt(way) is None, way


async def test_what_was_invalidated_before_the_store_was_open_falls_in_it(project):
    async with SharedPromptCache(store=store_of(project)) as cache:
        await cache.get_or_compute("a", Counted(1), depends_on=memory_of(project, "same"))
        await cache.get_or_compute("b", Counted(1), project=project)
        await cache.get_or_compute("c", Counted(1), project="/elsewhere")
    chaos = ChaosStore(store_of(project), seed=1, errors=0)
    chaos.fail_next(2)
    async with SharedPromptCache(store=chaos) as late, SharedPromptCache(store=store_of(project)) as other:
        assert late.health().parts["store"].status == "degraded"
        await late.invalidate_file(memory_of(project, "same"))
        await late.invalidate_project(project)
        await wait_until(lambda: late.health().parts["store"].status == "ok")
        assert list(await late.get_many(["a", "b", "c"])) == ["c"]
        await wait_until(lambda: other.get_stats().invalidations == {"file": 1, "project": 1})
        assert list(await other.get_many(["a", "b", "c"])) == ["c"]


async def test_a_row_that_is_put_back_behind_its_invalidation_is_not_served(project):
    async with SharedPromptCache(store=store_of(project)) as cache:
        await cache.get_or_compute("a", Counted(1), depends_on=memory_of(project, "same"))
        await cache.flush()
        store = cache._tier._store
        row = await store.get("a")
        await cache.invalidate_file(memory_of(project, "same"))
        assert await store.put_many([Write(row, ("all",), Stamp(1, "somebody", 0), 1e12)]) == [True]
        assert await cache.get_prompt("a") is None


async def test_records_below_a_rule_that_reaches_above_the_root_are_found(project, tmp_path):
    (tmp_path / "here" / "above.md").write_text("old\n")

    def cache():
        rule = WatchRule(tmp_path / "here", "**/*.md", "files")
        return SharedPromptCache(store=store_of(project), watch=[rule], watcher=FakeWatcher())

    async with cache() as first:
        await first.set_prompt("a", 1)
    async with cache() as second:
        assert second.get_stats().invalidations == {}
    replace(tmp_path / "here" / "above.md", "new\n")
    replace(memory_of(project, "same"), "new\n")
    async with cache() as third:
        assert third.get_stats().invalidations == {"file": 2}
    async with cache() as fourth:
        assert fourth.get_stats().invalidations == {}


async def test_a_store_that_is_moved_without_its_project_proves_nothing_by_what_is_absent(project, tmp_path):
    """Nothing of the project is there, so nothing that is absent there tells of the project."""
    absent = [project / "AGENTS.md", memory_of(project, "absent")]
    async with SharedPromptCache(store=store_of(project)) as cache:
        for path in absent:
            await cache.get_or_compute(path.name, Counted("nothing"), depends_on=path, project=project)
    (tmp_path / "there").mkdir()
    (project / ".cache").rename(tmp_path / "there" / ".cache")
    async with SharedPromptCache(store=store_of(tmp_path / "there")) as cache:
        assert await cache.get_many([path.name for path in absent]) == {}


async def test_what_is_reached_by_a_link_from_outside_counts_only_if_it_came_along(project, tmp_path):
    link, copied = tmp_path / "link", tmp_path / "copied"
    link.symlink_to(project)
    async with SharedPromptCache(store=store_of(project)) as cache:
        await cache.get_or_compute("a", Counted(1), depends_on=memory_of(link, "same"))
    async with SharedPromptCache(store=store_of(project)) as cache:
        assert await cache.get_prompt("a") is not None
    shutil.copytree(project, copied)
    async with SharedPromptCache(store=store_of(copied)) as cache:
        assert await cache.get_prompt("a") is None  # the link leads to the other one, which may be edited apart
    link.unlink()
    link.symlink_to(copied)
    async with SharedPromptCache(store=store_of(copied)) as cache:
        assert (await cache.get_prompt("a")).prompt == 1


async def test_what_lay_outside_and_lies_below_the_root_now_is_not_moved(project, tmp_path):
    outside = tmp_path / "there" / "shop" / "outside.md"
    outside.parent.mkdir(parents=True)
    outside.write_text("outside\n")
    async with SharedPromptCache(store=store_of(project)) as cache:
        await cache.get_or_compute("a", Counted(1), depends_on=outside)
        await cache.get_or_compute("b", Counted(1), depends_on=memory_of(project, "same"))
    for path in project.iterdir():
        path.rename(outside.parent / path.name)
    async with SharedPromptCache(store=store_of(outside.parent)) as cache:
        assert list(await cache.get_many(["a", "b"])) == ["b"]
