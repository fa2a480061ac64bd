"""What tests share: sizes, files that are edited as programs edit them, and counts of computations."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

STRESS = os.environ.get("STRESS") == "1"


def size(small: int, full: int) -> int:
    """Return how big a test is to be: small in `make test`, full in `make stress`."""
    return full if STRESS else small


class Counted:
    """An async function that counts its calls and returns `value`, or what `value()` does.

    With `gate=asyncio.Event()` each call waits for it; `began` counts the calls, `ended` those that went through.
    """

    def __init__(self, value: Any = None, *, gate: Any = None) -> None:
        self.began = self.ended = self.cancelled = 0
        self.value = value
        self._gate = gate

    async def __call__(self, *_: Any) -> Any:
        self.began += 1
        try:
            if self._gate is not None:
                await self._gate.wait()
            value = self.value() if callable(self.value) else self.value
            if isinstance(value, Awaitable):
                value = await value
            if isinstance(value, BaseException):
                raise value  # noqa: TRY301 - a failure like any other
        except BaseException:
            self.cancelled += 1
            raise
        self.ended += 1
        return value


def replace(path: os.PathLike[str] | str, text: str) -> None:
    """Write a file as editors do: a temporary file beside it, renamed over it."""
    beside = f"{os.fspath(path)}.new~"
    with open(beside, "w", encoding="utf-8") as file:  # noqa: PTH123 - paths of any kind
        file.write(text)
    os.replace(beside, path)  # noqa: PTH105 - the same


Compute = Callable[[], Awaitable[Any]]
