"""What tests of programs with a cache need: time by hand, shuffled schedules, bounded waiting, faults on purpose.

And what a store of somebody else's has to pass: `StoreContract`. It needs pytest, pytest-asyncio and hypothesis, so it
is loaded when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from shared_prompt_cache.testing._chaos_store import ChaosStore
from shared_prompt_cache.testing._clock import ManualClock
from shared_prompt_cache.testing._shuffle import ShuffleLoop
from shared_prompt_cache.testing._waiting import wait_until
from shared_prompt_cache.testing._watcher import FakeWatcher

if TYPE_CHECKING:
    from shared_prompt_cache.testing._store_contract import StoreContract

__all__ = ["ChaosStore", "FakeWatcher", "ManualClock", "ShuffleLoop", "StoreContract", "wait_until"]


def __getattr__(name: str) -> Any:
    if name != "StoreContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest  # noqa: PLC0415 - who uses a cache in production may not have it

    pytest.register_assert_rewrite("shared_prompt_cache.testing._store_contract")
    from shared_prompt_cache.testing._store_contract import StoreContract  # noqa: PLC0415 - after the line above

    return StoreContract
