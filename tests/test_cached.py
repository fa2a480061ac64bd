"""`@cache.cached()`: an async function whose results are cached by its arguments.

Seen to fail on planted bugs: defaults that are no part of the key, options that are asked only at the first call, a
method whose object is no part of the key.
"""

import asyncio
import functools
import inspect
import sys

import pytest

from shared_prompt_cache import CacheKeyError, Computed, ConfigError
from shared_prompt_cache.testing import wait_until


class Calls:
    """What a cached function was called with."""

    def __init__(self):
        self.made = []

    async def __call__(self, *args, **kwargs):
        self.made.append((args, kwargs))
        return f"result {len(self.made)}"


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture
def prompt(cache, calls):
    @cache.cached()
    async def prompt(agent, context="none", *more, version=1, **rest):
        """Return a prompt."""
        return await calls(agent, context, *more, version=version, **rest)

    return prompt


async def test_all_spellings_of_a_call_are_one(prompt, calls):
    spellings = [
        await prompt("qa"),
        await prompt(agent="qa"),
        await prompt("qa", "none"),
        await prompt("qa", context="none", version=1),
    ]
    assert spellings == ["result 1"] * 4
    assert len(calls.made) == 1


async def test_other_arguments_are_other_calls(prompt, calls):
    others = [("qa", 1), ("qa", "1"), ("qa", "none", 2), ("ops",), ("qa", None)]
    assert len({await prompt(*args) for args in others}) == 5
    assert await prompt("qa", rest=1) != await prompt("qa", other=1) != await prompt("qa", version=2)
    assert len(calls.made) == 8


async def test_it_looks_like_the_function(prompt):
    assert (prompt.__name__, prompt.__doc__) == ("prompt", "Return a prompt.")
    assert list(inspect.signature(prompt).parameters) == ["agent", "context", "more", "version", "rest"]
    assert "prompt" in repr(prompt)
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(prompt)


async def test_a_key_can_be_asked_for_and_a_result_invalidated(prompt, cache):
    await prompt("qa")
    assert (await cache.get_prompt(prompt.key(agent="qa"))).prompt == "result 1"
    assert await prompt.invalidate("qa") is True
    assert await prompt.invalidate("qa") is False
    assert await prompt("qa") == "result 2"


async def test_going_past_the_cache_is_possible(prompt):
    assert await prompt("qa") == await prompt("qa")
    assert await prompt.__wrapped__("qa") == "result 2"


async def test_many_callers_are_one_computation(cache):
    gate, computed = asyncio.Event(), []

    @cache.cached()
    async def slow(agent):
        computed.append(agent)
        await gate.wait()
        return agent

    asking = [asyncio.create_task(slow("qa")) for _ in range(10)]
    await wait_until(lambda: cache.get_stats().shared_computations == 9)
    gate.set()
    assert await asyncio.gather(*asking) == ["qa"] * 10
    assert computed == ["qa"]


async def test_a_prefix_takes_the_place_of_the_name(cache, calls):
    @cache.cached(key="plan", ttl=60)
    async def anything(agent):
        return await calls(agent)

    await anything("qa")
    assert anything.key("qa").startswith("plan")
    assert await cache.invalidate_pattern("plan*") == 1


async def test_a_function_of_the_arguments_may_make_the_key(cache, calls):
    @cache.cached(key=lambda agent, **_: f"{agent}_prompt")
    async def prompt(agent, *, unhashable=None):
        return await calls(agent)

    await prompt("qa", unhashable=[object()])
    assert prompt.key("qa") == "qa_prompt"
    assert (await cache.get_prompt("qa_prompt")).prompt == "result 1"


async def test_a_key_that_is_none_is_refused(cache, calls):
    @cache.cached(key=lambda agent: 7)
    async def prompt(agent):
        return await calls(agent)

    with pytest.raises(CacheKeyError):
        await prompt("qa")
    assert calls.made == []


async def test_options_may_depend_on_the_arguments(cache, calls):
    @cache.cached(agent=lambda agent, *_: agent, tags=lambda *args: [args[-1]], metadata=lambda *_: None, ttl=60)
    async def prompt(agent, project):
        return await calls(agent)

    for agent in ("engineer", "qa"):
        await prompt(agent, "web")
    assert await cache.invalidate_agent("qa") == 1
    assert await cache.invalidate_tag("web") == 1


async def test_a_result_may_say_how_it_is_kept(cache):
    @cache.cached()
    async def prompt(agent):
        return Computed(agent.upper(), keep=False)

    assert await prompt("qa") == "QA"
    assert await cache.get_prompt(prompt.key("qa")) is None


async def test_an_argument_that_cannot_be_in_a_key_is_named(prompt, calls):
    with pytest.raises(CacheKeyError, match=r"the argument 'context' of .*prompt cannot be part of a key"):
        await prompt("qa", object())
    assert calls.made == []


class Prompts:
    """An object with a method; `root` is what it is known by."""

    def __init__(self, root):
        self.root = root


async def test_a_method_is_cached_for_each_object_that_its_key_can_tell(cache, calls):
    class Project(Prompts):
        @cache.cached(key=lambda self, agent: f"{self.root}_{agent}")
        async def prompt(self, agent):
            return await calls(self.root, agent)

    web, shop = Project("web"), Project("shop")
    assert await web.prompt("qa") == await web.prompt(agent="qa")
    assert await web.prompt("qa") != await shop.prompt("qa")
    assert await Project.prompt(web, "qa") == "result 1"
    assert web.prompt.key("qa") == "web_qa"
    assert await web.prompt.invalidate("qa") is True


async def test_a_bound_method_can_be_cached_where_it_is_needed(cache, calls):
    class Project(Prompts):
        async def prompt(self, agent):
            return await calls(self.root, agent)

    prompt = cache.cached(key=lambda self, agent: f"{self.root}_{agent}")(Project("web").prompt)
    assert await prompt("qa") == await prompt("qa") == "result 1"
    assert prompt.key("qa") == "web_qa"


async def test_what_has_no_name_needs_a_key(cache, calls):
    partial = functools.partial(calls, "qa")
    with pytest.raises(ConfigError, match="give key="):
        cache.cached()(calls)
    named = cache.cached(key=lambda *args: "named")(calls)
    assert await named("qa") == await named("qa") == "result 1"
    with pytest.raises(ConfigError):
        cache.cached()(partial)


def plain(agent):
    return agent


async def generator(agent):
    yield agent


async def asynchronous(agent):
    return agent


class Methods:
    """What decorators make of a method."""

    @staticmethod
    async def fixed(agent):
        return agent


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (plain, r"asyncio\.to_thread\(plain"),
        (generator, "return a list"),
        (vars(Methods)["fixed"], "put @staticmethod above"),
        ("text", "above an async def"),
    ],
)
async def test_what_is_no_async_function_is_told_what_to_do(cache, function, said):
    with pytest.raises(TypeError, match=said):
        cache.cached()(function)


async def test_the_forgotten_parentheses_are_told(cache):
    with pytest.raises(TypeError, match=r"write `@cache\.cached\(\)`"):
        cache.cached(asynchronous)
    with pytest.raises(TypeError, match="plain"):
        cache.cached(plain)("qa")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"key": 7}, "key"),
        ({"ttl": 0}, "ttl"),
        ({"agent": ""}, "agent"),
        ({"project": ""}, "project"),
        ({"tags": "web"}, "tags"),
        ({"metadata": "text"}, "metadata"),
        ({"depends_on": 7}, "depends_on"),
        ({"freshness": "always"}, "freshness"),
        ({"stale_for": -1}, "stale_for"),
        ({"soft_timeout": -1}, "soft_timeout"),
        ({"hard_timeout": 0}, "hard_timeout"),
        ({"refresh_ahead": 2}, "refresh_ahead"),
        ({"cache_errors_for": -1}, "cache_errors_for"),
        ({"tl": 60}, "tl"),
        ({"agent": asynchronous}, "agent"),
    ],
)
async def test_an_option_that_cannot_be_used_is_named_where_the_function_is_made(cache, options, field):
    with pytest.raises(ConfigError) as caught:
        cache.cached(**options)
    assert caught.value.field == field


async def test_a_misspelt_option_is_told_the_nearest(cache):
    with pytest.raises(ConfigError, match="did you mean 'tags'"):
        cache.cached(tag=["web"])
