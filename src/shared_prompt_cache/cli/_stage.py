"""What the parts of the demonstration have in common: how they print, and how they fail."""

import sys
from typing import Final

_BOLD: Final = "\033[1m{}\033[0m"


class Wrong(Exception):  # noqa: N818 - it ends the demonstration
    """A step did not do what was announced."""


class Stage:
    """Where the steps are shown, numbered."""

    def __init__(self) -> None:
        self._step = 0

    def head(self, text: str) -> None:
        """Announce a step."""
        self._step += 1
        title = f"{self._step}. {text}"
        print("\n" + (_BOLD.format(title) if sys.stdout.isatty() else title), flush=True)

    def say(self, text: str) -> None:
        """Tell what it did."""
        print(f"   {text}", flush=True)

    def check(self, right: bool, expectation: str) -> None:  # noqa: FBT001 - the condition itself
        """End the demonstration unless it did what was announced.

        Raises:
            Wrong: If it did not.
        """
        if not right:
            raise Wrong(expectation)
