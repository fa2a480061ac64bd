"""A program to which the system refuses something while it uses a cache: `python -m stores._refusals WHAT FOLDER`.

A process of its own, since limits are those of a process, and permissions mean nothing to root. It prints the name of
each case that it got through.
"""

import asyncio
import os
import resource
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from shared_prompt_cache.testing import wait_until
from stores._caches import anew, fill, found, hasten, state, use_every_verb, well

NOBODY = 65534
Begin = Callable[[Path], object]
End = Callable[[Path, object], object]


async def through(folder: Path, begin: Begin, end: End, *, started: bool, unharmed: bool = False, lost: bool = False):
    """Use a cache before, during and after something.

    Args:
        folder: Where its store is; what it is called is the name of the case.
        begin: Begins it; what it returns is given to `end`.
        end: Ends it.
        started: Whether it begins while the cache is open, or before it is opened again.
        unharmed: Whether the store works nevertheless.
        lost: Whether what the store had before may be lost.
    """
    async with anew(folder) as cache:
        await fill(cache)
        if started:
            await meet(cache, folder, begin(folder), end, unharmed=unharmed, lost=lost)
    if not started:
        begun = begin(folder)
        async with anew(folder) as cache:
            await meet(cache, folder, begun, end, unharmed=unharmed, lost=lost)
    left = await found(folder, "kept", "after", "doomed")
    expected = {"kept": "kept", "after": "after"}
    assert left == expected or (lost and left == {"after": "after"}), (folder.name, left)
    print(folder.name, flush=True)  # noqa: T201 - read by the test


async def meet(cache, folder, begun, end, *, unharmed, lost):
    await use_every_verb(cache, forgets=lost)
    await use_every_verb(cache, forgets=lost)
    if not unharmed:
        await wait_until(lambda: state(cache).status == "degraded", what="health says so")
        assert state(cache).reason
        assert state(cache).since
    await use_every_verb(cache, forgets=lost)
    end(folder, begun)
    await well(cache)
    await cache.set_prompt("after", "after")
    await cache.flush()
    await cache.evict_oldest(1000)
    assert (await cache.get_prompt("after")).prompt == "after"  # from the store


def forbid(mode: int) -> Begin:
    return lambda folder: folder.chmod(mode)


def allow(folder: Path, _: object) -> None:
    folder.chmod(0o700)


async def permissions(base: Path) -> None:
    if os.getuid() == 0:
        os.chown(base, NOBODY, NOBODY)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    await through(base / "lost", forbid(0o000), allow, started=True)
    await through(base / "lost-before", forbid(0o000), allow, started=False)
    await through(base / "read-only", forbid(0o500), allow, started=True, unharmed=True)
    await through(base / "read-only-before", forbid(0o500), allow, started=False)
    (base / "parent").mkdir()
    await through(
        base / "parent" / "gone-and-not-to-be-made",
        lambda folder: (shutil.rmtree(folder), folder.parent.chmod(0o500)),
        lambda folder, _: folder.parent.chmod(0o700),
        started=False,
        lost=True,
    )


def take_all_descriptors(_: Path) -> list[int]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    assert 0 < len(taken) < 64
    return taken


def give_back(_: Path, taken: list[int]) -> None:
    for descriptor in taken:
        os.close(descriptor)


def replace_database(folder: Path) -> list[int]:
    """Have the store need descriptors: what it has open is none of it any more."""
    (folder / "store.db").rename(folder / "store.db.corrupt-0")
    return take_all_descriptors(folder)


def limit_files(_: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))


def limit_files_no_more(_: Path, __: object) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def limits(base: Path) -> None:
    await through(base / "descriptors", take_all_descriptors, give_back, started=True, unharmed=True)
    await through(base / "descriptors-before", take_all_descriptors, give_back, started=False)
    await through(base / "descriptors-and-file", replace_database, give_back, started=True, unharmed=True, lost=True)
    await through(base / "no-room", limit_files, limit_files_no_more, started=True, lost=True)
    await through(base / "no-room-before", limit_files, limit_files_no_more, started=False, lost=True)


def fill_disk(folder: Path) -> Path:
    filler = folder.parent / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        for _ in range(1000):
            file.write(bytes(4096))
    assert 0 < filler.stat().st_size < 1000 * 4096
    return filler


def clear_disk(_: Path, filler: Path) -> None:
    filler.unlink()


async def room(base: Path) -> None:
    """`base` is a file system with room for almost nothing."""
    await through(base / "full", fill_disk, clear_disk, started=True, lost=True)
    shutil.rmtree(base / "full")  # there is not room for two
    await through(base / "full-before", fill_disk, clear_disk, started=False, lost=True)


async def main(what: str, base: Path) -> None:
    async with anew(base / "before") as cache:
        await use_every_verb(cache)  # so that what is imported late is there
    shutil.rmtree(base / "before")
    hasten()
    await {"permissions": permissions, "limits": limits, "room": room}[what](base)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
