"""How programs edit files: each style as a function of a path and the new text.

All of them leave `text` as the content of `path`. A style may need something beside the file; it makes that first, in
a folder of its own (`<name>.d`) beside the file.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

Edit = Callable[[Path, str], object]


def beside(path: Path) -> Path:
    """Return a folder for what an edit needs, outside of what rules match."""
    folder = path.parent / f"{path.name}.d"
    folder.mkdir(exist_ok=True)
    return folder


def in_place(path: Path, text: str) -> None:
    """Write over the content without truncating it first; of the same size, the file never looks different."""
    with path.open("r+", encoding="utf-8") as file:
        file.write(text)
        file.truncate()


def append(path: Path, text: str) -> None:
    """Truncate, then write in two steps, the second by appending."""
    half = len(text) // 2
    path.write_text(text[:half], encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write(text[half:])


def truncate_and_write(path: Path, text: str) -> None:
    """As `open(path, "w")` does."""
    path.write_text(text, encoding="utf-8")


def rename_from_inside(path: Path, text: str) -> None:
    """A temporary file in the same folder, renamed over it, as VS Code and most careful programs do."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def rename_from_outside(path: Path, text: str) -> None:
    """A temporary file in another folder, renamed over it."""
    temporary = beside(path) / "temporary"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def sed(path: Path, text: str) -> None:
    """`sed -i` makes a file of its own and renames it; `text` is one line here."""
    if not path.read_text(encoding="utf-8"):
        path.write_text("x\n", encoding="utf-8")
    line = text.rstrip("\n").replace("/", r"\/")
    subprocess.run(["sed", "-i", "-e", f"1s/.*/{line}/", "-e", "2,$d", path], check=True)


def vim(path: Path, text: str) -> None:
    """Move the file away as a backup, write a new one, remove the backup."""
    backup = path.with_name(f"{path.name}~")
    path.rename(backup)
    path.write_text(text, encoding="utf-8")
    backup.unlink()


def delete_and_create(path: Path, text: str) -> None:
    """Many file systems give the new file the inode of the old one."""
    path.unlink()
    path.write_text(text, encoding="utf-8")


def restored_mtime(path: Path, text: str) -> None:
    """Write, and give it the modification time it had, as rsync and tar do."""
    before = path.stat()
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def copy_of_an_older_file(path: Path, text: str) -> None:
    """`cp -p` of a file that was last changed long ago."""
    older = beside(path) / "older"
    older.write_text(text, encoding="utf-8")
    os.utime(older, (1_000_000_000, 1_000_000_000))
    shutil.copy2(older, path)


def hard_link(path: Path, text: str) -> None:
    """Write through another name of the file, in another folder."""
    other = beside(path) / "linked"
    other.unlink(missing_ok=True)
    os.link(path, other)
    other.write_text(text, encoding="utf-8")
    other.unlink()


def retargeted_symlink(path: Path, text: str) -> None:
    """Make the path a symlink to another file, by rename."""
    folder = beside(path)
    target = folder / f"target-{len(list(folder.iterdir()))}"
    target.write_text(text, encoding="utf-8")
    link = folder / "link"
    link.symlink_to(target)
    link.replace(path)


REPLACED: dict[str, Edit] = {
    "rename from inside": rename_from_inside,
    "rename from outside": rename_from_outside,
    "sed -i": sed,
    "vim": vim,
    "delete and create": delete_and_create,
    "retargeted symlink": retargeted_symlink,
}
"""Styles that put another file in the place of the old one."""

WRITTEN: dict[str, Edit] = {
    "in place": in_place,
    "append": append,
    "truncate and write": truncate_and_write,
    "restored mtime": restored_mtime,
    "copy of an older file": copy_of_an_older_file,
    "hard link": hard_link,
}
"""Styles that write into the file that is there."""

EDITS: dict[str, Edit] = {**REPLACED, **WRITTEN}

UNSEEN: frozenset[str] = frozenset({"hard link"})
"""Styles of which no watcher of the file's folder is told."""


def touch(path: Path) -> None:
    """Change the timestamps alone."""
    os.utime(path)


def chmod(path: Path) -> None:
    """Change the mode alone."""
    path.chmod(0o600 if path.stat().st_mode & 0o044 else 0o644)


def identical_rewrite(path: Path) -> None:
    """Write what is there already."""
    path.write_bytes(path.read_bytes())


def identical_replacement(path: Path) -> None:
    """Put an equal file in its place."""
    rename_from_inside(path, path.read_text(encoding="utf-8"))


HARMLESS: dict[str, Callable[[Path], object]] = {
    "touch": touch,
    "chmod": chmod,
    "identical rewrite": identical_rewrite,
    "identical replacement": identical_replacement,
}
"""What leaves the content as it is."""
