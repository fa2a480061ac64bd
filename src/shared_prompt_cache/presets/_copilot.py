"""GitHub Copilot: instructions and agents of a repository, and what the user keeps at home."""

from typing import Final

from shared_prompt_cache.presets._table import TEMPLATES, Row

MARKS: Final = (".github/copilot-instructions.md", ".github/instructions", ".github/agents")

PROJECT: Final = (
    Row(".github/agents/{agent}.agent.md", "agent", exclude=TEMPLATES),
    Row(".github/copilot-instructions.md", "project"),
    Row(".github/instructions/**/*.instructions.md", "project"),
)

HOME: Final = (
    Row(
        ".copilot/**",
        "all",
        # What a session writes while it runs; the rest is written by people.
        exclude=(
            ".copilot/logs/**",
            ".copilot/session-state/**",
            ".copilot/history-session-state/**",
            ".copilot/command-history-state.json",
            ".copilot/*.db*",
        ),
    ),
)
