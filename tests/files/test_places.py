"""Where a path leads, and which folders have to be watched so that no change of it goes unseen.

Seen to fail on planted bugs: a link whose own place or folder is left out, a relative target taken from the folder of
the path instead of that of the link, `..` resolved in the text instead of in the tree, a walk that goes on behind a
missing component, links that are followed without end, and a missing folder at the root of the file system that nobody
watches for.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared_prompt_cache._files.places import absolute, identities, nearest, parents, spellings, way
from shared_prompt_cache._mounts import real


@pytest.fixture
def tree(tmp_path):
    """Return a real folder with `a/b/file.md` in it."""
    root = tmp_path.resolve()
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file.md").write_text("one")
    return root


def below(tree, found):
    """Return what of a tuple of places lies below the tree, relative to it."""
    return [os.path.relpath(place, tree) for place in found if Path(place).is_relative_to(tree) and place != str(tree)]


def places_of(tree, path):
    return below(tree, way(str(tree / path)).places)


def folders_of(tree, path):
    return below(tree, way(str(tree / path)).folders)


# The way


def test_each_folder_and_the_file_are_on_the_way(tree):
    assert places_of(tree, "a/b/file.md") == ["a", "a/b", "a/b/file.md"]
    assert folders_of(tree, "a/b/file.md") == ["a", "a/b"]
    found = way(str(tree / "a"))
    assert str(tree) in found.places
    assert str(tree) in found.folders


def test_spelling_a_path_with_dots_and_slashes_leads_the_same_way(tree):
    assert way(f"{tree}//a/./b/file.md/") == way(f"{tree}/a/b/file.md")


def test_the_way_ends_at_the_first_component_that_is_missing(tree):
    assert places_of(tree, "a/c/d/file.md") == ["a", "a/c"]
    assert folders_of(tree, "a/c/d/file.md") == ["a"]


def test_a_file_in_the_place_of_a_folder_is_the_end_that_matters(tree):
    assert places_of(tree, "a/b/file.md/x") == ["a", "a/b", "a/b/file.md", "a/b/file.md/x"]


@pytest.mark.parametrize("target", ["b", "../a/b", "./b/"], ids=str)
def test_a_relative_link_leads_on_from_the_folder_it_lies_in(tree, target):
    (tree / "a" / "link").symlink_to(target)
    assert set(places_of(tree, "a/link/file.md")) == {"a", "a/link", "a/b", "a/b/file.md"}
    assert set(folders_of(tree, "a/link/file.md")) == {"a", "a/b"}


def test_an_absolute_link_leads_on_from_the_root(tree):
    (tree / "a" / "link").symlink_to(tree / "elsewhere")
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere" / "file.md").write_text("two")
    assert places_of(tree, "a/link/file.md") == ["a", "a/link", "elsewhere", "elsewhere/file.md"]
    assert folders_of(tree, "a/link/file.md") == ["a", "elsewhere"]


def test_each_link_of_a_chain_is_on_the_way(tree):
    """As in a ConfigMap: `config -> ..data/config`, `..data -> ..version`."""
    (tree / "..version").mkdir()
    (tree / "..version" / "config").write_text("one")
    (tree / "..data").symlink_to("..version")
    (tree / "config").symlink_to("..data/config")
    assert set(places_of(tree, "config")) == {"config", "..data", "..version", "..version/config"}
    assert folders_of(tree, "config") == ["..version"]


def test_dots_go_up_from_where_a_link_has_led(tree):
    (tree / "link").symlink_to("a/b")
    assert set(places_of(tree, "link/../x")) == {"link", "a", "a/b", "a/x"}
    assert way("/../..").places == ()


def test_a_link_to_nothing_ends_where_its_target_would_be(tree):
    (tree / "link").symlink_to("a/missing/file.md")
    assert set(places_of(tree, "link")) == {"link", "a", "a/missing"}
    assert folders_of(tree, "link") == ["a"]


def test_a_circle_of_links_ends(tree):
    (tree / "one").symlink_to("a/two")
    (tree / "a" / "two").symlink_to("../one")
    (tree / "self").symlink_to("self/x")
    assert set(places_of(tree, "one")) == {"one", "a", "a/two"}
    assert places_of(tree, "self") == ["self"]


@pytest.mark.parametrize(("links", "reached"), [(40, True), (41, False)])
def test_as_many_links_are_followed_as_the_system_follows(tree, links, reached):
    (tree / "0").symlink_to("a/b/file.md")
    for number in range(1, links):
        (tree / str(number)).symlink_to(str(number - 1))
    assert ("a/b/file.md" in places_of(tree, str(links - 1))) is reached


def test_what_cannot_be_looked_at_counts_as_missing(tree, monkeypatch):
    lstat = os.lstat

    def refuse(path):
        if path == str(tree / "a" / "b"):
            raise PermissionError(13, "Permission denied")
        return lstat(path)

    monkeypatch.setattr(os, "lstat", refuse)
    assert places_of(tree, "a/b/file.md") == ["a", "a/b"]


def test_a_link_that_becomes_a_file_under_the_look_counts_as_missing(tree, monkeypatch):
    (tree / "link").symlink_to("a")

    def vanish(path):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "readlink", vanish)
    assert places_of(tree, "link/b") == ["link"]


def test_the_root_of_the_file_system_is_watched_only_for_what_else_than_a_folder_is_in_it(tree):
    """Has caught: a file that appears at the root of a container, which nobody watched for."""
    assert "/" not in way(str(tree / "a" / "b" / "file.md")).folders
    assert way("/no such folder/file.md") == (("/", "/no such folder"), ("/",))
    assert way("/") == ((), ())


def test_a_link_at_the_root_of_the_file_system_is_watched(monkeypatch):
    modes = {"/current": 0o120777, "/srv": 0o040755}

    def lstat(path):
        if path in modes:
            return os.stat_result((modes[path], *[0] * 9))
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(os, "readlink", {"/current": "srv/v1"}.get)
    assert way("/current/a.md") == (("/", "/current", "/srv", "/srv/v1"), ("/", "/srv"))


names = st.sampled_from(["a", "b", "l", "m", "x", ".."])
texts = st.lists(names, min_size=1, max_size=5).map("/".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(links=st.dictionaries(st.sampled_from(["l", "m", "a/l", "a/b/m"]), texts), path=texts)
def test_a_way_ends_where_the_system_arrives(tree, links, path):
    made = [tree / name for name in links]
    try:
        for name, target in links.items():
            (tree / name).symlink_to(target)
        found = way(f"{tree}/{path}")
        arrived = Path(f"{tree}/{path}")
        if arrived.exists() and tree in arrived.resolve().parents:
            assert str(arrived.resolve()) in found.places
            assert str(arrived.resolve().parent) in found.folders
        for place in found.places[:-1]:
            assert os.path.lexists(place)
        assert all(Path(folder).is_dir() for folder in found.folders)
    finally:
        for link in made:
            link.unlink(missing_ok=True)


# Spellings of paths


def test_a_path_is_recorded_absolute_without_dots_and_from_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute("a/../b//c/") == f"{tmp_path}/b/c"
    assert absolute(Path("~/memory")) == "/home/somebody/memory"


def test_the_parents_of_a_path_come_nearest_first():
    assert list(parents("/a/b/c")) == ["/a/b", "/a", "/"]
    assert list(parents("/")) == []


def test_a_real_path_is_found_while_links_on_it_are_replaced(tree, monkeypatch):
    (tree / "link").symlink_to("a")
    realpath, failures = os.path.realpath, [OSError(22, "Invalid argument")] * 3

    def shaky(path):
        if failures:
            raise failures.pop()
        return realpath(path)

    monkeypatch.setattr(os.path, "realpath", shaky)
    assert real(tree / "link" / "b") == str(tree / "a" / "b")
    failures.extend([OSError(22, "Invalid argument")] * 99)
    assert real(tree / "link" / ".." / "b") == str(tree / "b")


def test_a_folder_is_told_from_another_of_its_name(tree):
    before = identities([str(tree / "a"), str(tree / "none")])
    assert before[str(tree / "none")] is None
    (tree / "a").rename(tree / "old")
    (tree / "a").mkdir()
    after = identities([str(tree / "a"), str(tree / "old")])
    assert after[str(tree / "a")] != before[str(tree / "a")]
    assert after[str(tree / "old")] == before[str(tree / "a")]


def test_the_nearest_folder_that_exists_is_found_for_each_path(tree):
    asked = [tree / "a" / "b", tree / "a" / "x" / "y", tree / "a" / "b" / "file.md" / "z", "/no such folder/x"]
    assert nearest([str(path) for path in asked]) == {str(tree / "a" / "b"), str(tree / "a"), "/"}


def test_folders_that_are_the_same_know_each_other(tree):
    (tree / "link").symlink_to("a")
    (tree / "again").symlink_to("a")
    one, two, three = (str(tree / name) for name in ("a", "link", "again"))
    found = spellings([one, two, three, str(tree / "a" / "b"), str(tree / "none"), str(tree / "nothing")])
    assert found == {one: (two, three), two: (one, three), three: (one, two)}
