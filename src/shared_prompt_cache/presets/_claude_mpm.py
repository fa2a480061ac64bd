"""claude-mpm: memories and agents of a project, the instructions and the configuration of the framework."""

from typing import Final

from shared_prompt_cache.events import ChangeKind
from shared_prompt_cache.presets._table import TEMPLATES, Row

MARKS: Final = (".claude-mpm",)

_MEMORIES: Final = (
    Row(".claude-mpm/memories/{agent}_memories.md", "agent"),
    # Forms of earlier versions. The last would take the others for agents of their own.
    Row(".claude-mpm/memories/{agent}_memory.md", "agent"),
    Row(".claude-mpm/memories/{agent}_agent.md", "agent"),
    Row(".claude-mpm/memories/{agent}.md", "agent", exclude=("**/*_memories.md", "**/*_memory.md")),
    # What the project manager `pm` remembers is part of every prompt of the project.
    Row(".claude-mpm/memories/PM_memories.md", "project"),
    Row(".claude-mpm/memories/PM.md", "project"),
)

_DEFINITIONS: Final = (
    ".claude/agents/**/{agent}.md",
    ".claude-mpm/agents/**/{agent}.md",
    ".claude-mpm/agents/**/{agent}.json",
    ".claude-mpm/agents/**/{agent}.yaml",
    ".claude-mpm/agents/**/{agent}.yml",
)

_EDITED: Final[tuple[ChangeKind, ...]] = ("modified",)
_COME_OR_GONE: Final[tuple[ChangeKind, ...]] = ("added", "deleted")

_AGENTS: Final = tuple(
    row
    for pattern in _DEFINITIONS
    for row in (
        Row(pattern, "agent", exclude=TEMPLATES),
        # The project manager lists what each agent can do; which agents there are, the whole project can tell.
        Row(pattern, "agent", agent="pm", kinds=_EDITED, exclude=TEMPLATES),
        Row(pattern, "project", kinds=_COME_OR_GONE, exclude=TEMPLATES),
    )
)

_BASES: Final = tuple(
    Row(f"{folder}{name}", "agents")
    for folder in ("", ".claude/", ".claude-mpm/", ".claude/agents/**/", ".claude-mpm/agents/**/")
    for name in ("BASE-AGENT.md", "BASE_AGENT.md")
)

_INSTRUCTIONS: Final = (
    ".claude-mpm/INSTRUCTIONS.md",
    ".claude-mpm/PM_INSTRUCTIONS.md",
    ".claude-mpm/WORKFLOW.md",
    ".claude-mpm/MEMORY.md",
    ".claude-mpm/AGENT_DELEGATION.md",
    ".claude-mpm/agent_config.yaml",
    ".claude-mpm/agent_states.json",
    ".claude-mpm/profiles/*.yaml",
    ".claude-mpm/config/project.json",
)

_CONFIGURATION: Final = (
    Row(".claude-mpm/configuration.yaml", "all"),
    Row(".claude-mpm/configuration.yml", "all"),
)

PROJECT: Final = (
    *_MEMORIES,
    *_AGENTS,
    *_BASES,
    Row("CLAUDE.md", "project", imports=True),
    *(Row(pattern, "project") for pattern in _INSTRUCTIONS),
    *_CONFIGURATION,
)

HOME: Final = (
    Row(".claude/agents/{agent}.md", "agent", exclude=TEMPLATES),
    Row(".claude/agents/BASE-AGENT.md", "agents"),
    Row(".claude/agents/BASE_AGENT.md", "agents"),
    *(Row(pattern, "all") for pattern in _INSTRUCTIONS),
    *_CONFIGURATION,
)
