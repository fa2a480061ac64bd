"""The heartbeat of a watch: it notices that the loop was held up, and says when it is time to look at the roots.

While the loop does not run, events wait unseen, or are lost with the process stopped. A read looks here, too: it may
come before the beat that is late.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

TICK: Final = 0.25
_TICKS_A_LOOK: Final = 4
"""How often the roots are looked at: each second."""
PAUSE: Final = 0.25


class Heartbeat:
    """Beats every quarter of a second while it is started.

    Attributes:
        pauses: How often the loop was held up.

    Args:
        paused: Called with for how many seconds it was.
        look: Called each second.
    """

    def __init__(self, paused: Callable[[float], None], look: Callable[[], None]) -> None:
        self.pauses = 0
        self._paused = paused
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0
        self._ticks = 0

    def start(self) -> None:
        """Begin to beat."""
        self._last = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
        self.pulse()
        self._last = time.monotonic()
        self._ticks += 1
        if self._ticks % _TICKS_A_LOOK == 0:
            self._look()

    def pulse(self) -> None:
        """Notice a pause."""
        late = time.monotonic() - self._last - TICK
        if late > PAUSE:
            self._last = time.monotonic()
            self.pauses += 1
            self._paused(late)
