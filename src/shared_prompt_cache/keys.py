"""Keys and the patterns that select them.

A key is a non-empty string of at most 1,024 characters. The builders below make keys that are unambiguous (no two
lists of parts share one; lists and tuples count as alike) and stable (the same parts give the same key in every
process and on every day).
A pattern is a shell glob over whole keys, case-sensitive: `*`, `?`, `[abc]`, `[!abc]`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from enum import Enum, Flag
from functools import lru_cache
from typing import Final, Literal

from shared_prompt_cache._naming import shown
from shared_prompt_cache.errors import CacheKeyError

MAX_KEY_LENGTH: Final = 1024
_SPECIAL = re.compile(r"([*?[])")
_PERIODS: Final = {"minute": "%Y-%m-%d_%H-%M", "hour": "%Y-%m-%d_%H", "day": "%Y-%m-%d", "month": "%Y-%m"}


def check_key(key: object) -> str:
    """Return `key` if it can be one.

    Raises:
        CacheKeyError: If it is no string, empty, or longer than 1,024 characters.
    """
    if not isinstance(key, str):
        raise CacheKeyError(f"the key {shown(key)} is no string; build one with keys.of(...)", key=key)
    if not key:
        raise CacheKeyError("the key is empty; give it at least one character", key=key)
    if len(key) > MAX_KEY_LENGTH:
        raise CacheKeyError(
            f"the key {key[:40]!r}... has {len(key)} characters, at most {MAX_KEY_LENGTH} are allowed; "
            "build a short one with keys.of(...)",
            key=key,
        )
    return key


def glob_escape(text: str) -> str:
    """Return a pattern that matches `text` and nothing else."""
    if not isinstance(text, str):
        raise CacheKeyError(f"the text {shown(text)} is no string; give the text that a key has", key=text)
    return _SPECIAL.sub(r"[\1]", text)


def check_pattern(pattern: object) -> str:
    """Return `pattern` if it can be one.

    Raises:
        CacheKeyError: If it is no string, empty, or longer than any escaped key could be.
    """
    if not isinstance(pattern, str) or not pattern:
        raise CacheKeyError(
            f"the pattern {shown(pattern)} is no non-empty string; give a glob such as 'engineer_*'", key=pattern
        )
    if len(pattern) > 3 * MAX_KEY_LENGTH:
        raise CacheKeyError(
            f"the pattern {pattern[:40]!r}... has {len(pattern)} characters, at most {3 * MAX_KEY_LENGTH} are allowed; "
            "shorten it with *",
            key=pattern,
        )
    return pattern


@lru_cache(maxsize=256)
def glob_matcher(pattern: str) -> Callable[[str], object]:
    """Return a function that is truthy for the keys that `pattern` selects."""
    try:
        return re.compile(fnmatch.translate(pattern)).match
    except re.error as error:
        raise CacheKeyError(
            f"the pattern {pattern!r} cannot be read ({error}); escape literal text with glob_escape()", key=pattern
        ) from error


def literal_prefix(pattern: str) -> str:
    """Return the text that every key selected by `pattern` begins with."""
    found = _SPECIAL.search(pattern)
    return pattern if found is None else pattern[: found.start()]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _is_a(part: object, module: str, name: str) -> bool:
    """Return whether `part` is an instance of a class of a module that somebody has loaded; who has one, has."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(part, kind)


def _type_name(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _text(part: object) -> str:  # noqa: C901, PLR0911, PLR0912 - one line for each type is the clearest table
    """Return a text that is equal for equal parts and different for different ones, in every process."""
    match part:
        case str():
            return "s" + _quoted(str.__str__(part))
        case None | bool():
            return repr(part)
        case Flag():  # some combinations have no name
            return f"e{_type_name(part)}:{part.value!r}"
        case Enum():  # names made by Enum("E", [...]) may hold anything
            return f"e{_type_name(part)}.{_quoted(part.name)}"
        case int():  # hexadecimal has no limit of digits; int's own method, whatever a subclass says
            return "i" + int.__format__(part, "x")
        case float():
            return "f" + float.__repr__(part)
        case bytes():
            return "b" + part.hex()
        case datetime() | date() | time():
            return f"t{type(part).__name__}:{part.isoformat()}"
        case timedelta():
            return f"d{part.days}:{part.seconds}:{part.microseconds}"
        case _ if (
            _is_a(part, "decimal", "Decimal") or _is_a(part, "uuid", "UUID") or _is_a(part, "pathlib", "PurePath")
        ):
            return f"{type(part).__name__}:{_quoted(str(part))}"
        case Mapping():
            return "{" + ",".join(sorted(f"{_text(k)}:{_text(v)}" for k, v in part.items())) + "}"
        case AbstractSet():
            return "<" + ",".join(sorted(map(_text, part))) + ">"
        case Sequence():
            return "[" + ",".join(map(_text, part)) + "]"
        case _ if is_dataclass(part) and not isinstance(part, type):
            return _type_name(part) + _text({field.name: getattr(part, field.name) for field in fields(part)})
    raise CacheKeyError(
        f"a part of type {type(part).__qualname__} has no stable text form; "
        "give strings, numbers, dates, enums, dataclasses, or lists, sets and mappings of them",
        key=part,
    )


def _digest(*parts: object) -> str:
    try:
        text = ",".join(map(_text, parts))
    except RecursionError:
        raise CacheKeyError("a part contains itself or is nested too deeply; give flat parts", key=None) from None
    except CacheKeyError:
        raise
    except Exception as error:  # the caller's own containers, dataclasses and time zones
        raise CacheKeyError(f"a part cannot be read ({error}); give plain strings and numbers", key=None) from error
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _head(name: str, what: str) -> str:
    if not isinstance(name, str) or not name:
        raise CacheKeyError(f"{what} is {shown(name)}; give a non-empty string", key=name)
    return name[:200]


def agent(agent: str, context: object = None, version: object = None) -> str:
    """Return a key for a prompt of an agent: `{agent}_{hash of agent, context and version}`."""
    return f"{_head(agent, 'the agent')}_{_digest('agent', agent, context, version)}"


def project(project: str, memory: object = None) -> str:
    """Return a key for content of a project: `project_{project}_{hash of project and memory}`."""
    return f"project_{_head(project, 'the project')}_{_digest('project', project, memory)}"


def temporal(operation: str, at: datetime, every: Literal["minute", "hour", "day", "month"] = "hour") -> str:
    """Return a key that changes with each minute, hour, day or month: `{operation}_{date}_{hour}_{hash}`.

    Args:
        operation: What is cached.
        at: The moment; aware moments that are the same instant in different zones give different keys.
        every: How long a key lasts.
    """
    form = _PERIODS.get(every) if isinstance(every, str) else None
    if form is None:
        raise CacheKeyError(f"every is {shown(every)}; give 'minute', 'hour', 'day' or 'month'", key=every)
    if not isinstance(at, datetime):
        raise CacheKeyError(f"at is {shown(at)}; give a datetime", key=at)
    period = at.strftime(form)
    return f"{_head(operation, 'the operation')}_{period}_{_digest('temporal', operation, period, at.strftime('%z'))}"


def of(*parts: object) -> str:
    """Return a key for any parts that have a stable text form.

    The key is the first part, if it is a string, and the hash of all parts.

    Raises:
        CacheKeyError: If there is no part, or one has no stable text form (a plain object, a function).
    """
    if not parts:
        raise CacheKeyError("keys.of() got no parts; give at least one", key=None)
    first = parts[0]
    head = first[:200] + "_" if isinstance(first, str) and first else ""
    return head + _digest("of", *parts)
