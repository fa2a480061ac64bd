"""Many rows by few statements: a statement for each row costs as much as what it does.

A portion has a fixed size, so that the text of its statement is always the same and is compiled once.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

_PORTION: Final = 64


def select(raw: sqlite3.Connection, statement: str, values: Sequence[object]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a statement that ends in `IN`, for all values; none of them twice, or its rows come twice."""
    for start in range(0, len(values), _PORTION):
        portion = values[start : start + _PORTION]
        padding = (portion[-1],) * (_PORTION - len(portion))
        yield from raw.execute(_with_list(statement), (*portion, *padding)).fetchall()


def insert(raw: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]], after: str = "") -> None:
    """Insert rows by a statement that ends in `VALUES`; `after` follows the values."""
    whole = len(rows) - len(rows) % _PORTION
    for start in range(0, whole, _PORTION):
        portion = rows[start : start + _PORTION]
        raw.execute(_with_rows(statement, len(rows[0]), _PORTION, after), tuple(chain.from_iterable(portion)))
    if whole < len(rows):
        raw.executemany(_with_rows(statement, len(rows[0]), 1, after), rows[whole:])


@cache
def _with_list(statement: str) -> str:
    return f"{statement} ({', '.join('?' * _PORTION)})"


@cache
def _with_rows(statement: str, width: int, number: int, after: str) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{statement} {', '.join([row] * number)} {after}"
