"""The memory tier: limits, the shelf of what has expired, and the reclaiming of what invalidations took.

The random test at the end holds it against a dict. It has failed on these planted bugs: what is replaced before it is
reclaimed counts for nobody; a soft invalidation that zeroes the counts of its scopes; two invalidations of tags that
are taken for disjoint; a marked entry that is marked again; an entry on the shelf that outlives a hard invalidation,
also one of scopes in which no entry lives any more; a pattern that is never counted if a walk was under way.
"""

import random

import pytest

from _support import size
from core._entries import Bench
from shared_prompt_cache._core import memory as module
from shared_prompt_cache._core.conditions import file_condition, glob_condition, shapes_condition
from shared_prompt_cache._core.scopes import ALL, Verdict

SEEDS = size(40, 2_000)


@pytest.fixture
def bench():
    return Bench()


def test_replacing_at_capacity_evicts_nothing():
    bench = Bench(max_size=2)
    for key in ("a", "b", "a", "b", "a"):
        bench.put(key)
    assert bench.keys == ["b", "a"]
    assert bench.memory.evictions == 0
    assert {reason for _, reason, _ in bench.gone} == {"replaced"}


def test_the_least_recently_used_goes_first():
    bench = Bench(max_size=3)
    for key in "abc":
        bench.put(key)
    bench.memory.touch("a")
    bench.put("d")
    assert bench.keys == ["c", "a", "d"]
    assert bench.gone == [("b", "evicted", None)]
    assert bench.memory.evictions == 1


def test_bytes_are_a_limit_too():
    bench = Bench(max_bytes=2500)
    for key in "abc":
        bench.put(key)
    assert bench.keys == ["b", "c"]
    assert bench.memory.bytes == 2000


def test_what_is_larger_than_all_the_room_is_not_kept_and_evicts_nothing():
    bench = Bench(max_bytes=2500)
    bench.put("a")
    bench.put("b")
    assert bench.memory.put(bench.entry("huge", size=2501)) is False
    assert bench.keys == ["a", "b"]
    assert bench.memory.put(bench.entry("a", size=2501)) is False
    assert bench.keys == ["b"]  # the older value is gone all the same
    assert bench.gone == [("a", "replaced", None)]


def test_what_has_expired_goes_before_what_has_not():
    bench = Bench(max_size=3)
    for key in "abc":
        bench.put(key)
    bench.memory.expire(bench.memory.entries["c"])
    bench.put("d")
    assert bench.keys == ["a", "b", "d"]
    assert list(bench.memory.shelf) == []
    assert bench.memory.bytes == 3000


def test_an_entry_that_expired_unnoticed_is_no_eviction():
    bench = Bench(max_size=1)
    bench.put("a", ttl=10)
    bench.clock.advance(10)
    bench.put("b")
    assert bench.gone == [("a", "expired", None)]
    assert bench.memory.evictions == 0


def test_an_entry_that_fell_unnoticed_is_no_eviction(monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 0)  # nothing is reclaimed at once
    bench = Bench(max_size=2)
    bench.put("a", ids=[("tag", "t")])
    bench.put("b")
    told = object()
    sweep = bench.memory.invalidate([("tag", "t")], told=told)
    bench.put("c")
    assert bench.gone == [("a", "invalidated", told)]
    assert bench.memory.evictions == 0
    bench.reclaim()
    assert sweep.dropped == 1


def test_evicting_by_hand_takes_the_oldest_and_says_how_many(bench):
    for number in range(300):
        bench.put(f"key-{number}")
    assert bench.memory.evict(3) == 3
    assert bench.keys[0] == "key-3"
    assert bench.memory.evict(1000) == module.SLICE
    assert Bench().memory.evict(1) == 0


def test_a_new_value_takes_the_expired_one_from_the_shelf(bench):
    old = bench.put("a")
    bench.memory.expire(old)
    assert bench.memory.shelf == {"a": old}
    assert bench.memory.expirations == 1
    bench.put("a")
    assert bench.memory.shelf == {}
    assert bench.memory.bytes == 1000


def test_origins_are_given_up_with_their_entries():
    bench = Bench(max_size=1)
    first = bench.put("a", paths=["/file"])
    bench.put("b", consumed=[("a", True)])
    assert bench.released == [first.origin]  # what was made from values alone holds no files


def test_nothing_takes_more_than_a_slice_at_once(monkeypatch):
    judged = []
    bench = Bench()
    for number in range(2_000):
        bench.put(f"key-{number}", ids=[ALL])
    monkeypatch.setattr(
        bench.memory, "_visit", lambda entry, visit=bench.memory._visit: (judged.append(1), visit(entry))
    )
    bench.memory.invalidate([ALL])
    assert len(judged) <= module._AT_ONCE
    assert len(bench.memory) == 0  # known at once, reclaimed later
    assert bench.memory.has_work
    while bench.memory.has_work:
        before = len(judged)
        bench.memory.reclaim()
        assert len(judged) - before <= module.SLICE
    assert bench.keys == []


def test_who_uses_it_is_woken_for_what_is_left():
    bench = Bench()
    woken = []
    bench.memory.wake = lambda: woken.append(1)
    bench.put("a", ids=[ALL])
    bench.memory.invalidate([ALL])
    assert not woken  # a handful is reclaimed at once
    for number in range(1_000):
        bench.put(f"key-{number}", ids=[ALL])
    bench.memory.invalidate([ALL])
    assert woken


@pytest.mark.parametrize("soft", [False, True])
def test_a_pattern_counts_what_it_takes_before_it_is_reclaimed(bench, soft):
    for number in range(3_000):
        bench.put(f"{'plan' if number % 3 else 'note'}_{number}")
    now = bench.clock.monotonic() if soft else None
    sweep = bench.memory.invalidate((), glob_condition("plan_*"), soft_at=now)
    while not sweep.counted:
        bench.memory.reclaim()
    assert sweep.dropped == 2_000
    assert len(bench.memory) == 1_000
    bench.reclaim()
    assert {key.partition("_")[0] for key in bench.keys} == {"note"}
    assert len(bench.memory.shelf) == (2_000 if soft else 0)


@pytest.mark.parametrize("scope_id", [ALL, ("tag", "of nobody"), ("tag", "t")])
def test_one_scope_is_counted_at_once_although_values_were_made_from_others(bench, scope_id):
    for number in range(3_000):
        source = [("key-0", True)] if number % 10 == 0 else []
        bench.put(f"key-{number}", ids=[ALL, ("tag", "t")] if number % 3 == 0 else [ALL], consumed=source)
    sweep = bench.memory.invalidate([scope_id])
    assert sweep.counted
    assert sweep.dropped == {"all": 3_000, "of nobody": 0, "t": 1_000}[scope_id[-1]]
    bench.reclaim()
    assert len(bench.keys) == 3_000 - sweep.dropped


def test_a_pattern_is_counted_although_a_walk_for_an_earlier_invalidation_is_under_way(bench):
    for number in range(10_000):
        bench.put(f"{'plan' if number % 10 else 'note'}_{number}", ids=[ALL, ("agent", "a" if number % 3 else "b")])
    agent = bench.memory.invalidate([("agent", "a")])
    bench.memory.reclaim()
    pattern = bench.memory.invalidate((), glob_condition("note_*"))
    bench.reclaim()
    assert agent.counted
    assert pattern.counted
    assert agent.dropped + pattern.dropped == 10_000 - len(bench.keys)
    assert {key.partition("_")[0] for key in bench.keys} == {"plan"}


def test_an_agent_is_counted_before_the_walk_that_reclaims_although_keys_may_name_it(bench):
    for number in range(10_000):
        bench.put(f"a_{number}" if number < 1_000 else f"plan_{number}", ids=[ALL])
    for number in range(3_000):
        bench.put(f"note_{number}", ids=[ALL, ("agent", "a")], agent="a")
    sweep = bench.memory.invalidate([("agent", "a")], shapes_condition("a", None))
    while not sweep.counted:
        bench.memory.reclaim()
    assert sweep.dropped == 4_000
    assert len(bench.memory) == 9_000
    assert len(bench.memory.entries) > 12_500


def test_when_all_are_gone_the_table_takes_no_room_any_more(bench):
    empty = bench.memory.entries.__sizeof__()
    for number in range(2_000):
        bench.put(f"note_{number}", ids=[ALL])
    bench.memory.invalidate([ALL])
    bench.reclaim()
    assert bench.memory.entries.__sizeof__() == empty


def test_two_invalidations_at_once_share_out_what_they_take(bench):
    for number in range(10_000):
        bench.put(f"{'plan' if number % 10 else 'note'}_{number}", ids=[ALL])
    pattern = bench.memory.invalidate((), glob_condition("plan_*9"))
    everything = bench.memory.invalidate([ALL])
    told = {}
    while len(told) < 2:
        told |= {sweep: sweep.dropped for sweep in (pattern, everything) if sweep.counted and sweep not in told}
        bench.memory.reclaim()
    assert list(told.values()) == [1_000, 9_000]


AGENT = ("agent", "a")
PLACES = (("agent", "a", "p"), ("agent", "a", ""))  # an entry is in one of them
OTHER = ("agent", "b")  # of two agents an entry has one at the most, unless it was made from another
LABELS = (("tag", "t"), ("tag", "u"), ("key", "k"))
IDS = (ALL, AGENT, *PLACES, OTHER, *LABELS)
HEADS = ("plan", "note", "a", "memory")


class Model:
    """What the memory tier has to hold, naively; each entry lies beside the scopes it is in."""

    def __init__(self):
        self.table = {}
        self.shelf = {}

    def invalidate(self, ids, condition, soft):
        """Return how many entries of the table go."""

        def selected(item):
            entry, own = item
            return bool(own & set(ids)) or (condition is not None and condition.matches(entry))

        gone = {key: item for key, item in self.table.items() if selected(item)}
        for key in gone:
            del self.table[key]
        if soft:
            self.shelf |= gone
        else:
            self.shelf = {key: item for key, item in self.shelf.items() if not selected(item)}
        return len(gone)


class Pair:
    """The memory tier and its model, and what is done to both."""

    def __init__(self, seed):
        self.draw = random.Random(seed)
        # Where nothing is derived and nothing soft, nearly all is counted without a walk over everything.
        self.derived, self.soft = self.draw.choice([(0.15, 0.25), (0, 0.25), (0, 0), (0, 0)])
        self.bench, self.model = Bench(), Model()
        self.memory = self.bench.memory
        self.sweeps = []

    def key(self):
        return f"{self.draw.choice(HEADS)}_{self.draw.randrange(30)}"

    def put(self):
        draw, key = self.draw, self.key()
        agent = draw.choice(["a", "b", None, None])
        filed = {"a": {AGENT, draw.choice(PLACES)}, "b": {OTHER}, None: set()}
        ids = {ALL, *draw.sample(LABELS, draw.randrange(3)), *filed[agent]}
        entry = self.bench.put(
            key,
            ids=ids,
            agent=agent,
            consumed=[(self.key(), True)] if draw.random() < self.derived else [],
            paths=["/folder/file"] if draw.random() < 0.15 else [],
            size=draw.randint(400, 900),
        )
        self.model.table[key] = entry, ids
        self.model.shelf.pop(key, None)

    def invalidate(self):
        ids, condition = self.draw.choice(
            [
                ((ALL,), None),
                *(((label,), None) for label in (OTHER, *LABELS)),
                ((AGENT,), shapes_condition("a", None)),
                (PLACES, shapes_condition("a", None)),
                ((), glob_condition("plan_*")),
                ((), glob_condition("*_1?")),
                ((), file_condition("/folder")),
            ]
        )
        soft = self.draw.random() < self.soft
        expected = self.model.invalidate(ids, condition, soft)
        now = self.bench.clock.monotonic() if soft else None
        self.sweeps.append((self.memory.invalidate(ids, condition, soft_at=now), expected))

    def look(self):
        entry = self.memory.entries.get(self.key())
        if entry is None:
            return
        if self.bench.scopes.judge(entry) is Verdict.FALLEN:
            assert entry.key not in self.model.table
            self.memory.fall(entry)
        elif self.bench.clock.monotonic() >= entry.expires:
            assert entry.key in self.model.shelf
            self.memory.expire(entry)
        else:
            assert entry.key in self.model.table
            entry.judged(self.bench.scopes.revision)
            self.memory.touch(entry.key)

    def remove(self):
        live = [entry for entry in self.memory.entries.values() if entry.key in self.model.table]
        if live:
            entry = self.draw.choice(live)
            self.bench.scopes.judge(entry)
            del self.model.table[entry.key]
            self.memory.remove(entry, "invalidated")

    def step(self):
        verbs = [self.put, self.invalidate, self.look, self.remove, self.memory.reclaim, self.settle]
        self.draw.choices(verbs, [10, 3, 4, 1, 4, 1])[0]()

    def settle(self):
        self.bench.reclaim()
        assert all(sweep.counted for sweep, _ in self.sweeps)

    def compare(self):
        memory, table, shelf = self.memory, self.model.table, self.model.shelf
        assert set(memory.entries) == set(table)
        assert set(memory.shelf) == set(shelf)
        assert len(memory) == len(table)
        assert [sweep.dropped for sweep, _ in self.sweeps] == [expected for _, expected in self.sweeps]
        assert memory.bytes == sum(entry.size for entry, _ in (*table.values(), *shelf.values()))
        for scope_id in IDS:
            live = sum(scope_id in ids for _, ids in table.values())
            assert self.bench.scopes.scope(scope_id).live == live, scope_id
        assert self.bench.scopes.figures["conditions"] == 0


@pytest.mark.parametrize("seed", range(SEEDS))
def test_it_holds_what_a_dict_would_hold_and_counts_what_goes(monkeypatch, seed):
    pair = Pair(seed)
    for name, most in (("SLICE", 6), ("_AT_ONCE", 12), ("_MARK_SLICE", 6)):
        monkeypatch.setattr(module, name, pair.draw.randint(1, most))
    for _ in range(150):
        pair.step()
    pair.settle()
    pair.compare()
    memory = pair.memory
    memory.invalidate([ALL])
    pair.bench.reclaim()
    assert (memory.bytes, memory._unowned, memory._derived, memory._dying, len(memory._sweeps)) == (0, 0, 0, 0, 0)
