"""The secret comes from the environment, or from a file that is its owner's alone; all who ask at once get one.

The tests may run as root, whom no mode keeps out: so modes and owners are read by stat, a foreign owner is made by a
`geteuid` that is patched, and a file system that cannot be written to by a patched `mkdir`.

Seen to fail on planted bugs: modes of the file, its folder or those above that are left to the umask; a file that is
open to others for a moment; a symlink that is followed; a look at the path alone, and not at what was opened; a file
renamed into its place over that of another process; one's own secret instead of that of the faster; a temporary file
that is left behind.
"""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from _support import size
from shared_prompt_cache.errors import ConfigError, StoreError
from shared_prompt_cache.stores import _secret
from shared_prompt_cache.stores._secret import VARIABLE, key_file, load_secret

SECRET = bytes(range(32))
REMEDY = f"or set {VARIABLE} to a text of at least 16 characters that nobody can guess"


@pytest.fixture
def environ(tmp_path):
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path / "home")}


@pytest.fixture
def path(environ):
    return key_file(environ)


@pytest.fixture
def written(path):
    """Write a key as it should be, and return its path."""
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def refusal(environ):
    with pytest.raises(StoreError) as caught:
        load_secret(environ)
    text = str(caught.value)
    assert str(key_file(environ)) in text
    assert REMEDY in text
    assert caught.value.operation == "open"
    return text


# From the environment.


def test_a_text_in_the_environment_is_the_secret_and_no_file_is_made(environ, path):
    environ[VARIABLE] = "sixteen letters."
    secret = load_secret(environ)
    assert len(secret) == 32
    assert load_secret({VARIABLE: "  sixteen letters.\n"}) == secret  # as read from a file
    assert load_secret({VARIABLE: "sixteen letters!"}) != secret
    assert len(load_secret({VARIABLE: "\udcff" * 16})) == 32  # bytes that are no text
    assert not path.exists()


def test_one_that_can_be_guessed_is_an_error_of_the_configuration(environ):
    with pytest.raises(ConfigError, match="has 15 characters, which can be guessed; set it to at least 16") as caught:
        load_secret(environ | {VARIABLE: "fifteen letters"})
    assert caught.value.field == VARIABLE
    assert "fifteen letters" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_one_counts_as_none(environ, written, text):
    assert load_secret(environ | {VARIABLE: text}) == SECRET


def test_the_environment_of_the_process_is_the_default(environ, monkeypatch):
    monkeypatch.setenv(VARIABLE, "sixteen letters.")
    assert load_secret() == load_secret({VARIABLE: "sixteen letters."})


# From the file.


@pytest.mark.parametrize("umask", [0, 0o022, 0o277, 0o777])
def test_the_file_is_its_owners_alone_whatever_the_umask(environ, path, umask):
    before = os.umask(umask)
    try:
        secret = load_secret(environ)
    finally:
        os.umask(before)
    assert path.read_bytes() == secret
    assert len(secret) == 32
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert mode(path.parent.parent) == 0o700  # whoever can write there could put another folder in its place
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_nlink == 1


def test_the_file_is_at_no_moment_open_to_others(environ, monkeypatch):
    rights = []
    fchmod = os.fchmod
    monkeypatch.setattr(
        _secret.os, "fchmod", lambda file, mode: rights.append(os.fstat(file).st_mode) or fchmod(file, mode)
    )
    before = os.umask(0)
    try:
        load_secret(environ)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(mode) for mode in rights] == [0o600]


def test_it_is_made_once(environ, path):
    secret = load_secret(environ)
    assert load_secret(environ) == secret
    path.unlink()
    assert load_secret(environ) != secret


@pytest.mark.parametrize("rights", [0o600, 0o400, 0o700])
def test_one_that_is_there_is_taken_also_from_a_folder_that_others_can_read(environ, written, rights):
    written.chmod(rights)
    written.parent.chmod(0o755)
    assert load_secret(environ) == SECRET
    assert mode(written.parent) == 0o755


def test_the_folder_is_that_of_the_platform(monkeypatch, tmp_path):
    home = {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path / "Local")}
    monkeypatch.setattr(sys, "platform", "linux")
    assert key_file(home) == tmp_path / ".local/state/shared-prompt-cache/key"
    assert key_file(home | {"XDG_STATE_HOME": "relative"}) == tmp_path / ".local/state/shared-prompt-cache/key"
    assert key_file(home | {"XDG_STATE_HOME": "/state"}) == Path("/state/shared-prompt-cache/key")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert key_file(home) == tmp_path / "Library/Application Support/shared-prompt-cache/key"
    monkeypatch.setattr(sys, "platform", "win32")
    assert key_file(home) == tmp_path / "Local/shared-prompt-cache/key"


def test_a_user_without_a_home_is_told_of_the_variable(monkeypatch):
    monkeypatch.setattr(_secret.os.path, "expanduser", lambda path: path)  # as it is for a user whom nobody knows
    with pytest.raises(StoreError, match="this user has no home folder; set HOME, or set SHARED_PROMPT_CACHE_KEY"):
        load_secret({})


@pytest.mark.parametrize("rights", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666])
def test_a_file_that_others_can_open_is_refused(environ, written, rights):
    written.chmod(rights)
    assert "others than its owner can open it, so it is not trusted; remove it" in refusal(environ)


@pytest.mark.parametrize("rights", [0o770, 0o707, 0o777, 0o720])
def test_a_folder_that_others_can_write_into_is_refused(environ, written, rights):
    written.parent.chmod(rights)
    assert (
        f"others than its owner can write into its folder, so it is not trusted; run: chmod 700 {written.parent}"
        in (refusal(environ))
    )


@pytest.mark.parametrize("content", [b"", SECRET[:31], SECRET + b"\n", SECRET * 1000])
def test_a_file_of_another_length_is_refused(environ, written, content):
    written.write_bytes(content)
    assert "it does not have the 32 bytes of a key, so it is not trusted; remove it, and another is made" in (
        refusal(environ)
    )


def test_a_symlink_is_refused_wherever_it_leads(environ, written, tmp_path):
    target = tmp_path / "elsewhere"
    written.rename(target)
    written.symlink_to(target)
    assert "it is a symlink, or no file, so it is not trusted" in refusal(environ)
    target.unlink()
    assert "it is a symlink, or no file, so it is not trusted" in refusal(environ)
    assert not target.exists()


def test_a_symlink_that_comes_between_the_look_and_the_opening_is_not_followed(environ, written, tmp_path, monkeypatch):
    target = tmp_path / "elsewhere"
    looked = written.lstat()
    written.rename(target)
    written.symlink_to(target)
    lstat = Path.lstat
    monkeypatch.setattr(Path, "lstat", lambda self: looked if self == written else lstat(self))
    assert os.strerror(errno.ELOOP) in refusal(environ)


def test_a_file_that_was_exchanged_between_the_look_and_the_opening_is_refused(environ, written, monkeypatch):
    looked = written.lstat()
    written.chmod(0o644)
    lstat = Path.lstat
    monkeypatch.setattr(Path, "lstat", lambda self: looked if self == written else lstat(self))
    assert "others than its owner can open it" in refusal(environ)


def test_a_folder_that_is_a_symlink_or_a_file_is_refused(environ, written, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    written.parent.rename(elsewhere)
    written.parent.symlink_to(elsewhere)
    assert "what should be its folder is a symlink, or a file, so it is not trusted" in refusal(environ)
    written.parent.unlink()
    written.parent.write_text("")
    assert "what should be its folder is a symlink, or a file, so it is not trusted" in refusal(environ)


def test_a_folder_or_a_pipe_in_its_place_is_refused_and_not_waited_for(environ, written):
    written.unlink()
    os.mkfifo(written, 0o600)
    assert "no file, so it is not trusted" in refusal(environ)
    written.unlink()
    written.mkdir(0o700)
    assert "no file, so it is not trusted" in refusal(environ)


def test_what_belongs_to_another_user_is_refused(environ, written, monkeypatch):
    owner = written.stat().st_uid
    monkeypatch.setattr(_secret.os, "geteuid", lambda: owner + 1)
    assert f"its folder belongs to the user {owner}, and this is {owner + 1}, so it is not trusted; " in refusal(
        environ
    )
    monkeypatch.setattr(_secret, "_check_folder", lambda path: None)
    assert f"it belongs to the user {owner}, and this is {owner + 1}, so it is not trusted; " in refusal(environ)


def test_where_nothing_can_be_written_the_error_names_the_variable(environ, written, monkeypatch, tmp_path):
    assert load_secret(environ) == SECRET  # what is there needs no writing

    def fail(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    elsewhere = environ | {"XDG_STATE_HOME": str(tmp_path / "another")}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", fail)
        assert "Read-only file system; let its folder be written to, " in refusal(elsewhere)
    written.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(_secret.os, "open", fail)
        assert "Read-only file system; let its folder be written to, " in refusal(environ)
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refusal({"HOME": str(tmp_path / "file")})


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_failure_half_way_leaves_nothing(environ, path, call, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(_secret.os, call, fail)
        assert "No space left on device" in refusal(environ)
    assert list(path.parent.iterdir()) == []
    assert len(load_secret(environ)) == 32


# Two at once.


def test_who_is_slower_takes_the_secret_of_the_faster(environ, path, monkeypatch):
    found = []
    token_bytes = _secret.secrets.token_bytes

    def slowly(count):
        monkeypatch.setattr(_secret.secrets, "token_bytes", token_bytes)
        found.append(load_secret(environ))
        return token_bytes(count)

    monkeypatch.setattr(_secret.secrets, "token_bytes", slowly)
    found.append(load_secret(environ))
    assert found[0] == found[1] == path.read_bytes()
    assert list(path.parent.iterdir()) == [path]


def test_where_there_are_no_hard_links_it_is_renamed_into_its_place(environ, path, monkeypatch):
    def fail(self, target):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", fail)
    test_who_is_slower_takes_the_secret_of_the_faster(environ, path, monkeypatch)


def test_threads_at_once_get_one_secret(tmp_path):
    for number in range(size(15, 1_000)):
        environ = {"HOME": str(tmp_path / str(number))}
        together, found = threading.Barrier(4), []

        def ask(environ=environ, together=together, found=found):
            together.wait()
            found.append(load_secret(environ))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(found)) == 1
        assert [name.name for name in key_file(environ).parent.iterdir()] == ["key"]


def test_processes_at_once_get_one_secret(tmp_path):
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from shared_prompt_cache.stores._secret import load_secret
print("ready", flush=True)
for home in sys.stdin:
    print(load_secret({{"HOME": home.strip()}}).hex(), flush=True)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        assert {process.stdout.readline() for process in processes} == {"ready\n"}
        for number in range(size(20, 1_000)):
            for process in processes:
                process.stdin.write(f"{tmp_path / str(number)}\n")
            for process in processes:
                process.stdin.flush()
            assert len({process.stdout.readline() for process in processes}) == 1
    finally:
        for process in processes:
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0]
