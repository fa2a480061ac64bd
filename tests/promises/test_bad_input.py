"""T17: whatever is given to it, a cache raises errors of its own that name field and remedy, and loses nothing.

A call gets one or more arguments that are drawn from all kinds of nonsense, some of which turns out to be fine. It
has found, and fails again without their mending: an unhashable agent or tag, half of a surrogate pair in a path, a
string or a number in the place of keys, an empty `stale_for` or `depends_on` taken for none.
"""

import asyncio
import math
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath

import pytest

from _support import size
from shared_prompt_cache import (
    CacheError,
    CacheKeyError,
    ConfigError,
    ConfigTypeError,
    SharedPromptCache,
    WatchRule,
    glob_escape,
    keys,
)

SEEDS, CALLS = size(4, 100), 100
KEPT = 20


class Spiteful:
    """Raises whatever it is asked."""

    def __repr__(self):
        raise RuntimeError("no repr")

    def __str__(self):
        raise RuntimeError("no str")

    def __bool__(self):
        raise RuntimeError("no truth")

    def __hash__(self):
        raise RuntimeError("no hash")

    def __len__(self):
        raise RuntimeError("no length")


class BytesPath:
    def __fspath__(self):
        return b"/bytes"


class Text(str):
    """A string that is one by a detour."""

    __slots__ = ()


JUNK = [
    *(None, True, False, 0, 1, -1, 10**400, -(10**400), 0.0, -0.0, 1e-320, math.nan, math.inf, -math.inf, 1j),
    *("", " ", "\0", "a\0b", "\ud800", "\udc80", "/\ud800/x", "~\ud800", "~nobody/x", "é" * 50, "k" * 1024, "k" * 1025),
    *("/", "//", "..", "../..", "/ /", "-", "_", ".md", "-agent", "[", "[!", "[]", "[z-a]", "[[:alpha:]]", "*" * 100),
    *("**", "{agent}", "{", "a/**/b", "\\", "\n", "?" * 3072, "?" * 3073, Text("text"), Text("")),
    *(b"", b"bytes", bytearray(b"x"), memoryview(b"x"), range(3), timedelta(0), timedelta(-1), timedelta.max),
    *([], [[]], [None], [""], ["a", 5], ["\0"], ["\ud800"], (), ((),), {}, {"a": []}, {1: 2}, set(), {"a"}, {5}),
    *(object(), object, len, Ellipsis, NotImplemented, BytesPath(), Spiteful(), [Spiteful()], {"agent": Spiteful()}),
    *(Path("x"), Path("/"), PurePath("a\0b"), datetime.now(UTC), ValueError("x"), "strict", "events", "agent", "all"),
    *({"agent": []}, {"agent": "/ /"}, {"project": ""}, {"project": "a\0b"}, {"project": Path("\ud800")}),
]


class Nonsense:
    """Draws arguments, and remembers which of them are nonsense.

    Attributes:
        given: The nonsense of the call under way, by the name of the argument.
    """

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.given = {}
        self.count = 0

    def junk(self, name):
        self.given[name] = value = self.draw.choice(JUNK)
        return value

    def key(self, name="key"):
        self.count += 1
        return self.junk(name) if self.draw.random() < 0.3 else f"junk {self.count}"

    def options(self, *names):
        return {name: self.junk(name) for name in self.draw.sample(names, self.draw.randint(0, min(3, len(names))))}


LABELS = ("metadata", "ttl", "agent", "project", "tags", "depends_on")
LOOKUP = (*LABELS, "freshness", "stale_for", "soft_timeout", "hard_timeout", "refresh_ahead", "cache_errors_for")


async def value(*_):
    return "value"


async def set_in_batch(cache, key, options):
    async with cache.batch() as batch:
        batch.set_prompt(key, "prompt", **options)


async def invalidate_in_batch(cache, key):
    async with cache.batch() as batch:
        batch.invalidate(key)


async def lock(cache, key):
    async with cache.lock(key):
        pass


async def warm(cache, given, options):
    report = await cache.warm(given, value, **options)
    for error in report.failures.values():
        assert isinstance(error, CacheError), repr(error)


async def read(cache, path, pattern):
    with suppress(OSError):
        await cache.files.read_bytes(path)
    with suppress(OSError):
        await cache.files.glob(path, pattern)


async def plainly(call, *arguments, **options):
    call(*arguments, **options)


CALL = {
    "set": lambda c, n: c.set_prompt(n.key(), "prompt", **n.options(*LABELS)),
    "set in a batch": lambda c, n: set_in_batch(c, n.key(), n.options(*LABELS)),
    "get or compute": lambda c, n: c.get_or_compute(n.key(), value, **n.options(*LOOKUP)),
    "compute": lambda c, n: c.get_or_compute(n.key(), n.junk("compute")),
    "get": lambda c, n: c.get_prompt(n.key()),
    "get many": lambda c, n: c.get_many(n.junk("keys")),
    "warm": lambda c, n: warm(c, n.junk("keys"), n.options("concurrency", "on_progress")),
    "lock": lambda c, n: lock(c, n.key()),
    "explain": lambda c, n: plainly(c.explain, n.key()),
    "invalidate": lambda c, n: c.invalidate(n.key()),
    "invalidate in a batch": lambda c, n: invalidate_in_batch(c, n.key()),
    "pattern": lambda c, n: c.invalidate_pattern(n.junk("pattern")),
    "agent": lambda c, n: c.invalidate_agent(n.junk("agent"), **n.options("project")),
    "project": lambda c, n: c.invalidate_project(n.junk("project")),
    "tag": lambda c, n: c.invalidate_tag(n.junk("tags")),
    "file": lambda c, n: c.invalidate_file(n.junk("path")),
    "evict": lambda c, n: c.evict_oldest(n.junk("count")),
    "subscribe": lambda c, n: plainly(c.events.subscribe, **n.options("scopes", "max_queue")),
    "listen": lambda c, n: plainly(c.events.listen, n.junk("callback"), **n.options("scopes", "max_queue")),
    "read": lambda c, n: read(c, n.junk("path"), n.junk("pattern")),
    "make": lambda c, n: plainly(
        SharedPromptCache,
        **n.options("max_size", "ttl_seconds", "max_memory_mb", "watch", "freshness", "name", "clock"),
    ),
    "rule": lambda c, n: plainly(
        WatchRule,
        n.junk("root"),
        n.junk("pattern"),
        n.draw.choice(["agent", "project", "all", n.junk("scope")]),
        **n.options("agent", "project", "project_root", "anywhere", "kinds", "exclude", "imports"),
    ),
    "key of": lambda c, n: plainly(keys.of, n.junk("key"), n.junk("key")),
    "key of an agent": lambda c, n: plainly(keys.agent, n.junk("key"), n.junk("key"), n.junk("key")),
    "key of a time": lambda c, n: plainly(keys.temporal, n.junk("key"), n.junk("key"), n.draw.choice(["day", 5, []])),
    "escaped": lambda c, n: plainly(glob_escape, n.junk("text")),
}


def check(error, given):
    """What is raised is ours, and says which of the arguments is wrong and what to do.

    What a file system says of a path, and a function of a call without arguments, is theirs.
    """
    theirs = isinstance(error, OSError) and "depends_on" in given
    if theirs or (isinstance(error, TypeError) and given.get("compute") is len):
        return
    assert isinstance(error, CacheError), f"{type(error)}: {error}"
    assert ";" in str(error), str(error)  # behind it stands the remedy
    if isinstance(error, ConfigError):
        field = error.field.partition(".")[0].partition("[")[0]
        also = {"default_ttl": "ttl_seconds", "depends_on": "metadata", "agent": "metadata", "project": "metadata"}
        also |= {"root": "path", "paths": "path"}
        assert field in given or also.get(field) in given, f"{error.field} of {list(given)}: {error}"
    else:
        assert isinstance(error, CacheKeyError), repr(error)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_nonsense_raises_our_errors_and_loses_nothing(open_cache, seed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cache = await open_cache(max_size=10_000)
    nonsense = Nonsense(seed)
    kept = [f"kept {number}" for number in range(KEPT)]
    for _ in range(CALLS):
        for key in kept:
            await cache.set_prompt(key, key, agent="somebody", tags=["kept"])
        verb = nonsense.draw.choice(list(CALL))
        nonsense.given = {}
        before = cache.get_stats().entry_count
        try:
            async with asyncio.timeout(30):
                await CALL[verb](cache, nonsense)
        except Exception as error:  # noqa: BLE001 - whether it is one of ours is the question
            try:
                check(error, nonsense.given)
            except AssertionError as problem:
                names = ", ".join(nonsense.given)
                pytest.fail(f"seed {seed}, {verb}({names}): {problem}")
            assert cache.get_stats().entry_count >= before
            assert len(await cache.get_many(kept)) == KEPT


async def test_a_path_that_cannot_be_read_is_the_callers_error_alone(cache, caplog):
    """The error of the system, as it is; and nothing is said to have been forgotten when the task is collected."""
    with pytest.raises(OSError, match="too long"):
        await cache.get_or_compute("key", value, depends_on="/" + "x" * 5_000)
    await asyncio.sleep(0)
    assert caplog.records == []
    assert not cache._flights.running


@pytest.mark.parametrize("given", [5, "abc", None])
async def test_a_string_is_no_list_of_keys(cache, given):
    with pytest.raises(ConfigTypeError, match="give a list of keys"):
        await cache.get_many(given)
