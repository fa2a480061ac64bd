"""`@cache.cached()`: an async function whose results are cached, with its types as they were.

A call becomes a key and options in three steps: the arguments are bound to the signature with defaults filled in, so
that all spellings of a call are one; the key is made from them; options that are callables are asked with them.
What the function takes from its surroundings, a closure say, is not part of the key.
"""

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from os import PathLike
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    Self,
    TypeAlias,
    TypedDict,
    TypeVar,
    overload,
)

from shared_prompt_cache import keys
from shared_prompt_cache._files.projects import check_project
from shared_prompt_cache._naming import shown
from shared_prompt_cache._options import (
    Computed,
    Freshness,
    Paths,
    check_fraction,
    check_freshness,
    check_metadata,
    check_paths,
    check_tags,
    check_ttl,
)
from shared_prompt_cache.clock import seconds
from shared_prompt_cache.errors import CacheKeyError, ConfigError, ConfigTypeError
from shared_prompt_cache.rules import normalise_agent

if TYPE_CHECKING:
    from shared_prompt_cache.cache import SharedPromptCache

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")
V = TypeVar("V")
_Told: TypeAlias = V | Callable[..., V]
_Span = float | timedelta | None


class CachedOptions(TypedDict, total=False):
    """The options of `get_or_compute`, each a value or a callable of the function's arguments that returns one."""

    ttl: _Told[_Span]
    metadata: _Told[Mapping[str, Any] | None]
    agent: _Told[str | None]
    project: _Told[str | PathLike[str] | None]
    tags: _Told[Iterable[str]]
    depends_on: _Told[Paths]
    freshness: _Told[Freshness | None]
    stale_for: _Told[float | timedelta]
    soft_timeout: _Told[_Span]
    hard_timeout: _Told[_Span]
    refresh_ahead: _Told[float | None]
    cache_errors_for: _Told[_Span]


def _as_given(check: Callable[[Any], object]) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        check(value)
        return value

    return checked


_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "ttl": check_ttl,
    "metadata": check_metadata,
    "agent": _as_given(normalise_agent),
    "project": _as_given(check_project),
    "tags": check_tags,  # a set and a tuple: an iterator would serve the first call only
    "depends_on": check_paths,
    "freshness": _as_given(check_freshness),
    "stale_for": lambda value: seconds(value, "stale_for", zero=True),
    "soft_timeout": lambda value: seconds(value, "soft_timeout", zero=True),
    "hard_timeout": lambda value: seconds(value, "hard_timeout"),
    "refresh_ahead": check_fraction,
    "cache_errors_for": lambda value: seconds(value, "cache_errors_for", zero=True),
}


class Options:
    """Options that are known beforehand, and options that are asked for with the arguments of each call.

    Raises:
        ConfigError: If an option is unknown or cannot be used; it names the option.
    """

    __slots__ = ("_asked", "_fixed")

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._fixed: dict[str, Any] = {}
        self._asked: dict[str, Callable[..., Any]] = {}
        for name, value in options.items():
            if name not in _CHECKS:
                raise _unknown(name)
            if callable(value):
                self._asked[name] = _plain(value, name)
            elif value is not None:
                self._fixed[name] = _CHECKS[name](value)

    def of(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the options of one call; None from a callable means the default."""
        if not self._asked:
            return self._fixed
        asked = {name: ask(*args, **kwargs) for name, ask in self._asked.items()}
        return self._fixed | {name: value for name, value in asked.items() if value is not None}


def _unknown(name: str) -> ConfigError:
    close = difflib.get_close_matches(name, _CHECKS, 1)
    remedy = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(_CHECKS)}"
    return ConfigError(f"there is no option {name!r}; {remedy}", field=name)


def _plain(ask: Callable[..., Any], field: str) -> Callable[..., Any]:
    if _is_async(ask):
        raise ConfigTypeError(f"{field} is the async function {shown(ask)}; give a plain one", field=field)
    return ask


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or (
        callable(function) and inspect.iscoroutinefunction(type(function).__call__)
    )


class _Recipe:
    """How a call of one function becomes a key and options."""

    __slots__ = ("_key", "_name", "_options", "_signature")

    def __init__(self, function: Callable[..., Any], key: str | Callable[..., str] | None, options: Options) -> None:
        self._signature = inspect.signature(function)
        self._options = options
        self._key = key if callable(key) else None
        if isinstance(key, str):
            self._name = key
        elif hasattr(function, "__qualname__"):
            self._name = f"{function.__module__}.{function.__qualname__}"
        elif self._key is None:
            # A partial, or an object with state of its own: its name would say too little.
            raise ConfigError(f"{shown(function)} has no name that keys could begin with; give key=", field="key")
        else:
            self._name = shown(function)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """Return the arguments of a call with defaults filled in."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound

    def key(self, bound: inspect.BoundArguments) -> str:
        """Return the key of a call."""
        if self._key is not None:
            return keys.check_key(self._key(*bound.args, **bound.kwargs))
        try:
            return keys.of(self._name, bound.arguments)
        except CacheKeyError as error:
            raise self._blamed(bound.arguments, error) from error

    def _blamed(self, arguments: Mapping[str, Any], error: CacheKeyError) -> CacheKeyError:
        for name, value in arguments.items():
            try:
                keys.of(value)
            except CacheKeyError as reason:
                message = f"the argument {name!r} of {self._name} cannot be part of a key: {reason}"
                return CacheKeyError(f"{message}; or make the key with @cache.cached(key=...)", key=value)
        return error

    def options(self, bound: inspect.BoundArguments) -> dict[str, Any]:
        """Return the options of a call."""
        return self._options.of(*bound.args, **bound.kwargs)


class CachedFunction(Generic[P, T]):
    """An async function, or a method bound to its object, whose results are cached.

    Attributes:
        __wrapped__: The function itself; calling it goes past the cache.
    """

    __wrapped__: Callable[..., Coroutine[Any, Any, T | Computed[T]]]

    def __init__(
        self,
        cache: "SharedPromptCache",
        function: Callable[P, Coroutine[Any, Any, T | Computed[T]]],
        recipe: _Recipe,
        bound_to: tuple[Any, ...] = (),
    ) -> None:
        functools.update_wrapper(self, function)  # first: it copies attributes, also of another CachedFunction
        self._cache = cache
        self._recipe = recipe
        self._bound_to = bound_to
        self._function: Callable[..., Coroutine[Any, Any, T | Computed[T]]] = function
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = self._recipe.bind(self._bound_to + args, kwargs)
        return await self._cache.get_or_compute(
            self._recipe.key(bound),
            functools.partial(self._function, *args, **kwargs),
            **self._recipe.options(bound),
        )

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key under which the result for these arguments is kept.

        Raises:
            CacheKeyError: If an argument has no stable text form, or what `key=` returned is no key.
        """
        return self._recipe.key(self._recipe.bind(self._bound_to + args, kwargs))

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result for these arguments, as `cache.invalidate` does; return whether there was one."""
        return await self._cache.invalidate(self.key(*args, **kwargs))

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(
        self: "CachedFunction[Concatenate[S, Q], T]", instance: S, owner: type | None = None
    ) -> "CachedFunction[Q, T]": ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None or self._bound_to:
            return self
        return CachedFunction(self._cache, MethodType(self._function, instance), self._recipe, (instance,))

    def __repr__(self) -> str:
        return f"<cached {shown(self._function)}>"


class Decorator:
    """What `cache.cached(...)` returns: turns an async function into a `CachedFunction`."""

    __slots__ = ("_cache", "_key", "_options")

    def __init__(self, cache: "SharedPromptCache", key: str | Callable[..., str] | None, options: Options) -> None:
        self._cache = cache
        self._key = key
        self._options = options

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, Computed[T]]], /) -> CachedFunction[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T | Computed[T]]], /) -> CachedFunction[P, T]: ...
    def __call__(self, function: Callable[..., Coroutine[Any, Any, Any]], /) -> CachedFunction[..., Any]:
        """Return the cached form of `function`.

        Raises:
            ConfigTypeError: If it is no async function.
            ConfigError: If it has no name and `key` was not given.
        """
        if not _is_async(function):
            # `@cache.cached` on a plain function takes it for a key; it comes to light here.
            raise _not_async(function if callable(function) or not callable(self._key) else self._key)
        if inspect.ismethod(function):  # its object is an argument like the others
            method: CachedFunction[..., Any] = self(function.__func__)
            return method.__get__(function.__self__)
        return CachedFunction(self._cache, function, _Recipe(function, self._key, self._options))


def decorator(
    cache: "SharedPromptCache", key: str | Callable[..., str] | None, options: Mapping[str, Any]
) -> Decorator:
    """Return the decorator behind `cache.cached`.

    Args:
        cache: Where results are kept.
        key: What keys begin with, in place of the function's name; or a callable of the function's arguments that
            returns the whole key; None: the function's module and name.
        options: Those of `get_or_compute`, each a value or a callable of the function's arguments.

    Raises:
        ConfigError: If `key` or an option cannot be used; it names the option.
    """
    if _is_async(key):
        raise ConfigTypeError("cached() got an async function for a key; write `@cache.cached()`", field="key")
    if isinstance(key, str):
        keys.check_key(key)
    elif key is not None and not callable(key):
        raise ConfigTypeError(f"key is {shown(key)}; give a string or a function that returns the key", field="key")
    return Decorator(cache, key, Options(options))


def _not_async(function: object) -> ConfigTypeError:
    if isinstance(function, staticmethod | classmethod):
        what, remedy = f"a {type(function).__name__}", f"put @{type(function).__name__} above @cache.cached"
    elif inspect.isasyncgenfunction(function):
        what, remedy = "an async generator", "return a list"
    elif callable(function):
        name = getattr(function, "__qualname__", type(function).__qualname__)
        what, remedy = "a plain function", f"make it async; it may await asyncio.to_thread({name}, ...)"
    else:
        what, remedy = "no function", "put @cache.cached above an async def"
    return ConfigTypeError(f"cached() got {shown(function)}, which is {what}; {remedy}", field="function")
