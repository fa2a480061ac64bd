"""Windsurf: its rules, and AGENTS.md however it is written."""

from typing import Final

from shared_prompt_cache.presets._table import Row

MARKS: Final = (".windsurf", ".windsurfrules", "agents.md", "Agents.md")

PROJECT: Final = (
    Row(".windsurf/rules/**", "project"),
    Row(".windsurfrules", "project"),
    Row("**/[Aa][Gg][Ee][Nn][Tt][Ss].[Mm][Dd]", "project"),
)
