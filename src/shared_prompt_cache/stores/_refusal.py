"""Why a value cannot be kept in a store: where in it, what lies there, and what to keep instead."""

from collections.abc import Collection
from dataclasses import is_dataclass
from datetime import tzinfo
from enum import Enum
from os import PathLike
from types import MappingProxyType
from typing import Final

from shared_prompt_cache._naming import shown
from shared_prompt_cache.errors import SerializationError

Step = tuple[str, str]
"""What to put before and after the name of a container to name something in it."""
_MOST_STEPS: Final = 8
_MOST_NAMED: Final = 60
KEEP_PLAIN: Final = (
    "keep None, bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, the types of datetime, "
    "UUID and Decimal"
)


class Refusal(Exception):  # noqa: N818 - it becomes an error when the way to what is refused is known
    """What cannot be kept, on its way out of the value.

    Attributes:
        reason: What is said of the place, and the remedy.
        steps: The way to it from inside outwards; each level adds its own.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[Step] = []

    def error(self, name: str) -> SerializationError:
        """Return the error for a value that is called `name`."""
        for before, after in self.steps[: -_MOST_STEPS - 1 : -1]:
            name = before + name + after
        if len(self.steps) > _MOST_STEPS:
            name += "..."
        return SerializationError(f"{name} {self.reason}", where=name)


def too_deep(most: int) -> Refusal:
    """Return the refusal of what lies deeper than `most` levels."""
    return Refusal(
        f"lies more than {most} levels deep, or the value contains itself; keep a flatter value, with keys or ids in "
        "place of references"
    )


def too_large(most: int) -> Refusal:
    """Return the refusal of what takes more than `most` bytes."""
    return Refusal(
        f"takes more than {most // 2**20} MiB, which no store keeps; keep a smaller value, or several under keys of "
        "their own"
    )


def foreign(value: object, known: Collection[type]) -> Refusal:
    """Return the refusal of a value whose type is none of those in `known`."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return Refusal(f"is of type {name}, which a store cannot give back as it was; {_remedy(value, known)}")


def item(key: object) -> Step:
    """Return the step to the member of a dict, or of a list, that has this key."""
    text = shown(key)
    return "", f"[{text if len(text) <= _MOST_NAMED else text[:_MOST_NAMED] + '...'}]"


def attribute(name: str) -> Step:
    """Return the step to an attribute."""
    return "", f".{name}"


def nth(number: int) -> Step:
    """Return the step to a member of a set, or to a key of a dict."""
    return "list(", f")[{number}]"


def _remedy(value: object, known: Collection[type]) -> str:
    if isinstance(value, Enum):
        return "keep its value or its name"
    if is_dataclass(value) and not isinstance(value, type):
        return "keep dataclasses.asdict(...) of it"
    if isinstance(value, MappingProxyType):
        return "keep dict(...) of it"
    if isinstance(value, PathLike):
        return "keep its text, os.fspath(...)"
    if isinstance(value, tzinfo):
        return "use a zoneinfo.ZoneInfo or a datetime.timezone"
    base = next((kind for kind in type(value).__mro__ if kind in known), None)
    return KEEP_PLAIN if base is None else f"keep a plain {base.__name__} in its place"
