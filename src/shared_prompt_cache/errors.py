"""The errors of the cache: one tree.

```
CacheError
├── CacheKeyError (ValueError)        a key, or a part of one, that cannot be a key
├── ConfigError (ValueError)          an option, argument or configuration field out of range
│   └── ConfigTypeError (TypeError)   the same, where the type is wrong
├── SerializationError                a value that a store cannot keep faithfully
├── StoreError                        a store that failed
├── ComputeTimeout (TimeoutError)     a computation that outlived its hard timeout
├── ComputeCancelled                  a computation that cancelled itself
├── RecursiveComputeError             computations that wait for each other in a cycle
├── CacheClosedError                  the cache is closed, or was not started
└── WrongLoopError                    the cache belongs to another event loop
```

The exception of a user's `compute` is none of these: it reaches the caller as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class CacheError(Exception):
    """The root of every error this package raises by itself."""


class CacheKeyError(CacheError, ValueError):
    """A key, or a part given to build one, that cannot be used.

    Attributes:
        key: What was given.
    """

    def __init__(self, message: str, *, key: object = None) -> None:
        super().__init__(message)
        self.key = key


class ConfigError(CacheError, ValueError):
    """An option, an argument or a field of a configuration file that cannot be used.

    Attributes:
        field: The name of the option, or the dotted path of the field (`cache.shared_prompt.max_size`).
        file: The configuration file, where there is one.
        line: The line of the field in that file, counted from 1.
    """

    def __init__(
        self, message: str, *, field: str | None = None, file: Path | None = None, line: int | None = None
    ) -> None:
        where = f"{file}:{line}: " if file and line else f"{file}: " if file else f"line {line}: " if line else ""
        super().__init__(where + message)
        self.field = field
        self.file = file
        self.line = line


class ConfigTypeError(ConfigError, TypeError):
    """As `ConfigError`, where the type of the value is wrong."""


class SerializationError(CacheError):
    """A value or its metadata that a store cannot give back equal and of the same type.

    Attributes:
        where: What it is about, as an expression: `value['messages'][2]`; None where it is about no part of a value.
    """

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(message)
        self.where = where


class StoreError(CacheError):
    """An operation of a store that failed; the cause is chained.

    Attributes:
        operation: What the store was asked to do.
        key: The key it was asked about, where there is one.
        final: Whether it will be so until somebody changes something, such as who may write to a folder; a cache whose
            store cannot be opened for such a reason does not start.
    """

    def __init__(self, message: str, *, operation: str, key: str | None = None, final: bool = False) -> None:
        super().__init__(message)
        self.operation = operation
        self.key = key
        self.final = final


class ComputeTimeout(CacheError, TimeoutError):  # noqa: N818 - named like the asyncio.Timeout it stands beside
    """A computation that was ended because it ran longer than its `hard_timeout`.

    Attributes:
        key: The key that was computed.
        timeout: The limit in seconds.
    """

    def __init__(self, message: str, *, key: str, timeout: float) -> None:
        super().__init__(message)
        self.key = key
        self.timeout = timeout


class ComputeCancelled(CacheError):  # noqa: N818 - a state, as in asyncio.CancelledError
    """A computation that cancelled itself, while nobody had cancelled its callers.

    Attributes:
        key: The key that was computed.
    """

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class RecursiveComputeError(CacheError):
    """Computations that would wait for each other for ever.

    Attributes:
        cycle: The keys in the order in which they wait, the first again at the end.
    """

    def __init__(self, message: str, *, cycle: tuple[str, ...]) -> None:
        super().__init__(message)
        self.cycle = cycle


class CacheClosedError(CacheError):
    """A call on a cache that is closed, or that has not been started and needs to be."""


class WrongLoopError(CacheError):
    """A call from an event loop, or a thread, that the cache does not belong to."""
