"""What tests of programs with a cache need: time by hand, shuffled schedules, bounded waiting."""

from shared_prompt_cache.testing._clock import ManualClock
from shared_prompt_cache.testing._shuffle import ShuffleLoop
from shared_prompt_cache.testing._waiting import wait_until
from shared_prompt_cache.testing._watcher import FakeWatcher

__all__ = ["FakeWatcher", "ManualClock", "ShuffleLoop", "wait_until"]
