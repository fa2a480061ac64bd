"""Entries, made by hand, for tests of the core."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from shared_prompt_cache._core.entry import Entry, Labels, Origin
from shared_prompt_cache._core.memory import Memory
from shared_prompt_cache._core.scopes import ScopeId, Scopes
from shared_prompt_cache.testing import ManualClock


class Bench:
    """A memory tier with its scopes and a clock, and what it has told.

    Attributes:
        gone: What left the table: key, reason, and the invalidation of just that key.
        released: The origins that were given up.
    """

    def __init__(self, *, max_size: int = 100_000, max_bytes: int = 1 << 40) -> None:
        self.clock = ManualClock()
        self.scopes = Scopes()
        self.gone: list[tuple[str, str, Any]] = []
        self.released: list[Origin] = []
        self.memory = Memory(
            self.scopes,
            "lru",
            max_size=max_size,
            max_bytes=max_bytes,
            removed=lambda entry, reason, told: self.gone.append((entry.key, reason, told)),
            released=self.released.append,
        )

    def entry(
        self,
        key: str,
        value: Any = None,
        *,
        ids: Iterable[ScopeId] = (),
        agent: str | None = None,
        consumed: Iterable[tuple[str, bool]] = (),
        paths: Iterable[str] = (),
        ttl: float = 60.0,
        size: int = 1000,
        revision: int | None = None,
    ) -> Entry:
        """Return an entry that was computed just now."""
        scopes = tuple(map(self.scopes.scope, ids))
        labels = Labels(agent, None, frozenset(), projects=("",), scopes=scopes, clock=self.clock)
        sources = [self.scopes.scope(("key", name)) for name, _ in consumed]
        pairs = tuple((scope, scope.number) for scope in (*scopes, *sources))
        dependencies = tuple(SimpleNamespace(path=path) for path in paths)
        origin = Origin(dependencies, tuple(consumed)) if dependencies or consumed else None
        now = self.scopes.revision if revision is None else revision
        return Entry(key, value, {}, labels, pairs, origin, ttl, now, size)

    def put(self, key: str, value: Any = None, **options: Any) -> Entry:
        """Keep such an entry, and return it."""
        entry = self.entry(key, value, **options)
        self.memory.put(entry)
        return entry

    def reclaim(self) -> None:
        """Do all that is left to do."""
        while self.memory.reclaim():
            pass

    @property
    def keys(self) -> list[str]:
        """The keys in the table, the least recently used first."""
        return list(self.memory.entries)
