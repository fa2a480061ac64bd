"""One native watcher of watchfiles, and the thread that arms it and reads it.

The constructor of `RustNotify` returns when every folder is armed; the generators of watchfiles' public interface
cannot tell that moment, which is why it is used directly. What it does not say is found out here: which folder of many
was missing, or was replaced between looking and arming, and which were left out at a limit of the system.
"""

import asyncio
import os
import stat
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shared_prompt_cache._files.watchers._worker import StopEvent, Worker, in_slices, settle

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

Identity = tuple[int, int]
"""Device and inode of a folder."""

_ATTEMPTS = 7
_MODIFIED = 2  # watchfiles.Change.modified
_FREEING = 0.005  # a native watcher gives its descriptors back on a thread of its own, after it was dropped
_LEASH = 40  # milliseconds after which the thread looks whether it still has a loop and an owner
_NOT_TEXT = "its name is not UTF-8"

_arming = threading.Lock()  # so that a descriptor that appears while one of us arms is its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What became of the folders that were to be watched; those that do not exist are in neither mapping.

    Attributes:
        rust: The native watcher, or None where nothing could be armed.
        armed: The folders that are watched, and which folder each path was at that moment.
        refused: The folders that exist and cannot be watched, and why.
    """

    rust: "RustNotify | None" = None
    armed: dict[str, Identity] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def identify(folders: Iterable[str]) -> tuple[dict[str, Identity], dict[str, str]]:
    """Look which paths are folders.

    Returns:
        Device and inode of those that are, and a reason for each that cannot be looked at.
    """
    found: dict[str, Identity] = {}
    refused: dict[str, str] = {}
    for folder in folders:
        try:
            folder.encode()
            status = os.stat(folder)
        except UnicodeEncodeError:
            refused[folder] = _NOT_TEXT
        except PermissionError:
            refused[folder] = "permission denied"
        except (OSError, ValueError):
            continue
        else:
            if stat.S_ISDIR(status.st_mode):
                found[folder] = (status.st_dev, status.st_ino)
    return found, refused


def open_native(folders: Iterable[str]) -> Opened:
    """Arm a native watcher for these folders, as many as can be. Blocks, and holds the GIL while it arms."""
    from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError  # noqa: PLC0415 - loaded when used

    found, refused = identify(folders)
    vanished: OSError | None = None
    for last in (False,) * _ATTEMPTS + (True,):
        if not found:
            return Opened(refused=refused)
        try:
            with _arming:
                rust = RustNotify([*found], False, False, 0, False, False)
        except FileNotFoundError as error:
            vanished = error  # one of them has gone since, and the constructor fails as a whole: look again which
        except WatchfilesRustInternalError as error:
            reason = f"{error} (the limit fs.inotify.max_user_instances)"
            return Opened(refused=refused | dict.fromkeys(found, reason))
        except OSError as error:
            return _open_partly(found, refused, error)
        else:
            now, _ = identify(found)
            armed = {folder: identity for folder, identity in found.items() if now.get(folder) == identity}
            if last or len(armed) == len(found):
                return Opened(rust=rust, armed=armed, refused=refused)
            rust.close()  # another folder is at one of the paths now: which of the two is armed cannot be told
        found, more = identify(found)
        refused |= more
    return _open_partly(found, refused, vanished)


def _open_partly(found: dict[str, Identity], refused: dict[str, str], error: OSError | None) -> Opened:
    """Arm what can be armed, where a folder is unreadable or the system's limit of watches is reached."""
    from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError  # noqa: PLC0415 - loaded when used

    refused = dict(refused)
    readable: dict[str, Identity] = {}
    for folder, identity in found.items():
        if _readable(folder):
            readable[folder] = identity
        else:
            refused[folder] = "permission denied"
    if not readable:
        return Opened(refused=refused)
    time.sleep(_FREEING)
    try:
        with _arming:
            before = _inotify_descriptors()
            rust = RustNotify([*readable], False, False, 0, False, True)
            watched = _watched_inodes(_inotify_descriptors() - before)
    except (OSError, WatchfilesRustInternalError) as failure:
        return Opened(refused=refused | dict.fromkeys(readable, str(failure)))
    now, _ = identify(readable)
    reason = f"the system refused to watch it ({_limit() or error})"
    armed: dict[str, Identity] = {}
    for folder, identity in readable.items():
        if now.get(folder) != identity:
            continue
        if watched is None or identity[1] in watched:
            armed[folder] = identity
        else:
            refused[folder] = reason
    if not armed:
        rust.close()
        return Opened(refused=refused)
    return Opened(rust=rust, armed=armed, refused=refused)


def _readable(folder: str) -> bool:
    return os.access(folder, os.R_OK, effective_ids=os.access in os.supports_effective_ids)


def _limit() -> str:
    try:
        value = Path("/proc/sys/fs/inotify/max_user_watches").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return f"the limit fs.inotify.max_user_watches is {value}"


def _inotify_descriptors() -> set[str]:
    found: set[str] = set()
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return found
    for name in names:
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify":
                found.add(name)
        except OSError:
            continue
    return found


def _watched_inodes(descriptors: Iterable[str]) -> set[int] | None:
    """The inodes that these inotify descriptors watch; None on a system without inotify.

    By inode alone: the device is the file system's own there, which on btrfs and overlayfs is not what `stat` tells.
    """
    if sys.platform != "linux":
        return None
    inodes: set[int] = set()
    for name in descriptors:
        try:
            lines = Path(f"/proc/self/fdinfo/{name}").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words and words[0] == "inotify":
                inodes.update(int(word[4:], 16) for word in words if word.startswith("ino:"))
    return inodes


def _twins(armed: Mapping[str, Identity]) -> dict[str, list[str]]:
    """Paths that are one folder, each with all of them: inotify has one watch for it and tells one of its paths."""
    groups: defaultdict[Identity, list[str]] = defaultdict(list)
    for folder, identity in armed.items():
        groups[identity].append(folder)
    return {folder: group for group in groups.values() if len(group) > 1 for folder in group}


class Native(Worker):
    """A native watcher and its thread: armed by `arm()`, ended by `end()`, gone after `join()`.

    Attributes:
        armed: The folders that it watches. The owner takes out those that it knows to be lost.
        size: How many folders it watched in the beginning.
        dead: Whether its owner was told that it died.
        born_at: When it was armed, on the loop's clock.
    """

    def __init__(
        self,
        owner: object,
        folders: Iterable[str],
        *,
        step: int,
        debounce: int,
        changed: Callable[..., object],
        died: Callable[..., object],
    ) -> None:
        """Make one; `changed(owner, native, slices, lost)` and `died(owner, native, error)` are called on the loop.

        `lost` are the folders that were removed or renamed, so that nothing more is heard of what is there now.
        """
        super().__init__(owner)
        self._folders = tuple(folders)
        self._step = step
        self._debounce = debounce
        self._changed = changed
        self._died = died
        self._twins: dict[str, list[str]] = {}
        self.armed: dict[str, Identity] = {}
        self.size = 0
        self.dead = False
        self.born_at = 0.0

    async def arm(self) -> dict[str, str]:
        """Arm, and begin to read.

        Returns:
            The folders that cannot be watched, and why.
        """
        loop = asyncio.get_running_loop()
        opening: asyncio.Future[dict[str, str]] = loop.create_future()
        try:
            self.start("watchfiles", lambda: self._serve(opening))
            refused = await opening
        except BaseException:
            self.end()  # cancelled: the thread closes whatever the constructor still returns
            raise
        self.born_at = loop.time()
        return refused

    def _serve(self, opening: asyncio.Future[dict[str, str]]) -> None:
        try:
            opened = open_native(self._folders)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is watched
            opened = Opened(refused=dict.fromkeys(self._folders, str(error) or type(error).__name__))
        self.armed, self.size, self._twins = opened.armed, len(opened.armed), _twins(opened.armed)
        self.post(settle, opening, opened.refused, None)
        if opened.rust is None:
            return
        try:
            self._read(opened.rust)
        except BaseException as error:  # noqa: BLE001 - a panic of native code is no Exception, and ends only this watcher
            if not self.over():
                self.post(self._died, self, error)
        finally:
            opened.rust.close()

    def _read(self, rust: "RustNotify") -> None:
        # No timeout: when one expires, watchfiles drops what has arrived since it last looked.
        stop = StopEvent(self, every=max(1, _LEASH // self._step))
        while not isinstance(batch := rust.watch(self._debounce, self._step, 0, stop), str):
            changes: set[tuple[int, str]] = self._with_twins(batch) if self._twins else batch
            lost = [path for kind, path in changes if kind != _MODIFIED and path in self.armed]
            self.post(self._changed, self, in_slices({path for _, path in changes}), lost)

    def _with_twins(self, batch: set[tuple[int, str]]) -> set[tuple[int, str]]:
        changes = set(batch)
        for kind, path in batch:
            changes.update((kind, twin) for twin in self._twins.get(path, ()))
            folder, name = os.path.split(path)
            changes.update((kind, os.path.join(twin, name)) for twin in self._twins.get(folder, ()))
        return changes
