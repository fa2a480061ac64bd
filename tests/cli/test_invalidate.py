"""`invalidate` goes through the verbs of a cache: the store forgets, and running caches that share it follow.

Seen to fail on planted bugs: a word that calls another verb; `--soft` or `--project` that is not passed on; what is
wrong found out when half of it is done; a store in trouble that nobody hears of.
"""

import asyncio
import os
import subprocess
import sys

import pytest

from _stored import fill
from _support import Counted
from shared_prompt_cache import PeerEvent, SharedPromptCache
from shared_prompt_cache.cli._store import place_of
from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.stores._sqlite.inspection import Inspection
from shared_prompt_cache.testing import wait_until


def keys(store):
    with Inspection(place_of(str(store))) as inspection:
        return set(inspection.matching("*"))


ALL = {"qa_prompt", "engineer_prompt", "derived", "plain"}


def gone(cache):
    """Return the keys that a cache had in memory, and has no more."""
    return {key for key in ALL if cache.explain(key).state != "cached"}


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (["plain", "nobody"], {"plain"}),
        (["--pattern", "qa_*"], {"qa_prompt", "derived"}),
        (["--agent", "Engineer"], {"engineer_prompt"}),
        (["--agent", "qa", "--project", "{folder}/shop"], {"qa_prompt", "derived"}),
        (["--agent", "qa", "--project", "elsewhere"], set()),
        (["--project", "shop"], {"qa_prompt", "engineer_prompt", "derived", "plain"}),
        (["--tag", "engineer", "--tag", "none"], {"engineer_prompt"}),
        (["--file", "{folder}/memories/qa.md"], {"qa_prompt", "derived"}),
        (["plain", "--file", "memories/engineer.md"], {"engineer_prompt", "plain"}),
        (["--all"], ALL),
    ],
    ids=lambda words: "-".join(words).replace("{folder}/", "") if isinstance(words, list) else "",
)
async def test_what_is_named_goes_from_the_store_and_from_running_caches(words, taken, folder, command, monkeypatch):
    monkeypatch.chdir(folder)
    store = folder / "store"
    async with SharedPromptCache(store=SQLiteStore(store)) as cache:
        await fill(cache, folder)
        await cache.flush()
        given = [word.format(folder=folder) for word in words]
        status, out, err = await asyncio.to_thread(command, "invalidate", store, *given)
        assert (status, err) == (0, "")
        assert out.endswith(f"entries in the store: 5 before, {len(await asyncio.to_thread(keys, store))} now\n")
        assert await asyncio.to_thread(keys, store) - {"over"} == ALL - taken
        await wait_until(lambda: gone(cache) == taken)
        for key in ALL:
            assert (await cache.get_prompt(key) is None) == (key in taken)
        assert cache.explain("plain").state == ("removed" if "plain" in taken else "cached")


async def test_dots_are_folders_and_not_names(folder, command, monkeypatch):
    (folder / "shop" / "src").mkdir(parents=True)
    store = folder / "store"
    async with SharedPromptCache(store=SQLiteStore(store)) as cache:
        await fill(cache, folder)
        await cache.flush()
        monkeypatch.chdir(folder / "shop" / "src")
        arguments = ["--agent", "qa", "--project", os.curdir]
        assert (await asyncio.to_thread(command, "invalidate", store, *arguments))[0] == 0
        assert "qa_prompt" in await asyncio.to_thread(keys, store)
        arguments[-1] = os.pardir
        out = (await asyncio.to_thread(command, "invalidate", store, *arguments))[1]
        assert out == "invalidated the agent qa in the project ..\nentries in the store: 5 before, 3 now\n"
        await wait_until(lambda: gone(cache) == {"qa_prompt", "derived"})


async def test_softly_running_caches_expire_what_they_have(folder, command):
    store = folder / "store"
    async with SharedPromptCache(store=SQLiteStore(store)) as cache:
        await fill(cache, folder)
        await cache.flush()
        status, out, _ = await asyncio.to_thread(command, "invalidate", store, "plain", "--soft")
        assert (status, out.splitlines()[0]) == (0, "expired the entry of plain")
        await wait_until(lambda: cache.explain("plain").state != "cached")
        assert await cache.get_prompt("plain") is None
        assert await cache.get_or_compute("plain", Counted("new"), stale_for=60) == "text"


async def test_from_another_process_it_reaches_a_running_cache(folder):
    store = folder / "store"
    async with SharedPromptCache(store=SQLiteStore(store)) as cache:
        await fill(cache, folder)
        await cache.flush()
        events = cache.events.subscribe()
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", "-m", "shared_prompt_cache", "invalidate", store, "--agent", "qa"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        await wait_until(lambda: gone(cache) == {"qa_prompt", "derived"})
        event = await anext(events)
        assert (event.scope, event.name, type(event.cause)) == ("agent", "qa", PeerEvent)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to invalidate; name keys, or one of --pattern, "),
        (["plain", ""], "the key is empty"),
        (["plain", "--tag", ""], "a tag is empty"),
        (["plain", "--agent", "/"], "agent"),
        (["plain", "--project", ""], "project is ''; give a name or a path"),
        (["plain", "--file", ""], "file"),
    ],
)
def test_if_something_is_wrong_nothing_is_done(words, message, store, command):
    status, out, err = command("invalidate", store, *words)
    assert (status, out, message in err) == (2, "", True), err
    assert "plain" in keys(store)


def test_a_store_that_cannot_be_opened_is_an_error(store, command, monkeypatch):
    async def fails(*_):
        raise StoreError("the disk is full", operation="open")

    monkeypatch.setattr(SQLiteStore, "open", fails)
    assert command("invalidate", store, "--all") == (2, "", "error: nothing was invalidated; the disk is full\n")


def test_what_the_store_does_not_take_is_an_error(store, command, monkeypatch):
    async def fails(*_):
        raise StoreError("the disk is full", operation="invalidate")

    monkeypatch.setattr(SQLiteStore, "invalidate", fails)
    status, out, err = command("invalidate", store, "plain", "--all")
    assert (status, out) == (2, "")
    assert "error: it is not certain that the store knows of this: invalidated the entry of plain; the disk is" in err


def test_of_a_damaged_store_all_is_gone_and_it_is_said(store, command):
    (store / "store.db").write_text("no database\n" * 1000)
    status, out, err = command("invalidate", store, "plain")
    assert (status, out.splitlines()[-1]) == (0, "entries in the store: 0 before, 0 now")
    assert err == f"note: {store}/store.db was damaged; it was set aside with all that it held\n"
