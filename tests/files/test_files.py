"""`cache.files` reads what a value is made from, with errors that say what was wrong.

Seen to fail on planted bugs: absence that is not recorded, a path that resolves when the file is read instead of at the
call, a folder recorded by more than its names, a check that is left out, and a reading on the loop.
"""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from _faults import Meddler, refusing
from _support import Counted
from shared_prompt_cache import CacheError, ConfigError, ConfigTypeError, SharedPromptCache
from shared_prompt_cache._files import files as files_module
from shared_prompt_cache.testing import wait_until


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("naïve", encoding="utf-8")
    return path


async def dependencies_of(cache, read):
    """Return what a value is recorded as made from, if `read()` is all that its computation does."""
    await cache.get_or_compute("key", read)
    return (await cache.get_prompt("key")).dependencies


# What it returns


@pytest.mark.parametrize("spelling", [str, Path])
async def test_text_and_bytes_are_read_by_a_path_or_its_text(cache, file, spelling):
    assert await cache.files.read_text(spelling(file)) == "naïve"
    assert await cache.files.read_bytes(spelling(file)) == "naïve".encode()
    assert await cache.files.glob(spelling(file.parent), "*") == [file]


async def test_an_encoding_may_be_named_and_errors_forgiven(cache, file):
    file.write_bytes("naïve".encode("latin-1"))
    assert await cache.files.read_text(file, "latin-1") == "naïve"
    assert await cache.files.read_text(file, errors="replace") == "na\N{REPLACEMENT CHARACTER}ve"
    with pytest.raises(UnicodeDecodeError):
        await cache.files.read_text(file)


async def test_line_ends_stay_as_they_are(cache, file):
    file.write_bytes(b"a\r\nb\r")
    assert await cache.files.read_text(file) == "a\r\nb\r"


async def test_paths_are_relative_to_the_folder_of_the_call_and_start_at_home(cache, file, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    gate, in_thread = asyncio.Event(), cache._proofs.in_thread

    async def late(*args):
        await gate.wait()
        return await in_thread(*args)

    monkeypatch.setattr(cache._proofs, "in_thread", late)
    reading = asyncio.create_task(cache.files.read_text("other/../a.md"))
    await asyncio.sleep(0)
    monkeypatch.chdir(other)
    gate.set()
    assert await reading == "naïve"
    assert await cache.files.read_text("../a.md") == "naïve"
    assert await cache.files.read_text("~/a.md") == "naïve"
    assert await cache.files.glob("..", "*.md") == [file]


async def test_two_spellings_of_a_path_are_one_dependency(cache, file, monkeypatch):
    """F26."""
    monkeypatch.chdir(file.parent)

    async def read():
        for spelling in ("a.md", f"{file.parent}//a.md", f"./x/../{file.name}", file):
            await cache.files.read_bytes(spelling)

    assert await dependencies_of(cache, read) == (str(file),)


async def test_outside_of_a_computation_it_only_reads(cache, file):
    assert await cache.files.read_text(file) == "naïve"
    assert await cache.files.glob(file.parent, "*.md") == [file]
    assert await cache.files.depends_on(file) is None
    assert not cache._proofs._held


async def test_nothing_is_read_on_the_loop(cache, file, monkeypatch):
    """P8."""
    threads = set()
    for name in ("read_file", "glob"):
        noted = Meddler(getattr(files_module, name), lambda _: threads.add(threading.current_thread()), times=9)
        monkeypatch.setattr(files_module, name, noted)
    await cache.files.read_text(file)
    await cache.files.glob(file.parent, "*")
    assert threads
    assert threading.current_thread() not in threads


async def test_it_works_without_a_start_and_ends_with_the_cache(file):
    """P10."""
    before = set(threading.enumerate())
    cache = SharedPromptCache()
    assert await cache.files.read_text(file) == "naïve"
    await cache.aclose()
    assert set(threading.enumerate()) == before


# What it refuses


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (None, ConfigTypeError),
        (b"/bytes", ConfigTypeError),
        (3, ConfigTypeError),
        ("", ConfigError),
        ("a\0b", ConfigError),
        ("/dev/null", ConfigError),
        ("/", ConfigError),
    ],
)
async def test_what_is_no_path_of_a_file_is_refused(cache, path, error):
    """T17."""
    for read in (cache.files.read_text, cache.files.read_bytes):
        with pytest.raises(error) as caught:
            await read(path)
        assert isinstance(caught.value, CacheError)
        assert caught.value.field == "path"
        assert "; " in str(caught.value), "a remedy follows"


@pytest.mark.parametrize(
    ("root", "pattern", "field"),
    [(None, "*", "root"), ("", "*", "root"), ("/", 3, "pattern"), ("/", b"*", "pattern"), ("/", "../*", "pattern")],
)
async def test_what_cannot_be_listed_is_refused(cache, root, pattern, field):
    with pytest.raises(ConfigError) as caught:
        await cache.files.glob(root, pattern)
    assert caught.value.field == field


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("paths", [(None,), ("a", 3), ("",)])
async def test_what_cannot_be_declared_is_refused(cache, paths, inside):
    """Has caught: a declaration outside of a computation that took anything."""

    async def declare():
        await cache.files.depends_on(*paths)

    with pytest.raises(ConfigError) as caught:
        await (cache.get_or_compute("key", declare) if inside else declare())
    assert caught.value.field == "paths"


async def test_a_file_that_may_not_be_read_is_an_error_of_the_system(cache, file, monkeypatch):
    denied = PermissionError(13, "Permission denied", str(file))
    monkeypatch.setattr(os, "open", refusing(os.open, denied, file))
    compute = Counted(lambda: cache.files.read_text(file))
    with pytest.raises(PermissionError):
        await cache.get_or_compute("key", compute)
    monkeypatch.undo()
    assert await cache.get_or_compute("key", compute) == "naïve"


# What it records


async def test_a_file_that_is_not_there_is_an_error_with_its_name_and_its_creation_is_noticed(cache, tmp_path):
    """F7."""
    missing = tmp_path / "none" / "a.md"
    with pytest.raises(FileNotFoundError) as caught:
        await cache.files.read_text(missing)
    assert (caught.value.errno, caught.value.filename) == (2, str(missing))

    async def read():
        try:
            return await cache.files.read_text(missing)
        except FileNotFoundError:
            return "nothing"

    compute = Counted(read)
    assert await cache.get_or_compute("key", compute) == "nothing"
    missing.parent.mkdir()
    assert await cache.get_or_compute("key", compute) == "nothing"
    assert compute.ended == 1
    missing.write_text("something")
    assert await cache.get_or_compute("key", compute) == "something"


async def test_a_failure_that_is_kept_goes_when_the_file_appears(cache, tmp_path):
    missing = tmp_path / "a.md"
    compute = Counted(lambda: cache.files.read_text(missing))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await cache.get_or_compute("key", compute, cache_errors_for=60)
    assert compute.began == 1
    missing.write_text("something")
    assert await cache.get_or_compute("key", compute, cache_errors_for=60) == "something"


@pytest.mark.parametrize("declared", ["by the option", "inside"])
async def test_a_folder_that_is_declared_is_its_names_alone(cache, file, declared):
    """F8."""

    async def read():
        if declared == "inside":
            await cache.files.depends_on(file.parent)
        return len(list(file.parent.iterdir()))

    compute = Counted(read)
    options = {"depends_on": file.parent} if declared == "by the option" else {}
    assert await cache.get_or_compute("key", compute, **options) == 1
    file.write_text("another content")
    assert await cache.get_or_compute("key", compute, **options) == 1
    assert compute.ended == 1
    file.rename(file.with_name("b.md"))
    await cache.get_or_compute("key", compute, **options)
    assert compute.ended == 2
    (file.parent / "sub").mkdir()
    assert await cache.get_or_compute("key", compute, **options) == 2
    (file.parent / "sub" / "c.md").touch()
    assert await cache.get_or_compute("key", compute, **options) == 2
    assert compute.ended == 3


async def test_many_paths_are_declared_at_once(cache, file, tmp_path):
    paths = [file, str(tmp_path), tmp_path / "none"]

    async def read():
        await cache.files.depends_on(*paths)
        await cache.files.depends_on()

    assert await dependencies_of(cache, read) == tuple(sorted(map(str, paths)))


async def test_a_file_that_changes_between_its_declaration_and_another_way_of_reading_it(cache, file):
    """F18."""

    async def read():
        await cache.files.depends_on(file)
        file.write_text("two")
        return file.read_text()

    assert await cache.get_or_compute("key", read) == "two"
    assert await cache.get_prompt("key") is None


async def test_a_listing_and_the_contents_that_were_read_are_recorded(cache, file):
    async def read():
        return [await cache.files.read_text(path) for path in await cache.files.glob(file.parent, "*.md")]

    assert await cache.get_or_compute("key", read) == ["naïve"]
    assert (await cache.get_prompt("key")).dependencies == (str(file.parent), str(file))
    file.with_name("b.md").write_text("new")
    assert await cache.get_or_compute("key", read) == ["naïve", "new"]
    file.unlink()
    assert await cache.get_or_compute("key", read) == ["new"]


async def test_who_is_cancelled_while_reading_leaves_nothing(cache, file, monkeypatch):
    """P2."""
    gate, entered = threading.Event(), threading.Event()

    def slow(path):
        entered.set()
        gate.wait()
        return b"", None

    monkeypatch.setattr(files_module, "read_file", slow)
    reading = asyncio.create_task(cache.get_or_compute("key", lambda: cache.files.read_text(file)))
    await wait_until(entered.is_set)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    gate.set()
    monkeypatch.undo()
    assert await cache.get_or_compute("key", lambda: cache.files.read_text(file)) == "naïve"
