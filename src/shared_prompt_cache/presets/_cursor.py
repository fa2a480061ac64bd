"""Cursor: its rules, in every folder that has some."""

from typing import Final

from shared_prompt_cache.presets._table import Row

MARKS: Final = (".cursor", ".cursorrules")

PROJECT: Final = (
    Row("**/.cursor/rules/**/*.mdc", "project"),
    Row(".cursorrules", "project"),
)
