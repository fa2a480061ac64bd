"""Under which scopes things are filed, and which scopes an invalidation names.

Both directions stand side by side here, because they must agree:

| filed                         | in the scopes                                                          |
|-------------------------------|------------------------------------------------------------------------|
| everything                    | `all`                                                                  |
| with agent a                  | `agent a`, and for each name of its project `agent a in p`             |
| with a project, or none       | for each name of it `project p`; none is the name `""`                 |
| with a tag                    | `tag t`                                                                |

A project given as a path has two names: the resolved path, and `*/folder` for the name of its folder, so that an
invalidation by that name finds it, while one of another path with the same folder name does not.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from shared_prompt_cache._core.entry import Labels
from shared_prompt_cache._core.scopes import ALL, ScopeId, Scopes
from shared_prompt_cache.clock import Clock

_MOST_LABELS = 4096
_ANY_FOLDER = "*/"


def entry_names(project: str) -> tuple[str, ...]:
    """Return the names under which the entries of a project are filed: of `""`, a plain name, or an absolute path."""
    if "/" not in project:
        return (project,)
    return (project, _ANY_FOLDER + project.rstrip("/").rpartition("/")[2])


def target_names(project: str, aliases: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of the entries that an invalidation of a project concerns, those of no project among them.

    Args:
        project: A plain name or an absolute path.
        aliases: Other names, or paths, of the same project.
    """
    names = {"": None, project: None}
    if "/" not in project:
        names[_ANY_FOLDER + project] = None
    for name in (project, *aliases):
        folder = name.rstrip("/").rpartition("/")[2]  # a plain name is its own
        names[folder] = None
        if folder != project:
            names[name] = None
    return tuple(names)


class Target(NamedTuple):
    """What a change of files invalidates.

    Attributes:
        scope: `"agent"`, `"project"`, `"all"` or `"file"`.
        name: The agent's id, the root of the project, or the path of the file; None for `"all"`.
        project: The root of the project that a project or agent target is of; None: every project.
        aliases: The names given to that project, besides its path and the name of its folder.
    """

    scope: Literal["agent", "project", "all", "file"]
    name: str | None = None
    project: str | None = None
    aliases: tuple[str, ...] = ()


class Filing:
    """The labels in use in one cache."""

    __slots__ = ("_clock", "_labels", "_scopes")

    def __init__(self, scopes: Scopes, clock: Clock) -> None:
        self._scopes = scopes
        self._clock = clock
        self._labels: dict[tuple[str | None, str | None, frozenset[str]], Labels] = {}

    def labels(
        self, agent: str | None, agent_id: str | None, project: str | None, names: tuple[str, ...], tags: frozenset[str]
    ) -> Labels:
        """Return the labels for an agent, a project and tags.

        Args:
            agent: As given.
            agent_id: Normalised.
            project: As given.
            names: What `entry_names` says of it, resolved.
            tags: The tags.
        """
        known = self._labels.get((agent, project, tags))
        if known is None:
            if len(self._labels) >= _MOST_LABELS:
                self._labels.clear()  # entries keep theirs; only the sharing begins anew
            ids = [ALL]
            if agent_id is not None:
                ids.append(("agent", agent_id))
                ids.extend(("agent", agent_id, name) for name in names)
            ids.extend(("project", name) for name in names)
            ids.extend(("tag", tag) for tag in sorted(tags))
            scopes = tuple([self._scopes.scope(scope_id) for scope_id in ids])
            known = Labels(agent, project, tags, projects=names, scopes=scopes, clock=self._clock)
            self._labels[agent, project, tags] = known
        return known

    def find(self, agent: str | None, project: str | None, tags: frozenset[str]) -> Labels | None:
        """Return labels that have been made before."""
        return self._labels.get((agent, project, tags))


def agent_ids(agent_id: str, names: tuple[str, ...] | None) -> tuple[ScopeId, ...]:
    """Return the scopes of an agent, everywhere or in the project with these names."""
    if names is None:
        return (("agent", agent_id),)
    return tuple([("agent", agent_id, name) for name in names])


def project_ids(names: tuple[str, ...]) -> tuple[ScopeId, ...]:
    """Return the scopes of the project with these names."""
    return tuple([("project", name) for name in names])
