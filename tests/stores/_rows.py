"""Rows for tests of a store: entries with a real checksum, stamps, and programs that use a store of their own."""

import asyncio
import hashlib
import math
import subprocess
import sys
import textwrap
from pathlib import Path

from shared_prompt_cache.clock import SystemClock
from shared_prompt_cache.stores import Notice, Selection, SQLiteStore, Stamp, StoredEntry, Write

PATIENCE = 60.0
TESTS = str(Path(__file__).parents[1])
ALL = Selection(names=("all",))


def checksum(key, payload):
    return hashlib.blake2b(key.encode() + b"\0" + payload, digest_size=16).digest()


def entry(key, payload=b"prompt"):
    return StoredEntry(key, "str", payload, b"head of " + key.encode(), checksum(key, payload))


def is_right(found):
    """Say whether an entry is one that `entry` made, as a codec would before it is believed."""
    return found.checksum == checksum(found.key, found.payload)


def write(key, payload=b"prompt", *, names=(), sequence=0, expires_at=math.inf, lease=None):
    all_names = ("all", f"key\x1f{key}", *names)
    return Write(entry(key, payload), all_names, Stamp(sequence, "here", 0), expires_at, lease)


def notice(selection=ALL, number=1):
    return Notice("elsewhere", number, selection, b"body")


async def opened(path, *, clock=None, changed=lambda: None, **options):
    store = SQLiteStore(path, **options)
    await store.open(clock or SystemClock(), changed)
    return store


async def put(store, *keys, payload=b"prompt", names=()):
    last = (await store.journal(0)).last
    assert all(await store.put_many([write(key, payload, names=names, sequence=last) for key in keys]))


async def in_transaction(store):
    """Say whether a connection of the store has a transaction open; waits for what its threads have to do before."""
    doors = store._doors
    answers = [await database.run(lambda one=database: one.in_transaction) for database in (doors.writer, doors.reader)]
    return any(answers)


PROGRAM = """
import asyncio, os, signal, sys, time
sys.path[:0] = {paths!r}
from _rows import *
from shared_prompt_cache.errors import StoreError

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell that started the tests ignores

async def main(path):
    store = await opened(path)
{body}

asyncio.run(main({path!r}))
"""


def start(path, body, *, warnings="error", **options):
    """Start a program that opens a store at `path` and goes on with `body`."""
    text = PROGRAM.format(
        paths=[TESTS + "/stores", TESTS], path=str(path), body=textwrap.indent(textwrap.dedent(body), "    ")
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-W", warnings, "-c", text], **(pipes | options))


async def line_of(program):
    """Return the next line that a program prints."""
    line = await asyncio.wait_for(asyncio.to_thread(program.stdout.readline), PATIENCE)
    assert line, (await asyncio.to_thread(program.communicate))[1]
    return line.strip()


async def end_of(program):
    """Wait for the end of a program; return its code, and what it wrote to stderr."""
    _, errors = await asyncio.to_thread(program.communicate, timeout=PATIENCE)
    return program.returncode, errors


def modes(folder):
    return {path.name: path.stat().st_mode & 0o7777 for path in folder.iterdir()}
