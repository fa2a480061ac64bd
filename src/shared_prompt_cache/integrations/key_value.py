"""The cache as a store of py-key-value, for FastMCP and whatever else expects an `AsyncKeyValue`.

Two rules:

1. What is put is kept as JSON text. Each reader gets a dict of its own, made from that text, so nobody can damage what
   is cached; and a value that JSON cannot hold is refused when it is put, not when it is read.
2. Every entry has the tag `keyvalue`, and that of its collection, `keyvalue/{collection}`. So every verb of the cache
   reaches it: the tags, patterns such as `keyvalue/{collection}=*`, an agent, a project, `clear()`.

It is still a cache: an entry may be evicted at any time. What cannot be made again does not belong here.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, SupportsFloat, TypeVar

from shared_prompt_cache import CachedPrompt, SharedPromptCache
from shared_prompt_cache import keys as cache_keys
from shared_prompt_cache._naming import shown
from shared_prompt_cache.clock import seconds

try:
    from key_value.aio.errors import DeserializationError, InvalidTTLError, SerializationError
    from key_value.aio.protocols.key_value import (
        AsyncDestroyCollectionProtocol,
        AsyncDestroyStoreProtocol,
        AsyncKeyValue,
    )
except ImportError as error:
    raise ImportError(
        f"{__name__} needs py-key-value-aio; pip install 'shared-prompt-cache[fastmcp]'", name=error.name
    ) from error

__all__ = ["KeyValueStore"]

T = TypeVar("T")
_NAME: Final = "keyvalue"
_ESCAPES: Final = str.maketrans({"%": "%25", "=": "%3D", "#": "%23"})
_JSON: Final = json.JSONEncoder(separators=(",", ":"))
_HEAD: Final = 200  # characters of a collection that a hashed key still shows
_SLICE: Final = 64  # keys between two looks at what else the loop has to do


class KeyValueStore(AsyncKeyValue, AsyncDestroyCollectionProtocol, AsyncDestroyStoreProtocol):
    """A `SharedPromptCache` as an `AsyncKeyValue` of py-key-value, wherever one is expected.

    `ResponseCachingMiddleware(cache_storage=KeyValueStore(cache))` keeps the responses of a FastMCP server in it. The
    cache is lent: open and close it yourself. Two stores over one cache are the same store.

    Values come back as JSON has them: equal, but for a tuple, which is a list, and for the keys of inner mappings,
    which are text. A value that is larger than all the room of the cache is not kept, as with any cache.

    Args:
        cache: Where the entries are kept.
        default_collection: The collection of calls that name none.
        agent: The agent that the entries belong to: they go when it is invalidated.
        project: The project that they belong to; without one they go with any project, as all such entries do.
    """

    def __init__(
        self,
        cache: SharedPromptCache,
        *,
        default_collection: str = "default_collection",
        agent: str | None = None,
        project: str | os.PathLike[str] | None = None,
    ) -> None:
        self._cache = cache
        self._default_collection = default_collection
        self._agent = agent
        self._project = project

    def cache_key(self, key: str, *, collection: str | None = None) -> str:
        """Return the key under which the cache knows an entry, for `cache.explain()` and patterns.

        It is `keyvalue/{collection}={key}`, with `%`, `=` and `#` in the collection written as in a URL. Where that
        would be too long it is `keyvalue/{beginning of the collection}#{hash}`.

        Raises:
            TypeError: If key or collection is no string.
        """
        if not isinstance(key, str):
            raise TypeError(f"the key {shown(key)} is no string")
        collection = self._collection(collection)
        place = f"{_NAME}/{collection.translate(_ESCAPES)}"
        whole = f"{place}={key}"
        if len(whole) <= cache_keys.MAX_KEY_LENGTH:
            return whole
        return f"{place[:_HEAD]}#{cache_keys.of([collection, key])}"

    async def get(self, key: str, *, collection: str | None = None) -> dict[str, Any] | None:
        """Return a copy of the value, or None if there is none, or none any more.

        Raises:
            DeserializationError: If somebody else has put something under the key in the cache.
        """
        entry = await self._cache.get_prompt(self.cache_key(key, collection=collection))
        return None if entry is None else _value(entry)

    async def get_many(self, keys: Sequence[str], *, collection: str | None = None) -> list[dict[str, Any] | None]:
        """Return what `get` does for each key, in the order of the keys."""
        return await self._find_many(keys, collection, _value, None)

    async def ttl(self, key: str, *, collection: str | None = None) -> tuple[dict[str, Any] | None, float | None]:
        """Return the value and the seconds it has left, None for ever; `(None, None)` if there is no value."""
        entry = await self._cache.get_prompt(self.cache_key(key, collection=collection))
        return (None, None) if entry is None else _value_and_ttl(entry)

    async def ttl_many(
        self, keys: Sequence[str], *, collection: str | None = None
    ) -> list[tuple[dict[str, Any] | None, float | None]]:
        """Return what `ttl` does for each key, in the order of the keys."""
        return await self._find_many(keys, collection, _value_and_ttl, (None, None))

    async def put(
        self, key: str, value: Mapping[str, Any], *, collection: str | None = None, ttl: SupportsFloat | None = None
    ) -> None:
        """Keep a value, in the place of an older one.

        Where the value was made in a computation of the cache, it takes over what that has read. Elsewhere it counts
        as made at the call: an invalidation between a `get` that found nothing and this `put` does not reach it.

        Args:
            key: The key.
            value: A mapping that JSON can hold; later changes of it do not reach what is kept.
            collection: The collection; default: that of the store.
            ttl: Seconds to live; None for ever, whatever the default of the cache is.

        Raises:
            SerializationError: If JSON cannot hold the value.
            InvalidTTLError: If the ttl is no number of seconds above 0.
            TypeError: If the value is no mapping with strings for keys.
        """
        await self._put(self.cache_key(key, collection=collection), _text(value), collection, _lifetime(ttl))

    async def put_many(
        self,
        keys: Sequence[str],
        values: Sequence[Mapping[str, Any]],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> None:
        """Keep several values; nothing is kept if one of them cannot be.

        Raises:
            ValueError: If there are not as many values as keys.
            Exception: Whatever `put` raises.
        """
        if len(keys) != len(values):
            raise ValueError(f"{len(keys)} keys and {len(values)} values were given; give as many values as keys")
        lifetime = _lifetime(ttl)
        names, texts = await self._names(keys, collection), []
        for count, value in enumerate(values, 1):
            texts.append(_text(value))
            if count % _SLICE == 0:
                await asyncio.sleep(0)  # cancelled up to here, nothing is kept
        for count, (name, text) in enumerate(zip(names, texts, strict=True), 1):
            await self._put(name, text, collection, lifetime)
            if count % _SLICE == 0:
                await asyncio.sleep(0)  # cancelled here, those before are kept and those behind are not

    async def delete(self, key: str, *, collection: str | None = None) -> bool:
        """Remove a value, and what was made from it in the cache; return whether there was one."""
        return await self._cache.invalidate(self.cache_key(key, collection=collection))

    async def delete_many(self, keys: Sequence[str], *, collection: str | None = None) -> int:
        """Remove several; return how many there were."""
        names = await self._names(keys, collection)
        gone = 0
        for count, name in enumerate(names, 1):
            gone += await self._cache.invalidate(name)  # cancelled here, this one is gone and those behind are not
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        return gone

    async def destroy_collection(self, collection: str) -> bool:
        """Remove all values of a collection; return whether there were any."""
        return await self._cache.invalidate_tag(self._tag(collection)) > 0

    async def destroy(self) -> bool:
        """Remove all values of all collections, and nothing else that is in the cache; return True."""
        await self._cache.invalidate_tag(_NAME)
        return True

    async def _find_many(
        self, keys: Sequence[str], collection: str | None, tell: Callable[[CachedPrompt], T], absent: T
    ) -> list[T]:
        found: list[T] = []
        for start in range(0, len(keys), _SLICE):
            names = [self.cache_key(key, collection=collection) for key in keys[start : start + _SLICE]]
            entries = await self._cache.get_many(names)
            found += [absent if (entry := entries.get(name)) is None else tell(entry) for name in names]
            await asyncio.sleep(0)
        return found

    async def _names(self, keys: Sequence[str], collection: str | None) -> list[str]:
        names = []
        for count, key in enumerate(keys, 1):
            names.append(self.cache_key(key, collection=collection))
            if count % _SLICE == 0:
                await asyncio.sleep(0)  # cancelled here, nothing has been done
        return names

    async def _put(self, name: str, text: str, collection: str | None, lifetime: float) -> None:
        await self._cache.set_prompt(
            name,
            text,
            ttl=lifetime,
            agent=self._agent,
            project=self._project,
            tags=(_NAME, self._tag(collection)),
        )

    def _collection(self, collection: str | None) -> str:
        if collection is not None and not isinstance(collection, str):
            raise TypeError(f"the collection {shown(collection)} is no string")
        return collection or self._default_collection

    def _tag(self, collection: str | None) -> str:
        return f"{_NAME}/{self._collection(collection)}"


def _text(value: Mapping[str, Any]) -> str:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"the value {shown(value)} is no mapping with strings for keys")
    try:
        return _JSON.encode(dict(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(f"the value cannot be kept as JSON: {error}") from error


def _value(entry: CachedPrompt) -> dict[str, Any]:
    try:
        value = json.loads(entry.prompt)
    except (TypeError, ValueError, RecursionError) as error:
        raise DeserializationError(f"what is kept under {entry.key!r} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise DeserializationError(f"what is kept under {entry.key!r} is no mapping")
    return value


def _value_and_ttl(entry: CachedPrompt) -> tuple[dict[str, Any] | None, float | None]:
    return _value(entry), _seconds_left(entry)


def _lifetime(ttl: SupportsFloat | None) -> float:
    if ttl is None:
        return math.inf
    if not isinstance(ttl, SupportsFloat):
        raise InvalidTTLError(shown(ttl))
    try:
        # An int is left as it is: it may be a bool, which is refused, or beyond all floats, which is for ever.
        return seconds(ttl if isinstance(ttl, int) else float(ttl), "ttl")
    except (ArithmeticError, ValueError) as error:
        raise InvalidTTLError(shown(ttl)) from error


def _seconds_left(entry: CachedPrompt) -> float | None:
    # Expiry and age are told by the same wall clock, so where it was set to cancels out; but set back behind the moment
    # of the put, which age does not tell, it makes the answer smaller by as much.
    left = entry.expires_at - entry.created_at - entry.age
    return None if left == math.inf else max(left, 0.0)
