"""T13: threads, loops and forks. All are served, or are told by an error of ours what to do; nobody waits for ever.

Seen to fail on planted bugs: an invalidated entry that stays; a cache that lets a second loop in; a child that takes
over the locks, the thread or the loop of its parent; a call that comes as its loop closes and is not told.
"""

import asyncio
import threading
from collections import Counter
from itertools import cycle
from random import Random

import pytest

from _support import size
from _threads import FACES, PATIENCE, at_once, loop_in_a_thread, opened, run_script, until
from shared_prompt_cache import CacheClosedError, SharedPromptCache, WrongLoopError

THREADS = 8
CALLS = size(150, 2_000)
ROUNDS = size(10, 100)
KEYS = [f"key {number}" for number in range(5)]


class World:
    """What is true: a version for each key, raised before the key is invalidated.

    Attributes:
        stale: What was returned although it was older than the caller may be given.
    """

    def __init__(self):
        self.stale = []
        self._versions, self._floors = Counter(), Counter()
        self._lock = threading.Lock()

    def use(self, face, seed):
        draw = Random(seed)
        for _ in range(CALLS):
            key = draw.choice(KEYS)
            kind = draw.random()
            if kind < 0.7:
                floor = self._floors[key]
                self._check(key, floor, face.get_or_compute(key, lambda key=key: self._versions[key], tags=[key]))
            elif kind < 0.8:
                floor = self._floors[key]
                found = face.get_prompt(key)
                self._check(key, floor, floor if found is None else found.prompt)
            elif kind < 0.9:
                self._change(key, lambda key=key: face.invalidate(key))
            else:
                self._change(key, lambda key=key: face.invalidate_tag(key))

    async def use_async(self, cache, seed):
        draw = Random(seed)
        for _ in range(CALLS):
            key = draw.choice(KEYS)
            floor = self._floors[key]

            async def compute(key=key):
                version = self._versions[key]
                await asyncio.sleep(0)
                return version

            self._check(key, floor, await cache.get_or_compute(key, compute, tags=[key]))

    def _change(self, key, invalidate):
        with self._lock:
            self._versions[key] += 1
            version = self._versions[key]
        invalidate()
        with self._lock:
            self._floors[key] = max(self._floors[key], version)

    def _check(self, key, floor, version):
        if version < floor:
            self.stale.append(f"{key} is {version}, invalidated up to {floor}")


# Threads.


@pytest.mark.parametrize("where", FACES)
def test_many_threads_are_all_served_and_nothing_old(where):
    world = World()
    with opened(where, max_size=4) as cache:
        loop = cache._life.loop
        task = asyncio.run_coroutine_threadsafe(world.use_async(cache, THREADS), loop)
        outcomes = at_once(*[lambda seed=seed: world.use(cache.blocking, seed) for seed in range(THREADS)])
        task.result(PATIENCE)
        assert outcomes == [None] * THREADS
        assert world.stale == []
        until(lambda: not cache._flights.running)
        assert not cache._flights.table


@pytest.mark.parametrize("where", FACES)
def test_closed_while_in_use_each_thread_is_served_until_it_is_told(where):
    for _ in range(ROUNDS):
        served = Counter()
        if where == "a script":
            cache = SharedPromptCache()
            outcomes = at_once(*users(cache, served), lambda cache=cache, served=served: close(cache, served))
        else:
            with loop_in_a_thread() as run:
                cache = SharedPromptCache()
                run(cache.start())
                outcomes = at_once(
                    *users(cache, served),
                    lambda run=run, cache=cache, served=served: close(cache, served, lambda: run(cache.aclose())),
                )
        assert outcomes.pop() is None
        assert [type(outcome) for outcome in outcomes] == [CacheClosedError] * THREADS
        assert len(served) == THREADS


def test_a_program_that_ends_without_closing_while_threads_use_its_cache_tells_them():
    """In a process of its own: asyncio complains, as of any loop that is closed over tasks."""
    done = run_script(
        f"""
        import asyncio, threading
        from shared_prompt_cache import CacheClosedError, SharedPromptCache, _crossing

        _crossing._LOOK = 0.01

        def use(cache, name, served, told):
            try:
                while True:
                    assert cache.blocking.get_or_compute("key", lambda: 1) == 1
                    cache.blocking.invalidate("key")
                    served.add(name)
            except CacheClosedError:
                told.add(name)

        async def program(cache, threads, served):
            await cache.set_prompt("another", 1)
            for thread in threads:
                thread.start()
            while len(served) < len(threads):
                await asyncio.sleep(0)

        for _ in range({ROUNDS}):
            cache, served, told = SharedPromptCache(), set(), set()
            threads = [threading.Thread(target=use, args=(cache, name, served, told)) for name in range({THREADS})]
            asyncio.run(program(cache, threads, served))
            for thread in threads:
                thread.join()
            print(len(told))
        """,
        warnings="ignore",
    )
    assert done.stdout.split() == [str(THREADS)] * ROUNDS, done.stderr


def users(cache, served):
    """Return functions that use the cache until that raises."""

    def use(name):
        for key in cycle(KEYS):
            assert cache.blocking.get_or_compute(key, lambda key=key: key) == key
            cache.blocking.invalidate(key)
            cache.blocking.get_stats()
            served[name] += 1

    return [lambda name=name: use(name) for name in range(THREADS)]


def close(cache, served, closing=None):
    """Close when all have been served."""
    until(lambda: len(served) == THREADS)
    (closing or cache.blocking.close)()


# Loops.


def test_of_many_loops_one_is_served_and_the_others_are_told_whom_to_ask():
    cache = SharedPromptCache()
    over = threading.Barrier(THREADS)

    async def compute():
        return "prompt"

    async def use():
        try:
            for number in range(CALLS // 10):
                await cache.get_or_compute(f"key {number}", compute)
                await cache.invalidate(f"key {number}")
            return "served"
        finally:
            await asyncio.to_thread(over.wait, PATIENCE)

    outcomes = at_once(*[lambda: asyncio.run(use())] * THREADS)
    assert outcomes.count("served") == 1
    outcomes.remove("served")
    for outcome in outcomes:
        assert isinstance(outcome, WrongLoopError)
        assert "use one cache for each loop, or cache.blocking from other threads" in str(outcome)


def test_a_second_loop_is_refused_by_every_verb_until_the_cache_is_closed():
    cache = SharedPromptCache()

    async def compute():
        return "prompt"

    async def refused():
        for call in (
            cache.get_prompt("key"),
            cache.get_or_compute("key", compute),
            cache.get_many(["key"]),
            cache.set_prompt("key", 1),
            cache.invalidate("key"),
            cache.invalidate_pattern("*"),
            cache.clear(),
            cache.evict_oldest(),
            cache.sync(),
            cache.warm(["key"], lambda _: compute()),
            cache.batch().__aenter__(),
            cache.lock("key").__aenter__(),
            cache.start(),
            cache.aclose(),
        ):
            with pytest.raises(WrongLoopError, match="belongs to another event loop"):
                await call

    with loop_in_a_thread() as run:
        run(cache.set_prompt("another", 1))
        asyncio.run(refused())
        assert run(cache.get_prompt("another")).prompt == 1
        run(cache.aclose())

    async def again():
        async with cache:
            assert await cache.get_or_compute("key", compute) == "prompt"

    asyncio.run(again())


# Forks.

FORKING = """
    import asyncio, os, signal, sys, threading
    from shared_prompt_cache import CacheError, SharedPromptCache

    async def made():
        return "made"

    def told(call):
        try:
            return call()
        except CacheError as error:
            return f"{type(error).__name__}: {error}"

    def told_async(call):
        return told(lambda: asyncio.run(call()))

    def child(function, leave=sys.exit):
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0, "the child failed"
            return
        signal.alarm(30)  # a child that hangs is killed, and its parent fails
        function()
        another = SharedPromptCache()
        assert another.blocking.get_or_compute("key", lambda: "made") == "made"
        another.blocking.close()
        assert asyncio.run(another_async()) == "made"
        sys.stdout.flush()
        signal.alarm(0)
        leave(0)

    async def another_async():
        async with SharedPromptCache() as another:
            return await another.get_or_compute("key", made)

    cache = SharedPromptCache()
"""
IN_USE = "WrongLoopError: the cache 'default' was in use when this process was forked; make one in each process"
ANOTHER = (
    "WrongLoopError: the cache 'default' belongs to another event loop; "
    "use one cache for each loop, or cache.blocking from other threads"
)


def forked(script):
    """Run a script that forks; return what it printed."""
    done = run_script(FORKING + script, warnings="ignore::DeprecationWarning")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_child_uses_a_cache_that_was_not_in_use():
    printed = forked("""
    def use():
        print(told(use_blocking))
        print(told_async(use_async))

    def use_blocking():
        with cache.blocking:
            return cache.blocking.get_or_compute("a", lambda: "made")

    async def use_async():
        async with cache:
            return await cache.get_or_compute("b", made)

    cache.blocking
    child(use)
    cache.blocking.set_prompt("a", 1)
    cache.blocking.close()
    child(use)
    """)
    assert printed == ["made"] * 4


def test_a_child_takes_over_no_lock_that_a_thread_of_its_parent_held():
    printed = forked("""
    def use():
        with cache.blocking:
            print(cache.blocking.get_or_compute("a", lambda: "made"))

    def hold():
        with cache.blocking._lock, cache.blocking._life:
            held.set()
            over.wait()

    held, over = threading.Event(), threading.Event()
    cache.blocking.get_many([])  # its thread is there, the cache is not in use yet
    holding = threading.Thread(target=hold)
    holding.start()
    held.wait()
    child(use)
    over.set()
    holding.join()
    cache.blocking.close()
    """)
    assert printed == ["made"]


def test_a_child_of_a_script_is_told_that_the_cache_was_in_use():
    printed = forked("""
    def use():
        print(told(lambda: cache.blocking.get_prompt("b")))
        print(told(lambda: cache.blocking.get_or_compute("a", lambda: "made")))
        print(told(cache.blocking.start))
        print(told(cache.blocking.close))
        print(told_async(lambda: cache.get_prompt("b")))
        print(told_async(cache.aclose))

    cache.blocking.set_prompt("a", 1)
    child(use)
    assert cache.blocking.get_prompt("a").prompt == 1
    cache.blocking.close()
    """)
    assert printed == [IN_USE] * 4 + [ANOTHER] * 2


def test_a_child_of_a_program_is_told_that_the_cache_was_in_use():
    printed = forked("""
    def use():
        print(told(lambda: cache.blocking.get_prompt("b")))
        print(told_async(lambda: cache.get_or_compute("b", made)))

    async def main():
        await cache.set_prompt("a", 1)
        cache.blocking
        child(use, os._exit)
        assert (await cache.get_prompt("a")).prompt == 1
        await cache.aclose()

    asyncio.run(main())
    """)
    assert printed == [IN_USE, ANOTHER]


def test_a_child_that_is_forked_while_threads_use_the_cache_does_not_hang():
    printed = forked(f"""
    def hammer():
        number = 0
        while not over.is_set():
            number += 1
            cache.blocking.get_or_compute(f"key {{number % 7}}", lambda: number)
            cache.blocking.invalidate(f"key {{number % 5}}")

    def use():
        print(told(lambda: cache.blocking.get_or_compute("a", lambda: "made")))

    over = threading.Event()
    cache.blocking.start()
    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range({ROUNDS}):
        child(use)
    over.set()
    for thread in threads:
        thread.join()
    cache.blocking.close()
    """)
    assert printed == [IN_USE] * ROUNDS


def test_a_child_that_is_forked_by_a_computation_may_make_a_cache_of_its_own():
    printed = forked("""
    def use():
        print(told(lambda: cache.blocking.get_prompt("a")))

    def compute():
        child(use)
        return "made"

    print(cache.blocking.get_or_compute("a", compute))
    cache.blocking.close()
    """)
    assert printed == [IN_USE, "made"]
