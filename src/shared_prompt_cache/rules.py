"""Watch rules: which files invalidate what. And agent ids: which spellings name one agent.

A rule is data. It names files by a pattern below a root and says what a change of one of them invalidates; it opens,
lists and watches nothing. A pattern is a list of segments between `/`:

```
*  ?  [abc]  [!abc]   inside a segment; write [*] for a plain *
**                    a whole segment: any number of folders, also none; at the end: every file below
{agent}               a part of a segment, or a whole one: the agent's id, at least one character, once in a pattern
```

It is case-sensitive and matches the whole path below the root. A rule belongs to the project at its root, unless it
names another by `project_root=`, or is `anywhere`: then its invalidations hold for all projects.
"""

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, cast, get_args

from shared_prompt_cache import _globs
from shared_prompt_cache._naming import is_path, shown
from shared_prompt_cache.errors import ConfigError, ConfigTypeError
from shared_prompt_cache.events import ChangeKind

RuleScope = Literal["agent", "agents", "project", "all", "files"]

_SCOPES: Final[tuple[str, ...]] = get_args(RuleScope)
_KINDS: Final[tuple[str, ...]] = get_args(ChangeKind)

_SEPARATORS: Final = re.compile(r"[/\\]+")
_GAPS: Final = re.compile(r"[-_\s]+")
_AGENT_ENDINGS: Final = re.compile(r"(?<=.)(?:\.(?:md|json|yaml|yml|toml|agent)|-agent)\Z", re.DOTALL)


def normalise_agent(name: str) -> str:
    """Return the id by which an agent is compared; normalising twice changes nothing more.

    Of a path the last segment counts. Extensions of agent files and a trailing `-agent` go, the rest is in lower case
    with single `-` for `_`, spaces and runs of them: `agents/Python_Engineer.md` and `python-engineer-agent` are both
    `python-engineer`. What would leave nothing stays: `Agent` is `agent`.

    Raises:
        ConfigTypeError: If `name` is no string.
        ConfigError: If it is empty, or only spaces and slashes.
    """
    if not isinstance(name, str):
        raise ConfigTypeError(f"agent is {shown(name)}; give the agent's id as a string", field="agent")
    agent = _agent_id(name)
    if not agent:
        raise ConfigError(f"agent is {shown(name)}, which names nobody; give the agent's id", field="agent")
    return agent


@lru_cache(maxsize=1024)
def _agent_id(name: str) -> str:
    """Return the normalised id, `""` where there is none."""
    segments = [segment for segment in _SEPARATORS.split(name) if segment.strip()]
    if not segments:
        return ""
    agent = _GAPS.sub("-", segments[-1].strip().lower())
    # Each ending taken off may uncover another: "reviewer-agent.md", "reviewer.agent.md".
    while (shorter := _AGENT_ENDINGS.sub("", agent)) != agent:
        agent = shorter
    return agent


@dataclass(frozen=True, slots=True)
class Match:
    """A file that a rule names.

    Attributes:
        rule: The rule.
        agent: The normalised id of the agent, captured from the path or fixed by the rule; None where neither is.
    """

    rule: "WatchRule"
    agent: str | None


@dataclass(frozen=True, slots=True, init=False)
class WatchRule:
    """A change of one of these files invalidates this.

    Args:
        root: The folder that `pattern` is relative to; `~` is expanded, a relative path resolved at once.
        pattern: The files, as the module describes.
        scope: What a change invalidates: `"agent"`, the agent that the pattern captures or `agent=` names; `"agents"`,
            every agent with a file of its own (one that an `"agent"` rule captures) in or below the folder of the
            changed file, or in the whole project where that folder is the topmost that the pattern allows;
            `"project"`; `"all"`; `"files"`, only what was made from that very file.
        agent: The agent, for scope `"agent"`; it goes before a captured one.
        project: A name that the project is known by besides its path and the name of its folder.
        project_root: The project that the rule belongs to; default: the one at `root`.
        anywhere: The rule belongs to no project: what it invalidates, it invalidates in all of them.
        kinds: The changes the rule is about, of `"added"`, `"modified"`, `"deleted"`; default: all three.
        exclude: Patterns relative to `root`; what they match, and everything below it, is never a cause.
        imports: Whether the files may import others by `@path`; a change of those counts as a change of the importer.

    Raises:
        ConfigError: If one of these cannot be used, or two of them contradict each other; it names the field.
    """

    root: Path
    pattern: str
    scope: RuleScope
    agent: str | None
    project: str | None
    project_root: Path | None
    anywhere: bool
    kinds: frozenset[ChangeKind] | None
    exclude: tuple[str, ...]
    imports: bool
    _glob: _globs.Glob = field(init=False, repr=False, compare=False)
    _never: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        root: str | os.PathLike[str],
        pattern: str,
        scope: RuleScope,
        *,
        agent: str | None = None,
        project: str | None = None,
        project_root: str | os.PathLike[str] | None = None,
        anywhere: bool = False,
        kinds: Collection[ChangeKind] | None = None,
        exclude: Iterable[str] = (),
        imports: bool = False,
    ) -> None:
        glob = _globs.read(_globs.check(pattern, "pattern"), "pattern")
        if not isinstance(scope, str) or scope not in _SCOPES:
            raise ConfigError(f"scope is {shown(scope)}; give one of {', '.join(_SCOPES)}", field="scope")
        for name, flag in (("anywhere", anywhere), ("imports", imports)):
            if not isinstance(flag, bool):
                raise ConfigTypeError(f"{name} is {shown(flag)}; give True or False", field=name)
        top = folder(root, "root")
        owner = None if anywhere else top if project_root is None else folder(project_root, "project_root")
        fixed = None if agent is None else normalise_agent(agent)
        if scope == "agent" and fixed is None and not glob.captures:
            raise ConfigError(
                f"pattern is {pattern!r}, which tells no agent; write {{agent}} into it or give agent=", field="pattern"
            )
        if scope != "agent" and fixed is not None:
            raise ConfigError(f"agent is {shown(agent)}, but scope is {scope!r}; leave it out", field="agent")
        if anywhere:
            _check_anywhere(scope, project, project_root)
        never = _patterns(exclude, "exclude")
        values: dict[str, object] = {
            "root": top,
            "pattern": pattern,
            "scope": scope,
            "agent": fixed,
            "project": project_name(project),
            "project_root": owner,
            "anywhere": anywhere,
            "kinds": _change_kinds(kinds),
            "exclude": never,
            "imports": imports,
            "_glob": glob,
            "_never": _globs.exclusion(never, "exclude"),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def captures(self) -> bool:
        """Whether the agent is taken from the path."""
        return self.agent is None and self._glob.captures

    @property
    def prefix(self) -> tuple[str, ...]:
        """The folders below the root, outermost first, in which every match lies."""
        return self._glob.prefix

    @property
    def depth(self) -> int | None:
        """How many folders below `prefix` a match can lie at most; None: any number."""
        return self._glob.depth

    def match(self, relative: str) -> Match | None:
        """Return what the rule says of a file, None if nothing.

        Args:
            relative: The path below the root, with `/` between segments.
        """
        found = self._glob.regex.fullmatch(relative)
        if found is None or self.excludes(relative):
            return None
        if not self.captures:
            return Match(self, self.agent)
        agent = _agent_id(found["agent"])
        return Match(self, agent) if agent else None

    def concerns(self, kind: ChangeKind) -> bool:
        """Return whether the rule is about changes of this kind."""
        return self.kinds is None or kind in self.kinds

    def excludes(self, relative: str) -> bool:
        """Return whether a file or folder below the root is never a cause."""
        return self._never is not None and self._never.fullmatch(relative) is not None

    def leads(self, relative: str) -> bool:
        """Return whether a folder below the root (`""` is the root) holds matches, or lies on the way to them."""
        parts = relative.split("/") if relative else []
        glob = self._glob
        if glob.depth is not None and len(parts) > len(glob.folders):
            return False
        return all(
            segment.fullmatch(part) for segment, part in zip(glob.folders, parts, strict=False)
        ) and not self.excludes(relative)

    def only_name(self, relative: str) -> str | None:
        """Return the one name in a folder that `leads` accepts which can matter; None: any can."""
        level = relative.count("/") + 1 if relative else 0
        return self._glob.literals[level] if level < len(self._glob.literals) else None


def folder(path: str | os.PathLike[str], name: str) -> Path:
    """Return a folder as an absolute path without `~`, `.` and `..`.

    Raises:
        ConfigError: If it cannot be one; `name` is the field that the error names.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(text := os.fspath(path), str):
        raise ConfigTypeError(f"{name} is {shown(path)}; give a folder as a string or a Path", field=name)
    if not is_path(text):
        raise ConfigError(f"{name} is {shown(path)}, which is no path; give a folder", field=name)
    try:
        return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111 - abspath folds `..`, Path does not
    except OSError as error:  # the current folder is gone
        raise ConfigError(
            f"{name} is {shown(path)} and cannot be resolved; give an absolute path", field=name
        ) from error


def project_name(project: str | None) -> str | None:
    """Return the name given to a project if it can be one.

    Raises:
        ConfigTypeError: If it is neither a string nor None.
        ConfigError: If it is empty.
    """
    if project is not None and not isinstance(project, str):
        raise ConfigTypeError(f"project is {shown(project)}; give its name as a string, or None", field="project")
    if project is not None and not project.strip():
        raise ConfigError(f"project is {shown(project)}; give a name, or None for none", field="project")
    return project


def _check_anywhere(scope: str, project: object, project_root: object) -> None:
    for name, value in (("project", project), ("project_root", project_root)):
        if value is not None:
            raise ConfigError(f"{name} is {shown(value)} in a rule that is anywhere; leave one of them out", field=name)
    if scope == "project":
        raise ConfigError(
            "scope is 'project' in a rule that is anywhere; give scope 'all', or the project", field="scope"
        )


def _change_kinds(kinds: object) -> frozenset[ChangeKind] | None:
    if kinds is None:
        return None
    choices = ", ".join(_KINDS)
    if isinstance(kinds, str) or not isinstance(kinds, Collection):
        raise ConfigTypeError(f"kinds is {shown(kinds)}; give a set of {choices}", field="kinds")
    unknown = [kind for kind in kinds if not isinstance(kind, str) or kind not in _KINDS]
    if unknown or not kinds:
        raise ConfigError(f"kinds is {shown(kinds)}; give at least one of {choices}, and nothing else", field="kinds")
    return frozenset(cast("Collection[ChangeKind]", kinds))


def _patterns(patterns: object, name: str) -> tuple[str, ...]:
    if isinstance(patterns, str | bytes) or not isinstance(patterns, Iterable):
        raise ConfigTypeError(f"{name} is {shown(patterns)}; give a tuple of patterns", field=name)
    return tuple(_globs.check(pattern, name) for pattern in patterns)


def check_rules(watch: object) -> tuple["WatchRule", ...]:
    """Return watch rules as a tuple; one alone is fine.

    Raises:
        ConfigTypeError: If there is something else among them.
    """
    if isinstance(watch, WatchRule):
        return (watch,)
    if isinstance(watch, str) or not isinstance(watch, Iterable):
        raise ConfigTypeError(f"watch is {shown(watch)}; give WatchRules, for example a preset's", field="watch")
    rules = tuple(watch)
    for rule in rules:
        if not isinstance(rule, WatchRule):
            raise ConfigTypeError(f"watch holds {shown(rule)}; give WatchRules, for example a preset's", field="watch")
    return rules
