"""Patterns over paths, as watch rules use them: read once, checked, turned into regular expressions.

`rules.py` describes the language. Two things are made of a pattern: one expression for the whole path of a file, and
one for each folder on the way, so that a walk goes only where a match can lie.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shared_prompt_cache._naming import shown
from shared_prompt_cache.errors import ConfigError, ConfigTypeError

_MAX_LENGTH: Final = 1024
_SPECIAL: Final = frozenset("*?[{")
_ITEM: Final = re.compile(r"\{agent\}|\[!?+(?:\][^\]]*|[^\]]+)\]|.", re.DOTALL)
_AGENT: Final = "(?P<agent>[^/]+)"


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern, read.

    Attributes:
        regex: Matches the whole relative path of a file; the group `agent` is the captured one.
        folders: Match the names of the folders on the way, as far as the first `**`.
        literals: The leading segments that are plain names, the file's too.
        prefix: Those of them that are folders.
        depth: How many folders below the prefix a match can lie at most; None: any number.
        captures: Whether there is a group `agent`.
    """

    regex: re.Pattern[str]
    folders: tuple[re.Pattern[str], ...]
    literals: tuple[str, ...]
    prefix: tuple[str, ...]
    depth: int | None
    captures: bool


def check(pattern: object, name: str) -> str:
    """Return `pattern` if it is a relative path of segments; `read` looks into those.

    Raises:
        ConfigError: If not; `name` is the field that the error names.
    """
    if not isinstance(pattern, str):
        raise ConfigTypeError(f"{name} is {shown(pattern)}; give a pattern such as 'agents/*.md'", field=name)
    if not pattern:
        trouble = "is empty; give one such as 'agents/*.md'"
    elif len(pattern) > _MAX_LENGTH:
        trouble = f"has more than {_MAX_LENGTH} characters; shorten it with **"
    elif pattern.startswith(("/", "~/")):
        trouble = "is not relative; give its folder as the root"
    elif "\\" in pattern or "\0" in pattern:
        trouble = "has a \\ or a NUL in it; write / between folders"
    elif not {"", ".", ".."}.isdisjoint(pattern.split("/")):
        trouble = "has an empty segment, . or ..; write each folder once, from the root down"
    else:
        return pattern
    raise ConfigError(f"{name} {shown(pattern)} {trouble}", field=name)


@lru_cache(maxsize=1024)
def read(pattern: str, name: str) -> Glob:
    """Return a pattern that `check` has passed, read.

    Raises:
        ConfigError: If one of its segments cannot be read; `name` is the field that the error names.
    """
    *folders, file = pattern.split("/")
    if file == "**":
        folders, file = [*folders, "**"], "*"
    texts = [segment if segment == "**" else _segment(segment, pattern, name) for segment in (*folders, file)]
    if sum(text.count(_AGENT) for text in texts) > 1:
        raise ConfigError(f"{name} {pattern!r} captures {{agent}} twice; write it once", field=name)
    blocks = [""]
    for text in texts[:-1]:
        if text != "**":
            blocks[-1] += text + "/"
        elif blocks[-1] or len(blocks) == 1:  # two ** in a row say no more than one
            blocks.append("")
    blocks[-1] += texts[-1]
    literals: list[str] = []
    for segment in (*folders, file):
        if not _SPECIAL.isdisjoint(segment):
            break
        literals.append(segment)
    regex = re.compile(_join(blocks, "(?:[^/]+/)*"))
    prefix = tuple(literals[: len(folders)])
    level = folders.index("**") if "**" in folders else len(folders)
    return Glob(
        regex=regex,
        folders=tuple(map(re.compile, texts[:level])),
        literals=tuple(literals),
        prefix=prefix,
        depth=None if "**" in folders else len(folders) - len(prefix),
        captures="agent" in regex.groupindex,
    )


@lru_cache(maxsize=1024)
def exclusion(patterns: tuple[str, ...], name: str) -> re.Pattern[str] | None:
    """Return the expression of all files and folders that the patterns match, and of everything below those.

    Raises:
        ConfigError: If one cannot be read or captures an agent; `name` is the field that the error names.
    """
    if not patterns:
        return None
    globs = [read(pattern.removesuffix("/**"), name) for pattern in patterns]
    if any(glob.captures for glob in globs):
        raise ConfigError(f"{name} is {shown(patterns)}; write * instead of {{agent}}", field=name)
    return re.compile(f"(?s:(?:{'|'.join(glob.regex.pattern for glob in globs)})(?:/.*)?)")


def _segment(segment: str, pattern: str, name: str) -> str:
    """Return the regular expression of one segment."""
    blocks = [""]
    items = _ITEM.findall(segment)
    for item in items:
        if item == "*":
            blocks.append("")
        elif item == "?":
            blocks[-1] += "[^/]"
        elif item == "{agent}":
            blocks[-1] += _AGENT
        elif item == "{":
            raise ConfigError(
                f"{name} {pattern!r} has a brace that is not {{agent}}; write one rule for each alternative, "
                "and [{] for a plain brace",
                field=name,
            )
        elif item == "[":
            raise ConfigError(f"{name} {pattern!r} has a [ without its ]; write [[] for a plain one", field=name)
        else:
            blocks[-1] += _class(item, pattern, name) if item[0] == "[" else re.escape(item)
    if "**" in "".join(item[0] for item in items):
        raise ConfigError(f"{name} {pattern!r} has ** beside other text; write it as a segment of its own", field=name)
    # A capture takes as much as it can and gives back, so the blocks around it must be able to move.
    return "[^/]*".join(blocks) if "{agent}" in items else _join(blocks, "[^/]*")


def _class(item: str, pattern: str, name: str) -> str:
    """Return the regular expression of `[abc]`, `[a-z]` or `[!abc]`."""
    body = item[1:-1].removeprefix("!")
    parts: list[str] = []
    while body:
        if len(body) > 2 and body[1] == "-":  # noqa: PLR2004 - both ends and the dash
            low, high, body = body[0], body[2], body[3:]
            if low > high:
                raise ConfigError(f"{name} {pattern!r} has a range that runs backwards: {item}; turn it", field=name)
            parts.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            parts.append(re.escape(body[0]))
            body = body[1:]
    return f"(?!/)[{'^' if item.startswith('[!') else ''}{''.join(parts)}]"


def _join(blocks: list[str], gap: str) -> str:
    """Return blocks with gaps between them, of which each but the last takes the least it can, for good.

    The earliest place of a block leaves the most room to those after it, so nothing is missed by not trying the later
    ones, and no pattern takes a number of steps that grows with a power of its gaps.
    """
    if len(blocks) == 1:
        return blocks[0]
    first, *middle, last = blocks
    return first + "".join(f"(?>{gap}?{block})" for block in middle) + gap + last
