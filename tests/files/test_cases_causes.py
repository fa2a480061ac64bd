"""F25, F26, F31 and F32: which files are a cause and which are not, however they are named, and what cannot be seen.

Seen to fail on planted bugs: a rule table that prunes by the absolute path, a preset without the folder of the store,
roots that are compared as they are spelled, a declaration that records nothing.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from _support import replace, size
from _watched import Comparisons, dropped, fill, rules
from shared_prompt_cache import WatchRule, presets
from shared_prompt_cache._files import watch
from shared_prompt_cache.testing import FakeWatcher, wait_until


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for agent in ("engineer", "qa"):
        (folder / f"{agent}.md").write_text("old")
    return folder


async def read(cache, path):
    async def compute():
        return await cache.files.read_text(path)

    return await cache.get_or_compute(f"made from {path}", compute)


async def gone(cache, *agents):
    return await dropped(cache, *agents) == {*agents}


# F25


@pytest.mark.parametrize("above", [".venv/lib", ".git/worktrees", "node_modules/tool"])
async def test_f25_a_root_below_a_folder_that_others_mute_is_a_root_like_any_other(open_cache, tmp_path, above):
    root = tmp_path / above / "project"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "qa.md").write_text("old")
    cache = await open_cache(watch=rules(root))
    assert await read(cache, root / "deep" / "qa.md") == "old"
    for version in ("new", "newer"):
        await fill(cache, "qa")
        replace(root / "deep" / "qa.md", version)
        assert await read(cache, root / "deep" / "qa.md") == version
        await wait_until(lambda: gone(cache, "qa"))


@pytest.mark.parametrize("name", ["x~", "x.swp", ".#x", "x.tmp", ".DS_Store"])
@pytest.mark.parametrize("freshness", ["strict", "events"])
async def test_f25_a_file_that_looks_temporary_is_a_file_if_somebody_reads_it(open_cache, root, name, freshness):
    (root / name).write_text("old")
    cache = await open_cache(watch=[WatchRule(root, "*", "files")], freshness=freshness)
    events = []
    cache.events.listen(events.append)
    assert await read(cache, root / name) == "old"
    for version in ("new", "newer"):
        (root / "elsewhere").write_text(version)
        (root / "elsewhere").replace(root / name)
        await wait_until(lambda: str(root / name) in {event.name for event in events})
        events.clear()
        assert await read(cache, root / name) == version


# F26


async def test_f26_however_a_root_is_spelled_and_nested_there_is_one_event_per_scope(open_cache, root, monkeypatch):
    inner = root / "inner"
    inner.mkdir()
    (inner / "qa.md").write_text("old")
    monkeypatch.chdir(root.parent)
    spellings = ["project", f"{root}//", "./project/../project", root / "inner" / "..", root, inner, "project//inner"]
    watcher = FakeWatcher()
    cache = await open_cache(
        watch=[WatchRule(spelling, "**/{agent}.md", "agent", anywhere=True) for spelling in spellings], watcher=watcher
    )
    assert watcher.watched == {str(root), str(inner)}
    events = []
    cache.events.listen(events.append)
    for version in range(3):
        await fill(cache, "qa")
        replace(inner / "qa.md", f"version {version}")
        watcher.push(inner / "qa.md")
        await wait_until(lambda: gone(cache, "qa"))
    await cache.sync()
    assert [(event.scope, event.name) for event in events] == [("agent", "qa")] * 3


# F31


async def test_f31_a_store_inside_a_watched_root_wakes_nobody(open_cache, root, monkeypatch):
    """Its folder is neither watched nor entered, also where rules look at any depth."""
    store = root / ".cache" / "prompts"
    store.mkdir(parents=True)
    comparisons = Comparisons(monkeypatch)
    told, sifted = set(), []
    tell, sift = watch.FileWatch.changed, watch.lead_to_files
    monkeypatch.setattr(watch.FileWatch, "changed", lambda self, paths: told.update(paths) or tell(self, paths))
    monkeypatch.setattr(watch, "lead_to_files", lambda *args: sifted.append(args) or sift(*args))
    home = root.parent / "home"
    some = (presets.claude_mpm, presets.claude_code, presets.agents_md, presets.gemini)
    cache = await open_cache(watch=[rule for preset in some for rule in preset(root, home=home)])
    assert not {folder for folder in cache._proofs.armed if folder.startswith(str(store))}
    await fill(cache, "qa")
    began = comparisons.began

    def write():
        for number in range(size(1_000, 10_000)):
            (store / "cache.db").write_text(f"{number}")
            (store / "cache.db-wal").write_text(f"{number}")
        (store / "CLAUDE.md").write_text("a name that rules know elsewhere")

    await asyncio.to_thread(write)
    replace(root / "CLAUDE.md", "new")  # what comes before it has been told before it
    await wait_until(lambda: gone(cache, "qa"))
    assert told <= {str(root / "CLAUDE.md"), str(root / "CLAUDE.md.new~")}
    assert all(paths <= told for paths in comparisons.of[began:])
    assert len(sifted) <= 1  # for the temporary file of the edit


@pytest.mark.parametrize(
    "name",
    [
        ".claude-mpm/logs/engineer.md",
        ".claude-mpm/responses/CLAUDE.md",
        ".claude/worktrees/one/CLAUDE.md",
        ".claude-mpm/memories/README.md",
        ".claude-mpm/memories/engineer_backup_1.md",
        ".claude-mpm/memories/engineer_memories.md~",
        ".claude-mpm/memories/.#engineer_memories.md",
        ".claude-mpm/agents/.dependency_cache",
    ],
)
async def test_f31_what_presets_leave_out_is_no_cause(open_cache, root, name):
    file = root / name
    file.parent.mkdir(parents=True)
    home = root.parent / "home"
    cache = await open_cache(watch=presets.claude_mpm(root, home=home) + presets.claude_code(root, home=home))
    events = []
    cache.events.listen(events.append)
    for version in range(3):
        file.write_text(f"version {version}")
        await cache.sync()
    file.unlink()
    await cache.sync()
    assert events == []


# F32

OTHER_WAYS = {
    "a thread": lambda file: asyncio.to_thread(file.read_text),
    "the default executor": lambda file: asyncio.get_running_loop().run_in_executor(None, file.read_text),
    "a subprocess": lambda file: asyncio.to_thread(
        lambda: subprocess.run(["cat", file], stdout=subprocess.PIPE, text=True, check=True).stdout
    ),
}


@pytest.mark.parametrize("way", OTHER_WAYS)
async def test_f32_what_is_read_in_other_ways_is_seen_once_it_is_declared(cache, root, way):
    """It cannot be seen otherwise, as the documentation says: the first half shows the limit, not a promise."""
    file = root / "qa.md"

    async def undeclared():
        return await OTHER_WAYS[way](file)

    async def declared():
        await cache.files.depends_on(file)
        return await OTHER_WAYS[way](file)

    assert await cache.get_or_compute("undeclared", undeclared) == "old"
    assert cache.explain("undeclared").dependencies == ()
    for options in ({"compute": declared}, {"compute": undeclared, "depends_on": file}):
        key = f"declared by {', '.join(options)}"
        replace(file, "old")
        assert await cache.get_or_compute(key, **options) == "old"
        assert cache.explain(key).dependencies == (str(file),)
        replace(file, "new")
        assert await cache.get_or_compute(key, **options) == "new"


READER = """
import asyncio, subprocess, sys, warnings
from pathlib import Path
from shared_prompt_cache import SharedPromptCache

file = Path(sys.argv[1])
warnings.simplefilter("always")
warnings.showwarning = lambda message, category, *_: print(category.__name__, message)

async def opened():
    return file.read_text()

async def in_thread():
    return await asyncio.to_thread(file.read_text)

async def by_program():
    process = await asyncio.create_subprocess_exec("cat", file, stdout=subprocess.PIPE)
    return (await process.communicate())[0]

async def written():
    file.with_name("log").write_text("computed")

async def main():
    cache = SharedPromptCache()
    for compute in (opened, in_thread, by_program, written):
        await cache.get_or_compute(compute.__name__, compute)
    async def read():
        return await cache.files.read_text(file)
    await cache.get_or_compute("read", read)
    await cache.get_or_compute("declared", opened, depends_on=file)
    await cache.get_or_compute("declared program", by_program, depends_on=file)
    await cache.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize("developing", [True, False])
def test_f32_in_development_mode_there_is_a_warning_where_it_can_be_seen(root, developing):
    """Seen to fail on planted bugs: what is opened for writing warned of; what was declared warned of."""
    file = root / "qa.md"
    mode = ["-X", "dev"] if developing else []
    told = subprocess.run(
        [sys.executable, *mode, "-c", READER, file], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    remedy = "so a change of it will not be noticed: read it through cache.files, or name it in depends_on"
    expected = [
        f"RuntimeWarning the computation of 'opened' opened {file} past the cache, {remedy}",
        f"RuntimeWarning the computation of 'in_thread' opened {file} past the cache, {remedy}",
        f"RuntimeWarning the computation of 'by_program' started cat, and what that reads is not recorded, {remedy}",
    ]
    assert told == (expected if developing else [])


def test_f32_the_documentation_says_so():
    page = Path(__file__).parents[2] / "docs" / "explanation" / "how-a-read-proves-itself-fresh.md"
    text = page.read_text(encoding="utf-8").partition("## What cannot be seen")[2]
    for word in ("subprocess", "open()", "depends_on"):
        assert word in text
