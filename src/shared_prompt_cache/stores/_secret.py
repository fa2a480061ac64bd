"""The secret under which entries are sealed: from the environment, or from a file that only its owner can read.

The file is made by whoever needs it first. It is written beside its place and then linked into it, which fails if
something is there already: of two processes that start at once one makes the secret and the other reads it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from shared_prompt_cache.errors import ConfigError, StoreError

VARIABLE: Final = "SHARED_PROMPT_CACHE_KEY"
"""The environment variable that holds a secret."""
_LEAST: Final = 16
_SIZE: Final = 32
_PERSON: Final = b"prompt secret"
_FOLDER: Final = "shared-prompt-cache"
_NAME: Final = "key"
# A symlink is not followed, a child does not inherit it, and nobody waits for a pipe. Windows has none of these.
_SAFELY: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_BINARY: Final = getattr(os, "O_BINARY", 0)
_REMEDY: Final = f"or set {VARIABLE} to a text of at least {_LEAST} characters that nobody can guess"


def load_secret(environ: Mapping[str, str] | None = None) -> bytes:
    """Return the secret of this user, 32 bytes; make one if there is none. It blocks: call it in a worker thread.

    `SHARED_PROMPT_CACHE_KEY` comes first; hosts and containers that share a store need the same there. Else it is
    the file `shared-prompt-cache/key` in the user's folder for state.

    Args:
        environ: The environment; None: that of the process.

    Raises:
        ConfigError: If the variable is set and too short. It is part of the configuration: somebody has to change it,
            and nothing gets better by going on.
        StoreError: If the file cannot be made, or is not to be trusted. That is a state of the machine, like a store
            on a disk that is full: the cache goes on in memory, says so, and tries again; but a file that is not to
            be trusted is `final`.
    """
    environ = os.environ if environ is None else environ
    given = environ.get(VARIABLE, "").strip()
    if given:
        return _from_text(given)
    path = key_file(environ)
    try:
        return _from_file(path)
    except OSError as error:
        raise _failure(path, f"{error.strerror or error}; let its folder be written to, {_REMEDY}") from error


def key_file(environ: Mapping[str, str]) -> Path:
    """Return the path of the file, by the rules of the platform.

    Raises:
        StoreError: If this user has no folder for it.
    """
    if sys.platform == "win32":
        folder = Path(environ.get("LOCALAPPDATA", ""))
    elif sys.platform == "darwin":
        folder = _home(environ) / "Library" / "Application Support"
    else:
        folder = Path(environ.get("XDG_STATE_HOME", ""))
        if not folder.is_absolute():  # to be ignored, as that specification says
            folder = _home(environ) / ".local" / "state"
    path = folder / _FOLDER / _NAME
    if not path.is_absolute():
        raise _failure(path, f"this user has no home folder; set HOME, {_REMEDY}")
    return path


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - without a home it raises nothing


def _from_text(text: str) -> bytes:
    if len(text) < _LEAST:
        raise ConfigError(
            f"the environment variable {VARIABLE} has {len(text)} characters, which can be guessed; set it to at least "
            f"{_LEAST}, such as the output of: python -c 'import secrets; print(secrets.token_hex())'",
            field=VARIABLE,
        )
    # Whatever bytes were in the environment: those that are no text stand in it as halves of surrogate pairs.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_SIZE, person=_PERSON).digest()


def _from_file(path: Path) -> bytes:
    _make_folder(path.parent)
    _check_folder(path)
    try:
        return _read(path)
    except FileNotFoundError:
        _make(path)
    return _read(path)  # what is there now, whoever made it


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, for its owner alone whatever the umask; leave alone what is there."""
    if os.path.lexists(folder):
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(stat.S_IRWXU)
        folder.chmod(stat.S_IRWXU)  # the umask may have taken some of it


def _check_folder(path: Path) -> None:
    status = path.parent.lstat()
    if not stat.S_ISDIR(status.st_mode):
        _refuse(path, "what should be its folder is a symlink, or a file", "put a folder in its place")
    _check_owner(status, path, "its folder")
    if _is_open_to_others(status, stat.S_IWGRP | stat.S_IWOTH):
        _refuse(path, "others than its owner can write into its folder", f"run: chmod 700 {path.parent}")


def _read(path: Path) -> bytes:
    _check_file(path.lstat(), path)
    descriptor = os.open(path, os.O_RDONLY | _SAFELY | _BINARY)
    try:
        _check_file(os.fstat(descriptor), path)  # what was opened may be another than what was looked at
        secret = os.read(descriptor, _SIZE + 1)
    finally:
        os.close(descriptor)
    if len(secret) != _SIZE:
        _refuse(path, f"it does not have the {_SIZE} bytes of a key", "remove it, and another is made")
    return secret


def _check_file(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        _refuse(path, "it is a symlink, or no file", "remove it, and another is made")
    _check_owner(status, path, "it")
    if _is_open_to_others(status, stat.S_IRWXG | stat.S_IRWXO):
        _refuse(path, "others than its owner can open it", "remove it, and another is made")


def _check_owner(status: os.stat_result, path: Path, what: str) -> None:
    if sys.platform != "win32" and status.st_uid != os.geteuid():
        remedy = "run as its owner, or remove it, and another is made"
        _refuse(path, f"{what} belongs to the user {status.st_uid}, and this is {os.geteuid()}", remedy)


def _is_open_to_others(status: os.stat_result, rights: int) -> bool:
    return sys.platform != "win32" and bool(status.st_mode & rights)  # there the mode says nothing of who may do what


def _make(path: Path) -> None:
    """Put a new secret at `path`, unless something is there by then."""
    beside = path.with_name(f".{_NAME}-{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY | _BINARY, stat.S_IRUSR | stat.S_IWUSR)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if sys.platform != "win32":
                os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR)  # the umask may have taken some of it
            file.write(secrets.token_bytes(_SIZE))
            file.flush()
            os.fsync(descriptor)  # or after a crash there could be a name without its bytes
        _publish(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink()


def _publish(beside: Path, path: Path) -> None:
    try:
        path.hardlink_to(beside)
    except FileExistsError:
        return  # another process was faster
    except OSError:  # a file system without hard links
        if not os.path.lexists(path):
            # Of two processes in this very moment, one goes on with a secret that is lost, and misses what it stores.
            beside.rename(path)


def _failure(path: Path, reason: str, *, final: bool = False) -> StoreError:
    return StoreError(f"the key file of stored entries, {path}: {reason}", operation="open", final=final)


def _refuse(path: Path, what: str, remedy: str) -> NoReturn:
    raise _failure(path, f"{what}, so it is not trusted; {remedy}, {_REMEDY}", final=True)
