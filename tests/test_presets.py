"""Each preset says of each file of its tool what WatchRule can say of it, and of nothing else."""

from pathlib import Path

import pytest

from shared_prompt_cache import presets
from shared_prompt_cache._files.matching import RuleTable, Target
from shared_prompt_cache.errors import ConfigError
from shared_prompt_cache.events import FileChange

P = Path("/projects/shop")
H = Path("/home/somebody")


def invalidated(preset, path, kind="modified", *, known=(), root=P, project=None):
    """Return scope and name of what a change invalidates; agents of all projects carry a `*`."""
    table = RuleTable(preset(root, project, home=H))
    found = table.targets([FileChange(path=Path(path), kind=kind)], map(str, known))
    return {
        (target.scope, target.name + "*" if target.scope == "agent" and target.project is None else target.name)
        for target, _ in found
    }


PROJECT = {("project", str(P))}
ALL = {("all", None)}


def agents(*names):
    return {("agent", name) for name in names}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("memories/Python_Engineer_memories.md", agents("python-engineer")),
        ("memories/engineer_memory.md", agents("engineer")),
        ("memories/engineer_agent.md", agents("engineer")),
        ("memories/engineer.md", agents("engineer")),
        ("memories/PM_memories.md", PROJECT),
        ("memories/PM.md", PROJECT),
        ("agents/qa.json", agents("qa", "pm")),
        ("agents/backend/qa.yml", agents("qa", "pm")),
        ("INSTRUCTIONS.md", PROJECT),
        ("PM_INSTRUCTIONS.md", PROJECT),
        ("WORKFLOW.md", PROJECT),
        ("MEMORY.md", PROJECT),
        ("AGENT_DELEGATION.md", PROJECT),
        ("agent_config.yaml", PROJECT),
        ("agent_states.json", PROJECT),
        ("profiles/small.yaml", PROJECT),
        ("config/project.json", PROJECT),
        ("configuration.yaml", ALL),
        ("configuration.yml", ALL),
        ("README.md", set()),
    ],
)
def test_claude_mpm_knows_the_files_of_a_project(name, expected):
    assert invalidated(presets.claude_mpm, P / ".claude-mpm" / name) == expected


def test_claude_mpm_knows_the_instructions_at_the_root():
    assert invalidated(presets.claude_mpm, P / "CLAUDE.md") == PROJECT
    assert invalidated(presets.claude_mpm, P / "src/CLAUDE.md") == set()


@pytest.mark.parametrize("folder", [".claude/agents", ".claude-mpm/agents"])
def test_an_agent_file_that_comes_or_goes_is_news_to_the_project(folder):
    path = P / folder / "qa.md"
    assert invalidated(presets.claude_mpm, path, "modified") == agents("qa", "pm")
    assert invalidated(presets.claude_mpm, path, "added") == PROJECT
    assert invalidated(presets.claude_mpm, path, "deleted") == PROJECT


@pytest.mark.parametrize("kind", ["added", "modified", "deleted"])
@pytest.mark.parametrize("name", ["base-agent.md", "BASE_PM.md", "base_engineer.json"])
def test_a_template_is_no_agent(name, kind):
    assert invalidated(presets.claude_mpm, P / ".claude-mpm/agents" / name, kind) == set()
    if name.endswith(".md"):
        assert invalidated(presets.claude_code, P / ".claude/agents" / name, kind) == set()


@pytest.mark.parametrize("base", ["BASE-AGENT.md", "BASE_AGENT.md"])
def test_a_base_in_a_folder_concerns_the_agents_in_and_below_it(base):
    known = [
        P / ".claude/agents/back/api.md",
        P / ".claude/agents/back/deep/db.md",
        P / ".claude/agents/front/ui.md",
        P / ".claude/agents/back/base-x.md",
        P / ".claude-mpm/memories/qa_memories.md",
    ]
    assert invalidated(presets.claude_mpm, P / ".claude/agents/back" / base, known=known) == agents("api", "db")


@pytest.mark.parametrize("folder", ["", ".claude", ".claude/agents", ".claude-mpm/agents"])
def test_a_base_at_the_root_of_the_agents_concerns_all_agents_of_the_project(folder):
    known = [P / ".claude/agents/ui.md", P / ".claude-mpm/memories/qa_memories.md", H / ".claude/agents/other.md"]
    assert invalidated(presets.claude_mpm, P / folder / "BASE-AGENT.md", known=known) == agents("ui", "qa")


@pytest.mark.parametrize(
    ("preset", "name", "expected"),
    [
        (presets.claude_mpm, ".claude-mpm/INSTRUCTIONS.md", ALL),
        (presets.claude_mpm, ".claude-mpm/profiles/x.yaml", ALL),
        (presets.claude_mpm, ".claude-mpm/configuration.yaml", ALL),
        (presets.claude_mpm, ".claude/agents/qa.md", agents("qa*")),
        (presets.claude_mpm, ".claude/agents/base-qa.md", set()),
        (presets.claude_code, ".claude/agents/team/qa.md", agents("qa*")),
        (presets.claude_code, ".claude/agent-memory/qa/notes.md", agents("qa*")),
        (presets.claude_code, ".claude/CLAUDE.md", ALL),
        (presets.claude_code, ".claude/rules/a/b.md", ALL),
        (presets.claude_code, ".claude/settings.json", ALL),
        (presets.claude_code, ".claude/projects/-projects-shop/memory/MEMORY.md", PROJECT),
        (presets.claude_code, ".claude/projects/-work-other/memory/MEMORY.md", set()),
        (presets.claude_code, ".claude/history.jsonl", set()),
        (presets.agents_md, ".codex/config.toml", ALL),
        (presets.agents_md, ".codex/AGENTS.md", ALL),
        (presets.agents_md, ".codex/sessions/2025/x.jsonl", set()),
        (presets.copilot, ".copilot/mcp-config.json", ALL),
        (presets.gemini, ".gemini/GEMINI.md", ALL),
        (presets.gemini, ".gemini/settings.json", ALL),
    ],
)
def test_files_of_the_home_concern_all_projects(preset, name, expected):
    assert invalidated(preset, H / name) == expected


@pytest.mark.parametrize(
    ("preset", "name", "expected"),
    [
        (presets.claude_code, ".claude/agents/team/qa.md", agents("qa")),
        (presets.claude_code, ".claude/agent-memory/qa/deep/notes.md", agents("qa")),
        (presets.claude_code, ".claude/agent-memory-local/qa/notes.md", agents("qa")),
        (presets.claude_code, "CLAUDE.md", PROJECT),
        (presets.claude_code, "src/deep/CLAUDE.local.md", PROJECT),
        (presets.claude_code, ".claude/CLAUDE.md", PROJECT),
        (presets.claude_code, ".claude/rules/a/b.md", PROJECT),
        (presets.claude_code, ".claude/skills/pdf/run.py", PROJECT),
        (presets.claude_code, ".claude/commands/x.md", PROJECT),
        (presets.claude_code, ".claude/settings.json", PROJECT),
        (presets.claude_code, ".claude/settings.local.json", PROJECT),
        (presets.claude_code, ".mcp.json", PROJECT),
        (presets.claude_code, "README.md", set()),
        (presets.agents_md, "AGENTS.md", PROJECT),
        (presets.agents_md, "a/b/AGENTS.override.md", PROJECT),
        (presets.agents_md, "agents.md", set()),
        (presets.agents_md, ".codex/agents/qa.toml", agents("qa")),
        (presets.cursor, ".cursor/rules/a/b.mdc", PROJECT),
        (presets.cursor, "app/.cursor/rules/b.mdc", PROJECT),
        (presets.cursor, ".cursorrules", PROJECT),
        (presets.cursor, ".cursor/rules/b.md", set()),
        (presets.copilot, ".github/copilot-instructions.md", PROJECT),
        (presets.copilot, ".github/instructions/a/b.instructions.md", PROJECT),
        (presets.copilot, ".github/agents/Code_Review.agent.md", agents("code-review")),
        (presets.copilot, ".github/workflows/ci.yml", set()),
        (presets.gemini, "a/GEMINI.md", PROJECT),
        (presets.gemini, ".gemini/settings.json", PROJECT),
        (presets.windsurf, ".windsurf/rules/a/b.md", PROJECT),
        (presets.windsurf, ".windsurfrules", PROJECT),
        (presets.windsurf, "a/Agents.MD", PROJECT),
    ],
)
def test_files_of_a_project_concern_it(preset, name, expected):
    assert invalidated(preset, P / name) == expected


def test_claude_code_knows_what_the_machine_sets():
    assert invalidated(presets.claude_code, "/etc/claude-code/managed/settings.json") == ALL


EVERY = (
    presets.claude_mpm,
    presets.claude_code,
    presets.agents_md,
    presets.cursor,
    presets.copilot,
    presets.gemini,
    presets.windsurf,
)


@pytest.mark.parametrize("kind", ["added", "modified", "deleted"])
@pytest.mark.parametrize(
    "name",
    [
        ".claude-mpm/logs/CLAUDE.md",
        ".claude-mpm/cache/agents/AGENTS.md",
        ".claude-mpm/tmp/GEMINI.md",
        "sub/.claude-mpm/todos/CLAUDE.md",
        ".claude/worktrees/branch/CLAUDE.md",
        ".claude/worktrees/branch/AGENTS.md",
        ".claude-mpm/memories/qa_backup_20250101.md",
        ".claude-mpm/memories/README.md",
        ".claude-mpm/memories/.last_processed.json",
        ".claude-mpm/agents/.etag_cache.json",
        ".claude-mpm/agents/.dependency_cache",
        ".claude/skills/x.log",
        ".claude/skills/x.pid",
        ".claude/skills/x.md.tmp",
        ".claude/skills/x.md~",
        ".claude/agents/.#x.md",
        ".claude/rules/x.swp",
        ".windsurf/rules/.DS_Store",
        ".cache/prompts/CLAUDE.md",
        "sub/.cache/prompts/AGENTS.md",
        "node_modules/x/CLAUDE.md",
        ".git/AGENTS.md",
    ],
)
def test_what_tools_write_by_the_way_is_never_a_cause(name, kind):
    for preset in EVERY:
        assert invalidated(preset, P / name, kind) == set()


@pytest.mark.parametrize(
    "above", ["/x/.claude-mpm/logs/p", "/x/.claude/worktrees/p", "/x/node_modules/p", "/x/y.tmp/p"]
)
def test_where_a_root_lies_excludes_nothing(above):
    root = Path(above)
    expected = {("project", above)}
    assert invalidated(presets.claude_code, root / "a/CLAUDE.md", root=root) == expected
    assert invalidated(presets.claude_mpm, root / ".claude-mpm/WORKFLOW.md", root=root) == expected


def test_the_rules_of_a_project_carry_its_root_and_name():
    table = RuleTable(presets.claude_code(P, "webshop", home=H))
    changes = [
        FileChange(path=P / "CLAUDE.md", kind="modified"),
        FileChange(path=H / ".claude/agents/qa.md", kind="modified"),
    ]
    assert [target for target, _ in table.targets(changes)] == [
        Target("project", str(P), str(P), ("webshop",)),
        Target("agent", "qa"),
    ]


def test_the_files_that_may_import_others_are_marked():
    bearing = {(str(rule.root), rule.pattern) for preset in EVERY for rule in preset(P, home=H) if rule.imports}
    assert bearing == {
        (str(P), "CLAUDE.md"),
        (str(P), "**/CLAUDE.md"),
        (str(P), "**/CLAUDE.local.md"),
        (str(P), ".claude/rules/**/*.md"),
        (str(H), ".claude/CLAUDE.md"),
        (str(H), ".claude/rules/**"),
        ("/etc/claude-code", "**"),
        (str(P), "**/GEMINI.md"),
        (str(H), ".gemini/GEMINI.md"),
    }


def test_85_agent_files_modified_are_85_agents_and_the_project_manager():
    table = RuleTable(presets.detect(P, home=H) + presets.claude_mpm(P, home=H) + presets.claude_code(P, home=H))
    changes = [FileChange(path=P / f".claude/agents/agent_{n}.md", kind="modified") for n in range(85)]
    names = [target.name for target, _ in table.targets(changes)]
    assert len(names) == 86
    assert set(names) == {f"agent-{n}" for n in range(85)} | {"pm"}


# Detection


@pytest.mark.parametrize(
    ("mark", "preset"),
    [
        (".claude-mpm/", presets.claude_mpm),
        (".claude/", presets.claude_code),
        ("CLAUDE.md", presets.claude_code),
        ("AGENTS.md", presets.agents_md),
        (".cursor/", presets.cursor),
        (".github/copilot-instructions.md", presets.copilot),
        ("GEMINI.md", presets.gemini),
        (".windsurfrules", presets.windsurf),
    ],
)
def test_a_tool_is_detected_by_its_files(tmp_path, mark, preset):
    path = tmp_path / mark
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if mark.endswith("/") else path.touch()
    assert presets.detect(tmp_path, "shop", home=H) == preset(tmp_path, "shop", home=H)


def test_several_tools_are_detected_together_each_rule_once(tmp_path):
    for mark in (".claude-mpm", ".claude", ".gemini"):
        (tmp_path / mark).mkdir()
    rules = presets.detect(tmp_path, home=H)
    assert len(rules) == len(set(rules))
    assert set(rules) == {
        rule
        for preset in (presets.claude_mpm, presets.claude_code, presets.gemini)
        for rule in preset(tmp_path, home=H)
    }


def test_nothing_is_detected_in_an_empty_or_absent_project(tmp_path):
    assert presets.detect(tmp_path, home=H) == ()
    assert presets.detect(tmp_path / "absent", home=H) == ()


def test_the_home_is_the_one_of_the_user_unless_given(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert {rule.root for rule in presets.copilot(P)} == {P, tmp_path}


def test_a_user_without_a_home_is_told_to_give_one(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigError, match="give home="):
        presets.gemini(P)


@pytest.mark.parametrize("preset", [*EVERY, presets.detect])
def test_arguments_that_cannot_be_used_are_refused(preset):
    for root, project, home in (("", None, H), (3, None, H), (P, "", H), (P, 3, H), (P, None, "")):
        with pytest.raises(ConfigError):
            preset(root, project, home=home)
