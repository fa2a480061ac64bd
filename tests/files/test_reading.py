"""Reading so that the record tells of the very content that was read, and comparing with it later.

Seen to fail on planted bugs: a read that looks at the status once, a listing that takes no notice of a folder that
changes while it is listed, a status that is trusted within the slack, a comparison that goes by the status alone.
"""

import os
import random
import socket

import pytest

from shared_prompt_cache import ConfigError
from shared_prompt_cache._files import fingerprint, reading
from shared_prompt_cache._files.fingerprint import digest_of, is_settled, unchanged
from shared_prompt_cache._files.places import real, way

SECOND = 1_000_000_000


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "memory.md"
    path.write_text("- use tabs\n")
    return str(path)


@pytest.fixture
def rested(monkeypatch):
    """Let everything that has been written so far count as written long ago."""

    def rest():
        monkeypatch.setattr(reading, "now_ns", lambda: fingerprint.now_ns() + 10 * SECOND)

    return rest


# Files.


def test_a_content_comes_with_its_record(file, rested):
    rested()
    content, record = reading.read_file(file)
    assert content == b"- use tabs\n"
    assert (record.kind, record.path, record.settled) == ("file", file, True)
    assert record.digest == digest_of(content)
    assert unchanged((record,))


def test_a_young_file_proves_nothing_by_its_status(file):
    record = reading.read_file(file)[1]
    assert not record.settled
    assert not unchanged((record,))
    assert reading.compare(record) is not None  # its content does


@pytest.mark.parametrize(
    ("changed", "began", "remote", "settled"),
    [
        (5 * SECOND + 7, 5 * SECOND + 7 + 20_000_000, False, False),
        (5 * SECOND + 7, 5 * SECOND + 8 + 20_000_000, False, True),
        (5 * SECOND, 5 * SECOND + 2_100_000_000, False, False),
        (5 * SECOND, 5 * SECOND + 2_100_000_001, False, True),
        (5 * SECOND + 7, 500 * SECOND, True, False),
        (500 * SECOND + 7, 5 * SECOND, False, False),  # a file from the future
    ],
)
def test_a_status_is_settled_after_a_slack_that_depends_on_the_clock_of_the_files(changed, began, remote, settled):
    assert is_settled((1, 2, 3, changed - 1, changed), began, remote=remote) is settled
    later = 7 * SECOND + 7 if changed < 6 * SECOND else changed
    assert not is_settled((1, 2, 3, later, changed), min(began, later + 1), remote=remote)


@pytest.mark.parametrize("field", ["device", "inode", "size", "mtime", "ctime"])
def test_each_part_of_the_status_tells(file, rested, field):
    rested()
    record = reading.read_file(file)[1]
    setattr(record, field, getattr(record, field) + 1)
    assert not unchanged((record,))


def test_what_is_absent_has_a_record_too(tmp_path):
    content, record = reading.read_file(str(tmp_path / "folder" / "absent.md"))
    assert (content, record.kind) == (None, "absent")
    assert unchanged((record,))
    (tmp_path / "folder").mkdir()
    assert unchanged((record,))
    (tmp_path / "folder" / "absent.md").write_text("here")
    assert not unchanged((record,))
    assert reading.compare(record) is None


def test_a_link_that_leads_nowhere_is_absent(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    assert reading.read_file(str(tmp_path / "link"))[1].kind == "absent"


def test_links_in_a_circle_are_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="a"):
        reading.read_file(str(tmp_path / "a"))


def test_what_was_absent_behind_a_circle_cannot_be_told(tmp_path):
    record = reading.read_file(str(tmp_path / "a"))[1]
    (tmp_path / "a").symlink_to("a")
    assert not unchanged((record,))
    assert reading.compare(record) is None


def test_a_file_that_is_written_while_it_is_read_is_read_again(file, monkeypatch):
    read, texts = os.read, ["second\n", "third\n"]

    def meddling(descriptor, size):
        part = read(descriptor, size)
        if part and texts:
            text = texts.pop(0)
            with open(file, "w") as changing:  # noqa: PTH123 - as short as it gets
                changing.write(text)
        return part

    monkeypatch.setattr(os, "read", meddling)
    content, record = reading.read_file(file)
    assert content == b"third\n"
    assert record.digest == digest_of(content)


def test_a_file_that_never_holds_still_has_a_record_that_nothing_equals(file, monkeypatch):
    read, count = os.read, iter(range(1000))

    def meddling(descriptor, size):
        part = read(descriptor, size)
        with open(file, "a") as changing:  # noqa: PTH123 - as short as it gets
            changing.write(f"{next(count)}\n")
        return part

    monkeypatch.setattr(os, "read", meddling)
    record = reading.read_file(file)[1]
    assert record.digest is None
    monkeypatch.undo()
    assert reading.compare(record) is None
    assert not record.same_content(record)


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(file, monkeypatch):
    close, replaced = os.close, []

    def meddling(descriptor):
        close(descriptor)
        if not replaced:
            replaced.append(True)
            os.unlink(file)  # noqa: PTH108 - the path is text

    monkeypatch.setattr(os, "close", meddling)
    assert reading.read_file(file)[1].kind == "absent"


def test_a_file_that_comes_between_two_looks_is_read(tmp_path, monkeypatch):
    path, opened = tmp_path / "late.md", os.open

    def meddling(name, flags):
        try:
            return opened(name, flags)
        finally:
            path.write_text("here")

    monkeypatch.setattr(os, "open", meddling)
    assert reading.read_file(str(path))[0] == b"here"


def test_only_regular_files_are_read_and_nothing_blocks(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/zero"):
        with pytest.raises(ConfigError, match="regular files") as caught:
            reading.read_file(str(path))
        assert caught.value.field == "path"


def test_a_socket_cannot_be_opened(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="socket"):
            reading.read_file(str(tmp_path / "socket"))


def test_more_than_16_mib_are_not_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as sparse:
        sparse.truncate(reading.MOST_BYTES + 1)
    with pytest.raises(ConfigError, match=r"16777217 bytes.*16777216"):
        reading.read_file(str(path))
    with path.open("wb") as sparse:
        sparse.truncate(reading.MOST_BYTES)
    assert len(reading.read_file(str(path))[0]) == reading.MOST_BYTES


def test_what_cannot_be_read_any_more_has_changed(file):
    record = reading.read_file(file)[1]
    os.unlink(file)  # noqa: PTH108 - the path is text
    os.mkdir(file)  # noqa: PTH102 - the same
    assert reading.compare(record) is None


def test_equal_contents_are_unchanged_whatever_the_status_says(file, rested):
    rested()
    record = reading.read_file(file)[1]
    os.utime(file)
    now = reading.compare(record)
    assert now is not record
    assert now.way is record.way  # shared, not copied
    with open(file, "w") as changing:  # noqa: PTH123 - as short as it gets
        changing.write("- use TABS\n")
    assert reading.compare(record) is None


def test_no_status_is_trusted_that_could_hide_another_content():
    """Of a write before a read and another after its beginning, on clocks of all ticks, the status has to tell."""
    draw, trusted = random.Random(7), 0
    for _ in range(20_000):
        tick = draw.choice([1, 4_000_000, SECOND, 2 * SECOND])
        began = 1000 * SECOND + draw.randrange(4 * SECOND)
        first = began - draw.randrange(1, draw.choice([SECOND // 200, SECOND // 10, 3 * SECOND]))
        second = began + draw.randrange(SECOND // 100)
        then, later = first // tick * tick, second // tick * tick
        if is_settled((1, 2, 3, then, then), began, remote=False):
            trusted += 1
            assert then != later, f"a tick of {tick} ns hides a write {second - first} ns after the first"
    assert trusted > 1000


# Listings.


def test_a_listing_names_what_matches_and_nothing_else(tmp_path, rested):
    for name in ("a.md", "b.txt", "sub/c.md", "sub/deep/d.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    rested()
    found, record = reading.glob(str(tmp_path), "*.md")
    assert [path.name for path in found] == ["a.md"]
    assert [folder for folder, _ in record.folders] == [str(tmp_path)]
    assert unchanged((record,))
    found, record = reading.glob(str(tmp_path), "**/*.md")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.md", "sub/c.md", "sub/deep/d.md"]
    assert len(record.folders) == 3
    (tmp_path / "sub" / "deep" / "e.txt").write_text("no match")
    assert not unchanged((record,))
    assert reading.compare(record) is not None
    (tmp_path / "sub" / "deep" / "e.md").write_text("a match")
    assert reading.compare(record) is None


@pytest.mark.parametrize("root", ["absent", "file"])
def test_where_nothing_can_be_listed_there_are_no_names(tmp_path, root):
    (tmp_path / "file").write_text("no folder")
    found, record = reading.glob(str(tmp_path / root), "*")
    assert (found, record.kind, record.folders) == ([], "listing", ())
    if root == "absent":
        assert unchanged((record,))
        (tmp_path / root).mkdir()
        assert not unchanged((record,))


def test_linked_folders_are_not_entered(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.md").write_text("a")
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere")
    assert reading.glob(str(tmp_path / "here"), "**/*.md")[0] == []


def test_a_folder_that_changes_while_it_is_listed_is_listed_again(tmp_path, monkeypatch):
    scandir, names = os.scandir, ["b.md", "c.md"]

    def meddling(folder):
        found = scandir(folder)
        if names:
            (tmp_path / names.pop(0)).write_text("late")
            os.utime(tmp_path, ns=(len(names), len(names)))  # within one tick, too
        return found

    (tmp_path / "sub").mkdir()
    monkeypatch.setattr(os, "scandir", meddling)
    assert [path.name for path in reading.glob(str(tmp_path), "**/*.md")[0]] == ["b.md", "c.md"]


def test_one_that_never_holds_still_has_a_record_that_nothing_equals(tmp_path, monkeypatch):
    scandir, count = os.scandir, iter(range(1000))

    def meddling(folder):
        os.utime(tmp_path, ns=(0, next(count)))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", meddling)
    record = reading.glob(str(tmp_path), "*")[1]
    assert record.digest is None


def test_what_is_declared_is_a_content_or_the_names_of_children(tmp_path, file):
    assert reading.declared(file).kind == "file"
    record = reading.declared(str(tmp_path))
    assert (record.kind, record.pattern) == ("listing", "*")


def test_a_pattern_that_cannot_be_used_is_an_error(tmp_path):
    with pytest.raises(ConfigError):
        reading.glob(str(tmp_path), "")


# Ways.


def test_a_way_has_every_place_that_decides_where_it_leads(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "memory.md").write_text("m")
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("./absolute/../absolute")
    found = way(str(tmp_path / "relative" / "memory.md"))
    places = {str(tmp_path / name) for name in ("relative", "absolute", "real", "real/memory.md")}
    assert places <= set(found.places)
    assert {str(tmp_path), str(tmp_path / "real")} <= set(found.folders)
    assert "/" not in found.folders


def test_a_way_ends_where_something_is_missing_or_goes_round_for_ever(tmp_path):
    assert way(str(tmp_path / "a" / "b" / "c")).places[-1] == str(tmp_path / "a")
    (tmp_path / "loop").symlink_to("loop")
    assert way(str(tmp_path / "loop" / "x")).places[-1] == str(tmp_path / "loop")


def test_a_link_that_is_replaced_while_it_is_resolved_is_resolved_again(tmp_path, monkeypatch):
    calls = []

    def realpath(path):
        calls.append(path)
        if len(calls) < 3 or str(path).endswith("never"):
            raise OSError
        return str(path)

    monkeypatch.setattr(os.path, "realpath", realpath)
    assert real("/folder/link") == "/folder/link"
    assert real("/folder/./never") == "/folder/never"
