"""The options of one call, read and checked once, at the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from math import inf
from os import PathLike, fspath
from typing import Any, Final, Generic, Literal, TypeVar

from shared_prompt_cache._core.entry import Labels
from shared_prompt_cache._naming import is_path, shown
from shared_prompt_cache.clock import seconds
from shared_prompt_cache.errors import ConfigError, ConfigTypeError

T = TypeVar("T")
Freshness = Literal["strict", "events"]
Span = float | timedelta | None
Paths = str | PathLike[str] | Iterable[str | PathLike[str]]
_MEGABYTE: Final = 1 << 20
_TTL_REMEDY: Final = "give seconds, a timedelta, math.inf for never, or None for the default"


class Computed(Generic[T]):
    """What a `compute` may return instead of the bare value, to say how the value is to be kept.

    Args:
        value: The value; callers get it alone.
        ttl: Its time to live, instead of the one of the call.
        metadata: Its metadata, instead of that of the call.
        tags: More tags, beside those of the call.
        keep: False: hand the value to those who wait and keep it nowhere.
    """

    __slots__ = ("keep", "metadata", "tags", "ttl", "value")

    def __init__(
        self,
        value: T,
        *,
        ttl: Any = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        keep: bool = True,
    ) -> None:
        self.value = value
        self.ttl = None if ttl is None else seconds(ttl, "ttl", remedy=_TTL_REMEDY)
        self.metadata = check_metadata(metadata)
        self.tags = check_tags(tags)
        self.keep = keep


class Making:
    """How a value is to be kept: the options that belong to the call that makes it, checked.

    Attributes:
        ttl: Seconds.
        metadata: As given.
        depends_on: Paths declared by the caller.
        hard_timeout: Seconds, None for none.
        cache_errors_for: Seconds for which a failure is kept, 0 for not at all.

    Args:
        default_ttl: In place of a `ttl` that is None.
    """

    __slots__ = ("cache_errors_for", "depends_on", "hard_timeout", "metadata", "ttl")

    def __init__(
        self,
        default_ttl: float,
        ttl: Span,
        metadata: Mapping[str, Any] | None,
        depends_on: Paths = (),
        hard_timeout: Span = None,
        cache_errors_for: Span = None,
    ) -> None:
        self.ttl = default_ttl if ttl is None else check_ttl(ttl)
        self.metadata = check_metadata(metadata)
        self.depends_on = () if depends_on is None or depends_on == () else check_paths(depends_on)
        self.hard_timeout = None if hard_timeout is None else seconds(hard_timeout, "hard_timeout")
        self.cache_errors_for = (
            0.0 if cache_errors_for is None else seconds(cache_errors_for, "cache_errors_for", zero=True)
        )


class Call:
    """One call of `get_or_compute` that was not answered at once; its options, checked.

    Attributes:
        key: The key.
        compute: The async function.
        labels: What the value will be filed under.
        making: How it is to be kept.
        strict: Whether files are proved at the read.
        stale_for: Seconds, 0 for never stale.
        soft_timeout: Seconds, None for not waiting at all where a stale value can be had.
        refresh_ahead: Fraction of the time to live, None for no refresh.
    """

    __slots__ = ("compute", "key", "labels", "making", "refresh_ahead", "soft_timeout", "stale_for", "strict")

    def __init__(
        self,
        key: str,
        compute: Callable[[], Any],
        labels: Labels,
        making: Making,
        strict: bool,  # noqa: FBT001 - made in one place, on the path of a miss
        stale_for: Span,
        soft_timeout: Span,
        refresh_ahead: float | None,
    ) -> None:
        check_compute(compute)
        self.key = key
        self.compute = compute
        self.labels = labels
        self.making = making
        self.strict = strict
        self.stale_for = 0.0 if stale_for is None else seconds(stale_for, "stale_for", zero=True)
        self.soft_timeout = None if soft_timeout is None else seconds(soft_timeout, "soft_timeout", zero=True)
        self.refresh_ahead = None if refresh_ahead is None else check_fraction(refresh_ahead)


def check_ttl(ttl: Any) -> float:
    """Return a time to live in seconds."""
    return seconds(ttl, "ttl", remedy=_TTL_REMEDY)


def check_metadata(metadata: object) -> Mapping[str, Any] | None:
    """Return metadata if it can be one."""
    if metadata is None or isinstance(metadata, Mapping):
        return metadata
    raise ConfigTypeError(f"metadata is {shown(metadata)}; give a mapping", field="metadata")


def check_keys(keys: Iterable[str]) -> Iterable[str]:
    """Return keys if they are several; each is checked when it is used."""
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        raise ConfigTypeError(f"keys is {shown(keys)}; give a list of keys", field="keys")
    return keys


def check_tags(tags: object) -> frozenset[str]:
    """Return tags as a set."""
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise ConfigTypeError(f"tags is {shown(tags)}; give a list of strings", field="tags")
    found = tuple(tags)
    for tag in found:
        if not isinstance(tag, str):
            raise ConfigTypeError(f"the tag {shown(tag)} is no string; give strings", field="tags")
        if not tag:
            raise ConfigError("a tag is empty; give it at least one character", field="tags")
    return frozenset(found)


def check_paths(paths: object, field: str = "depends_on") -> tuple[str | PathLike[str], ...]:
    """Return paths as a tuple; one path alone is fine."""
    if isinstance(paths, str | PathLike):
        paths = (paths,)
    if not isinstance(paths, Iterable) or isinstance(paths, bytes):
        raise ConfigTypeError(f"{field} is {shown(paths)}; give paths", field=field)
    found = tuple(paths)
    for path in found:
        if not isinstance(path, str | PathLike) or not isinstance(fspath(path), str):
            raise ConfigTypeError(f"{field} holds {shown(path)}; give paths as str or Path", field=field)
        if not is_path(fspath(path)):
            raise ConfigError(f"{field} holds {shown(path)}, which cannot name a file; give a path", field=field)
    return found


def check_freshness(freshness: object) -> bool:
    """Return whether freshness is strict."""
    if freshness == "strict":
        return True
    if freshness == "events":
        return False
    raise ConfigError(f"freshness is {shown(freshness)}; give 'strict' or 'events'", field="freshness")


def check_fraction(refresh_ahead: object) -> float:
    """Return the part of the time to live after which a hit starts a refresh."""
    if isinstance(refresh_ahead, bool) or not isinstance(refresh_ahead, int | float):
        raise ConfigTypeError(f"refresh_ahead is {shown(refresh_ahead)}; give a fraction", field="refresh_ahead")
    if not 0 < refresh_ahead < 1:
        raise ConfigError(
            f"refresh_ahead is {shown(refresh_ahead)}; give a part of the time to live between 0 and 1, such as 0.8",
            field="refresh_ahead",
        )
    return float(refresh_ahead)


def check_count(count: object, field: str, *, least: int = 1) -> int:
    """Return a whole number of at least `least`."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise ConfigTypeError(f"{field} is {shown(count)}; give a whole number", field=field)
    if count < least:
        raise ConfigError(f"{field} is {shown(count)}; give {least} or more", field=field)
    return count


def check_megabytes(size: object, field: str) -> int | None:
    """Return a limit that is given in megabytes, of 1,048,576 bytes, in bytes; None for none."""
    if size is None:
        return None
    if not isinstance(size, int | float) or isinstance(size, bool):
        raise ConfigTypeError(f"{field} is {shown(size)}; give megabytes, or None", field=field)
    if not 0 < size < inf:
        raise ConfigError(f"{field} is {shown(size)}; give more than 0, or None", field=field)
    return int(size * _MEGABYTE)


def check_compute(compute: object) -> None:
    """Refuse what cannot be called; a plain function is known only by what it returns."""
    if not callable(compute):
        raise ConfigTypeError(
            f"compute is {shown(compute)}, which cannot be called; give an async function", field="compute"
        )


def sync_compute(compute: object) -> str:
    """Return the message for a compute that is no async function."""
    name = getattr(compute, "__qualname__", None) or shown(compute)
    return f"compute {name} is a plain function; give an async one, or `lambda: asyncio.to_thread({name})`"
