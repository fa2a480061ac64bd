"""What the presets say, in the words of the tables in the documentation."""

import re
from pathlib import Path

from shared_prompt_cache import WatchRule, presets

ROOT, HOME = Path("/the/project"), Path("/the/home")
NAMES = [name for name in presets.__all__ if name != "detect"]
_SLUG = re.sub(r"[^A-Za-z0-9]", "-", str(ROOT))


def said_by(name: str) -> dict[str, str]:
    """Return what each file of a preset invalidates, by pattern."""
    said: dict[str, list[str]] = {}
    for rule in getattr(presets, name)(ROOT, home=HOME):
        said.setdefault(_file(rule), []).append(_effect(rule))
    return {file: "; ".join(dict.fromkeys(effects)) for file, effects in said.items()}


def _file(rule: WatchRule) -> str:
    if rule.root == ROOT:
        return rule.pattern
    return ("~/" if rule.root == HOME else f"{rule.root}/") + rule.pattern.replace(_SLUG, "<project>")


def _effect(rule: WatchRule) -> str:
    what = {
        "agent": f"the agent `{rule.agent}`" if rule.agent else "the agent",
        "agents": "the agents in and below its folder",
        "project": "the project",
        "all": "everything",
    }[rule.scope]
    what += " in all projects" if rule.anywhere and rule.scope != "all" else ""
    what += " with imports" if rule.imports else ""
    return what if rule.kinds is None else f"{' or '.join(sorted(rule.kinds))}: {what}"


def table(name: str) -> str:
    """Return the table of a preset as Markdown: files with the same effect in one row."""
    rows: dict[str, list[str]] = {}
    for file, effect in said_by(name).items():
        rows.setdefault(effect, []).append(f"`{file}`")
    return "| files | a change invalidates |\n|---|---|\n" + "\n".join(
        f"| {'<br>'.join(files)} | {effect} |" for effect, files in rows.items()
    )
