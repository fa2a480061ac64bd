"""A record tells of the very content that was read, and comparing tells whether that is still there.

Seen to fail on planted bugs: each of the three looks at the file left out, a length that is not compared, a ninth try,
an opening that blocks at a FIFO, a size that is not limited, and a comparison that goes by stat where others can write.
`test_listing.py` has the listings.
"""

import os
import time
from functools import partial

import pytest

from _edits import EDITS, HARMLESS
from _faults import Meddler, refusing
from shared_prompt_cache import ConfigError
from shared_prompt_cache._files import reading
from shared_prompt_cache._files.fingerprint import Dependency, digest_of, tuple_of
from shared_prompt_cache._files.places import way
from shared_prompt_cache._files.reading import MOST_BYTES, compare, declared, glob, led_now, read_file


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("one")
    return path


@pytest.fixture
def later(monkeypatch):
    """Let time have passed, so that what is read next is settled."""
    monkeypatch.setattr(reading, "now_ns", lambda: time.time_ns() + 3_000_000_000)


# Reading a file


def test_the_record_is_that_of_the_content(file):
    content, record = read_file(str(file))
    assert content == b"one"
    assert (record.path, record.kind, record.pattern, record.folders) == (str(file), "file", None, ())
    assert record.digest == digest_of(b"one")
    assert (record.device, record.inode, record.size, record.mtime, record.ctime) == tuple_of(file.stat())
    assert record.way == way(str(file))
    assert not record.settled
    assert not record.remote


def test_what_was_last_changed_long_ago_is_settled_but_where_others_can_write(file, later, monkeypatch):
    assert read_file(str(file))[1].settled
    assert read_file(str(file.with_name("absent")))[1].settled
    monkeypatch.setattr(reading, "is_remote", lambda _: True)
    for path in (file, file.with_name("absent")):
        record = read_file(str(path))[1]
        assert record.remote
        assert not record.settled


@pytest.mark.parametrize("size", [0, 1, 3 * 64 * 1024 + 1, MOST_BYTES])
def test_a_file_is_read_to_its_end(file, size):
    file.write_bytes(bytes(size))
    content, record = read_file(str(file))
    assert content == bytes(size)
    assert record.digest == digest_of(bytes(size))


def test_a_file_that_arrives_in_small_parts_is_read_to_its_end(file, monkeypatch):
    file.write_text("longer than a part")
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 5)))
    assert read_file(str(file))[0] == b"longer than a part"


@pytest.mark.parametrize("times", [1, 7])
@pytest.mark.parametrize("text", ["x", "longer", "two"])
def test_a_file_that_is_written_while_it_is_read_is_read_again(file, monkeypatch, text, times):
    writer = Meddler(os.read, lambda count: file.write_text(f"{text}{count}"), times=times)
    monkeypatch.setattr(os, "read", writer)
    content, record = read_file(str(file))
    assert content == file.read_bytes()
    assert record.digest == digest_of(content)
    assert record.inode == file.stat().st_ino


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(file, monkeypatch):
    monkeypatch.setattr(os, "read", Meddler(os.read, lambda _: EDITS["rename from inside"](file, "two")))
    assert read_file(str(file))[0] == b"two"


def test_a_file_that_was_written_before_the_last_look_is_read_again(file, monkeypatch):
    close = Meddler(os.close, lambda _: file.write_text("two"))
    monkeypatch.setattr(os, "close", close)
    assert read_file(str(file))[0] == b"two"
    assert close.calls == 2


@pytest.mark.parametrize("odd", [0, 1, 2], ids=["before", "after", "by path"])
def test_three_looks_at_the_file_have_to_be_equal(file, monkeypatch, odd):
    other = file.with_name("other.md")
    other.write_text("two")
    others, opened = [None, None, None], Meddler(os.open, print, times=0)
    others[odd] = other.stat()
    fstat, stat = os.fstat, os.stat

    def look(function, place, **options):
        return (others and others.pop(0)) or function(place, **options)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fstat", partial(look, fstat))
    monkeypatch.setattr(os, "stat", lambda path, **rest: look(stat, path) if path == str(file) else stat(path, **rest))
    content, record = read_file(str(file))
    monkeypatch.undo()
    assert content == b"one"
    assert record.inode == file.stat().st_ino
    assert opened.calls == 2


def test_a_content_that_is_shorter_or_longer_than_the_file_is_read_again(file, monkeypatch):
    """A write moves the timestamps before the data and the size after it."""
    read, odd = os.read, [b"on", b"", b"one and more", b""]
    monkeypatch.setattr(os, "read", lambda *args: odd.pop(0) if odd else read(*args))
    content, record = read_file(str(file))
    assert content == b"one"
    assert record.digest == digest_of(b"one")


def test_after_eight_tries_the_last_content_is_returned_and_its_record_equals_nothing(file, monkeypatch, later):
    opened = Meddler(os.open, print, times=0)
    written = Meddler(os.fstat, lambda count: file.write_text(f"version {count}"), times=99)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fstat", written)
    content, record = read_file(str(file))
    assert content == b"version 15"
    assert opened.calls == 8
    monkeypatch.undo()
    assert record.digest is None
    assert compare(record) is None
    assert not record.same_content(read_file(str(file))[1])


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")  # noqa: PTH110
def test_a_file_without_a_size_of_its_own_is_read_to_its_end_and_never_kept():
    """Has caught: a single byte of it."""
    content, record = read_file("/proc/self/status")
    assert content.startswith(b"Name:")
    assert content.count(b"\n") > 10
    assert record.digest is None


# What is not there


@pytest.mark.parametrize("name", ["none", "none/inside", "a.md/inside", "dangling"])
def test_what_is_not_there_is_recorded_as_absent(file, name):
    (file.parent / "dangling").symlink_to("nowhere")
    path = str(file.parent / name)
    content, record = read_file(path)
    assert content is None
    assert (record.kind, record.digest, record.way) == ("absent", b"", way(path))
    assert compare(record) is record


def test_a_file_that_goes_while_it_is_read_is_absent(file, monkeypatch):
    monkeypatch.setattr(os, "close", Meddler(os.close, lambda _: file.unlink()))
    content, record = read_file(str(file))
    assert content is None
    assert record.kind == "absent"


def test_a_file_that_appears_after_it_was_opened_in_vain_is_read(file, monkeypatch):
    opened = os.open
    failures = [FileNotFoundError(2, "No such file or directory")]

    def shaky(*args):
        if failures:
            raise failures.pop()
        return opened(*args)

    monkeypatch.setattr(os, "open", shaky)
    assert read_file(str(file))[0] == b"one"
    failures.extend([FileNotFoundError(2, "No such file or directory")] * 8)
    content, record = read_file(str(file))
    assert content is None, "it was there at no opening"
    assert compare(record) is None


def test_a_circle_of_symlinks_is_an_error(file):
    circle = file.parent / "circle"
    circle.symlink_to("circle")
    with pytest.raises(OSError, match="symbolic links"):
        read_file(str(circle))


def test_a_file_that_goes_into_a_circle_of_symlinks_is_an_error(file, monkeypatch):
    gone = FileNotFoundError(2, "No such file or directory")
    opened = [refusing(os.open, gone, file), os.open]

    def turn(path, flags):
        file.unlink(missing_ok=True)
        file.symlink_to(file.name)
        return opened.pop(0)(path, flags)

    monkeypatch.setattr(os, "open", turn)
    with pytest.raises(OSError, match="symbolic links"):
        read_file(str(file))


# What is refused


@pytest.mark.parametrize("kind", ["FIFO", "device", "folder"])
def test_what_is_no_regular_file_is_refused_without_blocking(file, kind):
    path = file.parent / "odd"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(ConfigError, match="a folder" if kind == "folder" else "no regular file") as caught:
        read_file(str(path))
    assert caught.value.field == "path"


def test_more_than_16_mib_are_refused_before_they_are_read(file, monkeypatch):
    os.truncate(file, MOST_BYTES + 1)
    reads = Meddler(os.read, print, times=0)
    monkeypatch.setattr(os, "read", reads)
    with pytest.raises(ConfigError, match=f"has {MOST_BYTES + 1} bytes, at most {MOST_BYTES}"):
        read_file(str(file))
    assert reads.calls == 0


def test_a_file_that_grows_without_end_is_refused(file, monkeypatch):
    monkeypatch.setattr(os, "read", lambda _, size: b"x" * 1_000_000)
    with pytest.raises(ConfigError, match="at most"):
        read_file(str(file))


@pytest.mark.parametrize("function", ["open", "stat"])
def test_a_file_that_may_not_be_read_is_an_error(file, monkeypatch, function):
    denied = PermissionError(13, "Permission denied")
    monkeypatch.setattr(os, function, refusing(getattr(os, function), denied, file))
    with pytest.raises(PermissionError):
        read_file(str(file))


# Comparing


@pytest.mark.parametrize("style", EDITS)
def test_an_edit_is_a_change(file, style):
    record = read_file(str(file))[1]
    EDITS[style](file, "two")
    assert compare(record) is None


@pytest.mark.parametrize("style", HARMLESS)
def test_an_equal_content_is_no_change_and_the_record_is_renewed(file, style):
    record = read_file(str(file))[1]
    HARMLESS[style](file)
    renewed = compare(record)
    assert renewed.same_content(record)
    assert renewed.way is record.way
    assert (renewed.inode, renewed.ctime) == (file.stat().st_ino, file.stat().st_ctime_ns)


def test_a_settled_record_is_compared_without_reading(file, later, monkeypatch):
    record = read_file(str(file))[1]
    monkeypatch.setattr(os, "open", None)
    assert compare(record) is record


def test_where_others_can_write_the_content_is_read_each_time(file, later, monkeypatch):
    monkeypatch.setattr(reading, "is_remote", lambda _: True)
    records = [read_file(str(file))[1], read_file(str(file.with_name("absent")))[1]]
    assert [compare(record) is record for record in records] == [False, False]
    assert all(compare(record).same_content(record) for record in records)


def test_the_way_is_renewed_when_it_leads_elsewhere(file):
    record = read_file(str(file))[1]
    EDITS["retargeted symlink"](file, "one")
    renewed = compare(record)
    assert renewed.same_content(record)
    assert renewed.way == way(str(file)) != record.way


def test_a_settled_record_is_given_the_way_that_leads_there_now(file):
    link = file.with_name("link")
    link.symlink_to(file.parent)
    for record in (read_file(str(link / file.name))[1], glob(str(link), "*.md")[1]):
        assert led_now(record) is record
        link.unlink()
        (file.parent / "between").symlink_to(file.parent)
        link.symlink_to("between")
        led = led_now(record)
        facts = set(Dependency.__slots__) - {"way"}
        assert {name: getattr(led, name) for name in facts} == {name: getattr(record, name) for name in facts}
        assert str(file.parent / "between") in led.way.places
        assert str(file.parent / "between") not in record.way.places
        (file.parent / "between").unlink()
        link.unlink()
        link.symlink_to(file.parent)


def test_what_appears_or_goes_is_a_change(file):
    there, absent = read_file(str(file))[1], read_file(str(file.with_name("b.md")))[1]
    file.rename(file.with_name("b.md"))
    assert compare(there) is None
    assert compare(absent) is None


def test_what_can_no_longer_be_read_is_a_change(file, monkeypatch):
    record, listing = read_file(str(file))[1], glob(str(file.parent), "*")[1]
    file.unlink()
    file.mkdir()
    assert compare(record) is None
    denied = PermissionError(13, "Permission denied")
    monkeypatch.setattr(os, "scandir", refusing(os.scandir, denied, file.parent))
    assert compare(listing) is None


# Declaring


def test_a_declared_file_is_recorded_by_content_and_a_folder_by_its_names(file):
    assert declared(str(file)).digest == digest_of(b"one")
    assert declared(str(file.with_name("none"))).kind == "absent"
    record = declared(str(file.parent))
    assert (record.kind, record.pattern) == ("listing", "*")
    file.write_text("two")
    assert compare(record) is not None
    (file.parent / ".hidden").touch()
    assert compare(record) is None
    with pytest.raises(ConfigError):
        declared("/dev/null")
