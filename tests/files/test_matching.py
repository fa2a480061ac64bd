"""The rule table finds the smallest set of targets, and the walk goes where matches can lie and nowhere else."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _threads import run_script
from shared_prompt_cache import presets
from shared_prompt_cache._files.matching import MAX_FOLDERS, Found, RuleTable, Target, walk
from shared_prompt_cache.events import FileChange
from shared_prompt_cache.rules import WatchRule


def changed(*paths, kind="modified"):
    return [FileChange(path=Path(path), kind=kind) for path in paths]


def targets(rules, changes, known=()):
    return [target for target, _ in RuleTable(rules).targets(changes, known)]


# Matching


def test_a_file_is_matched_by_every_rule_of_every_root_above_it():
    outer = WatchRule("/p", "**/*.md", "project")
    inner = WatchRule("/p/sub", "{agent}.md", "agent")
    table = RuleTable([outer, inner, outer])
    assert table.rules == (outer, inner)
    assert table.roots == ("/p", "/p/sub")
    assert [(match.rule, match.agent) for match in table.match("/p/sub/qa.md")] == [(outer, None), (inner, "qa")]
    assert not table.match("/p")
    assert not table.match("/password.md")
    assert not table.match("/elsewhere/qa.md")


def test_equal_rules_are_known_as_equal_in_every_process(monkeypatch):
    """There, sets have another order."""
    print_it = """
    from shared_prompt_cache import presets
    from shared_prompt_cache._files.matching import RuleTable
    print(RuleTable(presets.claude_mpm("/p"), ignored=["/p/.cache"]).digest.hex())
    """
    digests = {RuleTable(presets.claude_mpm("/p"), ignored=["/p/.cache"]).digest.hex()}
    for seed in "13":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        digests.add(run_script(print_it).stdout.strip())
    assert len(digests) == 1


@pytest.mark.parametrize(
    "other",
    [{"kinds": ["added"]}, {"kinds": ["added", "deleted"]}, {"exclude": ["a.md"]}, {"imports": True}, {"project": "x"}],
)
def test_other_rules_are_known_as_others(other):
    assert RuleTable([WatchRule("/p", "*.md", "project")]).digest != (
        RuleTable([WatchRule("/p", "*.md", "project", **other)]).digest
    )


def test_a_rule_at_the_root_of_the_file_system_matches():
    assert RuleTable([WatchRule("/", "etc/*.md", "files")]).match("/etc/x.md")


def test_a_pruned_folder_is_matched_only_where_plain_segments_name_it():
    table = RuleTable([WatchRule("/p", "**/a.md", "files"), WatchRule("/p", ".venv/conf/*.md", "files")])
    assert not table.match("/p/x/node_modules/a.md")
    assert table.match("/p/.venv/conf/b.md")
    assert not RuleTable(table.rules, prune={"x"}).match("/p/x/a.md")
    assert RuleTable(table.rules, prune=()).match("/p/node_modules/a.md")


def test_what_is_ignored_is_never_matched_nor_entered():
    table = RuleTable([WatchRule("/p", "**", "all")], ignored=["/p/store", "/p/cache.db"])
    for path in ("/p/store/x", "/p/store", "/p/cache.db", "/p/cache.db-wal", "/p/cache.db-shm", "/p/cache.db-journal"):
        assert not table.match(path)
    assert table.match("/p/storage/x")
    assert not table.visits("/p", "store")
    assert table.visits("/p", "storage")


# Targets


def test_each_agent_is_a_target_once_with_its_first_cause():
    rules = [WatchRule("/p", "{agent}.md", "agent"), WatchRule("/p", "**/{agent}.json", "agent")]
    changes = changed("/p/qa.md", "/p/x/QA.json", "/p/ops.md")
    assert RuleTable(rules).targets(changes) == [
        (Target("agent", "qa", "/p"), changes[0]),
        (Target("agent", "ops", "/p"), changes[2]),
    ]


def test_all_swallows_everything():
    rules = [
        WatchRule("/p", "{agent}.md", "agent"),
        WatchRule("/p", "*.yaml", "all"),
        WatchRule("/p", "*", "files"),
    ]
    changes = changed("/p/qa.md", "/p/conf.yaml")
    assert RuleTable(rules).targets(changes) == [(Target("all"), changes[1])]


def test_a_project_swallows_its_own_agents_and_no_others():
    rules = [
        WatchRule("/p", "*.yaml", "project"),
        WatchRule("/p", "{agent}.md", "agent"),
        WatchRule("/q", "{agent}.md", "agent"),
        WatchRule("/home", "{agent}.md", "agent", anywhere=True),
    ]
    assert targets(rules, changed("/p/qa.md", "/q/qa.md", "/home/ops.md", "/p/x.yaml")) == [
        Target("agent", "qa", "/q"),
        Target("agent", "ops"),
        Target("project", "/p", "/p"),
    ]


def test_an_agent_of_all_projects_swallows_the_same_agent_of_one():
    rules = [WatchRule("/p", "{agent}.md", "agent"), WatchRule("/home", "{agent}.md", "agent", anywhere=True)]
    assert targets(rules, changed("/p/qa.md", "/home/qa.md")) == [Target("agent", "qa")]


def test_kinds_are_respected():
    rules = [
        WatchRule("/p", "{agent}.md", "agent", kinds={"modified"}),
        WatchRule("/p", "*.md", "project", kinds={"added", "deleted"}),
    ]
    assert targets(rules, changed("/p/qa.md")) == [Target("agent", "qa", "/p")]
    assert targets(rules, changed("/p/qa.md", kind="deleted")) == [Target("project", "/p", "/p")]


def test_the_scope_files_names_the_file():
    assert targets([WatchRule("/p", "*", "files")], changed("/p/x")) == [Target("file", "/p/x")]


def test_a_file_of_nested_projects_is_news_to_each_of_them_once():
    rules = [
        WatchRule("/p", "**/A.md", "project"),
        WatchRule("/p/sub", "**/A.md", "project"),
        WatchRule("/p/x/../sub", "*.md", "project"),
    ]
    assert targets(rules, changed("/p/sub/A.md")) == [
        Target("project", "/p", "/p"),
        Target("project", "/p/sub", "/p/sub"),
    ]


def test_every_name_given_to_a_project_travels_with_its_targets():
    rules = [
        WatchRule("/p", "*.md", "project", project="shop"),
        WatchRule("/home", "{agent}.md", "agent", project="store", project_root="/p"),
        WatchRule("/home", "{agent}.json", "agent", project_root="/p"),
    ]
    for path, scope, name in (
        ("/p/x.md", "project", "/p"),
        ("/home/x.md", "agent", "x"),
        ("/home/x.json", "agent", "x"),
    ):
        assert targets(rules, changed(path)) == [Target(scope, name, "/p", ("shop", "store"))]


def test_agents_near_a_file_are_those_of_its_project_with_a_file_below():
    rules = [
        WatchRule("/p", "agents/**/BASE.md", "agents"),
        WatchRule("/p", "agents/**/{agent}.json", "agent"),
        WatchRule("/p", "agents/**/*.json", "agent", agent="pm"),
        WatchRule("/p/agents/x", "{agent}.yaml", "agent", project_root="/q"),
    ]
    names = [
        "agents/x/a.json",
        "agents/x/deep/b.json",
        "agents/x/q.yaml",
        "agents/xy/c.json",
        "agents/d.json",
        "x/e.json",
    ]
    known = [f"/p/{name}" for name in names]
    for kind in ("added", "modified", "deleted"):
        near = targets(rules, changed("/p/agents/x/BASE.md", kind=kind), iter(known))
        assert near == [Target("agent", "a", "/p"), Target("agent", "b", "/p")]
    everyone = targets(rules, changed("/p/agents/BASE.md", "/p/agents/x/BASE.md"), iter(known))
    assert [target.name for target in everyone] == ["a", "b", "c", "d"]


def test_the_known_files_are_not_looked_at_without_need():
    def unwanted():
        raise AssertionError
        yield

    assert targets([WatchRule("/p", "*.md", "project")], changed("/p/x.md"), unwanted())


@given(
    st.lists(st.tuples(st.sampled_from(["/p", "/q", "/home"]), st.sampled_from(["a.md", "b.md", "x.yaml", "x.txt"])))
)
def test_no_target_is_covered_by_another_and_every_change_is_covered(files):
    rules = [
        rule
        for root in ("/p", "/q")
        for rule in (WatchRule(root, "{agent}.md", "agent"), WatchRule(root, "*.yaml", "project"))
    ]
    rules.append(WatchRule("/home", "{agent}.md", "agent", anywhere=True))
    changes = changed(*(f"{root}/{name}" for root, name in files))
    found = targets(rules, changes)
    assert len(found) == len(set(found))
    for change in changes:
        raw = targets(rules, [change])
        for target in raw:
            covers = [target, Target("agent", target.name), Target("project", target.project, target.project)]
            assert sum(cover in found for cover in set(covers)) >= 1
    for target in found:
        if target.scope == "agent" and target.project:
            assert Target("agent", target.name) not in found
            assert Target("project", target.project, target.project) not in found


# The walk


def tree(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()


def walked(rules, root, **options):
    """Return folders and files below the root, as the walk found them."""
    slices = list(walk(RuleTable(rules), str(root), **options))

    def below(field):
        return [os.path.relpath(path, root) for found in slices for path in getattr(found, field)]

    return below("folders"), below("files")


def test_only_folders_that_can_hold_a_match_are_entered(tmp_path):
    tree(tmp_path, ".claude/agents/a.md", ".claude/agents/deep/b.md", ".claude/logs/x", "src/c.md", "CLAUDE.md")
    rules = [WatchRule(tmp_path, ".claude/agents/*.md", "files"), WatchRule(tmp_path, "CLAUDE.md", "files")]
    folders, files = walked(rules, tmp_path)
    assert folders == [".", ".claude", ".claude/agents"]
    assert sorted(files) == [".claude/agents/a.md", "CLAUDE.md"]


def test_a_folder_in_which_all_names_are_known_is_not_listed(tmp_path, monkeypatch):
    tree(tmp_path, ".claude/settings.json", "noise/")
    monkeypatch.setattr(os, "scandir", None)
    rules = [WatchRule(tmp_path, ".claude/settings.json", "files")]
    assert walked(rules, tmp_path) == ([".", ".claude"], [".claude/settings.json"])


def test_a_wildcard_enters_neither_pruned_nor_excluded_folders(tmp_path):
    tree(tmp_path, "a/x.md", ".git/x.md", "a/node_modules/x.md", ".venv/x.md", "logs/x.md", ".venv/conf/y.md")
    rules = [
        WatchRule(tmp_path, "**/x.md", "files", exclude=("logs/**",)),
        WatchRule(tmp_path, ".venv/conf/y.md", "all"),
    ]
    folders, files = walked(rules, tmp_path)
    assert sorted(folders) == [".", ".venv", ".venv/conf", "a"]
    assert sorted(files) == [".venv/conf/y.md", "a/x.md"]


def test_a_root_inside_a_pruned_folder_is_walked(tmp_path):
    root = tmp_path / "node_modules" / "p"
    tree(root, "a/x.md")
    assert walked([WatchRule(root, "**/x.md", "files")], root) == ([".", "a"], ["a/x.md"])


def test_a_root_that_does_not_exist_or_is_a_file_yields_nothing(tmp_path):
    tree(tmp_path, "file")
    for root in (tmp_path / "absent", tmp_path / "file"):
        assert list(walk(RuleTable([WatchRule(root, "**", "all")]), str(root))) == []


def test_links_that_lead_in_circles_are_left(tmp_path):
    tree(tmp_path, "a/x.md", "b/x.md")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    folders, files = walked([WatchRule(tmp_path, "**/x.md", "files")], tmp_path)
    assert {"a/x.md", "b/x.md"} <= set(files)
    assert len(folders) <= 6


def test_a_linked_folder_is_followed_once_below_a_wildcard(tmp_path):
    outside = tmp_path / "outside"
    tree(outside, "deep/x.md")
    root = tmp_path / "root"
    tree(root, "first/", "second/")
    (root / "first" / "link").symlink_to(outside)
    (root / "second" / "link").symlink_to(outside)
    _, files = walked([WatchRule(root, "**/x.md", "files")], root)
    assert len(files) == 1


def test_a_link_that_a_rule_names_is_followed_whatever_else_leads_there(tmp_path):
    tree(tmp_path, "shared/qa.md", ".claude/")
    (tmp_path / ".claude" / "agents").symlink_to(tmp_path / "shared")
    (tmp_path / "alias").symlink_to(tmp_path / "shared")
    rules = [WatchRule(tmp_path, ".claude/agents/{agent}.md", "agent"), WatchRule(tmp_path, "**/X.md", "files")]
    assert walked(rules, tmp_path)[1] == [".claude/agents/qa.md"]


def test_links_to_files_are_files_also_if_they_lead_nowhere(tmp_path):
    (tmp_path / "a.md").symlink_to("absent")
    tree(tmp_path, "b.txt", "folder.md/")
    (tmp_path / "c.md").symlink_to("b.txt")
    for pattern in ("*.md", "[ac].md"):
        assert sorted(walked([WatchRule(tmp_path, pattern, "files")], tmp_path)[1]) == ["a.md", "c.md"]
    assert walked([WatchRule(tmp_path, "a.md", "files")], tmp_path)[1] == ["a.md"]


def test_an_unreadable_folder_is_reported_and_the_rest_is_found(tmp_path, monkeypatch):
    tree(tmp_path, "closed/x.md", "open/x.md")
    scandir = os.scandir

    def refusing(path):
        if path == str(tmp_path / "closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    (found,) = walk(RuleTable([WatchRule(tmp_path, "**/x.md", "files")]), str(tmp_path))
    assert found.unreadable == (str(tmp_path / "closed"),)
    assert found.files == (str(tmp_path / "open" / "x.md"),)


def test_a_folder_that_vanishes_during_the_walk_is_passed_over(tmp_path):
    tree(tmp_path, "a/x.md", "b/x.md")
    found = []
    for part in walk(RuleTable([WatchRule(tmp_path, "**/x.md", "files")]), str(tmp_path), size=1):
        if not found:
            (tmp_path / "a" / "x.md").unlink()
            (tmp_path / "a").rmdir()
        found.append(part)
    assert [file for part in found for file in part.files] == [str(tmp_path / "b" / "x.md")]
    assert not any(part.unreadable for part in found)


def test_the_walk_ends_at_its_limit_and_says_so(tmp_path):
    tree(tmp_path, *(f"{n}/" for n in range(9)))
    table = RuleTable([WatchRule(tmp_path, "**/x.md", "files")])
    whole = list(walk(table, str(tmp_path), limit=10))
    cut = list(walk(table, str(tmp_path), limit=9))
    assert not any(part.limit_hit for part in whole)
    assert [part.limit_hit for part in cut][-1]
    assert sum(len(part.folders) for part in cut) == 9
    assert MAX_FOLDERS == 10_000


def test_slices_bound_the_names_that_are_looked_at(tmp_path):
    tree(tmp_path, *(f"{n}.md" for n in range(50)))
    table = RuleTable([WatchRule(tmp_path, "*.md", "files")])
    slices = list(walk(table, str(tmp_path), size=10))
    assert all(len(part.files) <= 10 for part in slices)
    assert sum(len(part.files) for part in slices) == 50
    assert sum((part.folders for part in slices), ()) == (str(tmp_path),)


def test_a_walk_may_be_left_early(tmp_path):
    tree(tmp_path, *(f"{n}.md" for n in range(50)))
    steps = walk(RuleTable([WatchRule(tmp_path, "*.md", "files")]), str(tmp_path), size=1)
    assert isinstance(next(steps), Found)
    steps.close()


names = st.lists(st.sampled_from(["a", "b", "x.md", ".git"]), min_size=1, max_size=4)
patterns = st.lists(st.sampled_from(["a", "b", "*", "**", "[ab]", "x.md"]), min_size=1, max_size=4).map("/".join)


@given(st.lists(names, max_size=8), st.lists(patterns, min_size=1, max_size=3), patterns)
def test_the_walk_finds_every_file_that_matches_and_no_other(tmp_path_factory, tails, globs, exclude):
    """Has caught: a walk that left out the innermost folders of a pattern."""
    root = tmp_path_factory.mktemp("tree")
    for parts in tails:
        path = root.joinpath(*parts)
        if not any(above.is_file() for above in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    rules = [WatchRule(root, pattern, "files", exclude=(exclude,)) for pattern in globs]
    table = RuleTable(rules)
    expected = {str(path) for path in root.rglob("*") if path.is_file() and table.match(str(path))}
    found = [file for part in walk(table, str(root), size=3) for file in part.files]
    assert len(found) == len(set(found))
    assert set(found) == expected


@pytest.mark.parametrize("folder", ["", ".claude", ".claude/agents"])
def test_the_folders_on_the_way_to_a_file_not_yet_there_are_visited(folder):
    assert RuleTable([WatchRule("/p", ".claude/agents/*.md", "files")]).visits("/p", folder)
