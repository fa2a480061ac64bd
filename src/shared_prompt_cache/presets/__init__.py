"""Which files of which agent tool invalidate what: one table of data for each tool.

Every preset takes the root of a project and returns watch rules for `SharedPromptCache(watch=...)`; add several
together with `+`. Rules for files of the project carry its root, and the name given to it; rules for files in the home
of the user or of the machine hold for all projects. Calling a preset needs no file to exist, now or later.
"""

import os
from collections.abc import Callable, Iterable
from typing import Final

from shared_prompt_cache.config import WatchConfig
from shared_prompt_cache.presets import _agents_md, _claude_code, _claude_mpm, _copilot, _cursor, _gemini, _windsurf
from shared_prompt_cache.presets._table import Place, in_system
from shared_prompt_cache.rules import WatchRule

__all__ = ["agents_md", "claude_code", "claude_mpm", "copilot", "cursor", "detect", "gemini", "windsurf"]

_Path = str | os.PathLike[str]


def claude_mpm(root: _Path, project: str | None = None, *, home: _Path | None = None) -> tuple[WatchRule, ...]:
    """Return the rules for claude-mpm: memories, agents and their bases, instructions, configuration.

    An agent file that is modified invalidates that agent and `pm`; one that is added or deleted, that agent and the
    project. `configuration.yaml` invalidates everything.

    Args:
        root: The project.
        project: A name that entries use for it, besides its path and the name of its folder.
        home: The home of the user; default: the one of this process.

    Raises:
        ConfigError: If one of these cannot be used.
    """
    place = Place.of(root, project, home)
    return place.in_project(_claude_mpm.PROJECT) + place.in_home(_claude_mpm.HOME)


def claude_code(root: _Path, project: str | None = None, *, home: _Path | None = None) -> tuple[WatchRule, ...]:
    """Return the rules for Claude Code: subagents and their memory, `CLAUDE.md` at any depth, rules, skills, settings.

    Arguments and errors are those of `claude_mpm`.
    """
    place = Place.of(root, project, home)
    return (
        place.in_project(_claude_code.PROJECT)
        + place.in_home_for_project(_claude_code.home_for_project(place.root))
        + place.in_home(_claude_code.HOME)
        + in_system(_claude_code.SYSTEM_ROOT, _claude_code.SYSTEM)
    )


def agents_md(root: _Path, project: str | None = None, *, home: _Path | None = None) -> tuple[WatchRule, ...]:
    """Return the rules for `AGENTS.md` at any depth, and for Codex.

    Arguments and errors are those of `claude_mpm`.
    """
    place = Place.of(root, project, home)
    return place.in_project(_agents_md.PROJECT) + place.in_home(_agents_md.HOME)


def cursor(root: _Path, project: str | None = None, *, home: _Path | None = None) -> tuple[WatchRule, ...]:
    """Return the rules for Cursor: `.cursor/rules` at any depth, `.cursorrules`.

    Arguments and errors are those of `claude_mpm`.
    """
    return Place.of(root, project, home).in_project(_cursor.PROJECT)


def copilot(root: _Path, project: str | None = None, *, home: _Path | None = None) -> tuple[WatchRule, ...]:
    """Return the rules for GitHub Copilot: instructions and agents below `.github`.

    Arguments and errors are those of `claude_mpm`.
    """
    place = Place.of(root, project, home)
    return place.in_project(_copilot.PROJECT) + place.in_home(_copilot.HOME)


def gemini(root: _Path, project: str | None = None, *, home: _Path | None = None) -> tuple[WatchRule, ...]:
    """Return the rules for Gemini CLI: `GEMINI.md` at any depth, settings.

    Arguments and errors are those of `claude_mpm`.
    """
    place = Place.of(root, project, home)
    return place.in_project(_gemini.PROJECT) + place.in_home(_gemini.HOME)


def windsurf(root: _Path, project: str | None = None, *, home: _Path | None = None) -> tuple[WatchRule, ...]:
    """Return the rules for Windsurf: `.windsurf/rules`, `.windsurfrules`, `AGENTS.md` in any case.

    Arguments and errors are those of `claude_mpm`.
    """
    return Place.of(root, project, home).in_project(_windsurf.PROJECT)


_PRESETS: Final[tuple[tuple[tuple[str, ...], Callable[..., tuple[WatchRule, ...]]], ...]] = (
    (_claude_mpm.MARKS, claude_mpm),
    (_claude_code.MARKS, claude_code),
    (_agents_md.MARKS, agents_md),
    (_cursor.MARKS, cursor),
    (_copilot.MARKS, copilot),
    (_gemini.MARKS, gemini),
    (_windsurf.MARKS, windsurf),
)


def detect(root: _Path, project: str | None = None, *, home: _Path | None = None) -> tuple[WatchRule, ...]:
    """Return the rules of every preset whose files or folders are there at the root of the project, each rule once.

    It looks once, when it is called: a tool that comes to the project later is not noticed.

    Arguments and errors are those of `claude_mpm`.
    """
    top = Place.of(root, project, home).root
    rules = (
        rule
        for marks, preset in _PRESETS
        if any(os.path.lexists(top / mark) for mark in marks)
        for rule in preset(root, project, home=home)
    )
    return tuple(dict.fromkeys(rules))


def rules_of(watch: Iterable[WatchConfig]) -> tuple[WatchRule, ...]:
    """Return the rules that the `watch` section of a configuration names, each once."""
    named = {preset.__name__: preset for _, preset in _PRESETS} | {"detect": detect}
    return tuple(
        dict.fromkeys(rule for one in watch for name in one.presets for rule in named[name](one.root, one.project))
    )
