"""The configuration of a cache: its fields, and reading them from a mapping or from a YAML file.

```yaml
cache:
  shared_prompt:
    enabled: true
    max_size: 1000
    max_memory_mb: 100
    default_ttl: 3600            # seconds; .inf for entries that never expire
    eviction_policy: "lru"
    persistence:
      enabled: false
      path: ".cache/prompts"     # relative to the working folder
      max_size_mb: 500           # of 1,048,576 bytes; default: any amount
    watch:
      - root: "."                # relative to the folder of this file
        presets: [claude_mpm, agents_md]
    single_flight: store         # or process
    freshness: strict            # or events
    watcher: auto                # or watchfiles, polling
    name: default
```

All else in the file is left alone; it may be the configuration of a whole application. Below `cache.shared_prompt`
nothing is: an unknown field, a wrong type or a value out of range is an error that names file, line and field.

One table of fields, `_CACHE`, `_PERSISTENCE`, `_WATCH`, serves files, mappings and the constructors alike.
"""

import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from shared_prompt_cache._naming import member, shown
from shared_prompt_cache.errors import ConfigError, ConfigTypeError

PRESETS: Final = ("claude_mpm", "claude_code", "agents_md", "cursor", "copilot", "gemini", "windsurf", "detect")
"""The presets that `watch` may name; `-` in place of `_` is accepted."""
POLICIES: Final = ("lru", "lfu", "fifo", "sieve", "s3fifo", "wtinylfu")
"""The words of `eviction_policy`."""
AVAILABLE_POLICIES: Final = ("lru",)
"""Those of them that exist."""

_SECTION: Final = ("cache", "shared_prompt")
_TELLING: Final = frozenset({"max_size", "max_memory_mb", "default_ttl", "eviction_policy"})  # nobody else's names
_MAX_PATH: Final = 4096
_MAX_NAME: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistenceConfig:
    """Whether and where entries outlive the process.

    Attributes:
        enabled: Whether there is a store.
        path: Its folder; a relative one is relative to the working folder of the process.
        max_size_mb: How many megabytes (of 1,048,576 bytes) it may hold; None: any amount.
    """

    enabled: bool = False
    path: str = ".cache/prompts"
    max_size_mb: float | None = None

    def __post_init__(self) -> None:
        _check(self, _PERSISTENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """A folder whose files invalidate.

    Attributes:
        root: The folder; in a file relative to the folder of that file, elsewhere to the working folder.
        presets: Which files in it do, by the names in `PRESETS`.
        project: The name that its project goes by; None: the name of the folder.
    """

    root: str
    presets: tuple[str, ...] = ("detect",)
    project: str | None = None

    def __post_init__(self) -> None:
        _check(self, _WATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """All settings of a cache, checked.

    Attributes:
        enabled: Whether values are kept at all.
        max_size: How many entries the memory tier holds.
        max_memory_mb: How many megabytes (of 1,048,576 bytes) it holds.
        default_ttl: Seconds to live of an entry that names none; `math.inf` for ever.
        eviction_policy: Which entries go when it is full.
        persistence: Whether and where entries outlive the process.
        watch: Folders whose files invalidate.
        single_flight: `"store"`: of all caches that share the store one computes a key; `"process"`: one in each.
        freshness: `"strict"`: files are compared at each read; `"events"`: the watcher alone is trusted.
        watcher: `"auto"`, `"watchfiles"` or `"polling"`.
        name: What the cache is called in logs, figures and events.

    Raises:
        ConfigError: If a field is out of range; `ConfigTypeError` if its type is wrong.
    """

    enabled: bool = True
    max_size: int = 1000
    max_memory_mb: float = 100.0
    default_ttl: float = 3600.0
    eviction_policy: str = "lru"
    persistence: PersistenceConfig = field(default_factory=PersistenceConfig)
    watch: tuple[WatchConfig, ...] = ()
    single_flight: Literal["process", "store"] = "store"
    freshness: Literal["strict", "events"] = "strict"
    watcher: Literal["auto", "watchfiles", "polling"] = "auto"
    name: str = "default"

    def __post_init__(self) -> None:
        _check(self, _CACHE)


def load(source: CacheConfig | Mapping[str, Any] | str | os.PathLike[str]) -> CacheConfig:
    """Return the configuration that `source` holds.

    Args:
        source: A configuration; a mapping, either of the fields or of a whole document with
            `cache: {shared_prompt: ...}`; or the path of a YAML file, which is read here and now, so call this before
            the event loop runs. A document without that section means the defaults.

    Raises:
        ConfigError: If a field is unknown or out of range (`ConfigTypeError`: of a wrong type), or if the file cannot
            be read or is no YAML. It carries file, line and field.
    """
    if isinstance(source, CacheConfig):
        return source
    if isinstance(source, Mapping):
        return _read_document(source) if _SECTION[0] in source else _read_cache(source, "")
    if isinstance(source, str | os.PathLike) and isinstance(os.fspath(source), str):
        return _read_file(Path(source))
    raise ConfigTypeError(
        f"the configuration is {shown(source)}; give a CacheConfig, a mapping, or the path of a YAML file",
        field="source",
    )


_Reader = Callable[[object, str], Any]  # takes a value and the name of its field, returns what is kept


def _wrong(value: object, field: str, expected: str) -> ConfigTypeError:
    return ConfigTypeError(f"{field} is {shown(value)}; expected {expected}", field=field)


def _flag(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, field, "true or false")
    return value


def _count(value: object, field: str) -> int:
    expected = "a whole number of 1 or more"
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(value, field, expected)
    if value < 1:
        raise ConfigError(f"{field} is {shown(value)}; expected {expected}", field=field)
    return value


def _number(value: object, field: str, expected: str, *, infinite: bool) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(value, field, expected)
    try:
        number = float(value)
    except OverflowError:  # an int beyond 1e308
        number = math.nan
    if not number > 0 or (number == math.inf and not infinite):
        raise ConfigError(f"{field} is {shown(value)}; expected {expected}", field=field)
    return number


def _megabytes(value: object, field: str) -> float:
    return _number(value, field, "a number of megabytes above 0", infinite=False)


def _optional_megabytes(value: object, field: str) -> float | None:
    return None if value is None else _megabytes(value, field)


def _ttl(value: object, field: str) -> float:
    span = value.total_seconds() if isinstance(value, timedelta) else value
    return _number(span, field, "a number of seconds above 0, or .inf for entries that never expire", infinite=True)


def _text(value: object, field: str) -> str:
    expected = f"a text of 1 to {_MAX_NAME} characters"
    if not isinstance(value, str):
        raise _wrong(value, field, expected)
    if not 0 < len(value) <= _MAX_NAME or not value.isprintable():
        raise ConfigError(f"{field} is {shown(value)}; expected {expected} that can be printed", field=field)
    return value


def _optional_text(value: object, field: str) -> str | None:
    return None if value is None else _text(value, field)


def _path(value: object, field: str) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise _wrong(value, field, "the path of a folder")
    if not path or "\0" in path or len(path) > _MAX_PATH:
        raise ConfigError(f"{field} is {shown(value)}; expected the path of a folder", field=field)
    return path


def _word(*words: str) -> _Reader:
    def read(value: object, field: str) -> str:
        if not isinstance(value, str):
            raise _wrong(value, field, "one of " + ", ".join(words))
        if value not in words:
            raise ConfigError(f"{field} is {shown(value)}; {_nearest(value, words)}", field=field)
        return value

    return read


def _policy(value: object, field: str) -> str:
    word: str = _word(*POLICIES)(value, field)
    if word not in AVAILABLE_POLICIES:
        raise ConfigError(
            f"{field} is {word!r}, which is not available; available: {', '.join(AVAILABLE_POLICIES)}", field=field
        )
    return word


def _presets(value: object, field: str) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple):
        raise _wrong(value, field, "a list of " + ", ".join(PRESETS))
    if not given:
        raise ConfigError(f"{field} is empty; expected at least one of {', '.join(PRESETS)}", field=field)
    read = _word(*PRESETS)
    names = [name.replace("-", "_") if isinstance(name, str) else name for name in given]
    return tuple(dict.fromkeys(read(name, f"{field}[{number}]") for number, name in enumerate(names)))


def _persistence(value: object, field: str) -> PersistenceConfig:
    if isinstance(value, PersistenceConfig):
        return value
    return PersistenceConfig(**_fields({} if value is None else value, field, _PERSISTENCE))


def _watch(value: object, field: str) -> tuple[WatchConfig, ...]:
    given = () if value is None else value if isinstance(value, list | tuple) else (value,)
    return tuple(_watch_one(item, f"{field}[{number}]") for number, item in enumerate(given))


def _watch_one(value: object, field: str) -> WatchConfig:
    if isinstance(value, WatchConfig):
        return value
    if isinstance(value, str | os.PathLike):
        return WatchConfig(root=_path(value, field))
    read = _fields(value, field, {**_WATCH, "preset": _presets})
    if "root" not in read:
        raise ConfigError(f"{field} has no root; expected root: and the path of a folder", field=f"{field}.root")
    if "preset" in read:
        if "presets" in read:
            raise ConfigError(f"{field} has preset and presets; write presets alone", field=f"{field}.preset")
        read["presets"] = read.pop("preset")
    return WatchConfig(**read)


_PERSISTENCE: Final[Mapping[str, _Reader]] = {"enabled": _flag, "path": _path, "max_size_mb": _optional_megabytes}
_WATCH: Final[Mapping[str, _Reader]] = {"root": _path, "presets": _presets, "project": _optional_text}
_CACHE: Final[Mapping[str, _Reader]] = {
    "enabled": _flag,
    "max_size": _count,
    "max_memory_mb": _megabytes,
    "default_ttl": _ttl,
    "eviction_policy": _policy,
    "persistence": _persistence,
    "watch": _watch,
    "single_flight": _word("process", "store"),
    "freshness": _word("strict", "events"),
    "watcher": _word("auto", "watchfiles", "polling"),
    "name": _text,
}


def _check(config: object, readers: Mapping[str, _Reader]) -> None:
    for name, read in readers.items():
        object.__setattr__(config, name, read(getattr(config, name), name))


def _fields(value: object, field: str, readers: Mapping[str, _Reader]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(value, field, "a mapping with the fields " + ", ".join(readers))
    for name in value:
        if name not in readers:
            path = member(field, name)
            raise ConfigError(f"{path:.400} is no field; {_nearest(name, readers)}", field=path)
    return {name: readers[name](item, member(field, name)) for name, item in value.items()}


def _read_cache(value: object, field: str) -> CacheConfig:
    return CacheConfig(**_fields({} if value is None else value, field, _CACHE))


def _nearest(name: object, known: Iterable[str]) -> str:
    words = list(known)
    close = difflib.get_close_matches(str(name)[:100].lower(), words, 1) if isinstance(name, str) else []
    return f"did you mean {close[0]}?" if close else "known are " + ", ".join(words)


def _read_document(document: object) -> CacheConfig:
    where = "the document"
    for number, name in enumerate(_SECTION):
        if document is None:
            break
        if not isinstance(document, Mapping):
            raise _wrong(document, where, f"a mapping with the section {'.'.join(_SECTION[number:])}")
        if name not in document:
            _refuse_misplaced(document, number)
            return CacheConfig()
        document, where = document[name], ".".join(_SECTION[: number + 1])
    return _read_cache(document, ".".join(_SECTION))


def _refuse_misplaced(document: Mapping[object, object], depth: int) -> None:
    """Refuse a document that has the section under another name, or its fields without the section."""
    names = [name for name in document if isinstance(name, str)]
    wanted, above = _SECTION[-1], ".".join(_SECTION[:depth])
    for name in difflib.get_close_matches(wanted, names, 1, 0.8):
        path = member(above, name)
        raise ConfigError(f"{path} is no section; did you mean {'.'.join(_SECTION)}?", field=path)
    if all(name in _CACHE for name in names) and not _TELLING.isdisjoint(names):
        path = member(above, names[0])
        raise ConfigError(f"{path} is outside its section; put it below {'.'.join(_SECTION)}", field=path)


def _read_file(file: Path) -> CacheConfig:
    from shared_prompt_cache import _yaml  # noqa: PLC0415 - PyYAML is loaded where a file is read

    document, lines = _yaml.read(file, _SECTION)
    try:
        config = _read_document(document)
    except ConfigError as error:
        line = _yaml.line_of(error.field, lines)
        raise type(error)(str(error), field=error.field, file=file, line=line) from error.__cause__
    folder = Path(os.path.abspath(file)).parent  # noqa: PTH100 - links on the way are the user's choice
    watch = tuple(replace(one, root=str(folder / Path(one.root).expanduser())) for one in config.watch)
    path = str(Path(config.persistence.path).expanduser())
    return replace(config, watch=watch, persistence=replace(config.persistence, path=path))
