"""T9, T13 and T14 with a store: programs that use a cache are killed, interrupted and forked, or just end.

What was acknowledged is there for the next: a value once `flush()` has returned, an invalidation once its verb has.
What is killed, and what just ends, are the processes of `_killed.py` and `_endings.py`, which look at what is left.

Seen to fail on planted bugs: a `flush` that does not wait; an invalidation that is acknowledged before it is durable; a
thread of the store that keeps the interpreter alive; an exit that breaks off an invalidation; a blocking face, made in
the child, that waits for the loop of the parent; a coroutine that goes on in the child and is left to asyncio.
"""

import pytest

from _support import size
from _threads import run_script
from stores._caches import found, run_program


@pytest.mark.timeout(900)
def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path):
    assert run_program("stores._killed", "writers", tmp_path, size(4, 200), 1_969, timeout=900) == ["intact"]


@pytest.mark.timeout(300)
def test_programs_that_end_without_closing_end_soon_say_nothing_and_leave_the_database_whole(tmp_path):
    """Each of thirteen ends; at full size three times, and 2 seconds are the limit."""
    assert run_program("stores._endings", tmp_path, size(13, 40), size(20, 2), timeout=300) == ["intact"]


FORKING = """
    import asyncio, os, signal, sys
    from shared_prompt_cache import CacheError, SharedPromptCache
    from shared_prompt_cache.stores import SQLiteStore

    async def made():
        return "made"

    def cache(folder=None):
        return SharedPromptCache(store=SQLiteStore(folder or sys.argv[1]))

    async def told(call):
        try:
            return await call()
        except CacheError as error:
            return f"{type(error).__name__}: {error}"

    def told_in_a_loop(call):
        return asyncio.run(told(call))

    def told_blocking(call):
        try:
            return call()
        except CacheError as error:
            return f"{type(error).__name__}: {error}"

    def child(function):
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0, "the child failed"
            return
        signal.alarm(30)  # a child that hangs is killed, and its parent fails
        function()
        # It may have a cache of its own over the same store.
        async def another():
            async with cache() as one:
                return (await one.get_prompt("key")).prompt
        assert asyncio.run(another()) == "value"
        sys.stdout.flush()
        os._exit(0)
"""
IN_USE = "WrongLoopError: the cache 'default' was in use when this process was forked; make one in each process"
ANOTHER = (
    "WrongLoopError: the cache 'default' belongs to another event loop; "
    "use one cache for each loop, or cache.blocking from other threads"
)


def forked(script, folder):
    """Run a script that forks; return what it printed."""
    done = run_script(FORKING + script, folder, warnings="ignore::DeprecationWarning")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


VERBS = """
    def verbs(one):
        return [
            lambda: one.get_prompt("missing"),
            lambda: one.get_or_compute("missing", made),
            lambda: one.get_many(["missing"]),
            lambda: one.set_prompt("key", "of the child"),
            lambda: one.invalidate("key"),
            one.clear,
            one.flush,
            one.start,
            one.aclose,
        ]
"""


async def test_a_child_is_told_and_its_parent_goes_on_with_the_store(tmp_path):
    printed = forked(
        VERBS
        + """
    async def main():
        async with cache() as one:
            await one.set_prompt("key", "value")
            await one.flush()

            def use():
                for verb in verbs(one):
                    print(told_in_a_loop(verb))
                print(told_blocking(lambda: one.blocking.get_prompt("missing")))

            child(use)
            assert (await one.get_prompt("key")).prompt == "value"
            assert await one.get_prompt("missing") is None
            await one.set_prompt("of the parent", 1)
            await one.flush()
            assert one.health().status == "ok"

    asyncio.run(main())
    """,
        tmp_path / "store",
    )
    assert printed == [ANOTHER] * 9 + [IN_USE]
    assert await found(tmp_path / "store", "key", "of the parent") == {"key": "value", "of the parent": 1}


async def test_a_child_of_a_script_is_told_too(tmp_path):
    printed = forked(
        """
    one = cache()
    with one.blocking:
        one.blocking.set_prompt("key", "value")
        one.blocking.flush()

        def use():
            print(told_blocking(lambda: one.blocking.get_prompt("missing")))
            print(told_blocking(lambda: one.blocking.get_or_compute("missing", lambda: "made")))
            print(told_blocking(lambda: one.blocking.invalidate("key")))
            print(told_blocking(one.blocking.close))
            print(told_in_a_loop(lambda: one.get_prompt("missing")))

        child(use)
        assert one.blocking.get_prompt("key").prompt == "value"
        one.blocking.set_prompt("of the parent", 1)
        one.blocking.flush()
    """,
        tmp_path / "store",
    )
    assert printed == [IN_USE] * 4 + [ANOTHER]
    assert await found(tmp_path / "store", "key", "of the parent") == {"key": "value", "of the parent": 1}


async def test_in_the_loop_that_it_took_over_a_child_is_told_as_well(tmp_path):
    """A coroutine goes on in the child where it was forked: the loop is there, and the threads of the store are not."""
    printed = forked(
        VERBS
        + """
    async def main():
        async with cache() as one:
            await one.set_prompt("key", "value")
            await one.flush()
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                for verb in verbs(one):
                    print(await told(verb))
                sys.stdout.flush()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0, "the child failed"
            await one.set_prompt("of the parent", 1)
            await one.flush()

    asyncio.run(main())
    """,
        tmp_path / "store",
    )
    assert printed == [IN_USE] * 9
    assert await found(tmp_path / "store", "key", "of the parent") == {"key": "value", "of the parent": 1}
