"""Watch rules accept what they can mean, refuse the rest by name, and match like a matcher that tries everything."""

import copy
import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared_prompt_cache.errors import ConfigError, ConfigTypeError
from shared_prompt_cache.rules import WatchRule, normalise_agent


def matches(pattern: str, path: str) -> bool:
    return WatchRule("/root", pattern, "files").match(path) is not None


def agent_of(pattern: str, path: str) -> str | None:
    match = WatchRule("/root", pattern, "agent").match(path)
    return match and match.agent


# Agent ids


@pytest.mark.parametrize(
    ("name", "agent"),
    [
        ("Python_Engineer", "python-engineer"),
        ("python-engineer-agent", "python-engineer"),
        ("python engineer", "python-engineer"),
        ("python__-_engineer", "python-engineer"),
        ("agents/backend/python_engineer.md", "python-engineer"),
        ("agents\\python_engineer.yml", "python-engineer"),
        ("reviewer.agent.md", "reviewer"),
        ("reviewer-agent.toml", "reviewer"),
        ("engineer.json", "engineer"),
        ("data-engineer", "data-engineer"),
        ("agents/engineer/", "engineer"),
        ("Agent", "agent"),
        ("_agent", "-agent"),
        (".md", ".md"),
        (" PM ", "pm"),
        ("v1.2", "v1.2"),
    ],
)
def test_spellings_of_an_agent_are_one_id(name, agent):
    assert normalise_agent(name) == agent


@given(st.text())
def test_an_id_normalised_twice_is_the_same_and_never_empty(name):
    try:
        agent = normalise_agent(name)
    except ConfigError:
        assert not name.replace("/", "").replace("\\", "").strip()
        return
    assert agent
    assert normalise_agent(agent) == agent


@pytest.mark.parametrize("name", ["", "  ", "/", " / "])
def test_an_agent_without_a_name_is_refused(name):
    with pytest.raises(ConfigError, match="agent is"):
        normalise_agent(name)


@pytest.mark.parametrize("name", [None, 3, b"pm", ["pm"]])
def test_an_agent_that_is_no_string_is_refused(name):
    with pytest.raises(ConfigTypeError, match="agent is"):
        normalise_agent(name)


# What a rule accepts


def test_a_root_is_stored_absolute_and_folded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert WatchRule("a/../b//c/", "*", "files").root == tmp_path / "b" / "c"
    assert WatchRule(Path("~/memory"), "*", "files").root == Path("/home/somebody/memory")


def test_a_relative_root_in_a_folder_that_is_gone_is_refused(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="give an absolute path"):
        WatchRule("relative", "*", "files")


def test_a_rule_belongs_to_the_project_at_its_root_unless_told_otherwise():
    assert WatchRule("/p", "*", "project").project_root == Path("/p")
    assert WatchRule("/home", "*", "project", project_root="/p").project_root == Path("/p")
    assert WatchRule("/home", "*", "all", anywhere=True).project_root is None


def test_equal_rules_are_equal_hash_alike_and_survive_copies():
    rule = WatchRule("/p", "{agent}.md", "agent", kinds=["added"], exclude=["x*"])
    assert rule == WatchRule("/p", "{agent}.md", "agent", kinds={"added"}, exclude=("x*",))
    assert len({rule, copy.copy(rule), pickle.loads(pickle.dumps(rule))}) == 1
    assert dataclasses.replace(rule, imports=True).imports
    elsewhere = WatchRule("/p", "*", "all", anywhere=True)
    assert dataclasses.replace(elsewhere) == elsewhere


def test_the_kinds_limit_what_a_rule_is_about():
    rule = WatchRule("/p", "*", "files", kinds={"added", "deleted"})
    assert rule.concerns("added")
    assert not rule.concerns("modified")
    assert WatchRule("/p", "*", "files").concerns("modified")


# What a rule refuses


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "/etc/x", "~/x", "a//b", "a/", "./a", "a/../b", "..", "a\\b", "a\0", "x" * 1025, None, 3, b"*.md"),
        *("a**", "***", "**a/b", "[a", "a[", "[]", "[!]", "[z-a]"),
        *("{a,b}", "{", "{agent", "{name}.md", "{agent}/{agent}.md"),
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused(pattern):
    with pytest.raises(ConfigError, match="pattern") as caught:
        WatchRule("/p", pattern, "files")
    assert caught.value.field == "pattern"


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("root", {"root": ""}),
        ("root", {"root": "a\0"}),
        ("root", {"root": b"/p"}),
        ("root", {"root": None}),
        ("scope", {"scope": "file"}),
        ("scope", {"scope": None}),
        ("scope", {"scope": ["project"]}),
        ("scope", {"scope": "project", "anywhere": True}),
        ("pattern", {"scope": "agent"}),
        ("agent", {"scope": "agent", "agent": "/"}),
        ("agent", {"scope": "agent", "agent": 3}),
        ("agent", {"scope": "project", "agent": "pm"}),
        ("project", {"project": ""}),
        ("project", {"project": Path("/p")}),
        ("project", {"project": "p", "anywhere": True}),
        ("project_root", {"project_root": ""}),
        ("project_root", {"project_root": "/p", "anywhere": True}),
        ("anywhere", {"anywhere": 1}),
        ("imports", {"imports": "yes"}),
        ("kinds", {"kinds": "modified"}),
        ("kinds", {"kinds": ()}),
        ("kinds", {"kinds": 3}),
        ("kinds", {"kinds": ["moved"]}),
        ("kinds", {"kinds": [["added"]]}),
        ("exclude", {"exclude": "*.log"}),
        ("exclude", {"exclude": 3}),
        ("exclude", {"exclude": ["/x"]}),
        ("exclude", {"exclude": ["{agent}.md"]}),
        ("exclude", {"exclude": ["[a"]}),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_by_its_name(field, options):
    with pytest.raises(ConfigError) as caught:
        WatchRule(**{"root": "/p", "pattern": "*.md", "scope": "files", **options})
    assert caught.value.field == field
    assert field in str(caught.value)
    assert "; " in str(caught.value), "a remedy follows"


anything = st.one_of(
    st.just(10**5000),  # which has no repr
    st.none(),
    st.booleans(),
    st.integers(),
    st.text("ab*?[]{}!-/.~\\agent"),
    st.binary(),
    st.lists(st.text()),
)


@given(
    anything,
    anything,
    st.one_of(anything, st.sampled_from(["agent", "agents", "project", "all", "files"])),
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ["agent", "project", "project_root", "anywhere", "kinds", "exclude", "imports"], anything
        ),
    ),
)
def test_a_rule_is_made_or_refused_with_a_config_error(root: Any, pattern: Any, scope: Any, options: Any):
    try:
        rule = WatchRule(root, pattern, scope, **options)
    except ConfigError:
        return
    rule.match("some/agent.md")
    rule.leads("some")


# What a rule matches


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.md", "a.md", True),
        ("*.md", ".md", True),
        ("*.md", "a/b.md", False),
        ("*.md", "A.MD", False),
        ("a?.md", "ab.md", True),
        ("a?.md", "a/.md", False),
        ("**/a.md", "a.md", True),
        ("**/a.md", "x/y/a.md", True),
        ("**/a.md", "xa.md", False),
        ("x/**", "x/y", True),
        ("x/**", "x/y/z", True),
        ("x/**", "x", False),
        ("**", "a", True),
        ("a/**/**/b", "a/b", True),
        ("[ab].md", "b.md", True),
        ("[!ab].md", "b.md", False),
        ("x[!a]y", "x/y", False),
        ("[a-c]x", "bx", True),
        ("[]]", "]", True),
        ("[a-]", "-", True),
        ("[*].md", "*.md", True),
        ("[*].md", "a.md", False),
        ("[{agent}].md", "{.md", True),
        ("a.b", "a+b", False),
        ("a}", "a}", True),
        ("a", "a\n", False),
        ("[^a]", "b", False),
        ("[^a]", "^", True),
        ("[[]", "[", True),
    ],
)
def test_patterns_mean_what_they_say(pattern, path, expected):
    assert matches(pattern, path) is expected


@pytest.mark.parametrize(
    ("pattern", "path", "agent"),
    [
        ("memories/{agent}_memories.md", "memories/Python_Engineer_memories.md", "python-engineer"),
        ("memories/{agent}_memories.md", "memories/_memories.md", None),
        ("memory/{agent}/**", "memory/qa/deep/note.md", "qa"),
        ("memory/{agent}/**", "memory/note.md", None),
        ("**/{agent}.md", "a/b/x.agent.md", "x"),
        ("{agent}_*.md", "data_engineer_notes.md", "data-engineer"),
        ("*_{agent}.md", "x_qa.md", "qa"),
        ("{agent}.md", " .md", None),
    ],
)
def test_the_agent_is_captured_and_normalised(pattern, path, agent):
    assert agent_of(pattern, path) == agent


def test_an_agent_fixed_by_the_rule_goes_before_the_captured_one():
    rule = WatchRule("/p", "{agent}.md", "agent", agent="PM")
    assert not rule.captures
    assert rule.match("qa.md").agent == "pm"


def test_what_is_excluded_is_no_match_nor_anything_below_it():
    rule = WatchRule("/p", "**/*.md", "project", exclude=("logs/**", "**/tmp", "*_old.md"))
    assert rule.match("a/b.md")
    assert not rule.match("logs/a/b.md")
    assert not rule.match("a/tmp/b.md")
    assert not rule.match("x_old.md")
    assert rule.match("a/x_old.md"), "a pattern without ** is about one folder"
    assert not rule.leads("logs")
    assert not rule.leads("a/tmp/b")


def naive(pattern: str, path: str) -> bool:
    """Match by trying everything: segments first, then characters."""

    def segments(left: list[str], right: list[str]) -> bool:
        if not left:
            return not right
        if left == ["**"]:
            return bool(right)
        if left[0] == "**":
            return any(segments(left[1:], right[n:]) for n in range(len(right)))
        return bool(right) and characters(left[0], right[0]) and segments(left[1:], right[1:])

    def characters(left: str, right: str) -> bool:
        if not left:
            return not right
        if left.startswith("{agent}"):
            return any(characters(left[7:], right[n:]) for n in range(1, len(right) + 1))
        if left[0] == "*":
            return any(characters(left[1:], right[n:]) for n in range(len(right) + 1))
        if left[0] == "[":
            body, _, rest = left[1:].partition("]")
            negated = body[0] == "!"
            return bool(right) and ((right[0] in body.removeprefix("!")) is not negated) and characters(rest, right[1:])
        return bool(right) and left[0] in ("?", right[0]) and characters(left[1:], right[1:])

    return segments(pattern.split("/"), path.split("/"))


plain = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]"]), min_size=1, max_size=5).map("".join)
segment = st.one_of(
    st.just("**"), plain.filter(lambda text: "**" not in text), plain.map(lambda t: t.replace("*", "a"))
)
globs = st.lists(segment, min_size=1, max_size=6).map("/".join)
paths = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=6).map("/".join)


@st.composite
def globs_and_paths(draw):
    """A pattern, and a path that it should match, or nearly."""
    glob = draw(globs)
    fitting = {
        "**/": st.lists(st.sampled_from(["a/", "b/", "ab/"]), max_size=3).map("".join),
        "**": st.sampled_from(["a", "b/a"]),
        "*": st.text("ab", max_size=3),
        "?": st.sampled_from("ab"),
        "[ab]": st.sampled_from("ab"),
        "[!a]": st.just("b"),
    }
    parts = [draw(fitting.get(part, st.just(part))) for part in re.findall(r"\*\*/?|\[!?\w+\]|.", glob)]
    return glob, draw(st.sampled_from(["".join(parts), "".join(parts[:-1]) + "b"])).strip("/") or "a"


@given(st.one_of(globs_and_paths(), st.tuples(globs, paths)))
@example(("*a*a", "aa"))
@example(("**/a/**/a", "a/a"))
def test_matching_equals_a_matcher_that_tries_everything(pattern_and_path):
    """Has caught: gaps between blocks that took the latest place instead of the earliest."""
    pattern, path = pattern_and_path
    assert matches(pattern, path) is naive(pattern, path)


@given(st.lists(st.sampled_from(["a", "b", "*", "?", "{agent}"]), min_size=1, max_size=6), st.text("ab", max_size=6))
def test_a_capture_beside_wildcards_misses_nothing(parts, name):
    pattern = "".join(parts)
    if "**" not in pattern and pattern.count("{agent}") == 1 and name:
        assert (agent_of(pattern, name) is not None) is naive(pattern, name)


@given(globs_and_paths())
def test_every_folder_on_the_way_to_a_match_leads_there(pattern_and_path):
    pattern, path = pattern_and_path
    rule = WatchRule("/p", pattern, "files")
    if rule.match(path) is None:
        return
    *folders, file = path.split("/")
    assert tuple(folders[: len(rule.prefix)]) == rule.prefix
    assert rule.depth is None or len(folders) - len(rule.prefix) <= rule.depth
    for level, name in enumerate([*folders, file]):
        above = "/".join(folders[:level])
        assert rule.leads(above)
        assert rule.only_name(above) in (None, name)


@pytest.mark.parametrize(
    ("pattern", "prefix", "depth"),
    [
        ("CLAUDE.md", (), 0),
        ("**/CLAUDE.md", (), None),
        (".claude/agents/*.md", (".claude", "agents"), 0),
        (".claude/agents/**/*.md", (".claude", "agents"), None),
        ("memory/{agent}/*/x.md", ("memory",), 2),
        ("memory/**", ("memory",), None),
    ],
)
def test_a_rule_tells_where_its_matches_lie(pattern, prefix, depth):
    rule = WatchRule("/p", pattern, "files")
    assert (rule.prefix, rule.depth) == (prefix, depth)


def test_a_rule_leads_only_where_a_match_can_lie():
    rule = WatchRule("/p", ".claude/agents/*/x.md", "files")
    assert [rule.leads(folder) for folder in ("", ".claude", ".claude/agents", ".claude/agents/a")] == [True] * 4
    assert [rule.leads(folder) for folder in ("src", ".claude/logs", ".claude/agents/a/b")] == [False] * 3
    rule_with_a_name_below = WatchRule("/p", "a/*/b/**", "files")
    assert rule_with_a_name_below.leads("a/x/b/c/d")
    assert not rule_with_a_name_below.leads("a/x/c")
    assert [rule.only_name(folder) for folder in ("", ".claude", ".claude/agents")] == [".claude", "agents", None]


def test_a_pattern_with_many_wildcards_fails_in_little_time():
    """Has caught: a gap that was tried at every place, which took minutes here."""
    assert not matches("*a" * 100 + "b", "a" * 250)
    assert not matches("**/a/" * 100 + "b", "a/" * 250 + "a")
