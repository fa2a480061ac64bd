"""Leases. In a thread, in a transaction.

Times are those of the monotonic clock, which is one for all processes of a host and begins anew when it is booted: a
lease that begins later than now is one from before that. So the clock is read inside the transaction: by a time read
before, a lease that another process was given meanwhile would be one of those.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from shared_prompt_cache.clock import Clock
from shared_prompt_cache.stores._protocol import Denial, Lease, LeaseRequest
from shared_prompt_cache.stores._selection import Selection
from shared_prompt_cache.stores._sqlite.schema import load_texts, to_bytes

_CHECKSUM: Final = "SELECT checksum FROM entries WHERE key = :key"
_STANDS: Final = "since <= :now AND :now < since + ttl"
_OF_ANOTHER: Final = f"SELECT 1 FROM leases WHERE key = :key AND holder != :holder AND {_STANDS}"  # noqa: S608 - constants
_HELD: Final = f"SELECT 1 FROM leases WHERE fence = :fence AND key = :key AND holder = :holder AND {_STANDS}"  # noqa: S608


def acquire(
    raw: sqlite3.Connection, requests: Sequence[LeaseRequest], holder: str, ttl: float, clock: Clock
) -> list[Lease | Denial]:
    """Give out the leases of keys that no other has; their holder gets new ones."""
    now = clock.monotonic()
    return [_acquire(raw, request, holder, ttl, now) for request in requests]


def _acquire(raw: sqlite3.Connection, request: LeaseRequest, holder: str, ttl: float, now: float) -> Lease | Denial:
    row = {
        "key": to_bytes(request.key),
        "holder": to_bytes(holder),
        "now": now,
        "ttl": ttl,
        "names": json.dumps(list(request.names)),
    }
    if raw.execute(_CHECKSUM, row).fetchone() != (None if request.seen is None else (request.seen,)):
        return "changed"
    if raw.execute(_OF_ANOTHER, row).fetchone():
        return "held"
    raw.execute("DELETE FROM leases WHERE key = :key", row)
    cursor = raw.execute(
        "INSERT INTO leases (key, holder, since, ttl, names) VALUES (:key, :holder, :now, :ttl, :names)", row
    )
    return Lease(request.key, holder, int(cursor.lastrowid or 0))


def renew(raw: sqlite3.Connection, leases: Sequence[Lease], ttl: float, clock: Clock) -> list[bool]:
    """Hold leases for longer, those that are held."""
    now = clock.monotonic()
    held = [is_held(raw, lease, now) for lease in leases]
    renewed = [(now, ttl, lease.fence) for lease, stands in zip(leases, held, strict=True) if stands]
    raw.executemany("UPDATE leases SET since = ?, ttl = ? WHERE fence = ?", renewed)
    return held


def is_held(raw: sqlite3.Connection, lease: Lease, now: float) -> bool:
    """Return whether this very lease stands, and its time is not up."""
    row = {"fence": lease.fence, "key": to_bytes(lease.key), "holder": to_bytes(lease.holder), "now": now}
    return raw.execute(_HELD, row).fetchone() is not None


def end(raw: sqlite3.Connection, leases: Sequence[Lease]) -> None:
    """End these very leases."""
    raw.executemany(
        "DELETE FROM leases WHERE fence = ? AND key = ? AND holder = ?",
        [(lease.fence, to_bytes(lease.key), to_bytes(lease.holder)) for lease in leases],
    )


def end_selected(raw: sqlite3.Connection, selection: Selection) -> None:
    """End those that an invalidation touches."""
    rows = raw.execute("SELECT fence, names FROM leases").fetchall()
    ended = [(fence,) for fence, names in rows if selection.selects(load_texts(names))]
    raw.executemany("DELETE FROM leases WHERE fence = ?", ended)


def end_expired(raw: sqlite3.Connection, now: float) -> None:
    """Forget those whose time is up, which nobody may ever ask for again."""
    raw.execute(f"DELETE FROM leases WHERE NOT ({_STANDS})", {"now": now})  # noqa: S608 - as above
