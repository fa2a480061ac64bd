"""Who is told: bounded subscriptions outside the one road that an invalidation takes inside.

Publishing never waits and never fails: a subscription that is full loses its oldest event and counts it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from shared_prompt_cache._logging import log
from shared_prompt_cache._naming import shown
from shared_prompt_cache._options import check_count
from shared_prompt_cache.errors import ConfigError, ConfigTypeError
from shared_prompt_cache.events import Event, Invalidation, Removal, ScopeKind

_SCOPES = ("key", "pattern", "tag", "agent", "project", "all", "file")


E = TypeVar("E", bound=Event)


class Subscription(AsyncIterator[E]):
    """A bounded stream of events, to be iterated over by one task.

    Close it with `async with` or `close()`; iteration then ends once what is left has been taken.

    Attributes:
        missed: How many events were lost because they were not taken in time.
    """

    def __init__(self, bus: Bus, kinds: tuple[type[E], ...], scopes: Collection[str] | None, size: int) -> None:
        self.missed = 0
        self._bus = bus
        self._kinds = kinds
        self._scopes = scopes
        self._events: deque[E] = deque()
        self._size = size
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def push(self, event: Event) -> None:
        """Add an event if it is among those that were asked for; the oldest is lost if there is no room."""
        if not isinstance(event, self._kinds):
            return
        if self._scopes is not None and isinstance(event, Invalidation) and event.scope not in self._scopes:
            return
        if len(self._events) >= self._size:
            self._events.popleft()
            self.missed += 1
            if self.missed == 1:
                log(logging.WARNING, "subscription.overflowed", size=self._size)
        self._events.append(event)
        self._wake()

    def close(self) -> None:
        """Take no more events."""
        self._closed = True
        self._bus.remove(self)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def __anext__(self) -> E:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


Callback = Callable[[Any], Awaitable[object] | object]


class Listener:
    """A callback that is called with each event, one after the other, by a task of the cache.

    Attributes:
        subscription: The queue in front of it.
    """

    def __init__(self, subscription: Subscription[Any], callback: Callback) -> None:
        self.subscription = subscription
        self._callback = callback
        self._task: asyncio.Task[None] | None = None

    @property
    def missed(self) -> int:
        """How many events were lost because the callback was too slow."""
        return self.subscription.missed

    def start(self) -> None:
        """Begin to call; events wait until this has been called with a loop running."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        async for event in self.subscription:
            try:
                outcome = self._callback(event)
                if inspect.isawaitable(outcome):
                    await outcome
            except (Exception, asyncio.CancelledError) as error:  # the callback is the application's; it hurts nobody
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise
                log(logging.ERROR, "listener.failed", exc_info=error, listener=shown(self._callback))

    def close(self) -> None:
        """Call no more; events that wait are still delivered."""
        self.subscription.close()

    async def aclose(self, caller: asyncio.Task[Any] | None = None) -> None:
        """Deliver what waits, for a second at the most, and end.

        Args:
            caller: Who closes. If that is this listener, it goes on until it has delivered what waits.
        """
        self.close()
        task, self._task = self._task, None
        if task is None or task in {caller, asyncio.current_task()}:
            return
        await asyncio.wait([task], timeout=1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Bus:
    """`cache.events`: tells subscribers about invalidations and removals, after they have taken effect."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription[Any]] = []
        self._listeners: list[Listener] = []
        self.wants_removals = False

    @overload
    def subscribe(
        self, *, scopes: Collection[ScopeKind] | None = None, removals: Literal[False] = False, max_queue: int = 1000
    ) -> Subscription[Invalidation]: ...
    @overload
    def subscribe(
        self, *, scopes: Collection[ScopeKind] | None = None, removals: bool, max_queue: int = 1000
    ) -> Subscription[Invalidation | Removal]: ...
    def subscribe(
        self, *, scopes: Collection[ScopeKind] | None = None, removals: bool = False, max_queue: int = 1000
    ) -> Subscription[Any]:
        """Return a bounded async iterator over what happens from now on.

        Args:
            scopes: Only invalidations of these scopes; None: all.
            removals: Whether to be told of each single entry that leaves the memory, too.
            max_queue: How many events may wait; beyond, the oldest is lost and counted in `missed`.

        Raises:
            ConfigError: If a scope is unknown or `max_queue` is less than 1.
        """
        if scopes is not None:
            if not isinstance(scopes, Collection):
                raise ConfigTypeError(f"scopes is {shown(scopes)}; give a list of scopes", field="scopes")
            for scope in scopes:
                if scope not in _SCOPES:
                    raise ConfigError(
                        f"the scope {shown(scope)} is unknown; choose from {', '.join(_SCOPES)}", field="scopes"
                    )
            scopes = frozenset(scopes)
        check_count(max_queue, "max_queue")
        kinds: tuple[type[Event], ...] = (Invalidation, Removal) if removals else (Invalidation,)
        subscription: Subscription[Any] = Subscription(self, kinds, scopes, max_queue)
        self._subscriptions.append(subscription)
        self.wants_removals = self.wants_removals or removals
        return subscription

    def listen(
        self,
        callback: Callback,
        *,
        scopes: Collection[ScopeKind] | None = None,
        removals: bool = False,
        max_queue: int = 1000,
    ) -> Listener:
        """Call `callback(event)` for what happens from now on; an async callback is awaited.

        A callback that raises is logged and goes on being called. Arguments as for `subscribe`.

        Returns:
            A handle; its `close()` ends it, its `missed` counts what a slow callback lost.
        """
        if not callable(callback):
            raise ConfigTypeError(f"the callback {shown(callback)} cannot be called; give a function", field="callback")
        listener = Listener(self.subscribe(scopes=scopes, removals=removals, max_queue=max_queue), callback)
        self._listeners = [other for other in self._listeners if other.subscription in self._subscriptions]
        self._listeners.append(listener)
        with suppress(RuntimeError):  # no loop yet: the first event will start it
            listener.start()
        return listener

    def publish(self, event: Event) -> None:
        """Tell everybody."""
        for subscription in self._subscriptions:
            subscription.push(event)
        for listener in self._listeners:
            listener.start()

    def remove(self, subscription: Subscription[Any]) -> None:
        """Forget a closed subscription."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        self.wants_removals = any(Removal in other._kinds for other in self._subscriptions)  # noqa: SLF001

    async def aclose(self, caller: asyncio.Task[Any] | None = None) -> None:
        """End all subscriptions; listeners get what waits for them.

        Args:
            caller: Who closes. If that is a listener it is not waited for.
        """
        for subscription in list(self._subscriptions):
            subscription.close()
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.aclose(caller)
