"""What a computation reads while it runs: files, and cached values with all that those were made from.

Each flight has a recorder of its own; so has each `lock()` and `batch()` block, which passes what it records on to
the recorder around it. The current one travels in a context variable, so child tasks and threads find it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final

from shared_prompt_cache._core.entry import Origin
from shared_prompt_cache._core.scopes import Pairs, Scope
from shared_prompt_cache._files.fingerprint import Dependency
from shared_prompt_cache._flights import Flight


class Recorder:
    """Collects what one computation was made from.

    Attributes:
        scopes: The `Scopes` of the cache it belongs to; pairs of other caches mean nothing in it.
        owner: The flight that records.
        pairs: Scopes of consumed values, with the numbers those values noted.
        consumed: Keys of consumed values, with whether they had no agent.
        reads: The files, by path and pattern.
        spoiled: Why the value must not be kept, None if it may be.
        looks: What is being read or compared in a thread: it has been seen, and is not recorded yet.
        opened: In development mode, the files that were opened in any way.
        started: Likewise, the programs that were started.
    """

    __slots__ = ("around", "consumed", "looks", "opened", "owner", "pairs", "reads", "scopes", "spoiled", "started")

    def __init__(self, scopes: object, around: Recorder | None = None) -> None:
        self.scopes = scopes
        self.owner: Flight | None = None
        self.pairs: dict[Scope, int] = {}
        self.consumed: dict[str, bool] = {}
        self.spoiled: str | None = None
        self.reads: dict[tuple[str, str | None], Dependency] = {}
        self.looks: dict[asyncio.Event, None] = {}
        self.around = around
        if sys.flags.dev_mode:
            self.opened: set[str] = set()
            self.started: set[str] = set()

    @property
    def dependencies(self) -> tuple[Dependency, ...]:
        """The files so far."""
        return tuple(self.reads.values())

    def read(self, dependency: Dependency) -> None:
        """Note that a file, a folder or the absence of one was read."""
        name = (dependency.path, dependency.pattern)
        known = self.reads.get(name)
        if known is None:
            self.reads[name] = dependency
        elif not known.same_content(dependency):
            # The value mixes two states of one file; no single fingerprint can vouch for it.
            self.spoil(f"{dependency.path} changed between two reads of one computation")
        if self.around is not None and self in ACTIVE:
            self.around.read(dependency)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Let those who ask what has been read wait until the block is over; it must end by itself, and soon."""
        look = asyncio.Event()
        recorders = []
        recorder: Recorder | None = self
        while recorder is not None:
            recorders.append(recorder)
            recorder.looks[look] = None
            recorder = recorder.around
        try:
            yield
        finally:
            for recorder in recorders:
                del recorder.looks[look]
            look.set()

    async def looked(self) -> None:
        """Wait until what is being looked at now is recorded."""
        for look in list(self.looks):
            await look.wait()

    def consume(self, scopes: object, key: str, agent: str | None, pairs: Pairs, origin: Origin | None) -> None:
        """Note that a cached value went in: take over its files as it saw them, its scopes and its keys.

        Args:
            scopes: The `Scopes` of the cache it came from.
            key: Its key.
            agent: Its agent.
            pairs: Its scopes with their numbers, its own key as a scope among them.
            origin: What it was made from.
        """
        if scopes is self.scopes:
            for scope, number in pairs:
                if self.pairs.setdefault(scope, number) != number:
                    self.spoil(f"{scope.id} was invalidated between two values of one computation")
            self.consumed[key] = agent is None
            if origin is not None:
                for name, unowned in origin.consumed:
                    self.consumed.setdefault(name, unowned)
        if origin is not None:
            for dependency in origin.dependencies:
                self.read(dependency)
        if self.around is not None and self in ACTIVE:
            self.around.consume(scopes, key, agent, pairs, origin)

    def take(self, other: Recorder) -> None:
        """Take over what `other` has recorded so far."""
        self.pairs.update(other.pairs)
        self.consumed.update(other.consumed)
        for dependency in other.dependencies:
            self.read(dependency)
        if other.spoiled is not None:
            self.spoil(other.spoiled)

    def spoil(self, reason: str) -> None:
        """Let the value be kept by nobody."""
        if self.spoiled is None:
            self.spoiled = reason
        if self.around is not None:
            self.around.spoil(reason)

    def origin(self, *, without: str | None = None) -> Origin | None:
        """Return what was recorded, but for the key `without`; None if nothing was."""
        consumed = tuple([item for item in self.consumed.items() if item[0] != without])
        return Origin(self.dependencies, consumed) if self.reads or consumed else None


CURRENT: Final[ContextVar[Recorder | None]] = ContextVar("shared_prompt_cache_recorder", default=None)
"""The recorder of the computation that runs here. It may be over: look into `ACTIVE`."""

ACTIVE: Final[set[Recorder]] = set()
"""Recorders of computations under way, of all caches: a hit asks for the current one only if there is any."""


def current() -> Recorder | None:
    """Return the recorder of the computation that runs here, None if none does."""
    if not ACTIVE:
        return None
    recorder = CURRENT.get()
    return recorder if recorder in ACTIVE else None


def looking() -> AbstractContextManager[None]:
    """Return a block for a look at files in a thread, on behalf of the computation that runs here, if one does."""
    recorder = current()
    return nullcontext() if recorder is None else recorder.looking()
