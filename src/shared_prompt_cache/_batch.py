"""Sets and invalidations that are applied together.

A batch is a computation: what is set in it counts as begun when the block was entered. At its end everything is judged
first and then applied in the order of the calls, in one synchronous stretch; if the block raises, nothing is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator, Iterable, Mapping
from contextlib import nullcontext, suppress
from contextvars import ContextVar, Token
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from shared_prompt_cache._core.entry import Labels
from shared_prompt_cache._files.recorder import Recorder
from shared_prompt_cache._flights import Flight
from shared_prompt_cache._lock import Block
from shared_prompt_cache._options import Making, Paths, Span, check_metadata
from shared_prompt_cache.errors import CacheClosedError
from shared_prompt_cache.events import ApiCall
from shared_prompt_cache.keys import check_key

if TYPE_CHECKING:
    from shared_prompt_cache.cache import SharedPromptCache

_OPEN: Final[ContextVar[Batch | None]] = ContextVar("shared_prompt_cache_batch", default=None)


class _Done(Awaitable[None]):
    """What a verb of a batch returns: nothing is left to wait for, so awaiting it is as good as not."""

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


_DONE: Final = _Done()


class Batch:
    """A block of sets and invalidations: `async with cache.batch() as batch:`."""

    def __init__(self, cache: SharedPromptCache) -> None:
        self._cache = cache
        self._block: Block | None = None
        self._task: asyncio.Task[Any] | None = None
        self._token: Token[Batch | None] | None = None
        self._around: Batch | None = None
        self._steps: list[tuple[Flight, Any, Making] | str] = []

    @staticmethod
    def joined(cache: SharedPromptCache) -> Batch | None:
        """Return the batch of `cache` that this very task is in."""
        batch = _open(_OPEN.get())
        while batch is not None and batch._cache is not cache:
            batch = _open(batch._around)
        return batch if batch is not None and batch._task is asyncio.current_task() else None

    async def __aenter__(self) -> Self:
        self._cache._enter()
        self._block = Block(self._cache, "a batch")
        self._block.begin()
        self._task = asyncio.current_task()
        self._around = _open(_OPEN.get())
        self._token = _OPEN.set(self)
        return self

    def set_prompt(
        self,
        key: str,
        prompt: Any,
        metadata: Mapping[str, Any] | None = None,
        ttl: Span = None,
        *,
        agent: str | None = None,
        project: str | PathLike[str] | None = None,
        tags: Iterable[str] = (),
        depends_on: Paths = (),
    ) -> Awaitable[None]:
        """Store a value when the block ends; arguments as for the verb of the cache. Need not be awaited."""
        cache = self._cache
        labels = cache._labelling.labels(agent, project, tags, check_metadata(metadata))
        making = Making(cache._ttl, ttl, metadata, depends_on)
        return self.add(check_key(key), prompt, labels, making)

    def add(self, key: str, prompt: Any, labels: Labels, making: Making) -> Awaitable[None]:
        """Store a value whose options have been checked when the block ends."""
        block = self._open()
        value = Flight(key, labels, (), block.flight.revision, Recorder(self._cache._scopes))
        value.recorder.take(block.recorder)
        self._steps.append((value, prompt, making))
        return _DONE

    def invalidate(self, key: str) -> Awaitable[None]:
        """Invalidate a key when the block ends. Need not be awaited."""
        self._open()
        self._steps.append(check_key(key))
        return _DONE

    def _open(self) -> Block:
        if self._block is None:
            raise CacheClosedError("the batch is over; use it inside `async with cache.batch() as batch:`")
        return self._block

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        block = self._open()
        try:
            if error is None:
                for step in self._steps:
                    if not isinstance(step, str) and step[2].depends_on:
                        await self._cache._proofs.declare(step[0].recorder, step[2].depends_on)
                self._apply()
                await self._cache._invalidations.durable()  # cancelled here, all of it is in force
        finally:
            block.end()
            self._block, self._steps = None, []
            if self._token is not None:
                with suppress(ValueError):  # left by another task; `joined` looks at the task anyway
                    _OPEN.reset(self._token)

    def _apply(self) -> None:
        # No await in here. First all values are judged, so that the batch's own invalidations do not hit them.
        cache = self._cache
        cache._enter()
        standing = set()
        for step in self._steps:
            if not isinstance(step, str):
                cache._computations.begin_late(step[0])
                if cache._computations.refusal(step[0]) is None:
                    standing.add(step[0])
        with nullcontext() if cache._tier is None else cache._tier.together():
            self._put(standing)

    def _put(self, standing: set[Flight]) -> None:
        cache = self._cache
        for step in self._steps:
            if isinstance(step, str):
                cache._invalidations.apply("key", step, cause=ApiCall(verb="batch.invalidate"))
            else:
                value, prompt, making = step
                if value in standing:
                    cache._computations.begin_anew(value)
                cache._computations.put_block(value, prompt, making)


def _open(batch: Batch | None) -> Batch | None:
    """Return `batch`, or the next one around it, that is not over."""
    while batch is not None and batch._block is None:
        batch = batch._around
    return batch
