"""The caches one would use instead, each as its own documentation advises to protect a function from a stampede.

They are imported if they are installed. What they share is a function of a key that computes or finds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from shared_prompt_cache import SharedPromptCache

Compute = Callable[[str], Awaitable[str]]
_MANY = 1_000_000
_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Peer:
    """A cache around one function.

    Attributes:
        call: Finds or computes the value of a key.
        invalidate: Removes the value of a key.
    """

    call: Callable[[str], Awaitable[Any]]
    invalidate: Callable[[str], Awaitable[object]]


Make = Callable[[Compute, AsyncExitStack], Awaitable[Peer]]


async def _ours(compute: Compute, stack: AsyncExitStack) -> Peer:
    cache = await stack.enter_async_context(SharedPromptCache(max_size=_MANY, max_memory_mb=100_000))
    return Peer(lambda key: cache.get_or_compute(key, partial(compute, key)), cache.invalidate)


async def _cashews(compute: Compute, stack: AsyncExitStack) -> Peer:
    cache = import_module("cashews").Cache()
    cache.setup("mem://", size=_MANY)
    await cache.init()
    stack.push_async_callback(cache.close)

    @cache(ttl=_HOUR, key="prompt:{key}")
    async def call(key: str) -> str:
        return await compute(key)

    return Peer(call, lambda key: cache.delete(f"prompt:{key}"))


async def _aiocache(compute: Compute, stack: AsyncExitStack) -> Peer:
    cached_stampede = import_module("aiocache").cached_stampede

    @cached_stampede(lease=30, ttl=_HOUR, key_builder=lambda _function, key: key)
    async def call(key: str) -> str:
        return await compute(key)

    cache = call.cache
    stack.push_async_callback(cache.clear)
    return Peer(call, cache.delete)


async def _async_lru(compute: Compute, stack: AsyncExitStack) -> Peer:
    call = import_module("async_lru").alru_cache(maxsize=_MANY, ttl=_HOUR)(compute)
    stack.push_async_callback(call.cache_close)

    async def invalidate(key: str) -> object:
        return call.cache_invalidate(key)

    return Peer(call, invalidate)


async def _key_value(compute: Compute, _stack: AsyncExitStack) -> Peer:
    store = import_module("key_value.aio.stores.memory").MemoryStore(max_entries_per_collection=_MANY)

    async def call(key: str) -> str:
        found = await store.get(key)
        if found is None:
            found = {"prompt": await compute(key)}
            await store.put(key, found, ttl=_HOUR)
        return found["prompt"]

    return Peer(call, store.delete)


async def _dict(compute: Compute, _stack: AsyncExitStack) -> Peer:
    prompts: dict[str, str] = {}

    async def call(key: str) -> str:
        found = prompts.get(key)
        if found is None:
            found = prompts[key] = await compute(key)
        return found

    async def invalidate(key: str) -> object:
        return prompts.pop(key, None)

    return Peer(call, invalidate)


OURS = "shared-prompt-cache"
BARE = "dict, by hand"
ALL: dict[str, Make] = {
    OURS: _ours,
    "cashews": _cashews,
    "aiocache": _aiocache,
    "async-lru": _async_lru,
    "py-key-value-aio": _key_value,
    BARE: _dict,
}
"""By distribution."""


def release(name: str) -> str | None:
    """Return the version that is installed, `""` for what needs no installing, None for what is missing."""
    if name in (OURS, BARE):
        return ""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


class Gated:
    """A computation that can be held, and tells which state of the world it read.

    Attributes:
        world: What a computation that begins now will read.
        computations: How many have begun.
        began: Set when the first has begun.
        gate: Set to let them end.
    """

    def __init__(self) -> None:
        self.world = 1
        self.computations = 0
        self.began = asyncio.Event()
        self.gate = asyncio.Event()

    async def compute(self, _key: str) -> str:
        """Read the world, wait for the gate, return what was read."""
        self.computations += 1
        read = f"version {self.world}"
        self.began.set()
        await self.gate.wait()
        return read
