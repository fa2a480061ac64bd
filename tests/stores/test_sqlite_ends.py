"""T9 and T14: processes are killed, interrupted, forked, or end without a word. What was acknowledged is there.

"Acknowledged" means that `put_many` had returned; the process was killed, the machine was not.

Seen to fail on planted bugs: a thread that is no daemon; one that complains when its loop is gone; a commit that is
answered before it is made; a warning about a connection that was not closed; a child that waits for the old thread; an
exit that breaks off an invalidation.
"""

import asyncio
import gc
import random
import signal
import sqlite3
import sys
import threading

import pytest

from _support import size
from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.stores import Selection
from shared_prompt_cache.testing import wait_until
from stores._rows import PATIENCE, end_of, is_right, line_of, notice, opened, put, start

ROUNDS = size(3, 200)
WRITERS = 2
SEED = 1_969

WRITE = """
me, number = {me}, 0
while True:
    keys = [f"{{me}} {{number + more}}" for more in range(5)]
    await put(store, *keys, payload=os.urandom(500))
    print(number, flush=True)
    number += 5
    if number % 50 == 0:
        await store.sweep(10)
"""


def check(path):
    raw = sqlite3.connect(path)
    try:
        return raw.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        raw.close()


@pytest.mark.timeout(900)
async def test_killed_writers_lose_no_row_that_was_acknowledged(tmp_path):
    draw = random.Random(SEED)
    for number in range(ROUNDS):
        folder = tmp_path / f"store {number % 3}"  # some are killed again and again
        programs = [start(folder, WRITE.format(me=f"'{number} {me}'")) for me in range(WRITERS)]
        for program in programs:
            await line_of(program)
        await asyncio.sleep(draw.random() * 0.2)
        last = []
        for program in programs:
            program.send_signal(signal.SIGKILL)
        for program in programs:
            lines = (await asyncio.to_thread(program.communicate))[0].split()
            last.append(int(lines[-1]) if lines else 0)
        store = await opened(folder)
        acknowledged = [f"{number} {me} {row}" for me in range(WRITERS) for row in range(last[me] + 5)]
        found = await store.get_many(acknowledged)
        assert sorted(found) == sorted(acknowledged), f"seed {SEED}, round {number}"
        assert all(is_right(one) for one in found.values())
        await put(store, "works")
        assert (await store.stats()).corrupt == 0
        await store.aclose()
        assert check(folder / "store.db") == "ok"


ENDS = {
    "returns": "return",
    "raises": "raise LookupError('of the program')",
    "exits": "sys.exit(3)",
    "exits at once": "os._exit(0)",
    "is interrupted": "print('ready', flush=True); await asyncio.sleep(60)",
    "is terminated": "print('ready', flush=True); await asyncio.sleep(60)",
    "ends in the middle of a write": "t = asyncio.create_task(put(store, *map(str, range(20_000))));"
    " await asyncio.sleep(0.05)",
    "loses the store": "store = None; import gc\nfor _ in range(9): gc.collect(); await asyncio.sleep(0.01)",
    "holds the store": "sys.held = store",
    "closes the loop under it": "asyncio.get_running_loop().stop()",
}
SIGNALS = {"is interrupted": signal.SIGINT, "is terminated": signal.SIGTERM}
SAYS = {
    "raises": "LookupError: of the program",
    "is interrupted": "KeyboardInterrupt",
    "closes the loop under it": None,
}


@pytest.mark.parametrize("end", list(ENDS))
async def test_an_unclosed_store_keeps_no_process_alive_and_says_nothing(tmp_path, end):
    for _ in range(size(1, 4)):
        program = start(tmp_path / "store", f"await put(store, 'key')\n{ENDS[end]}", warnings="error")
        if end in SIGNALS:
            await line_of(program)
            program.send_signal(SIGNALS[end])
        _, errors = await end_of(program)
        said = SAYS.get(end, "")
        if said is not None:
            assert errors.strip().rpartition("\n")[2] == said
        assert "Warning" not in errors
        assert "shared_prompt_cache" not in errors
        store = await opened(tmp_path / "store")
        assert is_right(await store.get("key"))
        assert (await store.stats()).corrupt == 0
        await store.aclose()
        assert check(tmp_path / "store" / "store.db") == "ok"


async def test_a_loop_that_is_closed_under_the_store_is_no_trouble(tmp_path):
    """No `asyncio.run` that would cancel what is left: the loop just ends, with a call under way."""
    program = start(
        tmp_path / "store",
        """
        await store.aclose()

        def other():
            loop = asyncio.new_event_loop()
            store = loop.run_until_complete(opened(sys.argv[0] if False else PATH))
            loop.run_until_complete(put(store, "key"))
            call = loop.create_task(store.put_many([write(str(number)) for number in range(3000)]))
            loop.call_later(0.01, loop.stop)
            loop.run_forever()
            call.cancel()
            try:
                loop.run_until_complete(call)
            except asyncio.CancelledError:
                pass
            loop.close()

        import threading
        PATH = store._place.folder
        thread = threading.Thread(target=other)
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.01)
        """,
    )
    assert await end_of(program) == (0, "")


async def test_a_forked_child_is_told_and_its_parent_goes_on(tmp_path):
    program = start(
        tmp_path / "store",
        """
        await put(store, "key")
        child = os.fork()
        if child == 0:
            for call in (store.get("key"), store.put_many([write("child")]), store.invalidate([notice()])):
                try:
                    await call
                except StoreError as error:
                    assert "before this process was forked" in str(error), error
                else:
                    os._exit(1)
            await store.aclose()
            await store.aclose()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert is_right(await store.get("key"))
        await put(store, "parent")
        await store.aclose()
        """,
        warnings="error" if sys.version_info < (3, 12) else "ignore",  # of fork beside threads, which is the case
    )
    assert await end_of(program) == (0, "")


async def test_a_child_that_ends_as_programs_do_leaves_the_database_of_its_parent_alone(tmp_path):
    program = start(
        tmp_path / "store",
        """
        await put(store, "key")
        child = os.fork()
        if child == 0:
            return
        assert os.waitpid(child, 0)[1] == 0
        assert is_right(await store.get("key"))
        await put(store, "parent")
        assert os.path.exists(store._place.log_file)
        await store.aclose()
        """,
        warnings="error" if sys.version_info < (3, 12) else "ignore",
    )
    assert await end_of(program) == (0, "")
    assert check(tmp_path / "store" / "store.db") == "ok"


async def test_a_store_that_is_dropped_ends_its_threads(tmp_path):
    store = await opened(tmp_path / "store")
    await put(store, "key")
    del store

    def are_gone():
        gc.collect()
        return not [thread for thread in threading.enumerate() if "store" in thread.name]

    await wait_until(are_gone)
    assert not (tmp_path / "store" / "store.db-wal").exists()


async def test_an_exit_breaks_off_what_is_written_and_no_invalidation(tmp_path):
    """One that fails gets rid of everything there is; so many rows for the moment that it still takes."""
    store = await opened(tmp_path / "store")
    await put(store, "key", "bystander")
    writer = store._doors.writer
    await writer.run(lambda: writer._connection.set_progress_handler(writer.hurry, 1))  # as the exit does, all the time
    with pytest.raises(StoreError, match="interrupted"):
        await put(store, "another")
    await store.invalidate([notice(Selection(names=("key\x1fkey",)))])
    await writer.run(lambda: writer._connection.set_progress_handler(None, 1))
    assert set(await store.get_many(["key", "another", "bystander"])) == {"bystander"}
    await store.aclose()


async def test_closing_tidies_up(tmp_path):
    for _ in range(20):  # its two connections must not get into each other's way
        store = await opened(tmp_path / "store")
        await put(store, "key")
        await store.aclose()
        assert not (tmp_path / "store" / "store.db-wal").exists()
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [".gitignore", "store.db", "store.lock"]
    with pytest.raises(StoreError, match="not open"):
        await store.get("key")
    assert PATIENCE > 0
