"""A comparison with the baseline tells what has another content, by whatever way that came about, and nothing else.

Seen to fail on planted bugs: a touched file that counts as changed, folders of links that are told only after a walk,
links that are not followed anew when something on their way changed, troubles that a look at single files forgets.
"""

import os
from functools import partial

import pytest

from _edits import touch
from _support import replace
from shared_prompt_cache import WatchRule
from shared_prompt_cache._files import baseline as module
from shared_prompt_cache._files.baseline import Baseline
from shared_prompt_cache._files.matching import RuleTable


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def watched(root, pattern="**/{agent}.md", **options):
    """Return a baseline of what is there."""
    baseline = Baseline(RuleTable([WatchRule(root, pattern, "agent", imports=True, **options)]))
    assert baseline.compare(None, initial=True).changes == ()
    return baseline


def found(compared):
    return {(change.path.name, change.kind) for change in compared.changes}


def look(baseline, *paths):
    """Compare single files, as after an event."""
    return found(baseline.compare([str(path) for path in paths]))


def everywhere(baseline):
    return found(baseline.compare(None))


# Files


def test_what_was_there_at_first_is_no_change_and_later_it_is(root):
    (root / "qa.md").write_text("1")
    baseline = watched(root)
    assert baseline.files.keys() == {str(root / "qa.md")}
    (root / "ops.md").write_text("1")
    assert everywhere(baseline) == {("ops.md", "added")}
    assert everywhere(baseline) == set()


def test_the_content_decides(root):
    file = root / "qa.md"
    file.write_text("1")
    baseline = watched(root)
    touch(file)
    assert look(baseline, file) == set()
    replace(file, "1")
    assert look(baseline, file) == set()
    replace(file, "2")
    assert look(baseline, file) == {("qa.md", "modified")}
    file.unlink()
    assert look(baseline, file) == {("qa.md", "deleted")}
    assert look(baseline, file) == set()
    file.write_text("2")
    assert look(baseline, file) == {("qa.md", "added")}


def test_only_what_was_asked_for_is_looked_at(root):
    for name in ("qa.md", "ops.md"):
        (root / name).write_text("1")
    baseline = watched(root)
    for name in ("qa.md", "ops.md"):
        replace(root / name, "2")
    assert look(baseline, root / "qa.md") == {("qa.md", "modified")}
    assert everywhere(baseline) == {("ops.md", "modified")}


def test_what_no_rule_matches_is_no_change(root):
    baseline = watched(root)
    (root / "notes.txt").write_text("1")
    assert look(baseline, root / "notes.txt") == set()
    assert everywhere(baseline) == set()
    assert baseline.files == {}


def test_a_folder_in_the_place_of_a_file_is_the_end_of_the_file(root):
    (root / "qa.md").write_text("1")
    baseline = watched(root)
    (root / "qa.md").unlink()
    (root / "qa.md").mkdir()
    assert look(baseline, root / "qa.md") == {("qa.md", "deleted")}


def test_a_file_that_cannot_be_read_counts_as_gone_until_it_can(root, monkeypatch):
    """As root everything can be read; so the reading is refused."""
    file = root / "qa.md"
    file.write_text("1")
    baseline = watched(root)
    replace(file, "2")

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_file", refuse)
        patch.setattr(module, "compare", lambda known: None)
        assert look(baseline, file) == {("qa.md", "deleted")}
    assert look(baseline, file) == {("qa.md", "added")}


# Imports


def test_a_change_of_an_imported_file_is_one_of_its_importer(root):
    (root / "docs").mkdir()
    (root / "docs" / "b.txt").write_text("1")
    (root / "docs" / "a.txt").write_text("@b.txt")
    (root / "qa.md").write_text("@docs/a.txt")
    (root / "ops.md").write_text("nothing")
    baseline = watched(root, "{agent}.md")
    replace(root / "docs" / "b.txt", "2")
    assert look(baseline, root / "docs" / "b.txt") == {("qa.md", "modified")}
    replace(root / "docs" / "a.txt", "no more")
    assert everywhere(baseline) == {("qa.md", "modified")}
    replace(root / "docs" / "b.txt", "3")
    assert everywhere(baseline) == set()
    assert str(root / "docs" / "b.txt") not in baseline.links


def test_an_import_that_an_edit_brings_is_followed_from_then_on(root):
    (root / "docs").mkdir()
    (root / "docs" / "a.txt").write_text("1")
    (root / "qa.md").write_text("nothing")
    baseline = watched(root, "{agent}.md")
    replace(root / "qa.md", "@docs/a.txt")
    compared = baseline.compare([str(root / "qa.md")])
    assert found(compared) == {("qa.md", "modified")}
    assert str(root / "docs") in compared.folders
    replace(root / "docs" / "a.txt", "2")
    assert look(baseline, root / "docs" / "a.txt") == {("qa.md", "modified")}


def test_an_import_from_a_folder_that_does_not_exist_is_looked_for(root):
    (root / "qa.md").write_text("@docs/more/a.txt")
    baseline = watched(root, "{agent}.md")
    (root / "docs").mkdir()
    compared = baseline.compare([str(root / "docs")])
    assert found(compared) == set()
    assert str(root / "docs") in compared.folders
    (root / "docs" / "more").mkdir()
    assert str(root / "docs" / "more") in baseline.compare([str(root / "docs" / "more")]).folders
    (root / "docs" / "more" / "a.txt").write_text("1")
    assert look(baseline, root / "docs" / "more" / "a.txt") == {("qa.md", "modified")}


def test_an_import_through_a_symlink_is_followed_to_its_end(root):
    """`CLAUDE.md` imports `AGENTS.md`, which is a link to where the text really is."""
    (root / "docs").mkdir()
    (root / "docs" / "real.txt").write_text("1")
    (root / "link.txt").symlink_to("docs/real.txt")
    (root / "qa.md").write_text("@link.txt")
    baseline = watched(root, "{agent}.md")
    replace(root / "docs" / "real.txt", "2")
    assert look(baseline, root / "docs" / "real.txt") == {("qa.md", "modified")}
    (root / "docs" / "other.txt").write_text("3")
    (root / "link.txt").unlink()
    (root / "link.txt").symlink_to("docs/other.txt")
    assert look(baseline, root / "link.txt") == {("qa.md", "modified")}
    replace(root / "docs" / "other.txt", "4")
    assert look(baseline, root / "docs" / "other.txt") == {("qa.md", "modified")}


def test_an_import_that_cannot_be_read_is_left_out_until_it_can(root):
    (root / "a.txt").mkdir()
    (root / "qa.md").write_text("@a.txt")
    baseline = watched(root, "{agent}.md")
    (root / "a.txt").rmdir()
    (root / "a.txt").write_text("1")
    look(baseline, root / "a.txt")
    replace(root / "a.txt", "2")
    assert look(baseline, root / "a.txt") == {("qa.md", "modified")}


def test_what_lies_outside_of_the_project_is_not_imported(root):
    outside = root.parent / "secret.txt"
    outside.write_text("1")
    (root / "qa.md").write_text("@../secret.txt")
    baseline = watched(root, "{agent}.md")
    assert str(outside) not in baseline.links
    replace(outside, "2")
    assert everywhere(baseline) == set()


# Symlinks


def test_the_target_of_a_symlink_is_a_part_of_the_file(root):
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "one").write_text("1")
    (outside / "two").write_text("2")
    (root / "qa.md").symlink_to(outside / "one")
    baseline = watched(root)
    replace(outside / "one", "changed")
    assert look(baseline, outside / "one") == {("qa.md", "modified")}
    (root / "qa.md").unlink()
    (root / "qa.md").symlink_to(outside / "two")
    assert look(baseline, root / "qa.md") == {("qa.md", "modified")}
    replace(outside / "two", "changed, too")
    assert look(baseline, outside / "two") == {("qa.md", "modified")}
    assert str(outside / "one") not in baseline.links


def test_a_symlink_that_an_edit_brings_has_its_folder_told(root):
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "one").write_text("1")
    baseline = watched(root)
    (root / "qa.md").symlink_to(outside / "one")
    compared = baseline.compare([str(root / "qa.md")])
    assert found(compared) == {("qa.md", "added")}
    assert {str(root), str(outside)} <= compared.folders
    touch(root / "qa.md")
    assert baseline.compare([str(root / "qa.md")]).folders is None


def test_a_symlink_that_leads_nowhere_is_a_file_once_it_leads_somewhere(root):
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "qa.md").symlink_to(outside / "one")
    baseline = watched(root)
    assert baseline.files == {}
    (root / "ops.md").symlink_to(outside / "two")
    assert look(baseline, root / "ops.md") == set()
    for name, file in (("one", "qa.md"), ("two", "ops.md")):
        (outside / name).write_text("1")
        assert look(baseline, outside / name) == {(file, "added")}


# Folders


def test_all_folders_are_told_that_files_can_come_to(root):
    (root / "a" / "b").mkdir(parents=True)
    (root / "node_modules").mkdir()
    baseline = watched(root)
    assert baseline.compare(None).folders == {str(root), str(root / "a"), str(root / "a" / "b")}
    assert baseline.compare([str(root / "qa.md")]).folders is None


def test_a_folder_that_cannot_be_looked_into_is_told_until_it_can(root, monkeypatch):
    """As root every folder can be looked into; so the looking is refused."""
    inner = root / "inner"
    inner.mkdir()
    (root / "qa.md").write_text("1")
    (inner / "ops.md").write_text("1")
    baseline = watched(root)
    scandir = os.scandir

    def refuse(path):
        if path == str(inner):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        compared = baseline.compare(None)
        assert compared.troubles == ((str(inner), "it cannot be read"),)
        assert compared.changes == ()  # what is known in it is looked at by name
        replace(inner / "ops.md", "2")
        assert look(baseline, inner / "ops.md") == {("ops.md", "modified")}
        assert baseline.compare([str(root / "qa.md")]).troubles == compared.troubles
    assert baseline.compare(None).troubles == ()


def test_the_limit_of_folders_is_told(root, monkeypatch):
    for number in range(5):
        (root / str(number)).mkdir()
    monkeypatch.setattr(module, "walk", partial(module.walk, limit=3))
    ((folder, reason),) = watched(root).compare(None).troubles
    assert folder == str(root)
    assert "more folders than are looked into" in reason
