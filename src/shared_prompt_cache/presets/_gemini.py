"""Gemini CLI: instruction files with imports, and settings."""

from typing import Final

from shared_prompt_cache.presets._table import Row

MARKS: Final = ("GEMINI.md", ".gemini")

PROJECT: Final = (
    Row("**/GEMINI.md", "project", imports=True),
    Row(".gemini/settings.json", "project"),
)

HOME: Final = (
    Row(".gemini/GEMINI.md", "all", imports=True),
    Row(
        ".gemini/**",
        "all",
        # What a session writes while it runs; the rest is written by people.
        exclude=(
            ".gemini/tmp/**",
            ".gemini/history/**",
            ".gemini/oauth_creds.json",
            ".gemini/google_accounts.json",
            ".gemini/installation_id",
            ".gemini/state.json",
        ),
    ),
)
