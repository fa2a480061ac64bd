"""`cache.blocking`: every verb of the cache, for threads that cannot await.

Each is tried twice: in a plain script, where the cache has a thread with a loop of its own, and in a worker thread of a
program that has a loop. Seen to fail on planted bugs: an iterator that is read on the loop; a verb or an option that is
missing; a verb that does not look where it is called.
"""

import asyncio
import inspect
import threading

import pytest

from _threads import FACES, opened
from shared_prompt_cache import SharedPromptCache, WrongLoopError
from shared_prompt_cache._blocking import BlockingCache, BlockingFiles, ComputeOptions
from shared_prompt_cache._files.files import Files

OF_COROUTINES = {"aclose", "batch", "blocking", "cached", "from_config", "lock", "warm"}
OF_THREADS = {"after_fork", "close", "released", "run"}


@pytest.fixture(params=FACES)
def cache(request):
    with opened(request.param) as cache:
        yield cache


@pytest.fixture
def face(cache):
    return cache.blocking


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("- use tabs\n")
    return path


def never():
    raise AssertionError("it is there")


# The verbs.


def arguments(function):
    return list(inspect.signature(function).parameters.values())


def public(kind):
    return {name for name, member in vars(kind).items() if not name.startswith("_") and callable(member)}


def same(one, other):
    return [(a.name, a.kind, a.default) for a in one] == [(b.name, b.kind, b.default) for b in other]


def test_it_has_the_verbs_of_the_cache_with_the_same_arguments():
    verbs = public(SharedPromptCache) - OF_COROUTINES
    assert public(BlockingCache) - OF_THREADS == verbs
    for verb in verbs - {"get_or_compute"}:
        assert same(arguments(getattr(BlockingCache, verb)), arguments(getattr(SharedPromptCache, verb))), verb
    names = [argument.name for argument in arguments(SharedPromptCache.get_or_compute)]
    assert ["self", "key", "compute", *ComputeOptions.__annotations__] == names
    assert public(BlockingFiles) == public(Files)
    for verb in public(Files):
        assert same(arguments(getattr(BlockingFiles, verb)), arguments(getattr(Files, verb))), verb


def test_what_is_set_is_there(face):
    face.set_prompt("a", "prompt", {"n": 1}, 60, agent="qa", project="web", tags=["x"])
    cached = face.get_prompt("a")
    assert (cached.prompt, dict(cached.metadata), cached.agent, cached.tags) == ("prompt", {"n": 1}, "qa", {"x"})
    assert face.get_prompt("a", freshness="events") is cached
    assert face.get_prompt("b") is None
    face.set_prompt("b", None)
    assert {key: found.prompt for key, found in face.get_many(["a", "b", "c"]).items()} == {"a": "prompt", "b": None}


def test_an_iterator_of_keys_is_read_in_the_thread(face):
    readers = set()

    def keys():
        readers.add(threading.current_thread())
        yield "a"

    face.set_prompt("a", 1)
    assert list(face.get_many(keys())) == ["a"]
    assert readers == {threading.current_thread()}


@pytest.mark.parametrize("soft", [False, True])
def test_each_way_of_invalidating(face, file, soft):
    for key in range(8):
        face.set_prompt(f"key {key}", key, agent=f"agent {key}", project=f"p{key}", tags=[f"t{key}"])
    face.set_prompt("of a file", 1, agent="qa", project="other", depends_on=file)
    assert face.invalidate("key 0", soft=soft) is True
    assert face.invalidate("key 0", soft=soft) is False
    assert face.invalidate_pattern("* 1", soft=soft) == 1
    assert face.invalidate_agent("agent 2", soft=soft) == 1
    assert face.invalidate_agent("agent 3", "p3", soft=soft) == 1
    assert face.invalidate_project("p4", soft=soft) == 1
    assert face.invalidate_tag("t5", soft=soft) == 1
    assert face.invalidate_file(file, soft=soft) == 1
    assert sorted(face.get_many([f"key {key}" for key in range(8)])) == ["key 6", "key 7"]
    assert face.clear(soft=soft) == 2
    assert face.get_or_compute("key 0", lambda: "new", stale_for=60) == (0 if soft else "new")


def test_the_least_recently_used_are_evicted(face):
    for key in "abc":
        face.set_prompt(key, key)
    face.get_prompt("a")
    assert face.evict_oldest() == 1
    assert face.evict_oldest(5) == 2
    assert face.get_many("abc") == {}


def test_what_the_cache_tells_of_itself(cache, face):
    face.set_prompt("a", 1)
    face.get_prompt("a")
    assert (face.get_stats().sets, face.get_stats()["hits"]) == (1, 1)
    assert face.explain("a").state == "cached"
    assert face.health().status == "ok"
    face.sync()
    face.sync(5)


def test_files_are_read_outside_of_a_computation_too(face, file):
    assert face.files.read_text(file) == "- use tabs\n"
    assert face.files.read_text(file, "ascii", errors="replace") == "- use tabs\n"
    assert face.files.read_bytes(file) == b"- use tabs\n"
    assert face.files.glob(file.parent, "*.md") == [file]
    face.files.depends_on(file)
    with pytest.raises(FileNotFoundError):
        face.files.read_text(file.with_name("absent.md"))


# On a thread with a loop.


async def test_on_a_thread_with_a_running_loop_every_verb_says_what_to_do():
    cache = SharedPromptCache()
    face = cache.blocking
    calls = [
        *(
            lambda verb=verb: getattr(face, verb)()
            for verb in ("start", "close", "clear", "sync", "get_stats", "health")
        ),
        lambda: face.get_or_compute("a", never),
        lambda: face.get_prompt("a"),
        lambda: face.explain("a"),
        lambda: face.files.read_text("a"),
        face.__enter__,
    ]
    for call in calls:
        with pytest.raises(WrongLoopError, match=r"await the verb .* asyncio.to_thread"):
            call()
    await cache.set_prompt("a", 1)
    with pytest.raises(WrongLoopError, match=r"asyncio.to_thread"):
        face.get_stats()
    assert (await asyncio.to_thread(face.get_prompt, "a")).prompt == 1
    await cache.aclose()
