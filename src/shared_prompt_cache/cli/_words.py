"""How figures and texts of others are printed."""

import time
from datetime import datetime
from math import inf
from typing import Final

_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with what it counts."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: float) -> str:
    """Return a number of bytes, in at most 8 characters."""
    for unit in ("B", "kB", "MB"):
        if round(number, 1) < 1000:  # noqa: PLR2004 - as it is printed
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def span(seconds: float) -> str:
    """Return a time to go or gone, in the largest unit of which there is one."""
    if seconds == inf:
        return "never"
    for length, unit in _UNITS:
        if abs(seconds) >= length:
            return f"{seconds / length:.0f} {unit}"
    return "0 s"


def moment(at: float) -> str:
    """Return a time as the clock on the wall shows it."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # no clock shows it
        return f"{at:g} s after {time.strftime('%Y-%m-%d', time.gmtime(0))}"


def plain(text: str) -> str:
    """Return a text of others as one that cannot do anything to a terminal."""
    if text.isprintable():
        return text
    return "".join([sign if sign.isprintable() else repr(sign)[1:-1] for sign in text])
