"""A store whose calls wait at gates: before they take effect, or after it and before they answer."""

import asyncio
from collections import Counter

from shared_prompt_cache.stores import MemoryStore


class Gate:
    """Where a call waits.

    Attributes:
        reached: Set when a call has come.
        opened: Lets it go on.
    """

    def __init__(self):
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.opened.set()

    async def through(self):
        self.reached.set()
        await self.opened.wait()


class GatedStore:
    """A `MemoryStore` behind gates; `calls` counts what it was asked."""

    def __init__(self, store=None):
        self.calls = Counter()
        self._store = MemoryStore() if store is None else store
        self._gates = {}

    path = None

    @property
    def root(self):
        return self._store.root

    def connect(self):
        """Return another one over the same place, without gates."""
        return GatedStore(self._store.connect())

    def gate(self, operation, *, after=False):
        """Let the next call of an operation wait at a gate, which is returned."""
        self._gates[operation, after] = gate = Gate()
        return gate

    def __getattr__(self, operation):
        call = getattr(self._store, operation)

        async def gated(*args, **options):
            self.calls[operation] += 1
            before, after = self._gates.pop((operation, False), None), self._gates.pop((operation, True), None)
            if before is not None:
                await before.through()
            answer = await call(*args, **options)
            if after is not None:
                await after.through()
            return answer

        return gated
