"""A listing returns the names that match, and its record tells whether they are the same ones.

Seen to fail on planted bugs: a folder that changes while it is listed taken as it is, or left out; symlinked folders
entered; a walk by calls within calls; folders entered that no match can lie in; a record without the folders below; and
a name that decides although it does not match.
"""

import inspect
import os
import sys
import time
from pathlib import Path

import pytest

from _faults import Meddler, refusing
from shared_prompt_cache import ConfigError
from shared_prompt_cache._files import reading
from shared_prompt_cache._files.fingerprint import unchanged
from shared_prompt_cache._files.places import way
from shared_prompt_cache._files.reading import compare, glob


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    for name in ("b.md", "a.md", "notes.txt", "sub/c.md", "sub/deep/d.md", ".hidden.md"):
        (root / name).touch()
    return root


def names(root, pattern):
    return [os.fspath(path.relative_to(root)) for path in glob(str(root), pattern)[0]]


def record_of(root, pattern):
    return glob(str(root), pattern)[1]


# Which names


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.md", [".hidden.md", "a.md", "b.md"]),
        ("[ab].md", ["a.md", "b.md"]),
        ("*", [".hidden.md", "a.md", "b.md", "notes.txt", "sub"]),
        ("*/*.md", ["sub/c.md"]),
        ("sub/*", ["sub/c.md", "sub/deep"]),
        ("**/*.md", [".hidden.md", "a.md", "b.md", "sub/c.md", "sub/deep/d.md"]),
        ("sub/**", ["sub/c.md", "sub/deep", "sub/deep/d.md"]),
        ("**/deep/*", ["sub/deep/d.md"]),
        ("none/*", []),
        ("notes.txt/*", []),
    ],
)
def test_what_matches_is_returned_in_order(root, pattern, expected):
    assert names(root, pattern) == expected
    assert all(isinstance(path, Path) and path.is_absolute() for path in glob(str(root), pattern)[0])


def test_only_folders_in_which_a_match_can_lie_are_looked_into(root):
    def looked_into(pattern):
        return {os.path.relpath(folder, root) for folder, _ in record_of(root, pattern).folders}

    assert looked_into("*.md") == {"."}
    assert looked_into("sub/*.md") == {".", "sub"}
    assert looked_into("x*/**") == {"."}
    assert looked_into("**/*.md") == {".", "sub", "sub/deep"}


def test_a_symlinked_folder_is_a_name_and_is_not_entered(root):
    (root / "link").symlink_to("sub")
    (root / "circle").symlink_to(".")
    assert names(root, "**/[cl]*") == ["circle", "link", "sub/c.md"]


def test_a_root_that_is_a_symlink_is_entered_and_both_ends_are_on_its_way(root):
    link = root.with_name("link")
    link.symlink_to("root")
    found, record = glob(str(link), "*.md")
    assert found == [link / ".hidden.md", link / "a.md", link / "b.md"]
    assert {str(link), str(root)} <= set(record.way.places)
    assert {str(link), str(root.parent)} <= set(record.way.folders)


def test_a_tree_may_be_deeper_than_calls_may_be_nested(tmp_path):
    """Has caught: a walk that called itself."""
    (tmp_path / "/".join("d" * 150)).mkdir(parents=True)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        found, _ = glob(str(tmp_path), "**")
    finally:
        sys.setrecursionlimit(limit)
    assert len(found) == 150


def test_a_name_that_is_not_utf_8_is_a_name(root):
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.md")).touch()
    record = record_of(root, "*.md")
    assert os.fsdecode(b"\xff.md") in names(root, "*.md")
    assert compare(record).same_content(record)


@pytest.mark.parametrize("pattern", ["", "/etc/*", "../*", "[a", "a**", 3])
def test_a_pattern_that_cannot_be_read_is_refused(root, pattern):
    with pytest.raises(ConfigError) as caught:
        glob(str(root), pattern)
    assert caught.value.field == "pattern"


def test_a_folder_that_may_not_be_looked_into_is_an_error(root, monkeypatch):
    denied = PermissionError(13, "Permission denied")
    monkeypatch.setattr(os, "scandir", refusing(os.scandir, denied, root / "sub"))
    assert names(root, "*.md") == [".hidden.md", "a.md", "b.md"]
    with pytest.raises(PermissionError):
        glob(str(root), "**/*.md")


# What is a change


def test_names_that_match_are_what_counts(root):
    """F8."""
    record = record_of(root, "*.md")
    (root / "a.md").write_text("content is no part of it")
    (root / "more.txt").touch()
    (root / "sub" / "new.md").touch()
    assert compare(record).same_content(record)
    (root / "new.md").touch()
    assert compare(record) is None


@pytest.mark.parametrize("change", ["add", "remove", "rename", "make a folder"])
def test_a_name_below_is_a_change(root, change):
    """F8."""
    record, deep = record_of(root, "**/*.md"), root / "sub" / "deep"
    if change == "add":
        (deep / "e.md").touch()
    elif change == "remove":
        (deep / "d.md").unlink()
    elif change == "rename":
        (deep / "d.md").rename(deep / "e.md")
    else:
        (deep / "deeper").mkdir()
        assert compare(record).same_content(record), "an empty folder has no names that match"
        (deep / "deeper" / "e.md").touch()
    assert compare(record) is None


def test_a_settled_listing_is_proved_by_the_folders_it_looked_into(root, monkeypatch):
    assert not record_of(root, "**/*.md").settled
    monkeypatch.setattr(reading, "now_ns", lambda: time.time_ns() + 3_000_000_000)
    record = record_of(root, "**/*.md")
    assert record.settled
    assert unchanged([record])
    assert {str(root), str(root / "sub"), str(root / "sub" / "deep")} <= set(record.way.folders)
    assert set(record.way.folders) <= set(record.way.places) | {"/"}
    (root / "sub" / "deep" / "e.md").touch()
    assert not unchanged([record])


def test_where_others_can_write_no_listing_is_settled(root, monkeypatch):
    monkeypatch.setattr(reading, "now_ns", lambda: time.time_ns() + 3_000_000_000)
    monkeypatch.setattr(reading, "is_remote", lambda _: True)
    record = record_of(root, "*.md")
    assert record.remote
    assert not record.settled


def test_a_root_that_does_not_exist_has_no_names_and_its_creation_is_a_change(root):
    """F7."""
    missing = root / "missing" / "folder"
    found, record = glob(str(missing), "*")
    assert found == []
    assert (record.kind, record.folders, record.way) == ("listing", (), way(str(missing)))
    assert compare(record) is record
    missing.mkdir(parents=True)
    assert compare(record) is None, "an empty folder is not the same as none"


def test_a_root_that_is_a_file_has_no_names_and_its_content_is_no_part_of_it(root):
    found, record = glob(str(root / "a.md"), "*")
    assert found == []
    (root / "a.md").write_text("more")
    assert compare(record).same_content(record)
    (root / "a.md").unlink()
    (root / "a.md").mkdir()
    assert compare(record) is None


# What changes while it is listed


@pytest.mark.parametrize("times", [1, 7])
def test_a_folder_that_changes_while_it_is_listed_is_listed_again(root, monkeypatch, times):
    scandir = Meddler(os.scandir, lambda count: (root / f"new{count}.md").touch(), times=times)
    monkeypatch.setattr(os, "scandir", scandir)
    found, record = glob(str(root), "new*.md")
    assert len(found) == times
    assert record.digest
    assert compare(record).same_content(record)


def test_after_eight_tries_what_was_last_seen_is_returned_and_its_record_equals_nothing(root, monkeypatch):
    """Has caught: no names at all, and a record that equalled that of a folder which is gone."""
    scandir = Meddler(os.scandir, lambda count: (root / "sub" / f"new{count}").touch(), times=99)
    monkeypatch.setattr(os, "scandir", scandir)
    found, record = glob(str(root), "**/*.md")
    assert [path.name for path in found] == [".hidden.md", "a.md", "b.md", "c.md", "d.md"]
    assert record.digest is None
    assert scandir.calls == 8 * 3
    assert compare(record) is None
    root.rename(root.with_name("gone"))
    assert compare(record) is None


def test_a_folder_that_goes_before_the_walk_comes_to_it_is_noticed(root, monkeypatch):
    stat = os.stat

    def moving(path, **options):
        if path == str(root / "sub"):
            (root / "sub").rename(root.with_name("away"))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", moving)
    found, record = glob(str(root), "**/*.md")
    monkeypatch.undo()
    assert [path.name for path in found] == [".hidden.md", "a.md", "b.md"]
    assert not unchanged([record])
    assert compare(record).same_content(record)
    root.with_name("away").rename(root / "sub")
    assert compare(record) is None
