"""The form of the tables: rows, and what turns them into rules."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared_prompt_cache.errors import ConfigError
from shared_prompt_cache.events import ChangeKind
from shared_prompt_cache.rules import RuleScope, WatchRule, folder, project_name

NEVER: Final = (
    "**/.cache/prompts/**",  # where this cache keeps its own store
    "**/.claude-mpm/logs/**",
    "**/.claude-mpm/sessions/**",
    "**/.claude-mpm/responses/**",
    "**/.claude-mpm/cache/**",
    "**/.claude-mpm/tmp/**",
    "**/.claude-mpm/resume-logs/**",
    "**/.claude-mpm/todos/**",
    "**/.claude-mpm/stats/**",
    "**/.claude-mpm/statsig/**",
    "**/.claude-mpm/shell-snapshots/**",
    "**/.claude/worktrees/**",  # checkouts of the project inside itself
    "**/.claude-mpm/memories/README.md",
    "**/*_backup_*.md",
    "**/.last_processed.json",
    "**/.dependency_cache",
    "**/.etag_cache.json",
    "**/*.log",
    "**/*.pid",
    "**/*.tmp",
    "**/*~",
    "**/.#*",
    "**/*.swp",
    "**/.DS_Store",
)
"""What agent tools and editors write by the way: never a cause, below whatever root."""

TEMPLATES: Final = tuple(f"**/[Bb][Aa][Ss][Ee][-_]*.{ending}" for ending in ("md", "json", "yaml", "yml", "toml"))
"""What agents are made from; none of them is an agent."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: what `WatchRule` says, without root and project."""

    pattern: str
    scope: RuleScope
    agent: str | None = None
    kinds: Collection[ChangeKind] | None = None
    exclude: tuple[str, ...] = ()
    imports: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a preset is applied.

    Attributes:
        root: The project.
        project: A name given to it.
        home: The home of the user.
    """

    root: Path
    project: str | None
    home: Path

    @classmethod
    def of(cls, root: str | os.PathLike[str], project: str | None, home: str | os.PathLike[str] | None) -> "Place":
        """Return the place that the arguments of a preset mean.

        Raises:
            ConfigError: If one of them cannot be used, or the home of the user is not known.
        """
        if home is None:
            try:
                home = Path.home()
            except RuntimeError as error:
                raise ConfigError("the home of the user is not known; give home=", field="home") from error
        return cls(folder(root, "root"), project_name(project), folder(home, "home"))

    def in_project(self, rows: tuple[Row, ...]) -> tuple[WatchRule, ...]:
        """Return rules for files of the project, which belong to it."""
        return tuple(_rule(self.root, row, project=self.project) for row in rows)

    def in_home(self, rows: tuple[Row, ...]) -> tuple[WatchRule, ...]:
        """Return rules for files of the user, which belong to no project."""
        return tuple(_rule(self.home, row, anywhere=True) for row in rows)

    def in_home_for_project(self, rows: tuple[Row, ...]) -> tuple[WatchRule, ...]:
        """Return rules for files that lie in the home and belong to the project."""
        return tuple(_rule(self.home, row, project=self.project, project_root=self.root) for row in rows)


def in_system(root: str, rows: tuple[Row, ...]) -> tuple[WatchRule, ...]:
    """Return rules for files of the machine, which belong to no project."""
    return tuple(_rule(Path(root), row, anywhere=True) for row in rows)


def _rule(
    root: Path, row: Row, *, project: str | None = None, project_root: Path | None = None, anywhere: bool = False
) -> WatchRule:
    return WatchRule(
        root,
        row.pattern,
        row.scope,
        agent=row.agent,
        project=project,
        project_root=project_root,
        anywhere=anywhere,
        kinds=row.kinds,
        exclude=NEVER + row.exclude,
        imports=row.imports,
    )
