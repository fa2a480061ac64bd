"""Promotion: what the store has comes into memory, judged as if it had just been computed.

A block, a `Flight` without a task, stands for the computation: it notes its revision before the look-up, is filled by
the tier with what the row was made from, and is judged like any other before its value is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from shared_prompt_cache._core.entry import Entry
from shared_prompt_cache._core.memory import Memory
from shared_prompt_cache._core.scopes import Scopes
from shared_prompt_cache._files.proof import Proofs
from shared_prompt_cache._files.recorder import Recorder, current
from shared_prompt_cache._flights import Flight

if TYPE_CHECKING:
    from shared_prompt_cache._tier.reader import Found
    from shared_prompt_cache._tier.tier import Tier


class Judge(Protocol):
    """What promotion needs of `Computations`."""

    def refusal(self, computation: Flight) -> str | None: ...
    def entry(self, made_by: Flight, value: Any, metadata: Mapping[str, Any] | None, ttl: float) -> Entry: ...
    def shelve(self, entry: Entry) -> bool: ...


class Promotions:
    """The promotions of one cache that has a store."""

    def __init__(self, computations: Judge, tier: Tier, scopes: Scopes, memory: Memory, proofs: Proofs) -> None:
        self._computations = computations
        self._tier = tier
        self._scopes = scopes
        self._memory = memory
        self._proofs = proofs

    async def promote(
        self, key: str, into: Flight | None = None, *, newer_than: float = -inf
    ) -> tuple[Flight, Entry] | None:
        """Return what the store has of `key`, with the computation that it stands for; None if it has nothing.

        It is kept, unless something else came into its place meanwhile.

        Args:
            key: The key.
            into: The flight of the key; None: nobody computes it.
            newer_than: Pass over what was made up to this moment, by the wall clock.
        """
        return (await self.promote_many((key,), into, newer_than=newer_than))[0]

    async def promote_many(
        self, keys: Sequence[str], into: Flight | None = None, *, newer_than: float = -inf
    ) -> list[tuple[Flight, Entry] | None]:
        """Do as `promote` does with several keys at once."""
        around, scopes = current(), self._scopes
        while True:
            # Numbers before the look-up: a later invalidation wins.
            blocks = [Flight(key, None, (), scopes.revision, Recorder(scopes, around)) for key in keys]
            for block in blocks:
                scopes.begin(block)
            try:
                found = await self._tier.find(blocks)
                if into is not None:
                    into.seen = blocks[0].seen
                doubt = next(
                    (
                        doubt
                        for block, one in zip(blocks, found, strict=True)
                        if one is not None and (doubt := scopes.doubts_about(block)) is not None
                    ),
                    None,
                )
                if doubt is None:
                    # No await from the judgements of `find` to these.
                    return [
                        None if one is None or one.created_at <= newer_than else self._promoted(block, one, into)
                        for block, one in zip(blocks, found, strict=True)
                    ]
            finally:
                for block in blocks:
                    scopes.end(block)
            # A file of it is being compared; what that raises is in force when it is settled.
            await doubt.settled.wait()

    def _promoted(self, block: Flight, found: Found, into: Flight | None) -> tuple[Flight, Entry] | None:
        """Keep what was found, judged as any computation is."""
        computations = self._computations
        if computations.refusal(block) is not None or block.expired_at is not None:
            if into is not None:
                into.seen = None  # it may have been put after what speaks against it here, so it is looked at again
            return None
        entry = computations.entry(block, found.value, found.metadata, found.ttl)
        entry.promoted(found.created_at, found.expires)
        if self._memory.entries.get(block.key) is None if into is None else into.detached is None:
            computations.shelve(entry)  # what is too large for the memory is handed out all the same
        elif entry.origin is not None:
            self._proofs.release(entry.origin)
        return block, entry
