"""`ls PATH [PATTERN]` and `inspect PATH KEY`: what a store has, and whether it still holds."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from math import isfinite
from typing import Any, Final

from shared_prompt_cache._files.fingerprint import Dependency
from shared_prompt_cache.cli._store import MEANINGS, Found, Judge, damaged, look_into, place_of, tally
from shared_prompt_cache.cli._words import count, moment, plain, size, span
from shared_prompt_cache.keys import check_key, check_pattern
from shared_prompt_cache.stores._sqlite.schema import DamagedError

_LINE: Final = "{:<11}  {:>8}  {:>7}  {:>7}  {}"


def run_ls(path: str, pattern: str, *, as_json: bool) -> int:
    """Print a line for each entry whose key matches; return 0.

    Raises:
        CacheError: If there is no store, or it cannot be read.
    """
    check_pattern(pattern)
    place = place_of(path)
    states: Counter[str] = Counter()
    stored = 0
    with look_into(place) as inspection:
        judge = Judge(inspection.root)
        try:
            for key in inspection.matching(pattern):
                row = inspection.row(key)
                if row is None:
                    continue  # it went meanwhile
                found = judge.judge(row)
                if not states and not as_json:
                    print(_LINE.format("STATE", "SIZE", "AGE", "LEFT", "KEY"))
                print(json.dumps(facts(found)) if as_json else line(found))
                states[found.state] += 1
                stored += found.stored
        except DamagedError as error:
            raise damaged(place, error) from error
    if not as_json:
        for text in _sum(states, stored, pattern):
            print(text)
    if pattern == "*":  # of some entries alone it could not be told
        _hint(judge.hint(states.total(), states["not ours"]))
    return 0


def _sum(states: Counter[str], stored: int, pattern: str) -> Iterator[str]:
    if not states:
        yield "no entries" if pattern == "*" else f"no entries match {plain(pattern)}"
        return
    yield f"\n{count(states.total(), 'entry', 'entries')}, {size(stored)} in the store: {tally(states)}"
    for state, meaning in MEANINGS.items():
        if states[state] and state != "holds":
            yield f"  {state}: {meaning}"


def _hint(text: str | None) -> None:
    if text is not None:
        sys.stdout.flush()  # or else it would come first
        print(f"note: {text}", file=sys.stderr)


def line(found: Found) -> str:
    """Return an entry as one line; what is of any length comes last."""
    key, head = plain(found.entry.key), found.head
    if head is None:
        return _LINE.format(found.state, size(found.stored), "", "", key)
    labels = [f"{name} {plain(text)}" for name, text in (("agent", head.agent), ("project", found.project)) if text]
    if head.tags:
        labels.append(("tag " if len(head.tags) == 1 else "tags ") + ", ".join(map(plain, head.tags)))
    if found.files:
        labels.append(_files(found))
    now = time.time()
    left = "" if found.state == "expired" else span(head.expires_at - now)
    text = f"{key}  [{'; '.join(labels)}]" if labels else key
    return _LINE.format(found.state, size(head.raw_size), span(now - head.created_at), left, text)


def _files(found: Found) -> str:
    total = len(found.files)
    if not found.changed:
        return count(total, "file")
    return f"{found.changed} of {count(total, 'file')} changed"


def run_inspect(path: str, key: str, *, as_json: bool, with_value: bool) -> int:
    """Print what is known of one entry; return 0, or 1 if it is not there or cannot be read.

    Raises:
        CacheError: If there is no store, or it cannot be read.
    """
    check_key(key)
    place = place_of(path)
    with look_into(place) as inspection:
        judge = Judge(inspection.root)
        try:
            row = inspection.row(key)
        except DamagedError as error:
            raise damaged(place, error) from error
    if row is None:
        print(f"there is no entry of {key!r}", file=sys.stderr)
        return 1
    found = judge.judge(row)
    if as_json:
        print(json.dumps(facts(found, with_value=with_value), indent=2))
    else:
        for name, text in _described(found, with_value=with_value):
            print(f"{name:<9}  {text}")
        if with_value and found.unpacked is not None:
            value = found.unpacked.value
            print(f"\n{value if isinstance(value, str) else repr(value)}")
    if found.state == "not ours":
        _hint(f"your key {judge.key}")
    return 0 if found.unpacked is not None else 1


def _described(found: Found, *, with_value: bool) -> Iterator[tuple[str, str]]:
    entry, unpacked, now = found.entry, found.unpacked, time.time()
    yield "key", plain(entry.key)
    yield "state", f"{found.state}: {MEANINGS[found.state]}"
    if unpacked is None:
        yield "why", found.reason
        yield "size", f"{size(found.stored)} in the store"
        return
    head = unpacked.head
    yield "agent", plain(head.agent or "none")
    yield "project", plain(found.project or "none")
    yield "tags", ", ".join(map(plain, head.tags)) or "none"
    kind = type(unpacked.value).__qualname__
    yield "value", f"{kind}, {size(head.raw_size)}; {size(found.stored)} in the store, with all else ({entry.codec})"
    yield "made", f"{moment(head.created_at)}, {span(now - head.created_at)} ago"
    left = head.expires_at - now
    when = f"in {span(left)}" if left > 0 else f"{span(-left)} ago"
    yield "expires", f"{moment(head.expires_at)}, {when}" if isfinite(left) else "never"
    stamp = head.stamp
    yield "stamp", f"behind invalidation {stamp.sequence} of the journal, {stamp.number} of {plain(stamp.origin)}"
    files = [f"{_word(holds):<7}  {plain(file.path)}{_kind(file)}" for file, holds in found.files]
    yield from _listed("made from", [f"{'':<7}  the entry of {plain(key)}" for key, _ in head.consumed] + files)
    metadata = unpacked.metadata
    yield from _listed("metadata", [plain(f"{name}: {metadata[name]!r}" if with_value else name) for name in metadata])


def _listed(title: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    yield title, lines[0] if lines else "none"
    for text in lines[1:]:
        yield "", text


def _word(holds: bool) -> str:  # noqa: FBT001 - what is to be said of it
    return "holds" if holds else "changed"


def _kind(file: Dependency) -> str:
    if file.kind == "absent" or not (file.digest or file.pattern is None):
        return "  (was not there)"
    return "" if file.pattern is None else f"  (the names that match {plain(file.pattern)})"


def facts(found: Found, *, with_value: bool = False) -> dict[str, Any]:
    """Return an entry as what JSON can tell; times are seconds since the epoch, None is never."""
    known: dict[str, Any] = {"key": found.entry.key, "state": found.state, "stored_size": found.stored}
    if found.unpacked is None:
        return known | {"reason": found.reason}
    head = found.unpacked.head
    known |= {
        "size": head.raw_size,
        "type": type(found.unpacked.value).__qualname__,
        "codec": found.entry.codec,
        "agent": head.agent,
        "project": found.project,
        "tags": head.tags,
        "created_at": head.created_at,
        "expires_at": head.expires_at if isfinite(head.expires_at) else None,
        "stamp": {"sequence": head.stamp.sequence, "origin": head.stamp.origin, "number": head.stamp.number},
        "made_from": [key for key, _ in head.consumed],
        "files": [
            {"path": file.path, "kind": file.kind, "pattern": file.pattern, "holds": holds}
            for file, holds in found.files
        ],
        "metadata": list(found.unpacked.metadata),
    }
    if with_value:
        known["metadata"] = {name: _told(value) for name, value in found.unpacked.metadata.items()}
        known["value"] = _told(found.unpacked.value)
    return known


def _told(value: Any) -> Any:
    """Return a value as JSON tells it, or the text by which Python does where it has no words for it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return repr(value)
