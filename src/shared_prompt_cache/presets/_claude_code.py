"""Claude Code: subagents and their memory, instruction files with imports, rules, skills, commands and settings."""

import re
from pathlib import Path
from typing import Final

from shared_prompt_cache.presets._table import TEMPLATES, Row

MARKS: Final = (".claude", "CLAUDE.md", "CLAUDE.local.md", ".mcp.json")

_AGENTS: Final = (
    Row(".claude/agents/**/{agent}.md", "agent", exclude=TEMPLATES),
    Row(".claude/agent-memory/{agent}/**", "agent"),
    Row(".claude/agent-memory-local/{agent}/**", "agent"),
)

PROJECT: Final = (
    *_AGENTS,
    Row("**/CLAUDE.md", "project", imports=True),
    Row("**/CLAUDE.local.md", "project", imports=True),
    Row(".claude/rules/**/*.md", "project", imports=True),
    Row(".claude/skills/**", "project"),
    Row(".claude/commands/**", "project"),
    Row(".claude/settings.json", "project"),
    Row(".claude/settings.local.json", "project"),
    Row(".mcp.json", "project"),
)

HOME: Final = (
    *_AGENTS,
    Row(".claude/CLAUDE.md", "all", imports=True),
    Row(".claude/rules/**", "all", imports=True),
    Row(".claude/settings.json", "all"),
)

SYSTEM_ROOT: Final = "/etc/claude-code"
SYSTEM: Final = (Row("**", "all", imports=True),)


def home_for_project(root: Path) -> tuple[Row, ...]:
    """Return the rows for what the tool keeps of a project in the home, under the project's path in dashes."""
    slug = re.sub(r"[^A-Za-z0-9]", "-", str(root))
    return (Row(f".claude/projects/{slug}/memory/*.md", "project"),)
