"""Options are checked at the edge: what cannot be used is refused with its name, its value and the remedy.

Seen to fail on planted bugs: a check that is left out, an error that names another option, a value that is kept
although the call was refused.
"""

import math
from datetime import timedelta
from fractions import Fraction

import pytest

from _support import Counted
from shared_prompt_cache import CacheError, CacheKeyError, Computed, ConfigError, SharedPromptCache

WRONG = {
    "ttl": [0, -1, math.nan, "an hour", True, timedelta(0), [3600]],
    "metadata": ["text", 7, [("agent", "qa")]],
    "agent": ["", "   ", 7],
    "project": ["", "a\0b", 7, b"web"],
    "tags": ["web", 7, ["web", ""], ["web", 7]],
    "depends_on": [7, b"file", [""], ["a\0b"], [7], [b"file"]],
    "freshness": ["always", 7],
    "stale_for": [-1, math.nan, "an hour"],
    "soft_timeout": [-1, "soon", math.nan],
    "hard_timeout": [0, -1, "soon"],
    "refresh_ahead": [0, 1, 1.5, -0.5, math.nan, True, "half", Fraction(1, 2)],
    "cache_errors_for": [-1, "an hour", math.nan],
}
CASES = [(option, value) for option, values in WRONG.items() for value in values]
KEYS = ["", "k" * 1025, 7, None, b"key", ["key"]]


@pytest.mark.parametrize(("option", "value"), CASES)
async def test_an_option_that_cannot_be_used_is_named_and_nothing_is_computed(cache, option, value):
    compute = Counted("value")
    with pytest.raises(ConfigError) as caught:
        await cache.get_or_compute("key", compute, **{option: value})
    assert caught.value.field == option
    assert ";" in str(caught.value)  # behind it stands the remedy
    assert compute.began == 0
    assert await cache.get_prompt("key") is None


@pytest.mark.parametrize(
    ("option", "value"), [case for case in CASES if case[0] in {"ttl", "metadata", "agent", "project", "tags"}]
)
async def test_so_it_is_where_a_value_is_set_and_the_older_one_stays(cache, option, value):
    await cache.set_prompt("key", "older")
    with pytest.raises(ConfigError) as caught:
        await cache.set_prompt("key", "newer", **{option: value})
    assert caught.value.field == option
    async with cache.batch() as batch:
        with pytest.raises(ConfigError):
            batch.set_prompt("key", "newer", **{option: value})
    assert (await cache.get_prompt("key")).prompt == "older"


@pytest.mark.parametrize(("option", "value"), [("ttl", 0), ("metadata", "text"), ("tags", "web")])
def test_what_a_computation_says_of_its_value_is_checked_too(option, value):
    with pytest.raises(ConfigError) as caught:
        Computed("value", **{option: value})
    assert caught.value.field == option


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("verb", ["get_prompt", "invalidate", "set_prompt", "get_or_compute"])
async def test_what_is_no_key_is_refused_by_every_verb(cache, verb, key):
    rest = {"set_prompt": ("value",), "get_or_compute": (Counted("value"),)}.get(verb, ())
    with pytest.raises(CacheKeyError):
        await getattr(cache, verb)(key, *rest)


@pytest.mark.parametrize("key", KEYS)
def test_so_it_is_by_those_that_look_or_lock(key):
    cache = SharedPromptCache()
    for verb in (cache.lock, cache.explain):
        with pytest.raises(CacheKeyError):
            verb(key)


@pytest.mark.parametrize("compute", [None, "text", 7])
async def test_what_cannot_be_called_is_no_computation(cache, compute):
    with pytest.raises(ConfigError, match="give an async function") as caught:
        await cache.get_or_compute("key", compute)
    assert isinstance(caught.value, TypeError)


async def test_a_plain_function_is_told_of_threads(cache):
    with pytest.raises(TypeError, match=r"asyncio\.to_thread\(.*plain\)") as caught:
        await cache.get_or_compute("key", plain)
    assert isinstance(caught.value, CacheError)
    assert await cache.get_prompt("key") is None


def plain():
    return "value"


@pytest.mark.parametrize(
    ("verb", "value"),
    [
        ("invalidate_pattern", ""),
        ("invalidate_pattern", 7),
        ("invalidate_pattern", "[a"),
        ("invalidate_agent", ""),
        ("invalidate_agent", 7),
        ("invalidate_project", ""),
        ("invalidate_project", 7),
        ("invalidate_tag", ""),
        ("invalidate_tag", 7),
        ("invalidate_file", ""),
        ("invalidate_file", 7),
        ("evict_oldest", -1),
        ("evict_oldest", "all"),
        ("evict_oldest", True),
    ],
)
async def test_an_invalidation_of_nothing_is_refused_and_takes_nothing(cache, verb, value):
    await cache.set_prompt("key", "value")
    if (verb, value) == ("invalidate_pattern", "[a"):
        assert await cache.invalidate_pattern(value) == 0  # a bracket that is not closed stands for itself
    else:
        with pytest.raises(CacheError):
            await getattr(cache, verb)(value)
    assert (await cache.get_prompt("key")).prompt == "value"


@pytest.mark.parametrize("freshness", ["strict", "events"])
async def test_freshness_may_be_told_for_one_call(cache, freshness):
    await cache.set_prompt("key", "value")
    assert (await cache.get_prompt("key", freshness=freshness)).prompt == "value"
    assert await cache.get_or_compute("key", Counted("new"), freshness=freshness) == "value"


@pytest.mark.parametrize("span", [-1, "soon", math.nan])
async def test_a_timeout_of_sync_that_cannot_be_used_is_refused(cache, span):
    with pytest.raises(ConfigError) as caught:
        await cache.sync(span)
    assert caught.value.field == "timeout"


async def test_a_plain_callable_without_a_repr_is_refused_all_the_same(cache):
    class Plain:
        def __call__(self):
            return "prompt"

        def __repr__(self):
            raise LookupError("no words")

    with pytest.raises(TypeError, match=r"of type .*Plain is a plain function; give an async one"):
        await cache.get_or_compute("key", Plain())
