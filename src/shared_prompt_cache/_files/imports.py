"""Imports by `@path` in the instruction files of Claude Code and Gemini CLI.

A change of an imported file counts as a change of the file that imports it. Instruction files may come from a stranger,
so an import is followed only into the project and the folders that agent tools have in the home; where it leads is
decided after all links are resolved, and what lies outside is not opened. Too much rather than too little is taken for
an import: a mention that is none costs a look at a file that does not exist.
"""
# Paths are text here while they are taken apart: normpath and realpath do not care whether anything exists.

import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from shared_prompt_cache._mounts import real

MAX_HOPS: Final = 5
MAX_FILES: Final = 1000
_MAX_LENGTH: Final = 4096
_TOOL_FOLDERS: Final = (".claude", ".claude-mpm", ".gemini", ".codex", ".copilot")

_FENCE: Final = re.compile(r"(?:\s|>|(?:[-*+]|\d{1,9}[.)])\s)*(?P<fence>`{3,}(?=[^`]*$)|~{3,})(?P<rest>.*)")
_RUN: Final = re.compile(r"`+")
_IMPORT: Final = re.compile(r"(?<!\S)@(?P<path>(?:~/|[\w./-])(?:\\ |\S)*)")
_TRAILING: Final = ".,;:!?)]}>\"'"


def imports(text: str, importing_file: Path, *, home: Path | None = None) -> tuple[Path, ...]:
    r"""Return the files that a text imports, in order, each once; none of them need exist.

    `@` counts at the start of a line or after white space, outside of code in fences and between backticks. White
    space in a path is written `\ `; what follows a `#` is not part of it, nor is punctuation at its end.

    Args:
        text: The content of an instruction file.
        importing_file: Its path, absolute; relative imports start from its folder.
        home: What `~` means; default: the home of this process.
    """
    found: dict[Path, None] = {}
    for paragraph in _paragraphs(text):
        for match in _IMPORT.finditer(_without_spans(paragraph)):
            name = match["path"].replace("\\ ", " ").partition("#")[0].rstrip(_TRAILING)
            if not _can_be_path(name):
                continue
            if name.startswith("~/"):
                name = os.path.join(home, name[2:]) if home is not None else os.path.expanduser(name)
            found[Path(os.path.normpath(importing_file.parent / name))] = None
    return tuple(found)


def _can_be_path(name: str) -> bool:
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return 0 < len(encoded) <= _MAX_LENGTH and b"\0" not in encoded


def import_roots(project_root: Path, *, home: Path | None = None) -> tuple[Path, ...]:
    """Return the folders into which imports of a project's files are followed unless more are allowed."""
    base = Path.home() if home is None else home
    return (project_root, *(base / name for name in _TOOL_FOLDERS))


def follow(
    path: Path,
    read: Callable[[Path], str | None],
    *,
    allowed_roots: Collection[Path],
    max_hops: int = MAX_HOPS,
    max_files: int = MAX_FILES,
    home: Path | None = None,
) -> dict[Path, frozenset[Path]]:
    """Return every file that a file imports, by itself or through others, with the files that import it.

    Files that do not exist are among them: a computation that missed them depends on their absence.

    Args:
        path: The instruction file, absolute; it is read wherever it lies.
        read: Returns the text of a file, or None where there is none to be had. It is given each file once, under
            its resolved path, the one that was found to be allowed.
        allowed_roots: The folders into which imports are followed.
        max_hops: How many imports may lie between `path` and a file, that of the file included.
        max_files: How many different imports are looked at, at most, allowed or not; those nearest to `path`.
        home: What `~` means; default: the home of this process.
    """
    allowed = tuple(real(root) for root in allowed_roots)
    importers: dict[Path, set[Path]] = {}
    considered = {path}
    level = [(path, path)]
    for _ in range(max_hops):
        following: list[tuple[Path, Path]] = []
        for file, resolved in level:
            text = read(resolved)
            for target in () if text is None else imports(text, file, home=home):
                if target in importers:
                    importers[target].add(file)
                elif target not in considered and len(considered) <= max_files:
                    considered.add(target)
                    place = real(target)
                    if _lies_in(place, allowed):
                        importers[target] = {file}
                        following.append((target, Path(place)))
        level = following
    return {file: frozenset(by) for file, by in importers.items()}


def _lies_in(path: str, roots: tuple[str, ...]) -> bool:
    return any(path.startswith(root if root.endswith(os.sep) else root + os.sep) for root in roots)


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a Markdown text, without the lines of fenced code."""
    fence = ""
    lines: list[str] = []
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if fence:
            # Only the same sign, at least as long, with nothing behind it, closes a fence.
            if mark and mark["fence"].startswith(fence) and not mark["rest"].strip():
                fence = ""
        elif mark:
            fence = mark["fence"]
        elif line.strip():
            lines.append(line)
            continue
        if lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _without_spans(paragraph: str) -> str:
    """Return a paragraph with each span of code, from a run of backticks to the next as long, replaced by one."""
    runs = list(_RUN.finditer(paragraph))
    if not runs:
        return paragraph
    closing: list[int | None] = [None] * len(runs)
    latest: dict[int, int] = {}
    for index in range(len(runs) - 1, -1, -1):
        length = len(runs[index][0])
        closing[index] = latest.get(length)
        latest[length] = index
    kept: list[str] = []
    start = index = 0
    while index < len(runs):
        end = closing[index]
        if end is not None:
            kept.append(paragraph[start : runs[index].start()])
            start = runs[end].end()
            index = end
        index += 1
    kept.append(paragraph[start:])
    return "`".join(kept)
