"""Imports are found where the tools find them, and followed only where a stranger's file may lead."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_prompt_cache._files.imports import follow, import_roots, imports

FILE = Path("/p/docs/CLAUDE.md")
HOME = Path("/home/somebody")


def found(text):
    return [str(path) for path in imports(text, FILE, home=HOME)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@a.md", ["/p/docs/a.md"]),
        ("See @a.md and @b/c.md.", ["/p/docs/a.md", "/p/docs/b/c.md"]),
        ("@../a.md\n\t@./b.md", ["/p/a.md", "/p/docs/b.md"]),
        ("@~/.claude/x.md", ["/home/somebody/.claude/x.md"]),
        ("@/etc/x.md", ["/etc/x.md"]),
        ("@a.md @a.md @./a.md", ["/p/docs/a.md"]),
        ("@My\\ Notes.md", ["/p/docs/My Notes.md"]),
        ("@a.md#part", ["/p/docs/a.md"]),
        ("(see @a.md)", ["/p/docs/a.md"]),
        ("- @a.md", ["/p/docs/a.md"]),
        ("@node_modules/@scope/x.md", ["/p/docs/node_modules/@scope/x.md"]),
        ("@ünï.md", ["/p/docs/ünï.md"]),
        ("somebody@example.com", []),
        ("<somebody@example.com>", []),
        ("@ a.md", []),
        ("@@a.md", []),
        ("@...", []),
        ("@a\0b", []),
        ("@a\ud800.md", []),
        ("@" + "x" * 5000, []),
        ("", []),
    ],
)
def test_imports_are_told_from_other_signs(text, expected):
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "`@a.md`",
        "some `code with @a.md in it` here",
        "``a ` @a.md``",
        "`two\nlines @a.md`",
        "```\n@a.md\n```",
        "~~~ python\n@a.md\n~~~",
        "````\n```\n@a.md\n````",
        "```\n~~~\n@a.md",
        "> ```\n> @a.md\n> ```",
        "- ```\n  @a.md\n  ```",
        "1. ~~~\n   @a.md\n   ~~~",
        "```\n@a.md\n``` x\n@a.md\n```",
    ],
)
def test_code_imports_nothing(text):
    assert found(text) == []
    assert found(text + "\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "```\ncode\n```\n@a.md",
        "~~~\n```\n~~~\n@a.md",
        "`code` @a.md `code`",
        "a ` alone @a.md",
        "`` of two ` and one @a.md",
        "one ` here\n\n@a.md and ` there",
        "```not a fence``` @a.md",
        "> @a.md",
    ],
)
def test_what_stands_beside_code_counts(text):
    assert found(text) == ["/p/docs/a.md"]


def test_the_home_is_the_one_of_the_process_unless_given(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert imports("@~/x.md", FILE) == (Path("/home/me/x.md"),)


@given(st.text("`~@a/.\\ \n>-1#"))
def test_any_text_yields_absolute_paths_each_once(text):
    paths = imports(text, FILE, home=HOME)
    assert len(set(paths)) == len(paths)
    assert all(path.is_absolute() and ".." not in path.parts for path in paths)


@pytest.mark.timeout(20)
def test_a_hostile_text_takes_little_time():
    """Has caught: spans found by a regular expression, which tried each run of backticks against the whole text."""
    assert imports(" ".join("`" * n for n in range(1, 2000)), FILE) == ()
    assert imports("> " * 500_000 + "@" * 500_000, FILE) == ()


# Following


class Files:
    """Files in memory, and which of them were opened."""

    def __init__(self, **texts):
        self.texts = {f"/p/{name}.md": text for name, text in texts.items()}
        self.opened = []

    def read(self, path):
        self.opened.append(str(path))
        return self.texts.get(str(path))


def followed(files, start="/p/a.md", **options):
    options = {"allowed_roots": [Path("/p")], **options}
    result = follow(Path(start), files.read, **options)
    return {path.name: {by.name for by in importers} for path, importers in result.items()}


def test_imports_are_followed_through_imports_with_all_their_importers():
    files = Files(a="@b.md @c.md", b="@c.md", c="@absent.md")
    assert followed(files) == {"b.md": {"a.md"}, "c.md": {"a.md", "b.md"}, "absent.md": {"c.md"}}


def test_a_circle_of_imports_is_read_once():
    files = Files(a="@b.md @a.md", b="@a.md @b.md")
    assert followed(files) == {"b.md": {"a.md", "b.md"}}
    assert files.opened == ["/p/a.md", "/p/b.md"]


def test_five_hops_are_followed_and_no_more():
    files = Files(**{f"a{n}": f"@a{n + 1}.md" for n in range(9)})
    assert list(followed(files, "/p/a0.md")) == [f"a{n}.md" for n in range(1, 6)]
    assert files.opened == [f"/p/a{n}.md" for n in range(5)]


def test_the_number_of_files_is_bounded():
    files = Files(a=" ".join(f"@x{n}.md" for n in range(5000)))
    assert len(followed(files)) == 1000
    assert len(followed(files, max_files=3)) == 3


def test_what_lies_outside_is_not_opened():
    files = Files(a="@/etc/passwd @../q/x.md @~/.ssh/id @/p")
    assert followed(files, home=HOME) == {}
    assert files.opened == ["/p/a.md"]


def test_a_link_that_leads_outside_is_not_opened(tmp_path):
    """Has caught: a check of the path as it is written."""
    project, outside = tmp_path / "p", tmp_path / "q"
    project.mkdir()
    outside.mkdir()
    (outside / "secret.md").write_text("@more.md")
    (project / "file.md").symlink_to(outside / "secret.md")
    (project / "folder").symlink_to(outside)
    (project / "inside.md").write_text("")
    (project / "alias.md").symlink_to("inside.md")
    (project / "CLAUDE.md").write_text("@file.md @folder/secret.md @alias.md")
    opened = []

    def read(path):
        opened.append(path)
        return path.read_text()

    result = follow(project / "CLAUDE.md", read, allowed_roots=[project])
    assert set(result) == {project / "alias.md"}
    assert opened == [project / "CLAUDE.md", project / "inside.md"]


def test_an_allowed_root_may_itself_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "b.md").write_text("")
    start = tmp_path / "link" / "CLAUDE.md"
    start.write_text("@b.md")
    result = follow(start, Path.read_text, allowed_roots=[tmp_path / "link"])
    assert set(result) == {tmp_path / "link" / "b.md"}


def test_the_folders_of_agent_tools_in_the_home_are_allowed(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    tools = [".claude", ".claude-mpm", ".gemini", ".codex", ".copilot"]
    assert import_roots(Path("/p"), home=HOME) == (Path("/p"), *(HOME / name for name in tools))
    assert import_roots(Path("/p"))[1] == Path("/home/me/.claude")
    files = Files(a="@~/.claude/notes.md @~/notes.md")
    assert followed(files, allowed_roots=import_roots(Path("/p"), home=HOME), home=HOME) == {"notes.md": {"a.md"}}
    assert files.opened == ["/p/a.md", "/home/somebody/.claude/notes.md"]
