"""`invalidate PATH …`: the verbs of a cache, carried out on a store that others may be using.

A cache of its own does it. The store enters each invalidation in its journal, and every cache that shares the store
puts it in force, as it does with that of any other cache.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from itertools import product
from operator import methodcaller
from pathlib import Path

from shared_prompt_cache._files.projects import agent_id, check_project
from shared_prompt_cache._options import check_paths, check_tags
from shared_prompt_cache.cache import SharedPromptCache
from shared_prompt_cache.cli._store import foreign, place_of
from shared_prompt_cache.cli._words import plain
from shared_prompt_cache.errors import ConfigError, StoreError
from shared_prompt_cache.keys import check_key, check_pattern
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.stores._sqlite.inspection import Inspection
from shared_prompt_cache.stores._sqlite.place import Place
from shared_prompt_cache.stores._sqlite.schema import DamagedError, ForeignError

Order = tuple[str, Callable[[SharedPromptCache], Awaitable[object]]]
"""What is invalidated, in words, and the verb that does it."""


def run(options: argparse.Namespace) -> int:
    """Carry out what the command line names; return 0 when the store has it, for good.

    Raises:
        ConfigError: If nothing is named, or something that cannot be.
        StoreError: If there is no store, or it could not be done.
    """
    orders = _orders(options)
    place = place_of(options.path)
    try:
        Inspection(place).close()
    except ForeignError as error:
        raise foreign(place, error) from error
    except DamagedError:
        pass  # opened by a cache, it is set aside with all that it holds
    asyncio.run(_carry_out(place, orders, "expired" if options.soft else "invalidated"))
    return 0


def _orders(options: argparse.Namespace) -> list[Order]:
    """Return what is to be done; all of it is checked before any of it is done."""
    agents, projects = options.agent, options.project
    named: list[tuple[list[str], str, str, Callable[[str], str]]] = [
        (options.keys, "the entry of {}", "invalidate", check_key),
        (options.pattern, "the keys that match {}", "invalidate_pattern", check_pattern),
        ([] if projects else agents, "the agent {}", "invalidate_agent", agent_id),
        ([] if agents else projects, "the project {}", "invalidate_project", _project),
        (options.tag, "the tag {}", "invalidate_tag", _tag),
        (options.file, "what was made from {}", "invalidate_file", _file),
    ]
    orders: list[Order] = [
        (what.format(name), methodcaller(verb, check(name), soft=options.soft))
        for names, what, verb, check in named
        for name in names
    ]
    for agent, project in product(agents, projects):
        verb = methodcaller("invalidate_agent", agent_id(agent), _project(project), soft=options.soft)
        orders.append((f"the agent {agent} in the project {project}", verb))
    if options.all:
        orders.append(("all entries", methodcaller("clear", soft=options.soft)))
    if not orders:
        raise ConfigError(
            "nothing to invalidate; name keys, or one of --pattern, --agent, --project, --tag, --file, --all"
        )
    return orders


def _project(text: str) -> str:
    """Return a project as verbs take it: the dots of a shell are paths, not names."""
    return check_project(Path(text) if text in {os.curdir, os.pardir} else text)


def _tag(text: str) -> str:
    check_tags((text,))
    return text


def _file(text: str) -> str:
    check_paths((text,), "file")
    return text


async def _carry_out(place: Place, orders: list[Order], word: str) -> None:
    store = SQLiteStore(place.folder)
    async with SharedPromptCache(store=store, name="command line") as cache:
        _check(cache, "nothing was invalidated")
        before = await store.stats()
        for what, verb in orders:
            await verb(cache)
            _check(cache, f"it is not certain that the store knows of this: {word} {what}")
            print(f"{word} {plain(what)}", flush=True)
        after = await store.stats()
    print(f"entries in the store: {before.entries:,} before, {after.entries:,} now")
    if after.corrupt:
        print(f"note: {place.database} was damaged; it was set aside with all that it held", file=sys.stderr)


def _check(cache: SharedPromptCache, consequence: str) -> None:
    """See that the store is in use: a cache would go on without it."""
    part = cache.health().parts["store"]
    if part.status != "ok":
        raise StoreError(f"{consequence}; {part.reason}", operation="invalidate")
