"""What the promises stand on: stores opened and closed, entries and stamps by a word."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Protocol

import pytest
import pytest_asyncio

from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.stores import (
    Lease,
    LeaseRequest,
    Notice,
    Selection,
    Stamp,
    Store,
    StoredEntry,
    Write,
)
from shared_prompt_cache.stores._protocol import Denial
from shared_prompt_cache.stores._selection import names_of, select_scopes
from shared_prompt_cache.testing._clock import ManualClock

MakeStore = Callable[[], Store]
HERE = "this cache"
ELSEWHERE = "another cache"


class OpenStore(Protocol):
    """Opens another store over the place of the test; it is closed at the end."""

    def __call__(self, changed: Callable[[], None] = ...) -> Awaitable[Store]: ...


@pytest.mark.asyncio
class Ground:
    """The fixtures."""

    max_size_mb: ClassVar[float | None] = 8.0
    most_remembered: ClassVar[int] = 10_000
    survives_closing: ClassVar[bool] = True

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """Return a function that makes stores over one place; a subclass says how."""
        return pytest.fail(f"{type(self).__name__} has no fixture make_store; StoreContract says what it returns")

    @pytest.fixture
    def clock(self) -> ManualClock:
        """Return the clock of all stores of the test."""
        return ManualClock()

    @pytest_asyncio.fixture
    async def open_store(self, make_store: MakeStore, clock: ManualClock) -> AsyncIterator[OpenStore]:
        """Open stores, and close them behind the test."""
        opened = []

        async def open_store(changed: Callable[[], None] = _ignore) -> Store:
            store = make_store()
            opened.append(store)
            await store.open(clock, changed)
            return store

        yield open_store
        for store in opened:
            await store.aclose()

    @pytest_asyncio.fixture
    async def store(self, open_store: OpenStore) -> Store:
        """Return an open store."""
        return await open_store()

    @pytest_asyncio.fixture
    async def other(self, open_store: OpenStore) -> Store:
        """Return the open store of another cache, over the same place."""
        return await open_store()


@asynccontextmanager
async def meanwhile(call: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a call beside the block; it is waited for, or ended if the block fails."""
    task = asyncio.ensure_future(call)
    try:
        yield task
        await task
    finally:
        task.cancel()
        await asyncio.wait({task})


def _ignore() -> None:
    pass


def entry(
    key: str, payload: bytes = b"payload", *, codec: str = "str", head: bytes = b"head", checksum: bytes | None = None
) -> StoredEntry:
    """Return an entry; without a checksum it gets one that its payload tells."""
    return StoredEntry(key, codec, payload, head, b"sum of " + payload[:16] if checksum is None else checksum)


def names(
    key: str, *scopes: tuple[str, ...], paths: Collection[str] = (), made_from: Collection[tuple[str, bool]] = ()
) -> tuple[str, ...]:
    """Return the names of an entry; without an agent among its scopes it counts as one without."""
    unowned = all(scope[0] != "agent" for scope in scopes)
    return names_of(key, (("all",), *scopes), made_from, paths, unowned=unowned)


def write(
    what: StoredEntry | str,
    stamp: Stamp,
    *,
    names_: Collection[str] | None = None,
    expires_at: float = math.inf,
    lease: Lease | None = None,
) -> Write:
    """Return a write of an entry, or of any entry of a key."""
    stored = entry(what) if isinstance(what, str) else what
    return Write(stored, tuple(names(stored.key) if names_ is None else names_), stamp, expires_at, lease)


async def now(store: Store, origin: str = HERE, number: int = 0) -> Stamp:
    """Return the stamp of a computation that begins now."""
    return Stamp((await store.journal(0)).last, origin, number)


async def put(store: Store, *what: StoredEntry | str, names_: Collection[str] | None = None) -> None:
    """Put entries that begin now, which nothing speaks against."""
    stamp = await now(store)
    writes = [write(one, stamp, names_=names_) for one in what]
    answers = await store.put_many(writes)
    refused = [one.entry.key for one, was_put in zip(writes, answers, strict=True) if not was_put]
    assert not refused, f"put_many refused {refused!r}, although nothing was invalidated since their stamp"


async def ask(
    store: Store, key: str, holder: str, names_: Collection[str] | None = None, *, ttl: float = 60
) -> Lease | Denial:
    """Ask for the lease of a key, with the entry that is there as what was seen."""
    found = await store.get(key)
    wanted = tuple(names(key) if names_ is None else names_)
    (answer,) = await store.acquire([LeaseRequest(key, wanted, None if found is None else found.checksum)], holder, ttl)
    return answer


async def lend(store: Store, key: str, holder: str, names_: Collection[str] | None = None, *, ttl: float = 60) -> Lease:
    """Return the lease of a key, which nobody holds."""
    answer = await ask(store, key, holder, names_, ttl=ttl)
    assert isinstance(answer, Lease), f"acquire answered {answer!r} for the lease of {key!r}, which nobody holds"
    return answer


async def renewed(store: Store, lease: Lease, ttl: float = 60) -> bool:
    """Renew one lease; return whether it is held."""
    (held,) = await store.renew([lease], ttl)
    return held


def notice(selection: Selection, *, origin: str = ELSEWHERE, number: int = 1, body: bytes = b"") -> Notice:
    """Return a notice."""
    return Notice(origin, number, selection, body)


def of_scope(*scope: str) -> Selection:
    """Return the selection of one scope."""
    return select_scopes([scope])


async def kept(store: Store) -> list[str]:
    """Return all keys."""
    return await store.keys(most=1_000_000)


async def fails(call: Awaitable[object]) -> bool:
    """Return whether a call raises `StoreError`."""
    try:
        await call
    except StoreError:
        return True
    return False
