"""A fingerprint says "unchanged" only where the content is.

Seen to fail on planted bugs: a settle rule without slack, one that looks at mtime alone, one that knows no whole-second
timestamps, each field of the tuple left out of the comparison, a listing whose folders are not compared, and the record
of a folder that never held still taken for that of an absent one.
"""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_prompt_cache._files import fingerprint
from shared_prompt_cache._files.fingerprint import Dependency, digest_of, exists, is_settled, tuple_of, unchanged
from shared_prompt_cache._files.places import Way

MS, SECOND = 1_000_000, 1_000_000_000
NOW = 1_700_000_000 * SECOND
NOWHERE = Way((), ())
FIELDS = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


def record(path, *, settled=True, status=None):
    status = tuple_of(path.stat()) if status is None else status
    return Dependency(str(path), "file", NOWHERE, digest=b"x", status=status, settled=settled)


def listing(path, *, settled=True):
    folders = ((str(path), tuple_of(path.stat())),)
    return Dependency(str(path), "listing", NOWHERE, digest=b"x", pattern="*", folders=folders, settled=settled)


class Status:
    """A result of stat with these values in the order of the tuple."""

    def __init__(self, values):
        self.__dict__.update(zip(FIELDS, values, strict=True))


# The settle rule


@pytest.mark.parametrize(
    ("mtime", "ctime", "settled"),
    [
        (NOW - 20 * MS - 1, NOW - 20 * MS - 1, True),
        (NOW - 20 * MS, NOW - SECOND - 1, False),
        (NOW - SECOND, NOW - 20 * MS, False),
        (NOW + SECOND + 1, NOW - SECOND - 1, False),
        (NOW - SECOND, NOW + SECOND + 1, False),
    ],
)
def test_a_tuple_is_trusted_when_both_timestamps_are_more_than_20_ms_old(mtime, ctime, settled):
    assert is_settled((1, 1, 1, mtime, ctime), NOW, remote=False) is settled


@pytest.mark.parametrize(("age", "settled"), [(2_100 * MS, False), (2_100 * MS + 1, True)])
def test_where_ctime_has_whole_seconds_it_takes_more_than_2_100_ms(age, settled):
    ctime = NOW - 3 * SECOND
    assert is_settled((1, 1, 1, ctime, ctime), ctime + age, remote=False) is settled
    assert is_settled((1, 1, 1, ctime + 5, ctime), ctime + 5 + age, remote=False) is settled


def test_what_other_hosts_can_write_is_never_settled():
    assert is_settled((1, 1, 1, 0, 1), NOW, remote=False)
    assert not is_settled((1, 1, 1, 0, 1), NOW, remote=True)


# Comparing by stat


def test_a_settled_file_is_unchanged_and_an_unsettled_one_has_to_be_read(tmp_path):
    file = tmp_path / "a.md"
    file.write_text("one")
    assert unchanged([record(file), record(file)])
    assert not unchanged([record(file), record(file, settled=False)])
    assert unchanged([])


@pytest.mark.parametrize("field", range(5), ids=FIELDS)
def test_each_field_of_the_tuple_tells_a_change(tmp_path, field):
    file = tmp_path / "a.md"
    file.write_text("one")
    status = list(tuple_of(file.stat()))
    status[field] += 1
    assert not unchanged([record(file, status=tuple(status))])


@pytest.mark.parametrize("field", range(5), ids=FIELDS)
def test_each_field_of_each_folder_of_a_listing_tells_a_change(tmp_path, field):
    dependency = listing(tmp_path)
    assert unchanged([dependency])
    status = list(dependency.folders[0][1])
    status[field] += 1
    dependency.folders = (dependency.folders[0], (str(tmp_path), tuple(status)))
    assert not unchanged([dependency])


def test_a_listing_that_has_not_settled_has_to_be_listed_again(tmp_path):
    assert not unchanged([listing(tmp_path, settled=False)])


def test_what_was_absent_is_unchanged_as_long_as_nothing_is_there(tmp_path):
    path, inside = tmp_path / "a", tmp_path / "a" / "b"
    records = [
        Dependency(str(path), "absent", NOWHERE),
        Dependency(str(inside), "absent", NOWHERE),
        Dependency(str(path), "listing", NOWHERE, pattern="*"),
    ]
    assert unchanged(records)
    path.write_text("a file, so there is no folder to look into")
    assert [unchanged([record]) for record in records] == [False, True, False]
    path.unlink()
    inside.mkdir(parents=True)
    assert [unchanged([record]) for record in records] == [False, False, False]


def test_what_is_gone_or_cannot_be_looked_at_proves_nothing(tmp_path):
    file, folder = tmp_path / "a.md", tmp_path / "folder"
    file.write_text("one")
    folder.mkdir()
    records = [record(file), listing(folder)]
    file.unlink()
    folder.rmdir()
    assert [unchanged([record]) for record in records] == [False, False]
    (tmp_path / "circle").symlink_to("circle")
    assert not unchanged([Dependency(str(tmp_path / "circle"), "absent", NOWHERE)])
    with pytest.raises(OSError, match="circle"):
        exists(str(tmp_path / "circle"))


@pytest.mark.parametrize(("kind", "pattern"), [("file", None), ("listing", "*")])
def test_what_never_held_still_is_never_unchanged(tmp_path, kind, pattern):
    """Has caught: the record of a folder that changed while it was listed, which equalled a folder that is gone."""
    dependency = Dependency(str(tmp_path / "gone"), kind, NOWHERE, digest=None, pattern=pattern)
    assert not unchanged([dependency])
    assert not dependency.same_content(dependency)


def test_the_same_content_is_of_the_same_kind(tmp_path):
    one, same, other = (
        Dependency("/a", "file", NOWHERE, digest=digest_of(text)) for text in (b"one", b"one", b"other")
    )
    assert one.same_content(same)
    assert not one.same_content(other)
    assert not one.same_content(Dependency("/a", "listing", NOWHERE, digest=digest_of(b"one")))
    assert Dependency("/a", "absent", NOWHERE).same_content(Dependency("/a", "absent", NOWHERE))


# The promise as a whole


class Disk:
    """A file system of one file whose clock ticks, where inodes are used again and all contents have one size.

    A write sets the timestamps when it begins; its data arrives `lag` later, as in a kernel.
    """

    def __init__(self, tick):
        self.tick = tick
        self.now = NOW + 12 * MS
        self.inode = 1
        self.mtime = self.ctime = NOW - 100 * SECOND
        self.content = 0
        self.arriving = []

    def stamp(self):
        return self.now - self.now % self.tick

    def sleep(self, nanoseconds):
        self.now += nanoseconds
        while self.arriving and self.arriving[0][0] <= self.now:
            self.content = self.arriving.pop(0)[1]

    def write(self, lag):
        self.mtime = self.ctime = self.stamp()
        last = self.arriving[-1][0] if self.arriving else self.now
        self.arriving.append((max(last, self.now + lag), self.content + len(self.arriving) + 1))
        self.sleep(0)

    def replace(self, inode):
        """Put another file in its place, perhaps with the inode of the old one and a time of its own."""
        self.inode = inode
        self.mtime = self.ctime = self.stamp()
        self.content += len(self.arriving) + 1
        self.arriving.clear()

    def set_mtime(self, mtime):
        self.mtime, self.ctime = mtime, self.stamp()

    def stat(self, _=None):
        return Status((1, self.inode, 3, self.mtime, self.ctime))

    def read(self):
        """Return a record as `read_file` makes it, of a look that takes no time."""
        status = tuple_of(self.stat())
        return Dependency(
            "/a",
            "file",
            NOWHERE,
            digest=digest_of(str(self.content).encode()),
            status=status,
            settled=is_settled(status, self.now, remote=False),
        )


pauses = st.sampled_from([0, 1, MS, 9 * MS, 19 * MS, 21 * MS, 500 * MS, 999 * MS, SECOND, 2_050 * MS, 2_200 * MS])
edits = st.one_of(
    st.tuples(st.just("sleep"), pauses),
    st.tuples(st.just("write"), st.sampled_from([0, 3 * MS])),
    st.tuples(st.just("replace"), st.sampled_from([1, 1, 1, 2])),
    st.tuples(st.just("set_mtime"), st.sampled_from([NOW - 100 * SECOND, NOW, NOW + 100 * SECOND])),
    st.tuples(st.just("read"), st.none()),
)


@given(st.sampled_from([1, 4 * MS, 10 * MS, SECOND, 2 * SECOND]), st.lists(edits, max_size=30))
def test_no_sequence_of_edits_leaves_an_unchanged_fingerprint_of_another_content(tick, steps):
    disk = Disk(tick)
    records = [disk.read()]
    with patch.object(fingerprint, "_stat", disk.stat):
        for verb, argument in steps:
            if verb == "read":
                records.append(disk.read())
            else:
                getattr(disk, verb)(argument)
            for dependency in records:
                if unchanged([dependency]):
                    assert dependency.same_content(disk.read())


def test_that_model_settles():
    disk = Disk(4 * MS)
    disk.write(3 * MS)
    assert not disk.read().settled
    disk.sleep(25 * MS)
    with patch.object(fingerprint, "_stat", disk.stat):
        assert unchanged([disk.read()])
