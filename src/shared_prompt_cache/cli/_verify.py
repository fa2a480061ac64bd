"""`verify PATH [--repair]`: whether a store is sound, and what becomes of it if it is not."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Final

from shared_prompt_cache.cli._store import Found, Judge, foreign, place_of, tally
from shared_prompt_cache.cli._words import count, plain, size
from shared_prompt_cache.clock import SystemClock
from shared_prompt_cache.errors import StoreError
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.stores._sqlite.inspection import Inspection
from shared_prompt_cache.stores._sqlite.place import Identity, Place, PlaceLock
from shared_prompt_cache.stores._sqlite.schema import DamagedError, ForeignError

_MOST_TOLD: Final = 20
_PORTION: Final = 256
_PATIENCE: Final = 5.0


class _Report:
    """What was found.

    Attributes:
        faults: What is wrong with the database as such.
        states: How many entries there are of each state.
        bad: Why an entry is to be removed, and its checksum, by key.
        judge: Who judged the entries, None if it did not come to that.
    """

    def __init__(self) -> None:
        self.judge: Judge | None = None
        self.faults: list[str] = []
        self.states: Counter[str] = Counter()
        self.bad: dict[str, tuple[str, bytes]] = {}


def run(path: str, *, repair: bool) -> int:
    """Print whether a store is sound; return 0 if it is, 1 if damage was found, and 2 if none of it is ours.

    Raises:
        CacheError: If there is no store, if it is another's, or if it cannot be read.
    """
    place = place_of(path)
    identity = place.identity()
    _tell("store", f"{place.database}, {size(place.bytes_on_disk())}")
    report = _look(place)
    if place.identity() != identity:
        raise StoreError(f"{place.database} was replaced while it was looked at; look again", operation="verify")
    if report.faults:
        _tell("database", f"damaged: {report.faults[0]}", *report.faults[1:])
        _tell("repaired", _set_aside(place, identity)) if repair else _tell("", "--repair sets it aside")
        return 1
    _tell("database", "sound")
    total = report.states.total()
    _tell("entries", f"{total:,}: {tally(report.states)}" if total else "none")
    hint = report.judge and report.judge.hint(total, report.states["not ours"])
    if hint is not None:
        sys.stdout.flush()  # or else it would come first
        print(f"error: {hint} Nothing is said of them, and nothing is repaired.", file=sys.stderr)
        return 2
    if not report.bad:
        return 0
    told = [f"{key}: {reason}" for key, (reason, _) in islice(report.bad.items(), _MOST_TOLD)]
    more = len(report.bad) - len(told)
    _tell("damaged", *told, *([f"and {more:,} more"] if more else []))
    _tell("repaired", _remove(place, report.bad)) if repair else _tell("", "--repair removes what is damaged")
    return 1


def _tell(title: str, *texts: str) -> None:
    for text in texts:
        print(f"{title:<9}  {plain(text)}", flush=True)
        title = ""


def _look(place: Place) -> _Report:
    report = _Report()
    try:
        with Inspection(place) as inspection:
            judge = report.judge = Judge(inspection.root)
            report.faults += inspection.faults()
            for key in inspection.matching("*"):
                row = inspection.row(key)
                if row is not None:  # else it went meanwhile
                    _note(report, judge.judge(row))
    except ForeignError as error:
        raise foreign(place, error) from error
    except DamagedError as error:
        report.faults.append(str(error))
    return report


def _note(report: _Report, found: Found) -> None:
    report.states[found.state] += 1
    reason = found.reason
    if found.head is not None and not found.row.is_found_by(found.head.names):
        reason = "invalidations do not find it by all that it was made from"
    if reason:
        report.bad[found.entry.key] = (reason, found.entry.checksum)


def _set_aside(place: Place, identity: Identity | None) -> str:
    """Set the database aside, as a store does that finds it damaged; return what was done."""
    lock = PlaceLock(place, _PATIENCE, lambda: False)
    try:
        with lock:
            if place.identity() != identity:
                return "nothing: a cache that uses it has set it aside meanwhile"
            aside = place.set_aside(f"{time.time():.0f}")
    except OSError as error:
        raise StoreError(f"{place.database} could not be set aside: {error}", operation="repair") from error
    finally:
        lock.close()
    return f"set aside as {aside}; whoever uses the store begins an empty one"


def _remove(place: Place, bad: Mapping[str, tuple[str, bytes]]) -> str:
    """Remove the bad entries, unless others have come in their places; return what was done."""
    removed = asyncio.run(_delete(place, {key: checksum for key, (_, checksum) in bad.items()}))
    replaced = len(bad) - removed
    return f"removed {count(removed, 'entry', 'entries')}" + (f"; {replaced:,} went meanwhile" if replaced else "")


async def _delete(place: Place, checksums: Mapping[str, bytes]) -> int:
    store, keys = SQLiteStore(place.folder), list(checksums)
    await store.open(SystemClock(), lambda: None)
    try:
        removed = 0
        for start in range(0, len(keys), _PORTION):  # in between, others have their turn
            removed += await store.delete(keys[start : start + _PORTION], checksums=checksums)
        return removed
    finally:
        await store.aclose()
