"""Labels from what callers say; and by which names a project is known.

Those are its resolved path, the name of its folder, and the name given to its rules.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from shared_prompt_cache._core.entry import Labels
from shared_prompt_cache._core.filing import Filing, entry_names, target_names
from shared_prompt_cache._files.places import absolute
from shared_prompt_cache._naming import is_path, shown
from shared_prompt_cache._options import check_tags
from shared_prompt_cache.errors import ConfigError, ConfigTypeError

if TYPE_CHECKING:
    from shared_prompt_cache.rules import WatchRule

_NO_TAGS: Final[frozenset[str]] = frozenset()


class Labelling:
    """Makes labels, and knows the projects that the watch rules of one cache name."""

    def __init__(self, filing: Filing, rules: Iterable[WatchRule]) -> None:
        self._filing = filing
        self._plain = filing.labels(None, None, None, entry_names(""), _NO_TAGS)
        self._paths: dict[str, dict[str, None]] = {}  # of a given name, and of the name of a folder
        self._names: dict[str, dict[str, None]] = {}  # of a path
        for rule in rules:
            if rule.project is not None and rule.project_root is not None:
                path = resolved(str(rule.project_root))
                for name in (rule.project, os.path.basename(path)):
                    self._paths.setdefault(name, {})[path] = None
                self._names.setdefault(path, {})[rule.project] = None

    def labels(
        self,
        agent: str | None,
        project: str | os.PathLike[str] | None,
        tags: Iterable[str],
        metadata: Mapping[str, Any] | None,
    ) -> Labels:
        """Return the labels for the scopes that a call names, by its arguments or else by its metadata.

        Raises:
            ConfigError: If one of them cannot be used.
        """
        if metadata is not None:
            if agent is None and isinstance(said := metadata.get("agent"), str) and said.strip():
                agent = said
            if project is None and isinstance(said := metadata.get("project"), str | os.PathLike) and str(said):
                project = said
        known = _NO_TAGS if tags is None or tags == () else check_tags(tags)
        if agent is None and project is None and not known:
            return self._plain
        if agent is not None and not isinstance(agent, str):
            agent_id(agent)  # says so
        where = None if project is None else check_project(project)
        return self._filing.find(agent, where, known) or self._filing.labels(
            agent,
            None if agent is None else agent_id(agent),
            where,
            entry_names("" if where is None else resolved(where)),
            known,
        )

    def with_more(self, labels: Labels, tags: frozenset[str], metadata: Mapping[str, Any] | None) -> Labels:
        """Return `labels` with more tags, and with the agent and the project of `metadata` where they have none."""
        return self.labels(labels.agent, labels.project, labels.tags | tags, metadata)

    def of_target(self, project: str) -> tuple[str, ...]:
        """Return the names of the entries that an invalidation of `project` concerns."""
        name = resolved(project)
        paths = self._paths.get(name, {})
        return target_names(name, (*paths, *(alias for path in (name, *paths) for alias in self._names.get(path, ()))))


def agent_id(agent: str) -> str:
    """Return the normalised id of an agent.

    Raises:
        ConfigError: If it names nobody.
    """
    from shared_prompt_cache.rules import normalise_agent  # noqa: PLC0415 - loaded when used

    return normalise_agent(agent)


def check_project(project: object) -> str:
    """Return a project as text: a name as it is, a path absolute; a relative one is that of this moment.

    Raises:
        ConfigError: If it is empty, or neither a name nor a path.
    """
    if isinstance(project, os.PathLike):
        project = os.fspath(project)
        if isinstance(project, str) and "/" not in project:
            project = os.path.join(os.curdir, project)
    if not isinstance(project, str):
        raise ConfigTypeError(f"project is {shown(project)}; give a name or a path", field="project")
    if not is_path(project):
        raise ConfigError(f"project is {shown(project)}; give a name or a path", field="project")
    return absolute(project) if os.sep in project and not project.startswith(os.sep) else project


@lru_cache(maxsize=1024)
def resolved(project: str) -> str:
    """Return the resolved path if `project` is a path, else the name as it is."""
    if os.sep not in project and not project.startswith("~"):
        return project
    return os.path.realpath(os.path.expanduser(project))
