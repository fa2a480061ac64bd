"""Why values are in memory alone: the store cannot keep them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache._logging import log
from shared_prompt_cache.errors import SerializationError

_MOST: Final = 1000


class Reasons:
    """Remembers so many of them, by key; each type of value is logged once.

    Args:
        name: The cache, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._by_key: OrderedDict[str, str] = OrderedDict()
        self._said: set[type] = set()

    def note(self, entry: Entry, error: SerializationError) -> None:
        """Remember why `entry` cannot be stored."""
        self._by_key[entry.key] = str(error)
        if len(self._by_key) > _MOST:
            self._by_key.popitem(last=False)
        kind = type(entry.value)
        if kind not in self._said and len(self._said) < _MOST:
            self._said.add(kind)
            log(logging.WARNING, "store.value_refused", cache=self._name, key=entry.key, reason=str(error))

    def forget(self, key: str) -> None:
        """Forget that of `key`: it has another value."""
        if self._by_key:
            self._by_key.pop(key, None)

    def get(self, key: str) -> str | None:
        """Return that of `key`, None if nothing is known."""
        return self._by_key.get(key)

    def clear(self) -> None:
        """Forget all, for another life of the cache."""
        self._by_key.clear()
