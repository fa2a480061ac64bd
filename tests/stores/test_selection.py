"""What a selection holds is what the conditions and scopes in memory take: one meaning in every tier.

Random subjects, filed as the cache files them, are judged by both. Seen to fail on planted bugs: a shape that keeps
its case or its `_`, one without the `:`, an entry with an agent that has a shape, a consumed key without its name, a
folder without its `/`, a pattern matched against the whole name, projects that are not asked for, and a name without
the kind of its scope.
"""

from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from _support import size
from shared_prompt_cache._core.conditions import file_condition, glob_condition, shapes_condition
from shared_prompt_cache._core.filing import agent_ids, entry_names, project_ids, target_names
from shared_prompt_cache.stores import Selection
from shared_prompt_cache.stores._selection import (
    name_of,
    names_of,
    select_agent,
    select_file,
    select_pattern,
    select_scopes,
)

EXAMPLES = settings(max_examples=size(60, 20_000))
# Few of each, so that one is often another's beginning, or its other spelling.
agents = st.sampled_from(["a", "a-b", "é"])
projects = st.sampled_from(["", "shop", "web", "/home/shop"])
tails = st.text("ab_-:*?[]!^/.\x1f\n\0éİ\U0010ffff", max_size=4)
keys = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "memory_", "Memory-", "x"]),
    agents | agents.map(str.upper) | agents.map(lambda agent: agent.replace("-", "_")),
    st.sampled_from(["_", "-", ":", ""]),
    tails,
)
paths = st.lists(st.sampled_from(["a", "a.md", "a_b"]), max_size=3).map(lambda parts: "/" + "/".join(parts))
patterns = st.text("ab_-:*?[]!^/é\n", min_size=1, max_size=8) | keys.map("{}*".format) | keys.map("*{}".format)


@st.composite
def subjects(draw):
    """Draw an entry as `Filing` files it, as far as conditions look at it."""
    agent = draw(st.none() | agents)
    names = entry_names(draw(projects))
    ids = [("all",)]
    if agent is not None:
        ids += [("agent", agent), *(("agent", agent, name) for name in names)]
    ids += [("project", name) for name in names]
    ids += [("tag", tag) for tag in draw(st.lists(tails, max_size=2))]
    consumed = draw(st.lists(st.tuples(keys, st.booleans()), max_size=2))
    ids += [("key", key) for key, _ in consumed]
    # What was consumed brings the scopes that it was filed under.
    if consumed:
        ids += [("project", name) for name in entry_names(draw(projects))]
    return SimpleNamespace(
        key=draw(keys),
        agent=agent,
        pairs=[(SimpleNamespace(id=scope_id), 0) for scope_id in ids],
        consumed=consumed,
        paths=draw(st.lists(paths, max_size=3)),
        labels=SimpleNamespace(projects=names),
    )


def names(subject):
    scopes = [scope.id for scope, _ in subject.pairs if scope.id[0] != "key"]  # a consumed key is told as such, too
    return names_of(subject.key, scopes, subject.consumed, subject.paths, unowned=subject.agent is None)


def is_in(subject, ids):
    return any(scope.id in ids for scope, _ in subject.pairs)


@EXAMPLES
@given(subjects(), patterns)
def test_a_pattern_selects_what_its_condition_takes(subject, pattern):
    assert select_pattern(pattern).selects(names(subject)) == glob_condition(pattern).matches(subject)


@EXAMPLES
@given(subjects(), st.data())
def test_so_does_the_pattern_that_a_key_of_the_entry_begins_with(subject, data):
    key = data.draw(st.sampled_from([subject.key, *(key for key, _ in subject.consumed)]))
    pattern = key[: data.draw(st.integers(0, len(key)))] + data.draw(st.sampled_from(["*", "?", "[!a]*", ""]))
    if pattern:
        assert select_pattern(pattern).selects(names(subject)) == glob_condition(pattern).matches(subject)


@EXAMPLES
@given(subjects(), paths)
def test_a_file_selects_what_its_condition_takes(subject, path):
    assert select_file(path).selects(names(subject)) == file_condition(path).matches(subject)


@EXAMPLES
@given(subjects(), agents)
def test_an_agent_selects_what_its_scopes_and_shapes_take(subject, agent):
    ids = agent_ids(agent, None)
    taken = is_in(subject, ids) or shapes_condition(agent, None).matches(subject)
    assert select_agent(ids, agent, None).selects(names(subject)) == taken


@EXAMPLES
@given(subjects(), agents, projects.filter(bool))
def test_so_does_an_agent_in_a_project(subject, agent, project):
    of_project = target_names(project)
    ids = agent_ids(agent, of_project)
    taken = is_in(subject, ids) or shapes_condition(agent, of_project).matches(subject)
    selected = select_agent(ids, agent, of_project).selects(names(subject))
    assert selected >= taken, "a store must never keep what is invalidated in memory"
    if not subject.consumed:
        assert selected == taken


def test_of_what_was_made_from_others_it_may_take_more_than_memory_does():
    """Names do not say whether a project is that of the entry or of what it was made from."""
    subject = SimpleNamespace(
        key="engineer_1",
        agent=None,
        pairs=[(SimpleNamespace(id=("project", name)), 0) for name in ("web", "shop")],
        consumed=[("other", False)],
        paths=[],
        labels=SimpleNamespace(projects=("web",)),
    )
    assert not shapes_condition("engineer", ("shop",)).matches(subject)
    assert select_agent([], "engineer", ("shop",)).selects(names(subject))


@EXAMPLES
@given(
    subjects(), st.lists(st.sampled_from([("all",), ("tag", "a"), ("agent", "a"), ("key", "engineer_a")]), max_size=2)
)
def test_scopes_select_what_is_in_one_of_them(subject, ids):
    own = [("key", subject.key)]  # an entry is selected by its own key as by those it was made from
    assert select_scopes(ids).selects(names(subject)) == (is_in(subject, ids) or any(one in own for one in ids))


@EXAMPLES
@given(subjects(), projects.filter(bool))
@example(SimpleNamespace(key="k", agent=None, pairs=[], consumed=[], paths=[], labels=None), "shop")
def test_a_project_selects_what_is_in_one_of_its_scopes(subject, project):
    ids = project_ids(target_names(project))
    assert select_scopes(ids).selects(names(subject)) == is_in(subject, ids)


def test_names_are_sorted_and_each_is_there_once():
    found = names_of("a", [("all",), ("key", "b"), ("all",)], [("b", True), ("b", False)], ["/x", "/x"], unowned=True)
    assert found == tuple(sorted(set(found)))
    assert found == tuple(
        map(name_of, [("all",), ("file", "/x"), ("key", "a"), ("key", "b"), ("shape", "a"), ("shape", "b")])
    )


@pytest.mark.parametrize(
    ("selection", "names_", "selected"),
    [
        (Selection(names=("a",)), ("a", "b"), True),
        (Selection(names=("a",), projects=()), ("a",), True),
        (Selection(prefixes=("key\x1fa",)), ("key\x1fab",), True),
        (Selection(prefixes=("key\x1fa",)), ("key\x1fb",), False),
        (Selection(prefixes=("key\x1fa",), pattern="ab"), ("key\x1fab",), True),
        (Selection(prefixes=("key\x1fa",), pattern="b"), ("key\x1fab",), False),
        (Selection(prefixes=("key\x1f",), pattern="a\x1fb"), ("key\x1fa\x1fb",), True),
        (Selection(prefixes=("key\x1fa",), projects=("p",)), ("key\x1fa",), False),
        (Selection(prefixes=("key\x1fa",), projects=("p",)), ("key\x1fa", "project\x1fp"), True),
        (Selection(prefixes=("key\x1fa",), projects=()), ("key\x1fa", "project\x1fp"), False),
        (Selection(pattern="*"), ("key\x1fa",), False),
    ],
)
def test_names_stand_alone_and_prefixes_with_pattern_and_projects(selection, names_, selected):
    assert selection.selects(names_) is selected
