"""The benchmark: what the cache costs, as ratios to the least there could be, each beside its target.

    python tests/performance/bench.py [--quick] [--strict] [--only SECTION]...

Ratios hold on any machine, times do not, so there are no times; `_measure.py` says how the ratios come about. The
peers are compared if they are installed.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from time import perf_counter

from _comparison import peers
from _files import files
from _footprint import imports, memory
from _hits import hits, stampede
from _holds import holds
from _invalidation import invalidation
from _measure import FULL, QUICK, Findings, Row, Size
from _store import store
from _watching import events, idle

SECTIONS: dict[str, Callable[[Size], Findings]] = {
    "hits": hits,
    "stampede": stampede,
    "files": files,
    "memory": memory,
    "imports": imports,
    "events": events,
    "idle": idle,
    "invalidation": invalidation,
    "holds": holds,
    "store": store,
    "peers": peers,
}
_UNITS = {"x": "", "B": " B", "ms": " ms", "count": ""}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and return 1 if a target was missed and `--strict` given."""
    parser = argparse.ArgumentParser(description="Measure the cache against bare Python.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and 100,000 entries for 1,000,000")
    parser.add_argument("--strict", action="store_true", help="fail if a target is missed")
    parser.add_argument("--only", action="append", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    found: dict[str, Findings] = {}
    try:
        for name in options.only or SECTIONS:
            sys.stderr.write(f"{name} ... ")
            sys.stderr.flush()
            started = perf_counter()
            found[name] = SECTIONS[name](size)
            sys.stderr.write(f"{perf_counter() - started:.0f} s\n")
    finally:
        sys.stdout.write(report(size, found))
    missed = [row for findings in found.values() for row in findings.rows if not row.met]
    return int(options.strict and bool(missed))


def report(size: Size, found: dict[str, Findings]) -> str:
    """Return everything that was found, as text."""
    lines: list[tuple[str, ...]] = [("section", "what", "median", "quartiles", "target", "", "")]
    for name, findings in found.items():
        lines.extend((name, *cells(row)) for row in findings.rows)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    parts = [
        f"{python}, {platform.system()}, {os.cpu_count()} processors, {size.name} size",
        table(lines),
        *[table(findings.facts) for findings in found.values() if findings.facts],
    ]
    return "\n\n".join(parts) + "\n"


def cells(row: Row) -> tuple[str, ...]:
    """Return a figure as cells of the table."""
    if row.target is None:
        return row.what, _text(row, row.value), _spread(row), "", "", row.note
    return row.what, _text(row, row.value), _spread(row), _text(row, row.target), verdict(row), row.note


def verdict(row: Row) -> str:
    """Return what became of the target."""
    return "met" if row.met else "missed"


def _text(row: Row, value: float) -> str:
    number = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return number + _UNITS[row.unit]


def _spread(row: Row) -> str:
    return "" if row.low == row.high else f"{_text(row, row.low)} - {_text(row, row.high)}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells, the first of which is the heading, in columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in ruled
    )


if __name__ == "__main__":
    sys.exit(main())
