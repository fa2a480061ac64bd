"""Facts for the log, silent until the application configures logging or structlog.

Events have dotted names in the past tense; fields are facts. Prompts, metadata values and contents of files are
never logged.
"""

import logging
import sys
from contextlib import suppress
from typing import Any, Final

_LOGGER = logging.getLogger("shared_prompt_cache")
_LOGGER.addHandler(logging.NullHandler())
_METHODS: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
}


def log(level: int, event: str, /, *, exc_info: BaseException | None = None, **facts: object) -> None:
    """Log a fact: through structlog if the application has configured it, else through `logging`."""
    with suppress(Exception):  # of a processor or a filter of the application; facts may come in the middle of a change
        _log(level, event, exc_info, facts)


def _log(level: int, event: str, exc_info: BaseException | None, facts: dict[str, object]) -> None:
    structlog: Any = sys.modules.get("structlog")
    if structlog is not None and structlog.is_configured():
        extra = {} if exc_info is None else {"exc_info": exc_info}
        # By name: not every wrapper that can be configured takes a level.
        getattr(structlog.get_logger("shared_prompt_cache"), _METHODS[level])(event, **facts, **extra)
    elif _LOGGER.isEnabledFor(level):
        text = event if not facts else event + " " + " ".join(f"{name}={value!r}" for name, value in facts.items())
        _LOGGER.log(level, "%s", text, exc_info=exc_info, extra={"event": event, "facts": facts})
