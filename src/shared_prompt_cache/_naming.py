"""How messages name values and fields; and which texts can name a file."""

import os


def shown(value: object) -> str:
    """Return a value for a message: at most 200 characters, whatever its `repr` does."""
    try:
        return f"{value!r:.200}"
    except Exception:  # noqa: BLE001 - the repr belongs to the value's type, and that of a huge int raises
        return f"of type {type(value).__qualname__}"


def member(field: str, name: object) -> str:
    """Return the dotted path of what is called `name` in `field`, which is empty at the top."""
    text = name if isinstance(name, str) and name.isidentifier() and len(name) <= 200 else shown(name)  # noqa: PLR2004
    return f"{field}.{text}" if field else text


def is_path(text: str) -> bool:
    """Return whether a file system can be asked about `text`: it is not empty, and can be encoded."""
    try:
        return b"\0" not in (os.fsencode(text) or b"\0")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
