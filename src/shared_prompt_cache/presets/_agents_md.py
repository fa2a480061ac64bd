"""AGENTS.md, as Codex and others read it."""

from typing import Final

from shared_prompt_cache.presets._table import TEMPLATES, Row

MARKS: Final = ("AGENTS.md", "AGENTS.override.md", ".codex")

PROJECT: Final = (
    Row(".codex/agents/{agent}.toml", "agent", exclude=TEMPLATES),
    Row("**/AGENTS.md", "project"),
    Row("**/AGENTS.override.md", "project"),
)

HOME: Final = (
    Row(
        ".codex/**",
        "all",
        # What a session writes while it runs; the rest is written by people.
        exclude=(
            ".codex/sessions/**",
            ".codex/archived_sessions/**",
            ".codex/log/**",
            ".codex/tmp/**",
            ".codex/.tmp/**",
            ".codex/cache/**",
            ".codex/shell_snapshots/**",
            ".codex/history.jsonl",
            ".codex/session_index.jsonl",
            ".codex/models_cache.json",
            ".codex/version.json",
            ".codex/auth.json",
            ".codex/*.sqlite*",
        ),
    ),
)
