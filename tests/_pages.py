"""Run the Python of one page as its reader would: from top to bottom, in one namespace, in a folder of its own.

    python tests/_pages.py PAGE

A block with a bare `await` runs as in `python -m asyncio`, all of a page on one event loop; others run outside of it. A
`text` block behind a block of Python is what that prints, with `...` for what differs from run to run. Functions named
`test_…` are called, with a folder where they take `tmp_path`.
"""

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_PRINTED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code on a page.

    Attributes:
        language: As the fence says.
        text: What is inside.
        line: Where it begins.
    """

    language: str
    text: str
    line: int

    @property
    def runs(self) -> bool:
        """Whether it is Python of this page, and no file that is shown here."""
        return self.language == "python" and not self.text.startswith("--8<--")


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found["language"],
            re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
            text.count("\n", 0, found.start()) + 2,
        )
        for found in _FENCE.finditer(text)
    ]


def run(page: Path) -> None:
    """Run a page; raises what its code raises, and AssertionError if it prints something else."""
    found = blocks(page)
    namespace = {"__name__": page.stem}
    with asyncio.Runner() as runner:
        for block, following in zip(found, [*found[1:], None], strict=True):
            if not block.runs:
                continue
            printed = _run(block, namespace, runner, page)
            if following is not None and following.language == "text":
                same = doctest.OutputChecker().check_output(following.text, printed, _PRINTED)
                assert same, f"{page}:{following.line}: it printed\n{printed}"


def _run(block: Block, namespace: dict[str, object], runner: asyncio.Runner, page: Path) -> str:
    # Empty lines in front, so that a traceback tells the line of the page.
    text = "\n" * (block.line - 1) + block.text
    code = compile(text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    before = dict(namespace)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(eval(code, namespace))
        else:
            exec(code, namespace)
        for name, value in list(namespace.items()):
            if name.startswith("test_") and before.get(name) is not value:
                _call(value, runner)
    return printed.getvalue()


def _call(test, runner: asyncio.Runner) -> None:
    with tempfile.TemporaryDirectory() as folder:
        offered = {"tmp_path": Path(folder)}
        outcome = test(**{name: offered[name] for name in inspect.signature(test).parameters})
        if inspect.isawaitable(outcome):
            runner.run(outcome)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
