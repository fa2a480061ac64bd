"""An asyncio cache for prompts and agent memory: computed once, and never served after its files changed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from shared_prompt_cache import keys
from shared_prompt_cache._core.entry import CachedPrompt
from shared_prompt_cache._options import Computed
from shared_prompt_cache.cache import SharedPromptCache
from shared_prompt_cache.clock import TTL, Clock
from shared_prompt_cache.errors import (
    CacheClosedError,
    CacheError,
    CacheKeyError,
    ComputeCancelled,
    ComputeTimeout,
    ConfigError,
    ConfigTypeError,
    RecursiveComputeError,
    SerializationError,
    StoreError,
    WrongLoopError,
)
from shared_prompt_cache.events import (
    ApiCall,
    Cause,
    ConfigChange,
    Event,
    FileChange,
    Invalidation,
    PeerEvent,
    Recovery,
    Removal,
)
from shared_prompt_cache.keys import glob_escape

if TYPE_CHECKING:
    from shared_prompt_cache._core.stats import CacheStats, Explanation, Health, PartHealth
    from shared_prompt_cache._warm import WarmReport
    from shared_prompt_cache.config import CacheConfig, PersistenceConfig, WatchConfig
    from shared_prompt_cache.rules import WatchRule, normalise_agent

__all__ = [
    "TTL",
    "ApiCall",
    "CacheClosedError",
    "CacheConfig",
    "CacheError",
    "CacheKeyError",
    "CacheStats",
    "CachedPrompt",
    "Cause",
    "Clock",
    "ComputeCancelled",
    "ComputeTimeout",
    "Computed",
    "ConfigChange",
    "ConfigError",
    "ConfigTypeError",
    "Event",
    "Explanation",
    "FileChange",
    "Health",
    "Invalidation",
    "PartHealth",
    "PeerEvent",
    "PersistenceConfig",
    "Recovery",
    "RecursiveComputeError",
    "Removal",
    "SerializationError",
    "SharedPromptCache",
    "StoreError",
    "WarmReport",
    "WatchConfig",
    "WatchRule",
    "WrongLoopError",
    "glob_escape",
    "keys",
    "normalise_agent",
]

# What not every program needs is loaded when it is asked for.
_LAZY: Final = {
    "CacheConfig": "config",
    "CacheStats": "_core.stats",
    "Explanation": "_core.stats",
    "Health": "_core.stats",
    "PartHealth": "_core.stats",
    "PersistenceConfig": "config",
    "WarmReport": "_warm",
    "WatchConfig": "config",
    "WatchRule": "rules",
    "normalise_agent": "rules",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
