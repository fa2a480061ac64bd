"""What became of the keys that left: the last word of each, for a bounded number of them.

Seen to fail on planted bugs: a history that forgets the newest, a value that was replaced told as removed.
"""

from core._entries import Bench
from shared_prompt_cache._core.history import History

MOST = 1000


def test_the_last_thing_that_happened_to_a_key_is_what_is_told():
    bench = Bench()
    history, entry = History(bench.clock.wall), bench.entry("key")
    history.refused("key", "it was late", None)
    bench.clock.advance(5)
    history.removed(entry, "evicted", None)
    gone = history.get("key")
    assert (gone.state, gone.reason, gone.at) == ("removed", "evicted", bench.clock.wall())
    assert history.get("another") is None


def test_one_that_was_replaced_is_there():
    bench = Bench()
    history = History(bench.clock.wall)
    history.removed(bench.entry("key"), "replaced", None)
    assert history.get("key") is None


def test_the_one_that_left_first_is_forgotten_first():
    bench = Bench()
    history = History(bench.clock.wall)
    for number in range(MOST):
        history.refused(f"key-{number}", "it was late", None)
    history.refused("key-0", "again", None)  # now it is the last that left
    history.refused("one more", "it was late", None)
    assert history.get("key-1") is None
    assert history.get("key-0").reason == "again"
    assert all(history.get(f"key-{number}") for number in range(2, MOST))
