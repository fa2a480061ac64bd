"""The development warning: what a computation reads past the cache, as far as the interpreter can see it.

In Python's development mode (`python -X dev`) an audit hook notes which files are opened for reading, and which
programs are started, while a computation runs; what of that is no dependency when it is over is warned of. A hook is
called at every open of the process and stays until its end, so there is none outside of that mode. A thread that was
started without the context of the computation, and what a program reads, cannot be seen.
"""

import os
import sys
import warnings
from functools import cache
from typing import Any, Final

from shared_prompt_cache._files.places import absolute
from shared_prompt_cache._files.recorder import Recorder, current

DEVELOPING: Final = sys.flags.dev_mode
_REMEDY: Final = "so a change of it will not be noticed: read it through cache.files, or name it in depends_on"
_WRITING: Final = os.O_WRONLY | os.O_RDWR
_CODE: Final = (".py", ".pyc", ".so")
# The interpreter's own: modules are loaded while a computation runs, and devices are no inputs.
_FOREIGN: Final = tuple(
    path + os.sep for path in {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), "/proc", "/sys", "/dev"}
)


@cache
def watch_opens() -> None:
    """Note from now on what computations open; once for the process."""
    sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | os.PathLike) and not flags & _WRITING and (recorder := current()) is not None:
            recorder.opened.add(os.fspath(path))
    elif event == "subprocess.Popen" and (recorder := current()) is not None:
        recorder.started.add(str(arguments[0]))


def warn_of_unrecorded(recorder: Recorder, key: str) -> None:
    """Warn of what the computation of `key` has opened or started without a word to the cache."""
    recorded = {path for path, _ in recorder.reads}
    for path in sorted({absolute(path) for path in recorder.opened if isinstance(path, str)} - recorded):
        if not path.endswith(_CODE) and not path.startswith(_FOREIGN):
            _warn(f"the computation of {key!r} opened {path} past the cache, {_REMEDY}")
    for program in () if recorded else sorted(recorder.started):  # what it reads may have been declared
        _warn(f"the computation of {key!r} started {program}, and what that reads is not recorded, {_REMEDY}")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
