"""The types of what each public verb takes and returns; read by type checkers, never run."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

from key_value.aio.protocols.key_value import AsyncKeyValue

from shared_prompt_cache import (
    CacheConfig,
    CachedPrompt,
    CacheStats,
    Cause,
    Computed,
    Explanation,
    Health,
    Invalidation,
    PartHealth,
    Removal,
    SharedPromptCache,
    WarmReport,
    WatchRule,
    glob_escape,
    keys,
    normalise_agent,
    presets,
)
from shared_prompt_cache.integrations.key_value import KeyValueStore
from shared_prompt_cache.testing import FakeWatcher, ManualClock

cache = SharedPromptCache(500, timedelta(hours=1), watch=presets.claude_mpm("."), watcher=FakeWatcher())


class Tuned(SharedPromptCache):
    """A subclass stays one, wherever a cache returns itself."""


async def prompt() -> str:
    return "prompt"


async def counted() -> Computed[int]:
    return Computed(3, ttl=timedelta(minutes=5), tags=["x"], keep=False)


async def either() -> int | Computed[int]:
    return Computed(3)


async def perhaps() -> str | None:
    return None


async def tokens() -> list[tuple[str, int]]:
    return [("a", 1)]


async def fetch(key: str) -> str:
    return key


async def computing_returns_what_is_computed() -> None:
    assert_type(await cache.get_or_compute("a", prompt), str)
    assert_type(await cache.get_or_compute("a", counted), int)
    assert_type(await cache.get_or_compute("a", either), int)
    assert_type(await cache.get_or_compute("a", perhaps), str | None)
    assert_type(await cache.get_or_compute("a", tokens), list[tuple[str, int]])
    assert_type(await cache.get_or_compute("a", lambda: fetch("a")), str)
    assert_type(
        await cache.get_or_compute(
            "a",
            prompt,
            ttl=60,
            metadata={"model": "x"},
            agent="pm",
            project=Path(),
            tags=["x"],
            depends_on=["a.md", Path("b.md")],
            freshness="events",
            stale_for=timedelta(minutes=1),
            soft_timeout=0.5,
            hard_timeout=30,
            refresh_ahead=0.8,
            cache_errors_for=5,
        ),
        str,
    )
    assert_type(Computed("prompt"), Computed[str])
    assert_type(Computed(3).value, int)


def plain() -> str:
    return ""


async def what_does_not_fit_is_refused() -> None:
    await cache.get_or_compute("a", plain)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await cache.get_or_compute(3, prompt)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    await cache.get_or_compute("a", prompt, tll=60)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    await cache.get_or_compute("a", prompt, freshness="x")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    await cache.get_or_compute("a", prompt, 60)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    SharedPromptCache(watcher="inotify")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    SharedPromptCache(watcher=object())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    cache.events.subscribe(scopes=["agents"])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


async def what_is_kept_is_returned_as_an_entry() -> None:
    entry = await cache.get_prompt("a", freshness="strict")
    assert_type(entry, CachedPrompt | None)
    assert entry is not None
    assert_type(entry["metadata"], Mapping[str, Any])
    assert_type(entry.metadata, Mapping[str, Any])
    assert_type(entry.key, str)
    assert_type(entry.agent, str | None)
    assert_type(entry.project, str | None)
    assert_type(entry.tags, frozenset[str])
    assert_type(entry.created_at, float)
    assert_type(entry.expires_at, float)
    assert_type(entry.age, float)
    assert_type(entry.stale, bool)
    assert_type(entry.dependencies, tuple[str, ...])
    assert_type(await cache.get_many(["a", "b"]), dict[str, CachedPrompt])
    assert_type(await cache.get_many(key for key in "ab"), dict[str, CachedPrompt])


async def setting_returns_nothing_and_invalidating_says_how_much() -> None:
    setting = cache.set_prompt("a", b"anything", {"model": "x"}, 60, agent="pm", depends_on=Path("a.md"))
    assert_type(await setting, None)
    assert_type(await cache.invalidate("a"), bool)
    assert_type(await cache.invalidate_pattern("a*", soft=True), int)
    assert_type(await cache.invalidate_agent("pm", Path()), int)
    assert_type(await cache.invalidate_project("web"), int)
    assert_type(await cache.invalidate_tag("x"), int)
    assert_type(await cache.invalidate_file(Path("a.md")), int)
    assert_type(await cache.clear(), int)
    assert_type(await cache.evict_oldest(3), int)
    assert_type(await cache.sync(timeout=5), None)


async def blocks_are_entered() -> None:
    async with cache.batch() as batch:
        await batch.set_prompt("a", "prompt", tags=["x"])
        await batch.invalidate("b")
        batch.set_prompt("c", "prompt")
    async with cache.lock("a"):
        await cache.set_prompt("a", "prompt")
    async with Tuned() as tuned:
        assert_type(tuned, Tuned)


async def warming_reports() -> None:
    report = await cache.warm(["a"], fetch, concurrency=4, ttl=60, agent=lambda key: key)  # pyright: ignore[reportUnknownLambdaType]
    assert_type(report, WarmReport)
    assert_type(report.failures, Mapping[str, Exception])


async def events_are_typed_by_what_is_asked_for() -> None:
    async with cache.events.subscribe() as invalidations:
        async for event in invalidations:
            assert_type(event, Invalidation)
            assert_type(event.cause, Cause)
            assert_type(event.dropped, int)
    async for only in cache.events.subscribe(scopes=["agent"], removals=False, max_queue=10):
        assert_type(only, Invalidation)
    async for any_of_both in cache.events.subscribe(removals=True):
        assert_type(any_of_both, Invalidation | Removal)


def told(event: Invalidation) -> None: ...


async def told_later(event: Invalidation | Removal) -> None: ...


def listeners_are_called() -> None:
    assert_type(cache.events.listen(told).missed, int)
    assert_type(cache.events.listen(told_later, removals=True).close(), None)


async def files_are_read() -> None:
    assert_type(await cache.files.read_text("a.md", "latin-1"), str)
    assert_type(await cache.files.read_bytes(Path("a.md")), bytes)
    assert_type(await cache.files.glob(Path(), "**/*.md"), list[Path])
    assert_type(await cache.files.depends_on("a.md", Path("b")), None)


def the_blocking_face_returns_the_same() -> None:
    with cache.blocking as blocking:
        assert_type(blocking.get_or_compute("a", plain), str)
        assert_type(blocking.get_many(["a"]), dict[str, CachedPrompt])
        assert_type(blocking.set_prompt("a", "prompt"), None)
        assert_type(blocking.invalidate("a"), bool)
        assert_type(blocking.invalidate_pattern("a*"), int)
        assert_type(blocking.clear(), int)
        assert_type(blocking.sync(), None)
        assert_type(blocking.files.read_bytes("a.md"), bytes)
        assert_type(blocking.files.glob("a", "*"), list[Path])
        assert_type(blocking.explain("a"), Explanation)
        assert_type(blocking.health(), Health)


def a_cache_tells_of_itself() -> None:
    stats = cache.get_stats()
    assert_type(stats, CacheStats)
    assert_type(stats.hit_rate, float)
    assert_type(stats.entry_count, int)
    assert_type(cache.explain("a"), Explanation)
    assert_type(cache.explain("a").chain, tuple[str, ...])
    assert_type(cache.health(), Health)
    assert_type(cache.health().parts, Mapping[str, PartHealth])


def configurations_and_rules_are_read() -> None:
    assert_type(SharedPromptCache.from_config("cache.yaml"), SharedPromptCache)
    assert_type(Tuned.from_config({"cache": {}}), Tuned)
    assert_type(Tuned.from_config(CacheConfig()), Tuned)
    assert_type(SharedPromptCache(clock=ManualClock()), SharedPromptCache)
    assert_type(presets.detect("."), tuple[WatchRule, ...])
    assert_type(WatchRule(".", "{agent}.md", "agent").root, Path)
    assert_type(normalise_agent("PM"), str)
    assert_type(glob_escape("*"), str)
    assert_type(keys.of("a", 1), str)
    assert_type(keys.agent("pm", {"a": 1}, "1"), str)


async def the_cache_is_a_store_of_py_key_value() -> None:
    store: AsyncKeyValue = KeyValueStore(cache, default_collection="a", agent="pm", project=Path())
    assert_type(await store.get("a", collection="b"), dict[str, Any] | None)
    assert_type(await store.ttl("a"), tuple[dict[str, Any] | None, float | None])
    assert_type(await store.put_many(["a"], ({"a": 1},), ttl=60), None)
    assert_type(await store.delete_many(("a", "b")), int)
    assert_type(await KeyValueStore(cache).destroy(), bool)
    assert_type(await KeyValueStore(cache).destroy_collection("a"), bool)
    assert_type(KeyValueStore(cache).cache_key("a", collection="b"), str)
