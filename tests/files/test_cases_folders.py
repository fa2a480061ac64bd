"""The acceptance cases F8 to F12: folders that come, go and change places, and links that lead elsewhere.

Seen to fail on planted bugs: a listing without its names (F8), a folder's event that no walk follows (F9), a watch that
goes on trusting a folder which another took the place of (F10), a `sync()` that compares nothing (F12).
"""

import shutil

import pytest

from _edits import hard_link, in_place
from _support import size
from _trees import Listener, agents_in, put_values, text, until_text, until_watched
from shared_prompt_cache import WatchRule

FRESHNESS = pytest.mark.parametrize("freshness", ["strict", "events"])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memories" / "engineer.md"
    path.parent.mkdir()
    path.write_text("version 0\n")
    return path


LISTINGS = {
    "glob": lambda cache, folder: cache.files.glob(folder, "*.md"),
    "depends_on": lambda cache, folder: cache.files.depends_on(folder),
}


@FRESHNESS
@pytest.mark.parametrize("listing", LISTINGS)
async def test_f08_a_listing_is_its_names_and_not_their_contents(open_cache, file, listing, freshness):
    cache, folder = await open_cache(freshness=freshness), file.parent
    computations = 0

    async def names():
        await LISTINGS[listing](cache, folder)
        return sorted(path.name for path in folder.iterdir())

    async def expect(*expected, computed):
        nonlocal computations
        computations += computed
        await cache.sync()
        assert await cache.get_or_compute("names", names) == list(expected)
        assert cache.get_stats().computations == computations

    await expect("engineer.md", computed=1)
    (folder / "qa.md").write_text("qa")
    await expect("engineer.md", "qa.md", computed=1)
    (folder / "qa.md").rename(folder / "pm.md")
    await expect("engineer.md", "pm.md", computed=1)
    (folder / "pm.md").write_text("another content")
    in_place(file, "version 1\n")
    await expect("engineer.md", "pm.md", computed=0)
    (folder / "pm.md").unlink()
    await expect("engineer.md", computed=1)


def with_a_file_at_once(path, _):
    path.parent.mkdir()
    path.write_text("new")


def deep(path, _):
    path.parent.joinpath("b", "c", "d").mkdir(parents=True)
    path.write_text("new")


def copied_in(path, outside):
    with_a_file_at_once(outside / path.parent.name / path.name, outside)
    shutil.copytree(outside / path.parent.name, path.parent)


def moved_in(path, outside):
    with_a_file_at_once(outside / path.parent.name / path.name, outside)
    (outside / path.parent.name).rename(path.parent)


@pytest.mark.parametrize("style", [with_a_file_at_once, deep, copied_in, moved_in])
async def test_f09_every_file_in_a_new_folder_is_seen(open_cache, tmp_path, style):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    cache = await open_cache(watch=agents_in(root))
    listener = Listener(cache)
    numbers = range(size(20, 300))
    for number in numbers:
        path = root / f"folder-{number}" / f"agent-{number}.md"
        assert await text(cache, path) is None
        style(path, outside)
        assert await text(cache, path) == "new"
    await listener.until_told(*(f"agent-{number}" for number in numbers))
    await put_values(cache, *(f"agent-{number}" for number in numbers))
    for number in numbers:
        (root / f"folder-{number}" / f"agent-{number}.md").write_text("edited")
    await listener.until_told(*(f"agent-{number}" for number in numbers))
    assert len(await cache.get_many(f"of agent-{number}" for number in numbers)) == 0


def tree(folder, content):
    folder.mkdir()
    for agent in ("engineer", "qa"):
        (folder / f"{agent}.md").write_text(f"{agent}: {content}")


def replaced(folder, aside, content):
    tree(aside, content)
    folder.rename(aside.with_suffix(".old"))
    aside.rename(folder)


def rebuilt(folder, _, content):
    shutil.rmtree(folder)
    tree(folder, content)


def swapped(folder, aside, content):
    other = folder.with_name("other")
    if other.exists():
        shutil.rmtree(other)
    tree(other, content)
    folder.rename(aside)
    other.rename(folder)
    aside.rename(other)


def parent_replaced(folder, aside, content):
    aside.mkdir()
    tree(aside / folder.name, content)
    folder.parent.rename(aside.with_suffix(".old"))
    aside.rename(folder.parent)


@FRESHNESS
@pytest.mark.parametrize("style", [replaced, rebuilt, swapped, parent_replaced])
async def test_f10_what_another_folder_brings_is_read_and_edits_in_it_are_seen(open_cache, tmp_path, style, freshness):
    """Two files in the folder: what was made from one of them goes on wanting it watched while the other is renewed."""
    folder = tmp_path / "root" / "parent" / "folder"
    folder.parent.mkdir(parents=True)
    tree(folder, "version 0")
    cache = await open_cache(watch=agents_in(tmp_path / "root"), freshness=freshness)
    listener = Listener(cache)

    async def expect(content, *agents):
        for agent in agents:
            if freshness == "strict":
                assert await text(cache, folder / f"{agent}.md") == f"{agent}: {content}"
            await until_text(cache, folder / f"{agent}.md", f"{agent}: {content}")
        await listener.until_told(*agents)
        assert await cache.get_many(f"of {agent}" for agent in agents) == {}

    for version in range(1, size(3, 20) + 1):
        for agent in ("engineer", "qa"):
            await text(cache, folder / f"{agent}.md")
        await put_values(cache, "engineer", "qa")
        style(folder, tmp_path / f"aside-{version}", f"version {version}")
        await expect(f"version {version}", "engineer", "qa")
        await cache.sync()
        await until_watched(cache) if freshness == "events" else None
        await put_values(cache, "engineer")
        in_place(folder / "engineer.md", f"engineer: edited {version}")
        await expect(f"edited {version}", "engineer")


@FRESHNESS
async def test_f10_a_folder_that_is_moved_out_takes_its_files_along(open_cache, tmp_path, freshness):
    folder = tmp_path / "root" / "folder"
    folder.parent.mkdir()
    tree(folder, "version 0")
    cache = await open_cache(watch=agents_in(tmp_path / "root"), freshness=freshness)
    listener = Listener(cache)
    await text(cache, folder / "engineer.md")
    for target in (tmp_path / "outside", tmp_path / "root" / "renamed"):
        await put_values(cache, "engineer", "qa")
        folder.rename(target)
        await until_text(cache, folder / "engineer.md", None)
        await listener.until_told("engineer", "qa")
        assert await cache.get_many(["of engineer", "of qa"]) == {}
        target.rename(folder)
        await until_text(cache, folder / "engineer.md", "engineer: version 0")
        await listener.until_told("engineer", "qa")


async def expect_new(cache, listener, path, content, freshness):
    """Expect the next read to be new; by events, one soon. The agent `engineer` goes, whose file it is."""
    if freshness == "strict":
        assert await text(cache, path) == content
    await until_text(cache, path, content)
    await listener.until_told("engineer")
    assert await cache.get_prompt("of engineer") is None
    await cache.sync()
    if freshness == "events":
        await until_watched(cache)
    await put_values(cache, "engineer")
    listener.events.clear()


@FRESHNESS
async def test_f11_a_link_that_is_retargeted_and_its_target_outside_are_followed(open_cache, tmp_path, freshness):
    root, outside = tmp_path / "root", tmp_path / "outside"
    link = root / "engineer.md"
    root.mkdir()
    outside.mkdir()
    cache = await open_cache(watch=agents_in(root), freshness=freshness)
    listener = Listener(cache)
    await put_values(cache, "engineer")
    assert await text(cache, link) is None
    for version in range(1, 4):
        target = outside / f"{version}" / "target"
        target.parent.mkdir()
        target.write_text(f"version {version}")
        target.with_name("link").symlink_to(target)
        target.with_name("link").replace(link)
        await expect_new(cache, listener, link, f"version {version}", freshness)
        in_place(target, f"edited {version}")
        await expect_new(cache, listener, link, f"edited {version}", freshness)


async def test_f12_a_write_through_a_name_outside_is_seen_by_a_read_and_by_sync(open_cache, file):
    """Of a hard link in another folder no watcher is told."""
    cache = await open_cache(watch=agents_in(file.parent))
    await put_values(cache, "engineer")
    assert await text(cache, file) == "version 0\n"
    hard_link(file, "version 1\n")
    assert await text(cache, file) == "version 1\n"
    await cache.sync()
    assert await cache.get_prompt("of engineer") is None


def retarget(link, target):
    """Let a link lead elsewhere as tools do: another one beside it, renamed over it."""
    beside = link.with_name("beside")
    beside.symlink_to(target)
    beside.replace(link)


@FRESHNESS
@pytest.mark.parametrize("link", ["data of a mounted map", "on the way outside", "a folder below the root"])
async def test_f11_a_link_to_a_folder_that_leads_elsewhere_brings_other_files(open_cache, tmp_path, link, freshness):
    """Has caught: links to folders that were taken for folders, so that nobody was told where they lead now."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    memories = root / "memories"
    for folder in (root, outside):
        folder.mkdir()
    if link == "a folder below the root":
        current = memories
    else:
        memories.mkdir()
        current = memories / "..data" if link == "data of a mounted map" else outside / "current"
        (memories / "engineer.md").symlink_to(current / "engineer.md")
    versions = [(memories if current.parent == memories else outside) / f"..version-{number}" for number in range(4)]
    for number, version in enumerate(versions):
        version.mkdir()
        (version / "engineer.md").write_text(f"version {number}")
    current.symlink_to(versions[0])
    cache = await open_cache(watch=[WatchRule(root, "memories/{agent}.md", "agent")], freshness=freshness)
    listener = Listener(cache)
    await put_values(cache, "engineer")
    assert await text(cache, memories / "engineer.md") == "version 0"
    if freshness == "events":
        await until_watched(cache)
    for number in (1, 2, 3):
        retarget(current, versions[number])
        await expect_new(cache, listener, memories / "engineer.md", f"version {number}", freshness)
