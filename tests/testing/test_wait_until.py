"""Waiting is bounded, and says what it waited for."""

import asyncio
from datetime import timedelta

import pytest

from shared_prompt_cache.errors import ConfigError
from shared_prompt_cache.testing import ShuffleLoop, wait_until


async def test_it_returns_as_soon_as_the_predicate_is_true():
    answers = iter([0, "", None, [], "yes"])
    await wait_until(lambda: next(answers))
    assert next(answers, "none left") == "none left"


async def test_the_predicate_may_be_asynchronous():
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)

    async def is_set():
        await asyncio.sleep(0)
        return event.is_set()

    await wait_until(is_set)


async def test_in_vain_it_fails_with_what_was_waited_for():
    with pytest.raises(AssertionError, match=r"waited 0.01 s in vain until: the moon is full \(asked \d+ times\)"):
        await wait_until(lambda: False, timeout=timedelta(milliseconds=10), what="the moon is full")


async def test_without_a_name_it_names_the_predicate():
    def moon_is_full():
        return False

    with pytest.raises(AssertionError, match=r"moon_is_full\(\)"):
        await wait_until(moon_is_full, timeout=0.01)


async def test_a_predicate_that_hangs_is_ended():
    with pytest.raises(AssertionError, match="an answer"):
        await wait_until(asyncio.Event().wait, timeout=0.01, what="an answer")


async def test_errors_of_the_predicate_come_out_as_they_are():
    def broken():
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await wait_until(broken)


async def test_cancelling_it_ends_it():
    task = asyncio.create_task(wait_until(lambda: False))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_its_timeout_is_checked():
    with pytest.raises(ConfigError, match="timeout"):
        await wait_until(lambda: True, timeout=0)


def test_on_virtual_time_an_hour_in_vain_takes_no_time():
    with asyncio.Runner(loop_factory=ShuffleLoop) as runner, pytest.raises(AssertionError):
        runner.run(wait_until(lambda: False, timeout=60))
