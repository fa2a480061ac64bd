"""T1: whatever is done to the cache, it holds what a dict with times to live would hold.

The model knows nothing of revisions, sweeps or shelves: for each key it has a value, the moment at which that expires,
and the names it can be invalidated by. Seen to fail on planted bugs: an expiry that a read prolongs, a soft
invalidation that removes, an eviction that takes the newest, a batch that is applied although its block raised.
"""

import asyncio
import fnmatch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from _support import size
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.testing import ManualClock

KEYS = ("plan_a", "plan_b", "note_a", "qa_1", "memory_qa_x")
AGENTS = (None, "qa", "engineer")
TAGS = ("web", "shop")
ROOM = 4
TTL = 60.0

keys = st.sampled_from(KEYS)
values = st.one_of(st.none(), st.booleans(), st.text(max_size=3))
spans = st.sampled_from([0.0, 1.0, 30.0, 59.0, 60.0, 61.0])
agents = st.sampled_from(AGENTS)
tags = st.sets(st.sampled_from(TAGS))
patterns = st.sampled_from(["plan_*", "*_a", "note_?", "[pq]*", "plan_a", "nothing*"])
ttls = st.sampled_from([None, 10.0, 100.0])


class _Entry:
    """A value in the model."""

    def __init__(self, value, expires, agent, tags):
        self.value, self.expires, self.agent, self.tags = value, expires, agent, tags


class CacheMachine(RuleBasedStateMachine):
    """The cache and its model side by side."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.cache = SharedPromptCache(ROOM, TTL, clock=self.clock)
        self.live = {}  # in the order of their last use
        self.stale = {}

    def teardown(self):
        self.runner.run(self.cache.aclose())
        self.runner.close()

    def run(self, verb):
        return self.runner.run(_awaited(verb))

    @property
    def now(self):
        return self.clock.monotonic()

    # The model.

    def put(self, key, value, ttl, agent, tags):
        self.live.pop(key, None)
        self.stale.pop(key, None)
        self.live[key] = _Entry(value, self.now + (TTL if ttl is None else ttl), agent, frozenset(tags))
        self.shrink()

    def shrink(self):
        # What has expired goes first: it lies on the shelf, or in the table as long as nobody has looked at it.
        while len(self.live) + len(self.stale) > ROOM:
            table = self.stale or self.live
            del table[next(iter(table))]

    def found(self, key):
        entry = self.live.get(key)
        if entry is None:
            return None
        if self.now >= entry.expires:
            self.stale[key] = self.live.pop(key)
            return None
        self.live[key] = self.live.pop(key)
        return entry

    def invalidated(self, selected, *, soft):
        gone = [key for key, entry in self.live.items() if selected(key, entry)]
        if soft:
            for key in gone:
                entry = self.live.pop(key)
                entry.expires = min(entry.expires, self.now)
                self.stale[key] = entry
        else:
            for key in gone:
                del self.live[key]
            for key in [key for key, entry in self.stale.items() if selected(key, entry)]:
                del self.stale[key]
        return len(gone)

    # The verbs.

    @rule(span=spans)
    def time_passes(self, span):
        self.clock.advance(span)

    @rule(key=keys, value=values, ttl=ttls, agent=agents, tags=tags)
    def set_prompt(self, key, value, ttl, agent, tags):
        self.run(self.cache.set_prompt(key, value, ttl=ttl, agent=agent, tags=tags))
        self.put(key, value, ttl, agent, tags)

    @rule(key=keys)
    def get_prompt(self, key):
        cached, entry = self.run(self.cache.get_prompt(key)), self.found(key)
        assert (cached is None) == (entry is None)
        if cached is not None:
            assert (cached.prompt, cached.agent, cached.tags) == (entry.value, entry.agent, entry.tags)
            assert cached.expires_at - self.clock.wall() == entry.expires - self.now

    @rule(wanted=st.lists(keys))
    def get_many(self, wanted):
        cached = self.run(self.cache.get_many(wanted))
        found = {key: entry.value for key in wanted if (entry := self.found(key)) is not None}
        assert {key: entry.prompt for key, entry in cached.items()} == found

    @rule(key=keys, value=values, ttl=ttls, agent=agents, tags=tags)
    def get_or_compute(self, key, value, ttl, agent, tags):
        got = self.run(self.cache.get_or_compute(key, _returns(value), ttl=ttl, agent=agent, tags=tags))
        if (entry := self.found(key)) is not None:
            assert got == entry.value
        else:
            assert got == value
            self.put(key, value, ttl, agent, tags)

    @rule(key=keys, stale_for=st.sampled_from([1.0, 45.0, 1000.0]))
    def get_or_compute_with_a_stale_value(self, key, stale_for):
        async def fails():
            raise LookupError

        async def ask():
            try:
                return await self.cache.get_or_compute(key, fails, stale_for=stale_for, soft_timeout=10)
            except LookupError:
                return LookupError

        got, entry = self.run(ask()), self.found(key)
        if entry is None and (old := self.stale.get(key)) is not None and self.now < old.expires + stale_for:
            entry = old
        assert got == (LookupError if entry is None else entry.value)

    @rule(key=keys, soft=st.booleans())
    def invalidate(self, key, soft):
        self.found_expired()
        was_there = self.run(self.cache.invalidate(key, soft=soft))
        assert was_there == (self.invalidated(lambda name, _: name == key, soft=soft) == 1)

    @rule(pattern=patterns, soft=st.booleans())
    def invalidate_pattern(self, pattern, soft):
        self.found_expired()
        dropped = self.run(self.cache.invalidate_pattern(pattern, soft=soft))
        assert dropped == self.invalidated(lambda key, _: fnmatch.fnmatchcase(key, pattern), soft=soft)

    @rule(agent=st.sampled_from(AGENTS[1:]), soft=st.booleans())
    def invalidate_agent(self, agent, soft):
        def selected(key, entry):
            named = key.startswith((f"{agent}_", f"memory_{agent}_"))
            return entry.agent == agent or (entry.agent is None and named)

        self.found_expired()
        assert self.run(self.cache.invalidate_agent(agent, soft=soft)) == self.invalidated(selected, soft=soft)

    @rule(tag=st.sampled_from(TAGS), soft=st.booleans())
    def invalidate_tag(self, tag, soft):
        self.found_expired()
        dropped = self.run(self.cache.invalidate_tag(tag, soft=soft))
        assert dropped == self.invalidated(lambda _, entry: tag in entry.tags, soft=soft)

    @rule(soft=st.booleans())
    def clear(self, soft):
        self.found_expired()
        assert self.run(self.cache.clear(soft=soft)) == self.invalidated(lambda *_: True, soft=soft)

    @rule(sets=st.dictionaries(keys, values, max_size=3), gone=st.lists(keys, max_size=2), raises=st.booleans())
    def batch(self, sets, gone, raises):
        async def block():
            async with self.cache.batch() as batch:
                for key in gone:
                    batch.invalidate(key)
                for key, value in sets.items():
                    batch.set_prompt(key, value)
                if raises:
                    raise LookupError

        try:
            self.run(block())
        except LookupError:
            assert raises
            return
        for key in gone:
            self.invalidated(lambda name, _, key=key: name == key, soft=False)
        for key, value in sets.items():
            self.put(key, value, None, None, ())

    @rule(key=keys, value=values)
    def lock(self, key, value):
        async def block():
            async with self.cache.lock(key):
                cached = await self.cache.get_prompt(key)
                if cached is None:
                    await self.cache.set_prompt(key, value)

        self.run(block())
        if self.found(key) is None:
            self.put(key, value, None, None, ())

    @rule(count=st.integers(0, 3))
    def evict_oldest(self, count):
        gone = list(self.live)[:count]
        assert self.run(self.cache.evict_oldest(count)) == len(gone)
        for key in gone:
            del self.live[key]

    @precondition(lambda self: self.live)
    @rule()
    def look_at_all(self):
        self.found_expired()

    def found_expired(self):
        """Look at every key, so that it is known on both sides which have expired."""
        for key in KEYS:
            self.get_prompt(key)

    @invariant()
    def no_more_than_there_is_room_for(self):
        assert self.cache.get_stats().entry_count <= ROOM


async def _awaited(verb):
    return await verb


def _returns(value):
    async def compute():
        return value

    return compute


CacheMachine.TestCase.settings = settings(
    max_examples=size(30, 500),
    stateful_step_count=size(30, 50),
    suppress_health_check=list(HealthCheck),
)
TestTheCacheIsLikeADict = CacheMachine.TestCase
