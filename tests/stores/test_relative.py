"""What a store is asked for by relative paths is what it would be asked for by absolute ones; also behind a move.

Seen to fail on planted bugs: a root that is a mere prefix of a path; a slash at the end that is lost; a folder above
the root that selects nothing below it; the name of the root's folder that is kept alone; the empty name of no project
taken for the folder of `/`; the root `/` that is called otherwise than others; an agent's project left absolute.
"""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from _support import size
from shared_prompt_cache._core.filing import agent_ids, entry_names, project_ids, target_names
from shared_prompt_cache._tier.journal import kept, read, written
from shared_prompt_cache._tier.relative import Relative
from shared_prompt_cache.events import Invalidation, PeerEvent
from shared_prompt_cache.stores import Notice
from shared_prompt_cache.stores._selection import (
    names_of,
    scope_of,
    select_agent,
    select_file,
    select_pattern,
    select_scopes,
)

ROOTS = ("/home/ann/web", "/srv/b/shop", "/", "/web")
roots = st.sampled_from(ROOTS)
folders = st.sampled_from(["/home/ann/web", "/home/ann/shop", "/home/ann/deep/er"])  # below what is above of all
PARTS = ("", "/", "/a", "/a/b", "/a/", "/ab", "//", "/.", "/./.", "/\udcff", "/web")
OUTSIDE = ("/home/ann/web2", "/home/ann", "/home", "/", "/other/web", "/other/shop", "/home/ann/webb/a")
NAMES = ("", ".", "./.", "*", "web", "shop", "a", "~")


@pytest.mark.parametrize("root", [*ROOTS, None])
def test_every_path_and_every_name_comes_back(root):
    relative = Relative(root)
    texts = {(root or "").rstrip("/") + part for part in PARTS} | {*OUTSIDE, *PARTS} | {*NAMES} - {"./."}
    assert [relative.absolute(relative.kept(text)) for text in texts] == list(texts)
    assert len({relative.kept(text) for text in texts}) == len(texts)
    assert relative.absolute(relative.kept(None)) is None
    for text in texts:
        for scope_id in (("project", text), ("agent", "qa", text)):
            (name, *_) = relative.names(["\x1f".join(scope_id)])
            assert relative.scope_of(name) == scope_id
    for name in ("all", "agent\x1fqa", "tag\x1f./", "key\x1f./a", f"key\x1f{root}/a", f"shape\x1f{root}/a"):
        assert relative.names([name]) == (name,)
        assert relative.scope_of(name) == scope_of(name)


def test_what_lies_there_has_no_trace_of_the_root():
    relative = Relative("/home/ann/web")
    assert relative.kept("/home/ann/web/a/b") == ".//a/b"
    assert relative.kept("/home/ann/web") == "./"
    assert relative.kept("/home/ann/web2") == "/home/ann/web2"
    assert Relative("/srv/shop").absolute(".//a/b") == "/srv/shop/a/b"
    assert Relative("/srv/shop").absolute("./") == "/srv/shop"
    assert Relative("/").absolute("./") == "/"
    assert Relative("/").names(["project\x1f"]) == ("project\x1f",)  # of no project; `/` has no name


@pytest.mark.parametrize(
    ("told", "there"),
    [
        (("file", "/home/ann/web/a", None), ("file", "/app/a", None)),
        (("file", "/home/ann/other", None), ("file", "/home/ann/other", None)),
        (("project", "/home/ann/web", None), ("project", "/app", None)),
        (("agent", "qa", "/home/ann/web"), ("agent", "qa", "/app")),
        (("key", "/home/ann/web/a", None), ("key", "/home/ann/web/a", None)),
        (("all", None, None), ("all", None, None)),
    ],
)
def test_a_notice_tells_who_has_the_root_elsewhere_of_his_own_paths(told, there):
    """As a process in a container has it, where the project is mounted under another path."""
    scope, name, project = told
    cause = PeerEvent(origin="elsewhere")
    event = Invalidation(scope=scope, name=name, project=project, cause=cause, origin="x", sequence=1, at=0, dropped=0)
    notice = kept(Notice("x", 1, select_scopes([("all",)]), written(event)), Relative("/home/ann/web"))
    found = read(notice.body, Relative("/app"))
    assert (found.scope, found.name, found.project) == there


def test_what_is_filed_under_the_name_of_the_folder_is_found_under_the_new_one():
    names = Relative("/home/ann/web").names(["project\x1fweb", "project\x1f*/web"])
    found = [Relative("/srv/shop").scope_of(name) for name in names]
    assert set(found) == {("project", "web"), ("project", "*/web"), ("project", "shop"), ("project", "*/shop")}


# Paths and projects by what they are, whatever the root: a function of it.
places = st.sampled_from([lambda root, part=part: root.rstrip("/") + part or "/" for part in ("", "/a", "/a/b", "/ab")])
elsewhere = st.sampled_from([lambda _, path=path: path for path in OUTSIDE])
by_name = st.sampled_from([lambda _, name=name: name for name in ("", ".", "a", "tea")])
by_folder = st.just(lambda root: root.rpartition("/")[2] or "/")
paths = places | elsewhere
projects = places | elsewhere | by_name | by_folder
agents = st.sampled_from(["qa", "pm"])


@st.composite
def entries(draw):
    key = draw(st.sampled_from(["k", "qa-k", "/home/ann/web/a"]))
    files, labels, agent = draw(st.lists(paths, max_size=3)), draw(st.lists(projects, max_size=2)), draw(agents)
    owned = draw(st.booleans())

    def names(root):
        scopes = [("all",)]
        for label in labels:
            for name in entry_names(label(root)):
                scopes += [("project", name), ("agent", agent, name)] if owned else [("project", name)]
        return names_of(key, scopes, (), [file(root) for file in files], unowned=not owned)

    return names


@st.composite
def queries(draw):
    where, who, agent = draw(paths), draw(projects), draw(agents)
    return draw(
        st.sampled_from(
            [
                lambda root: select_file(where(root)),
                lambda root: select_scopes(project_ids(target_names(who(root)))),
                lambda root: select_agent(agent_ids(agent, target_names(who(root))), agent, target_names(who(root))),
                lambda _: select_agent(agent_ids(agent, None), agent, None),
                lambda _: select_pattern("/home/ann/web/*"),
                lambda _: select_scopes([("all",)]),
            ]
        )
    )


@settings(max_examples=size(200, 4_000))
@given(entries(), queries(), roots)
def test_a_selection_selects_by_relative_names_what_it_does_by_absolute_ones(names, query, root):
    relative = Relative(root)
    assert relative.selection(query(root)).selects(relative.names(names(root))) == query(root).selects(names(root))


@settings(max_examples=size(200, 4_000))
@given(entries(), queries(), folders, folders)
def test_behind_a_move_a_selection_still_selects_all_that_it_did(names, query, before, after):
    kept, relative = Relative(before).names(names(before)), Relative(after)
    assume(relative.are_kept(kept))  # or else it is not read any more
    if query(before).selects(names(before)):
        assert relative.selection(query(after)).selects(kept)


def test_what_lay_outside_and_lies_below_the_root_now_is_told():
    kept = Relative("/tmp/web").names(["file\x1f/srv/shop/a", "project\x1fshop", "agent\x1fqa"])
    assert not Relative("/srv/shop").are_kept(kept)
    assert Relative("/srv/shop").are_kept(kept[1:])
    assert Relative("/srv/web").are_kept(kept)


@given(paths, paths, roots)
def test_records_at_or_below_a_path_are_looked_for_where_they_are(top, path, root):
    top, path, relative = top(root), path(root), Relative(root)
    if path == top or path.startswith(top.rstrip("/") + "/"):
        kept = relative.kept(path)
        assert any(kept == base or kept.startswith(base.rstrip("/") + "/") for base in relative.bases([top]))
