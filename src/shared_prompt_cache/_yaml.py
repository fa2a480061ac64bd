"""One section of a YAML document as plain values, with the line of each field.

Only the section is turned into values: the rest of the file may use tags, anchors and repetitions as it likes.
Nothing but text, numbers, booleans and null is made from the nodes, so no tag can call anything.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from shared_prompt_cache._naming import member
from shared_prompt_cache.errors import ConfigError

MAX_BYTES: Final = 1024 * 1024
_MAX_VALUES: Final = 10_000  # counted where they are used: an alias may use one many times
_MAX_SCALAR: Final = 4096
_TAG: Final = "tag:yaml.org,2002:"
_SCALARS: Final = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null"))
_LAST: Final = re.compile(r"(?:\[\d+\]|(?:^|\.)[^.\[\]]*)$")


def line_of(field: str | None, lines: Mapping[str, int]) -> int | None:
    """Return the line of a field, or of the nearest one around it that the document has."""
    while field and field not in lines:
        outer = _LAST.sub("", field)
        field = outer if outer != field else None
    return lines[field] if field else None


def read(file: Path, section: tuple[str, ...]) -> tuple[Any, dict[str, int]]:
    """Return the document in `file`, and the lines of its fields by their dotted paths.

    Off the way to `section`, the names of fields are kept and their values are None.

    Raises:
        ConfigError: If the file cannot be read, is no YAML, or if its section holds more than plain values.
    """
    text = _text(file)
    reader = _Reader(file)
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            document = {} if node is None else reader.prune(loader, node, "", section)
        finally:
            loader.dispose()
    except RecursionError:
        raise ConfigError("the YAML is nested too deeply; write it flat", file=file) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        trouble = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(
            f"this is no YAML: {trouble}; correct the line", file=file, line=mark.line + 1 if mark else None
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            "a character is not allowed in YAML; remove it or write it as an escape", file=file, line=line
        ) from error
    return document, reader.lines


def _text(file: Path) -> str:
    try:
        if not file.is_file():  # a pipe would keep us waiting
            raise ConfigError("there is no such file, or it is no regular one; give the path of a YAML file", file=file)
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the file cannot be read ({error.strerror}); check its permissions", file=file) from error
    if len(content) > MAX_BYTES:
        raise ConfigError("the file is larger than 1 MiB; give the configuration a file of its own", file=file)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError("the file is not UTF-8; save it as UTF-8", file=file, line=line) from error


class _Reader:
    """Turns nodes into values.

    Attributes:
        file: For errors.
        lines: The line of each field.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: dict[str, int] = {}
        self._left = _MAX_VALUES

    def prune(self, loader: yaml.SafeLoader, node: yaml.Node, field: str, way: tuple[str, ...]) -> Any:
        if not way or not isinstance(node, yaml.MappingNode):
            return self.value(loader, node, field or "the document")
        found: dict[str, Any] = {}
        for key, item in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None:
                continue
            path = member(field, name)
            if name != way[0]:
                found.setdefault(name, None)
                self.lines.setdefault(path, key.start_mark.line + 1)
                continue
            self._note(path, name in found, key)
            found[name] = self.prune(loader, item, path, way[1:])
        return found

    def value(self, loader: yaml.SafeLoader, node: yaml.Node, field: str) -> Any:
        self._left -= 1
        if self._left < 0:
            raise self._error("the section has too many values; aliases may repeat no more than a few", field, node)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(loader, node, field)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            values = []
            for number, item in enumerate(node.value):
                path = f"{field}[{number}]"
                self.lines.setdefault(path, item.start_mark.line + 1)
                values.append(self.value(loader, item, path))
            return values
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS and len(node.value) <= _MAX_SCALAR:
            try:
                return loader.construct_object(node)
            except (ValueError, LookupError):  # `!!int x`, or more digits than Python reads
                pass
        kind = node.tag.removeprefix(_TAG)
        raise self._error(
            f"{field:.400} is no plain value ({kind:.40}); write text in quotes, without tags", field, node
        )

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, field: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(f"{field:.400} has a field whose name is no text; write a name", field, key)
            path = member(field, key.value)
            self._note(path, key.value in found, key)
            found[key.value] = self.value(loader, item, path)
        return found

    def _note(self, path: str, again: bool, key: yaml.Node) -> None:  # noqa: FBT001
        if again:
            raise self._error(f"{path:.400} is given twice, first in line {self.lines[path]}; keep one", path, key)
        self.lines[path] = key.start_mark.line + 1

    def _error(self, message: str, field: str, node: yaml.Node) -> ConfigError:
        return ConfigError(message, field=field or None, file=self.file, line=node.start_mark.line + 1)
