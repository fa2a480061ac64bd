"""Facts for the log: silent until the application wants them, and never a trouble of the cache's own.

Seen to fail on planted bugs: a package that prints where nobody has configured anything, a failing processor that
leaves an invalidation half told, a prompt among the facts.
"""

import asyncio
import logging
import subprocess
import sys

import pytest
import structlog

from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache._logging import log
from shared_prompt_cache.testing import wait_until

LEVELS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
}


@pytest.fixture
def configured():
    """Return a function that configures structlog; afterwards it is as it was."""
    yield structlog.configure
    structlog.reset_defaults()


SILENT = """
import asyncio
from shared_prompt_cache import SharedPromptCache

def failing(event):
    raise LookupError("of the application")

async def main():
    async with SharedPromptCache() as cache:
        cache.events.listen(failing)
        subscription = cache.events.subscribe(max_queue=1)
        for key in ("a", "b"):
            await cache.invalidate(key)
    assert subscription.missed == 1

asyncio.run(main())
"""


@pytest.mark.parametrize("loaded", ["", "import structlog\n"])
def test_nothing_is_printed_where_nobody_has_configured_anything(loaded):
    """Errors and warnings neither: Python's last resort would print them."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", loaded + SILENT], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("level", LEVELS)
def test_a_fact_is_a_record_of_the_standard_library(caplog, level):
    error = LookupError("x")
    with caplog.at_level(level, "shared_prompt_cache"):
        log(level, "thing.happened", exc_info=error, key="a", count=5)
        log(level, "thing.happened")
        log(level - 1, "thing.unwanted")
    first, second = caplog.records
    assert (first.name, first.levelno, first.getMessage()) == (
        "shared_prompt_cache",
        level,
        "thing.happened key='a' count=5",
    )
    assert (first.event, first.facts, first.exc_info[1]) == ("thing.happened", {"key": "a", "count": 5}, error)
    assert (second.getMessage(), second.exc_info) == ("thing.happened", None)


def test_a_percent_sign_in_a_fact_is_a_percent_sign(caplog):
    log(logging.ERROR, "thing.happened", key="100%s")
    assert caplog.records[0].getMessage() == "thing.happened key='100%s'"


@pytest.mark.parametrize("level", LEVELS)
def test_it_goes_through_structlog_where_that_is_configured(configured, caplog, level):
    seen = []

    def capture(logger, method, event):
        seen.append((method, event))
        raise structlog.DropEvent

    configured(processors=[capture])
    error = LookupError("x")
    log(level, "thing.happened", key="a")
    log(level, "thing.happened", exc_info=error)
    assert seen == [
        (LEVELS[level], {"event": "thing.happened", "key": "a"}),
        (LEVELS[level], {"event": "thing.happened", "exc_info": error}),
    ]
    assert caplog.records == []


def test_structlog_that_is_only_imported_changes_nothing(caplog):
    assert not structlog.is_configured()
    log(logging.ERROR, "thing.happened")
    assert len(caplog.records) == 1


async def test_a_logging_that_fails_leaves_nothing_half_done(configured, open_cache):
    """The fact comes up while what was invalidated is reclaimed; who waits for the count would wait for ever."""

    def failing(*_):
        raise LookupError("of the application")

    configured(processors=[failing])
    cache: SharedPromptCache = await open_cache(max_size=2_000)
    overflowing = cache.events.subscribe(removals=True, max_queue=1)
    events = cache.events.subscribe()
    for number in range(2_000):
        await cache.set_prompt(f"key-{number}", number, tags=["t"])
    async with asyncio.timeout(60):
        assert await cache.invalidate_tag("t") == 2_000
        assert (await anext(events)).dropped == 2_000
        await wait_until(lambda: not cache._memory.has_work)
    assert overflowing.missed == 2_000


async def test_prompts_and_metadata_are_never_logged(open_cache, caplog, tmp_path):
    secret = "the secret of the prompt"
    caplog.set_level(0)
    cache = await open_cache(max_size=2)
    memory = tmp_path / "memory.md"
    memory.write_text(secret)

    async def compute():
        return await cache.files.read_text(memory)

    cache.events.listen(lambda event: 1 / 0, removals=True)
    for key in ("a", "b", "a", "c"):
        await cache.set_prompt(key, secret, {"secret": secret}, agent="engineer")
        await cache.get_or_compute(f"{key} computed", compute, agent="engineer")
        await cache.get_or_compute(f"{key} computed", compute, agent="qa")
    await cache.clear()
    await wait_until(lambda: any(record.event == "listener.failed" for record in caplog.records))
    await cache.aclose()
    assert {record.event for record in caplog.records} >= {"listener.failed", "entry.scopes_differ"}
    assert secret not in "".join(logging.Formatter().format(record) for record in caplog.records)
