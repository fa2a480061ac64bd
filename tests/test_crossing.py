"""How computations cross from a thread to the loop and back: `cache.blocking.get_or_compute`.

Seen to fail on planted bugs: a compute that runs without the context of its flight, or in another thread; a thread
that still works for the cache when its call has been answered.
"""

import asyncio
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, ContextVar

import pytest

from _support import replace
from _threads import FACES, PATIENCE, at_once, opened, until
from shared_prompt_cache import Computed, ComputeTimeout, ConfigTypeError, RecursiveComputeError
from shared_prompt_cache.testing import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(params=FACES)
def cache(request, clock):
    with opened(request.param, clock=clock) as cache:
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


def test_a_computation_runs_in_the_calling_thread_and_its_value_is_kept(face):
    assert face.get_or_compute("key", threading.current_thread) is threading.current_thread()
    assert face.get_or_compute("key", never) is threading.current_thread()


def test_a_computation_sees_the_context_variables_of_its_caller(face):
    variable = ContextVar("variable", default="nothing")
    variable.set("of the caller")
    assert face.get_or_compute("key", variable.get) == "of the caller"


def test_computed_says_how_the_value_is_kept(face, clock):
    assert face.get_or_compute("a", lambda: Computed(1, keep=False)) == 1
    assert face.get_prompt("a") is None
    assert face.get_or_compute("b", lambda: Computed(2, ttl=5, tags=["x"]), ttl=60) == 2
    assert face.get_prompt("b").tags == {"x"}
    clock.advance(5)
    assert face.get_prompt("b") is None


def test_what_it_reads_are_dependencies(face, file):
    def compute():
        face.files.depends_on(file.with_name("declared.md"))
        names = [path.name for path in face.files.glob(file.parent, "*.txt")]
        return face.files.read_text(file), names

    assert face.get_or_compute("key", compute) == ("- use tabs\n", [])
    assert {*face.get_prompt("key").dependencies} >= {str(file), str(file.with_name("declared.md"))}
    replace(file, "- use spaces\n")
    assert face.get_or_compute("key", compute) == ("- use spaces\n", [])
    file.with_name("new.txt").write_text("")
    assert face.get_or_compute("key", compute) == ("- use spaces\n", ["new.txt"])
    file.with_name("declared.md").write_text("")
    assert face.get_prompt("key") is None


def test_what_changes_while_it_runs_is_not_kept(face, file):
    def compute():
        text = face.files.read_text(file)
        replace(file, "- use spaces\n")
        return text

    assert face.get_or_compute("key", compute) == "- use tabs\n"
    assert face.get_prompt("key") is None
    assert "changed while it was computed" in face.explain("key").reason


def test_what_it_consumes_takes_it_along(face, file):
    def derived():
        return "from " + face.get_or_compute("source", lambda: face.files.read_text(file))

    def twice_derived():
        return "again " + face.get_or_compute("derived", derived) + face.get_prompt("set").prompt

    face.set_prompt("set", "!")
    assert face.get_or_compute("twice derived", twice_derived) == "again from - use tabs\n!"
    assert str(file) in face.get_prompt("twice derived").dependencies
    face.invalidate("source")
    assert face.get_many(["source", "derived", "twice derived"]) == {}
    assert face.get_or_compute("twice derived", twice_derived) == "again from - use tabs\n!"
    face.invalidate("set")
    assert list(face.get_many(["derived", "twice derived"])) == ["derived"]


def test_an_invalidation_while_it_runs_keeps_its_value_out(face):
    def compute():
        face.invalidate_tag("x")
        return "made before"

    assert face.get_or_compute("key", compute, tags=["x"]) == "made before"
    assert face.get_prompt("key") is None


def test_one_computation_for_all_threads_that_ask(cache, face):
    calls = []

    def compute():
        calls.append(1)
        until(lambda: cache.get_stats().shared_computations == 7)
        return object()

    values = at_once(*[lambda: face.get_or_compute("key", compute)] * 8)
    assert len(calls) == 1
    assert len(set(values)) == 1


def test_threads_and_tasks_share_a_computation(cache):
    """The one that a thread computes is joined by a task."""

    def compute():
        # In a context of its own: in this one it would be a part of the computation.
        joining.append(
            Context().run(asyncio.run_coroutine_threadsafe, cache.get_or_compute("key", never), cache._life.loop)
        )
        until(lambda: cache.get_stats().shared_computations == 1)
        return "by the thread"

    joining = []
    assert cache.blocking.get_or_compute("key", compute) == "by the thread"
    assert joining[0].result(PATIENCE) == "by the thread"


# What goes wrong.


def test_the_error_of_a_computation_comes_as_it_is_with_the_frames_that_raised_it(face):
    error = LookupError("no such agent")

    def load():
        raise error

    def compute():
        return load()

    with pytest.raises(LookupError) as raised:
        face.get_or_compute("key", compute)
    assert raised.value is error
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-2:] == ["compute", "load"]
    assert face.get_or_compute("key", lambda: "prompt") == "prompt"


def test_a_stop_iteration_is_what_it_is_in_every_coroutine(face):
    with pytest.raises(RuntimeError) as raised:
        face.get_or_compute("key", lambda: next(iter([])))
    assert isinstance(raised.value.__cause__, StopIteration)


def test_an_async_computation_is_refused_by_name(face):
    async def compute():
        return "prompt"

    class Awaitable:
        def __await__(self):
            yield

    for wrong, name in (compute, "compute"), (Awaitable, "Awaitable"):
        with pytest.raises(ConfigTypeError, match=f"{name} is async; give cache.blocking a plain function") as raised:
            face.get_or_compute("key", wrong)
        assert raised.value.field == "compute"
    with pytest.raises(ConfigTypeError, match="cannot be called"):
        face.get_or_compute("key", "prompt")


def test_computations_that_wait_for_each_other_are_found_in_one_thread(face):
    def first():
        return face.get_or_compute("second", lambda: face.get_or_compute("first", never))

    with pytest.raises(RecursiveComputeError, match="'second' -> 'first' -> 'second'"):
        face.get_or_compute("first", first)


def test_computations_that_wait_for_each_other_are_found_between_threads(face):
    both = threading.Barrier(2)

    def compute(own, other):
        both.wait(PATIENCE)
        return face.get_or_compute(other, lambda: compute(other, own))

    outcomes = at_once(
        lambda: face.get_or_compute("first", lambda: compute("first", "second")),
        lambda: face.get_or_compute("second", lambda: compute("second", "first")),
    )
    assert [type(outcome) for outcome in outcomes] == [RecursiveComputeError] * 2
    assert set(outcomes[0].cycle) == {"first", "second"}


def test_computations_that_wait_for_each_other_are_found_between_a_thread_and_a_task(cache, face):
    both = threading.Barrier(2)

    async def of_the_task():
        await asyncio.to_thread(both.wait, PATIENCE)
        return await cache.get_or_compute("of the thread", never)

    def of_the_thread():
        both.wait(PATIENCE)
        return face.get_or_compute("of the task", never)

    task = asyncio.run_coroutine_threadsafe(cache.get_or_compute("of the task", of_the_task), cache._life.loop)
    with pytest.raises(RecursiveComputeError):
        face.get_or_compute("of the thread", of_the_thread)
    assert isinstance(task.exception(PATIENCE), RecursiveComputeError)


# Answered before it is over.


def test_a_stale_value_is_served_while_a_thread_of_its_own_computes(face, clock):
    gate, began = threading.Event(), []

    def compute():
        began.append(threading.current_thread())
        assert gate.wait(PATIENCE)
        return "new"

    face.set_prompt("key", "old", ttl=10)
    clock.advance(10)
    assert face.get_or_compute("key", compute, stale_for=60) == "old"
    assert face.get_or_compute("key", never, stale_for=60) == "old"
    gate.set()
    until(lambda: face._cache.get_stats().sets == 2)
    assert face.get_or_compute("key", never) == "new"
    assert len(began) == 1
    assert began[0] is not threading.current_thread()
    assert began[0].daemon


def test_a_refresh_ahead_of_the_expiry_is_done_by_a_thread_of_its_own(face, clock):
    face.set_prompt("key", "old", ttl=10)
    clock.advance(9)
    computing = []

    def compute():
        computing.append(threading.current_thread())
        return "new"

    assert face.get_or_compute("key", compute, refresh_ahead=0.5) == "old"
    until(lambda: face._cache.get_stats().sets == 2)
    assert face.get_or_compute("key", never) == "new"
    assert computing[0] is not threading.current_thread()


def test_a_soft_timeout_frees_the_caller(face, clock):
    gate = threading.Event()
    face.set_prompt("key", "old", ttl=10)
    clock.advance(10)
    assert face.get_or_compute("key", lambda: gate.wait(PATIENCE), stale_for=60, soft_timeout=0.001) == "old"
    gate.set()
    until(lambda: face._cache.get_stats().sets == 2)
    assert face.get_or_compute("key", never) is True


def test_what_outlives_its_hard_timeout_is_dropped(cache, face):
    def compute():
        until(lambda: not cache._flights.table)
        return "too late"

    with pytest.raises(ComputeTimeout):
        face.get_or_compute("key", compute, hard_timeout=0.001)
    assert face.get_prompt("key") is None
    with ThreadPoolExecutor() as threads:
        assert threads.submit(face.get_or_compute, "key", lambda: "in time").result(PATIENCE) == "in time"
