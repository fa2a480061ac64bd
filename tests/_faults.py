"""Faults of the file system, put in the place of the functions of `os`."""

import os
from collections.abc import Callable
from typing import Any


class Meddler:
    """Stands in the place of a function, and calls `change(number)` after each of its first calls."""

    def __init__(self, function: Callable[..., Any], change: Callable[[int], object], *, times: int = 1) -> None:
        self.calls = 0
        self._function, self._change, self._times = function, change, times

    def __call__(self, *args: Any, **options: Any) -> Any:
        found = self._function(*args, **options)
        self.calls += 1
        if self.calls <= self._times:
            self._change(self.calls)
        return found


def refusing(function: Callable[..., Any], error: OSError, path: os.PathLike[str] | str) -> Callable[..., Any]:
    """Return `function`, but for `path` it raises `error`."""

    def refuse(place: Any, *args: Any, **options: Any) -> Any:
        if place == os.fspath(path):
            raise error
        return function(place, *args, **options)

    return refuse
