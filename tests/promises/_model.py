"""What a cache has to do, as dicts: the model that `test_model_of_computations.py` holds the real one against.

Each key has labels of its own. A value is made of one or more keys: its own, and those of the cached values that went
into it, with all that those were made of. An invalidation selects keys, and takes every value that is made of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from shared_prompt_cache import SharedPromptCache

FILE = "/absent/memories/engineer.md"
LABELS: dict[str, dict[str, Any]] = {
    "plan_1": {"agent": "engineer", "project": "web", "tags": ["draft"]},
    "plan_2": {"agent": "Engineer_Agent", "tags": ["draft", "final"]},
    "note_1": {"project": "web", "depends_on": FILE},
    "note_2": {"agent": "qa", "project": "shop", "tags": ["final"]},
    "engineer_1": {},  # its name is the agent's
    "plain": {"depends_on": [FILE]},
}
AGENTS = {"plan_1": "engineer", "plan_2": "engineer", "note_2": "qa", "engineer_1": "engineer"}
KEYS = tuple(LABELS)
TTL = 10

Act = tuple[str, Any]
ACTS: tuple[Act, ...] = (
    *[("key", key) for key in KEYS],
    *[("pattern", pattern) for pattern in ("plan_*", "*_1", "[!p]*", "nothing")],
    *[("tag", tag) for tag in ("draft", "final", "unknown")],
    *[("agent", (agent, project)) for agent in ("engineer", "qa") for project in (None, "web", "shop")],
    *[("project", project) for project in ("web", "shop", "unknown")],
    *[("file", path) for path in (FILE, "/absent", "/another")],
    ("all", None),
)


def selects(act: Act, key: str) -> bool:
    """Return whether an invalidation is about a key."""
    kind, name = act
    labels = LABELS[key]
    project = labels.get("project")
    match kind:
        case "agent":
            return AGENTS.get(key) == name[0] and (name[1] is None or project in {name[1], None})
        case "file":
            return "depends_on" in labels and (FILE + "/").startswith(name + "/")
        case "pattern":
            return fnmatchcase(key, name)
    return {
        "key": key == name,
        "tag": name in labels.get("tags", ()),
        "project": project in {name, None},
        "all": True,
    }[kind]


async def invalidate(cache: SharedPromptCache, act: Act, *, soft: bool) -> int:
    """Do to a cache what `selects` describes."""
    kind, name = act
    match kind:
        case "key":
            return await cache.invalidate(name, soft=soft)
        case "agent":
            return await cache.invalidate_agent(*name, soft=soft)
        case "all":
            return await cache.clear(soft=soft)
    return await getattr(cache, f"invalidate_{kind}")(name, soft=soft)


@dataclass
class Row:
    """A value, or a failure that is kept."""

    value: Any
    expires: float
    made_of: frozenset[str]


class Model:
    """Values in the order in which they were last used, expired ones, and failures."""

    def __init__(self) -> None:
        self.now = 0.0
        self.values: dict[str, Row] = {}
        self.stale: dict[str, Row] = {}
        self.failures: dict[str, Row] = {}

    def row(self, key: str, value: Any, ttl: float | None, made_of: frozenset[str] = frozenset()) -> Row:
        return Row(value, self.now + (TTL if ttl is None else ttl), made_of | {key})

    def get(self, key: str) -> Row | None:
        row = self.values.pop(key, None)
        if row is None:
            return None
        if self.now >= row.expires:
            self.stale[key] = row
            return None
        self.values[key] = row
        return row

    def get_stale(self, key: str, stale_for: float) -> Row | None:
        row = self.stale.get(key)
        return row if row is not None and self.now < row.expires + stale_for else None

    def get_failure(self, key: str) -> Row | None:
        row = self.failures.get(key)
        return row if row is not None and self.now < row.expires else None

    def put(self, key: str, row: Row) -> None:
        for rows in (self.values, self.stale, self.failures):
            rows.pop(key, None)
        self.values[key] = row

    def evict(self, count: int) -> int:
        gone = list(self.values)[:count]
        for key in gone:
            del self.values[key]
        return len(gone)

    def invalidate(self, act: Act, *, soft: bool) -> int:
        """Return how many values go; of a key, whether its own was there."""

        def taken(rows: dict[str, Row]) -> dict[str, Row]:
            return {key: row for key, row in rows.items() if any(selects(act, part) for part in row.made_of)}

        own = self.values.get(act[1]) if act[0] == "key" else None
        was_there = own is not None and self.now < own.expires
        gone = taken(self.values)
        if act[0] == "key" and soft and not was_there:
            gone.pop(act[1], None)  # it has expired already, though nobody has looked since
        for key, row in gone.items():
            del self.values[key]
            if soft:
                self.stale[key] = Row(row.value, min(row.expires, self.now), row.made_of)
        for rows in (self.failures,) if soft else (self.failures, self.stale):
            for key in taken(rows):
                del rows[key]
        return was_there if act[0] == "key" else len(gone)
