"""What the documentation says is so: its code prints what is shown, its settings load, its links lead somewhere.

Seen to fail on planted bugs: files that are always found unchanged, a soft invalidation that removes, a computation
that stays in its place when it is invalidated, agents compared as they are spelled, a preset with a file less, another
default, a field, an option or an event more; a seal that is not checked, contents that are always equal, watched files
that are not compared at the start, a deleted store that nobody misses, a folder that others may write to, a link in the
place of the database; and on pages with a wrong link, anchor, command, name or line of output.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import shared_prompt_cache
from _pages import blocks
from _preset_tables import NAMES, table
from shared_prompt_cache import CacheConfig, PersistenceConfig, SharedPromptCache, WatchConfig, errors, presets
from shared_prompt_cache.cli import _parser

PROJECT = Path(__file__).parents[2]
RUNNER = PROJECT / "tests" / "_pages.py"
DOCS = PROJECT / "docs"
PAGES = sorted([PROJECT / "README.md", PROJECT / "CHANGELOG.md", *DOCS.rglob("*.md")])
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
BLOCKS = {page: blocks(page) for page in PAGES}
RUNNING = [page for page in PAGES if any(block.runs for block in BLOCKS[page])]
_BLOCK = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_COMMAND = re.compile(r"`((?:make|pip|python) [^`]+)`")


def name(page):
    return page.relative_to(PROJECT).as_posix()


def page(path):
    return TEXTS[PROJECT / path]


def links(text):
    return [target for target in _LINK.findall(_SPAN.sub("", _BLOCK.sub("", text))) if "://" not in target]


def anchor(heading):
    """Return the anchor of a heading, as the site and the usual hosts of sources make it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def anchors(text):
    return {
        anchor(heading)
        for heading in _HEADING.findall(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    }


def documents():
    """Return the YAML on the pages."""
    return [yaml.safe_load(block.text) for page in PAGES for block in BLOCKS[page] if block.language == "yaml"]


@pytest.mark.parametrize("page", RUNNING, ids=name)
def test_the_python_of_a_page_runs_and_prints_what_is_shown(page, tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "error", RUNNER, page],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_a_page_and_to_a_heading_of_it(page):
    for target in links(TEXTS[page]):
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not heading or heading in anchors(TEXTS[there]), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page):
    lines = [line for block in BLOCKS[page] if block.language == "console" for line in block.text.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines] + _COMMAND.findall(TEXTS[page])
    targets = re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [f"{project['name']}[{extra}]" for extra in project["optional-dependencies"]]
    for command in commands:
        match shlex.split(command):
            case ["python", "-m", "shared_prompt_cache", *arguments]:
                assert _parser().parse_args(arguments or ["demo"])
            case ["make", target]:
                assert target in targets
            case ["pip", "install", what]:
                assert what in (".", project["name"], *extras)
            case ["python", "-m", "asyncio"]:
                pass
            case _:
                pytest.fail(f"nobody knows the command {command!r}")


def test_the_page_of_the_command_line_has_every_option_and_no_other(capsys):
    for command in ("demo", "watch", "ls", "inspect", "verify", "invalidate"):
        with pytest.raises(SystemExit):
            _parser().parse_args([command, "--help"])
    options = set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help"}
    assert set(re.findall(r"--[a-z]+", page("docs/reference/command-line.md"))) == options


def test_yaml_makes_a_cache():
    assert documents()
    for document in documents():
        assert SharedPromptCache.from_config(document)


def test_the_first_yaml_has_every_field_with_its_default():
    section = documents()[0]["cache"]["shared_prompt"]
    for shown, config in ((section, CacheConfig), (section["persistence"], PersistenceConfig)):
        assert shown.keys() == {field.name for field in fields(config)}
    assert section["watch"][0].keys() == {field.name for field in fields(WatchConfig)}
    assert tuple(section["watch"][0]["presets"]) == WatchConfig(root=".").presets
    assert CacheConfig(**{**section, "watch": ()}) == CacheConfig()


@pytest.mark.parametrize("preset", NAMES)
def test_the_table_of_a_preset_is_what_it_says(preset):
    shown = page("docs/how-to/watch-the-files-of-an-agent-tool.md")
    assert f"`presets.{preset}(root)`\n\n{table(preset)}\n" in shown, table(preset)


def test_what_no_preset_takes_for_a_cause_is_listed():
    never = set.intersection(*({*rule.exclude} for preset in NAMES for rule in getattr(presets, preset)(".")))
    section = page("docs/how-to/watch-the-files-of-an-agent-tool.md").partition("### Never a cause")[2]
    assert set(re.findall(r"`(\*\*/[^`]+)`", section)) == never


def test_the_tree_of_errors_is_that_of_the_module():
    tree = re.search(r"^CacheError\n.*?(?=^```$)", errors.__doc__, re.MULTILINE | re.DOTALL)
    assert tree is not None
    assert tree[0] in page("docs/reference/errors.md")


def test_every_event_that_is_logged_is_explained():
    sources = (path.read_text(encoding="utf-8") for path in (PROJECT / "src").rglob("*.py"))
    logged = {event for source in sources for event in re.findall(r'\blog\(logging\.\w+, "([\w.]+)"', source)}
    section = page("docs/how-to/log-measure-and-check-health.md").partition("## Logging")[2]
    assert set(re.findall(r"^\| `([\w.]+)`", section, re.MULTILINE)) == logged


@pytest.mark.parametrize("public", shared_prompt_cache.__all__)
def test_every_public_name_is_in_the_reference(public):
    reference = "".join(TEXTS[path] for path in PAGES if path.parent.name == "reference")
    assert re.search(rf"^::: shared_prompt_cache\.{public}$|`{public}`", reference, re.MULTILINE)


@pytest.mark.parametrize("example", sorted(path.name for path in (PROJECT / "examples").glob("*.py")))
def test_every_example_is_shown_and_some_page_leads_to_it(example):
    assert f'--8<-- "examples/{example}"' in page("docs/examples.md")
    leading = {target.rpartition("/")[2] for text in TEXTS.values() for target in links(text)}
    assert f"examples.md#{anchor(example)}" in leading
