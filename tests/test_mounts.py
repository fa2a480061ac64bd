import os
import sys
from pathlib import Path

import pytest

from shared_prompt_cache import _mounts as mounts
from shared_prompt_cache._mounts import MountTable, parse_mountinfo

MOUNTINFO = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
23 22 0:21 / /proc rw,relatime shared:5 - proc proc rw
24 22 0:40 / /srv/team rw,relatime shared:7 master:2 - nfs4 server:/team rw,vers=4.2
25 24 0:41 / /srv/team/own rw,relatime - xfs /dev/vdb rw
26 22 0:42 / /media/My\040Share rw - cifs //server/share rw
27 22 0:43 / /home/me/remote rw,nosuid - fuse.sshfs me@host: rw
28 22 0:44 / /mnt/ntfs rw - fuseblk /dev/vdc rw
29 22 0:45 / /mnt/c rw - 9p C:\134 rw,aname=drvfs
30 22 0:46 / /mnt/twice rw - ext4 /dev/vdd rw
31 30 0:47 / /mnt/twice rw - lustre mgs@tcp:/fs rw
not a line of it
""".strip()


def table(text=MOUNTINFO, **options):
    return MountTable(lambda: text, **options)


@pytest.mark.parametrize(
    ("path", "kind", "remote", "trusted"),
    [
        ("/etc/hosts", "ext4", False, True),
        ("/srv/team/notes.md", "nfs4", True, False),
        ("/srv/team", "nfs4", True, False),
        ("/srv/teamwork/notes.md", "ext4", False, True),
        ("/srv/team/own/not/there/yet", "xfs", False, True),
        ("/media/My Share/a.md", "cifs", True, False),
        ("/home/me/remote/a.md", "fuse.sshfs", True, False),
        ("/mnt/ntfs/a.md", "fuseblk", False, True),
        ("/mnt/c/Users/me/a.md", "9p", True, False),
        ("/mnt/twice/a.md", "lustre", True, False),
        ("/proc/self/status", "proc", False, False),
    ],
)
def test_the_longest_mount_point_decides(path, kind, remote, trusted):
    mounted = table()
    assert mounted.file_system(path) == kind
    assert mounted.is_remote(path) is remote
    assert mounted.events_trusted(path) is trusted


def test_octal_escapes_stand_for_the_characters_that_separate():
    text = r"1 0 0:1 / /a\040b\011c\012d\134e rw - nfs x rw"
    assert parse_mountinfo(text) == {"/a b\tc\nd\\e": "nfs"}


def test_a_symlink_is_where_it_leads(tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    (tmp_path / "link").symlink_to(there)
    root = os.path.realpath(tmp_path)
    mounted = table(f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {root}/there rw - nfs x rw")
    assert mounted.is_remote(tmp_path / "link" / "later.md")
    assert not mounted.is_remote(tmp_path / "later.md")


def test_the_table_is_read_again_when_it_is_old_or_refreshed():
    texts = ["1 0 0:1 / / rw - ext4 x rw"]
    clock = [0.0]
    reads = []

    def read():
        reads.append(clock[0])
        return texts[-1]

    mounted = MountTable(read, max_age=5, now=lambda: clock[0])
    assert mounted.file_system("/x") == "ext4"
    texts.append("1 0 0:1 / / rw - nfs x rw")
    clock[0] = 5.0
    assert mounted.file_system("/x") == "ext4"
    clock[0] = 5.1
    assert mounted.file_system("/x") == "nfs"
    texts.append("1 0 0:1 / / rw - xfs x rw")
    mounted.refresh()
    assert mounted.file_system("/x") == "xfs"
    assert reads == [0.0, 5.1, 5.1]


def test_without_a_table_nothing_is_remote():
    mounted = table("")
    assert mounted.file_system("/x") == ""
    assert not mounted.is_remote("/x")
    assert mounted.events_trusted("/x")


def test_a_path_outside_every_mount_point_has_no_file_system():
    assert table("1 0 0:1 / /somewhere rw - ext4 x rw").file_system("/x") == ""


def test_on_windows_a_share_is_remote(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os.path, "realpath", str)
    assert table("").is_remote(r"\\server\share\a.md")
    assert not table("").is_remote(r"C:\Users\me\a.md")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_system_tells_the_file_system_of_its_own_table():
    assert mounts.file_system("/proc/self/mountinfo") == "proc"
    assert not mounts.events_trusted("/proc/self/mountinfo")
    assert mounts.file_system(Path(__file__))
    assert mounts.is_remote("/proc") is False
