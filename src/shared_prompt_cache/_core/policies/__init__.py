"""Which entry goes when there is no room: one policy a module.

A policy owns the table of the entries, because for some of them the order of the table is the policy. It lends the
cache a bound `touch` that a hit calls with the key.
"""

from collections.abc import Callable, MutableMapping
from typing import Final, Protocol

from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache._core.policies.lru import LRU


class Policy(Protocol):
    """An eviction policy.

    Attributes:
        entries: The table of the entries. The policy is told of every change by it being made there.
        touch: Called with the key of each hit; a C function where possible.
    """

    @property
    def entries(self) -> MutableMapping[str, Entry]: ...

    @property
    def touch(self) -> Callable[[str], object]: ...

    def victim(self) -> str | None:
        """Return the key of the entry that goes next, None if there is none."""
        ...


POLICIES: Final[dict[str, Callable[[], Policy]]] = {"lru": LRU}
