"""`cache.warm(...)`: values computed ahead of their use, a few at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, field
from inspect import isawaitable
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Unpack

from shared_prompt_cache._cached import CachedOptions, Options
from shared_prompt_cache._logging import log
from shared_prompt_cache._naming import shown
from shared_prompt_cache._options import check_compute, check_count, check_keys, sync_compute
from shared_prompt_cache.errors import CacheKeyError, ConfigTypeError
from shared_prompt_cache.keys import check_key

if TYPE_CHECKING:
    from shared_prompt_cache.cache import SharedPromptCache

Progress = Callable[[int, int | None], Awaitable[object] | object]
"""Called as `on_progress(done, total)` after each key; total is None where `keys` has no length."""

_MOST_SHOWN: Final = 5
_BREATH: Final = 100
"""After how many keys that were there already a worker lets the loop breathe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmReport:
    """What became of the keys; each is counted once. `str()` of it is for people.

    Attributes:
        computed: How many values were computed.
        present: How many were there already, or were being computed by somebody else.
        loaded: How many entries were loaded from the store, for `most_used`.
        failures: What went wrong, by key; the exception of `compute` as it was raised.
    """

    computed: int
    present: int
    loaded: int = 0
    failures: Mapping[str, Exception] = field(default_factory=dict)

    def __str__(self) -> str:
        loaded = f"{self.loaded} loaded, " if self.loaded else ""
        lines = [f"{loaded}{self.computed} computed, {self.present} already there, {len(self.failures)} failed"]
        lines += [
            f"  {key!r}: {type(error).__name__}: {error!s:.200}"
            for key, error in islice(self.failures.items(), _MOST_SHOWN)
        ]
        if len(self.failures) > _MOST_SHOWN:
            lines.append(f"  and {len(self.failures) - _MOST_SHOWN} more")
        return "\n".join(lines)


async def warm(
    cache: "SharedPromptCache",
    keys: Iterable[str],
    compute: Callable[[str], Awaitable[Any]] | None,
    *,
    most_used: int = 0,
    concurrency: int = 8,
    on_progress: Progress | None = None,
    **options: Unpack[CachedOptions],
) -> WarmReport:
    """Load what was used last, compute what is not cached of `keys`, and return what became of them.

    A failure of one key is reported and hurts no other. `keys` is read as it is needed, and each key is kept to know
    it again. Cancelling it ends what it has begun, but for computations that others wait for.

    Args:
        cache: What to fill.
        keys: The keys; one that comes twice is taken once.
        compute: An async function of a key; None: no keys are given.
        most_used: How many entries are loaded from the store, those that were read last, as far as they still stand.
        concurrency: How many keys are worked on at a time.
        on_progress: Called with the number of keys done and of all, duplicates counted; an async one is awaited. Its
            failure is logged, once.
        **options: Those of `get_or_compute`, each a value or a callable of the key.

    Raises:
        ConfigError: If an argument or an option cannot be used.
        CacheClosedError: If the cache is closed.
    """
    check_keys(keys)
    if on_progress is not None and not callable(on_progress):
        raise ConfigTypeError(f"on_progress is {shown(on_progress)}; give a function", field="on_progress")
    check_count(most_used, "most_used", least=0)
    workers = check_count(concurrency, "concurrency")
    wanted: Any = _uncalled if compute is None and keys == () else compute
    check_compute(wanted)
    warming = _Warming(cache, keys, wanted, Options(options), on_progress)
    cache._enter()
    loaded = await cache._lookups.load(most_used)
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            if warming.ended:
                break
            group.create_task(warming.work())
            await asyncio.sleep(0)  # a short list needs fewer workers than it may have
    return warming.report(loaded)


async def _uncalled(key: str) -> Any:
    """Stand for the function where there are no keys."""


class _Warming:
    """The state that the workers of one `warm` share."""

    def __init__(
        self,
        cache: "SharedPromptCache",
        keys: Iterable[str],
        compute: Callable[[str], Awaitable[Any]],
        options: Options,
        on_progress: Progress | None,
    ) -> None:
        self.ended = False
        self._cache = cache
        self._keys = iter(keys)
        self._compute = compute
        self._options = options
        self._on_progress = on_progress
        self._total = len(keys) if isinstance(keys, Sized) else None
        self._seen: set[str] = set()
        self._done = self._computed = self._present = 0
        self._failures: dict[str, Exception] = {}
        self._broken: Exception | None = None
        self._unheard = False

    async def work(self) -> None:
        """Take keys until there are none."""
        while not self.ended:
            try:
                key = next(self._keys)
            except StopIteration:
                self.ended = True
                return
            except Exception as error:  # noqa: BLE001 - raised by `report`, once the keys under way are done
                self.ended, self._broken = True, error
                return
            await self._fill(key)
            self._done += 1
            if self._on_progress is not None:
                await self._tell(self._on_progress)
            if self._done % _BREATH == 0:
                await asyncio.sleep(0)

    async def _fill(self, key: str) -> None:
        try:
            if check_key(key) in self._seen:
                return
            self._seen.add(key)
            call = _Compute(self._compute, key)
            await self._cache.get_or_compute(key, call, **self._options.of(key))
        except CacheKeyError as error:
            self._failures[key if isinstance(key, str) else shown(key)] = error
        except Exception as error:  # noqa: BLE001 - whatever compute raises; it is reported
            self._failures[key] = error
        else:
            self._computed += call.ran
            self._present += not call.ran

    async def _tell(self, on_progress: Progress) -> None:
        try:
            outcome = on_progress(self._done, self._total)
            if isawaitable(outcome):
                await outcome
        except (Exception, asyncio.CancelledError) as error:
            worker = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and worker is not None and worker.cancelling():
                raise
            if not self._unheard:
                self._unheard = True
                log(logging.WARNING, "progress.failed", exc_info=error, cache=self._cache.name)

    def report(self, loaded: int) -> WarmReport:
        """Return what became of the keys; raise what `keys` itself raised."""
        if self._broken is not None:
            raise self._broken
        failures = MappingProxyType(self._failures)
        return WarmReport(computed=self._computed, present=self._present, loaded=loaded, failures=failures)


class _Compute:
    """The computation of one key, which remembers whether it was wanted."""

    __slots__ = ("_compute", "_key", "ran")

    def __init__(self, compute: Callable[[str], Awaitable[Any]], key: str) -> None:
        self._compute = compute
        self._key = key
        self.ran = False

    async def __call__(self) -> Any:
        self.ran = True
        awaitable = self._compute(self._key)
        if not isawaitable(awaitable):
            raise ConfigTypeError(sync_compute(self._compute), field="compute")
        return await awaitable
