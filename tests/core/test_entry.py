"""Entries: an immutable mapping as callers see it, its metadata, and its moments.

Seen to fail on planted bugs: metadata that is shared with who gave it, an age that is negative after the clock was
turned back, an expiry by the wall clock, a soft invalidation that lengthens a life.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from core._entries import Bench
from shared_prompt_cache import CachedPrompt
from shared_prompt_cache._core.entry import UNJUDGED, freeze
from shared_prompt_cache.testing import ManualClock


async def test_what_is_found_is_an_immutable_mapping(cache):
    await cache.set_prompt("key", "prompt", {"version": "1.0"}, agent="Engineer", project="web", tags=["t"])
    cached = await cache.get_prompt("key")
    assert isinstance(cached, CachedPrompt)
    assert isinstance(cached, Mapping)
    assert dict(cached) == cached == {"prompt": "prompt", "metadata": {"version": "1.0"}}
    assert (cached["prompt"], cached["metadata"], len(cached), list(cached)) == (
        cached.prompt,
        cached.metadata,
        2,
        ["prompt", "metadata"],
    )
    assert (cached.key, cached.agent, cached.project, cached.tags) == ("key", "Engineer", "web", {"t"})
    assert repr(cached) == "<CachedPrompt 'key' agent='Engineer' project='web'>"  # no prompt in a log by accident
    assert cached.get("agent", "absent") == "absent"
    assert cached
    with pytest.raises(KeyError):
        cached["agent"]
    with pytest.raises(TypeError):
        cached["prompt"] = "another"
    for name in ("prompt", "metadata", "agent", "tags", "created_at", "age", "stale", "dependencies"):
        with pytest.raises(AttributeError):
            setattr(cached, name, "another")
    with pytest.raises(TypeError):
        cached.metadata["version"] = "2.0"


async def test_equal_ones_are_equal_and_so_have_no_hash_like_other_mappings_of_anything(cache):
    await cache.set_prompt("a", ["prompt"], {"version": 1})
    await cache.set_prompt("b", ["prompt"], {"version": 1})
    found = await cache.get_many(["a", "b"])
    assert found["a"] == found["b"]
    with pytest.raises(TypeError, match="unhashable"):
        hash(found["a"])


@pytest.mark.parametrize("value", [None, "", False, 0, [], {}])
async def test_values_that_are_false_are_values(cache, value):
    await cache.set_prompt("key", value)
    cached = await cache.get_prompt("key")
    assert cached is not None
    assert cached["prompt"] is value


async def test_metadata_is_as_it_was_at_the_call(cache):
    when = datetime(2026, 1, 1, tzinfo=UTC)
    given = {"agent": "engineer", "when": when, "files": ["a"], "deep": {"deeper": [1, {2}]}}
    await cache.set_prompt("key", "prompt", given)
    given["agent"] = given["new"] = "another"
    given["files"].append("b")
    given["deep"]["deeper"][1].add(3)
    cached = await cache.get_prompt("key")
    assert cached.metadata == {"agent": "engineer", "when": when, "files": ["a"], "deep": {"deeper": [1, {2}]}}


class Uncopyable:
    def __deepcopy__(self, memo):
        raise RuntimeError("there is only one")


def test_what_cannot_be_copied_is_shared():
    only = Uncopyable()
    given = {"only": only}
    frozen = freeze(given)
    given["more"] = 1
    assert frozen == {"only": only}
    assert isinstance(frozen, MappingProxyType)


def test_no_metadata_is_one_object_for_all():
    assert freeze(None) is freeze({})


async def test_its_moments(open_cache):
    clock = ManualClock(wall=1_000_000)
    cache = await open_cache(clock=clock)
    await cache.set_prompt("key", "prompt", ttl=60)
    await cache.set_prompt("for ever", "prompt", ttl=math.inf)
    clock.advance(20)
    cached, for_ever = (await cache.get_many(["key", "for ever"])).values()
    assert (cached.created_at, cached.age, cached.expires_at, cached.stale) == (1_000_000, 20, 1_000_060, False)
    assert (for_ever.expires_at, for_ever.stale) == (math.inf, False)
    clock.advance(40)
    assert (cached.age, cached.stale) == (60, True)
    assert await cache.get_prompt("key") is None


async def test_people_are_told_by_the_wall_clock_and_it_expires_by_the_other(open_cache):
    clock = ManualClock(wall=1_000_000)
    cache = await open_cache(clock=clock)
    await cache.set_prompt("key", "prompt", ttl=60)
    clock.jump_wall(-500)
    cached = await cache.get_prompt("key")
    assert (cached.created_at, cached.age, cached.expires_at) == (1_000_000, 0.0, 999_560)
    clock.jump_wall(10_000)
    assert (await cache.get_prompt("key")) is cached
    assert (cached.age, cached.expires_at, cached.stale) == (9_500, 1_009_560, False)


async def test_its_files_are_told_once_each_and_sorted(cache, tmp_path):
    paths = [tmp_path / name for name in ("b.md", "a.md", "b.md")]
    await cache.set_prompt("key", "prompt", depends_on=[*paths, tmp_path / "." / "a.md"])
    cached = await cache.get_prompt("key")
    assert cached.dependencies == (str(tmp_path / "a.md"), str(tmp_path / "b.md"))


def test_soft_never_lengthens_a_life():
    bench = Bench()
    entry = bench.entry("key", ttl=10)
    ends = entry.expires
    entry.soften(ends + 5)
    assert (entry.expires, entry.deadline) == (ends, ends)
    entry.soften(ends - 5)
    assert (entry.expires, entry.deadline) == (ends - 5, ends - 5)


def test_the_revision_alone_answers_for_what_has_no_files_only():
    bench = Bench()
    plain, derived = bench.entry("a", revision=3), bench.entry("b", consumed=[("a", True)], revision=3)
    made = bench.entry("c", paths=["/f"], revision=3)
    for entry in (plain, derived, made):
        entry.judged(7)
        assert entry.checked == 7
    assert (plain.revision, derived.revision, made.revision) == (7, 7, UNJUDGED)
