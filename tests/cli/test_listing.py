"""`ls` and `inspect` show what a store has and whether it still holds, and change nothing.

Seen to fail on planted bugs: files that are not compared; a pattern that SQLite matches; a prefix that misses itself; a
portion that is read twice; a key file that is made; a value that is printed; a key that is printed as it is; paths of a
store that was moved told as they are kept, and entries that were left behind told as good.
"""

import asyncio
import io
import json
import math
import os
import subprocess
import sys

import pytest

from _stored import SECRET_TEXT
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.cli import main
from shared_prompt_cache.cli._words import moment, plain, size, span
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.stores._secret import VARIABLE
from shared_prompt_cache.stores._sqlite import inspection


def keep(path, *keys):
    async def kept():
        async with SharedPromptCache(store=SQLiteStore(path)) as cache:
            for key in keys:
                await cache.set_prompt(key, "text")

    asyncio.run(kept())


def listed(out):
    """Return the lines of a listing by key: the state, and what comes behind the key."""
    lines = [line[41:].partition("  ") for line in out.splitlines()[1:] if line and "  " in line[11:41]]
    states = [line.partition("  ")[0] for line in out.splitlines()[1:] if line and "  " in line[11:41]]
    return {key: (state, rest) for state, (key, _, rest) in zip(states, lines, strict=True)}


def test_each_entry_is_a_line_with_its_state_and_all_that_it_belongs_to(store, folder, command):
    (folder / "memories" / "engineer.md").write_text("- something else\n")
    status, out, err = command("ls", store)
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "STATE            SIZE      AGE     LEFT  KEY"
    assert listed(out) == {
        "derived": ("holds", "[3 files]"),
        "engineer_prompt": (
            "changed",
            f"[agent engineer; project {folder}/shop; tags engineer, prompt; 1 of 3 files changed]",
        ),
        "over": ("expired", ""),
        "plain": ("holds", ""),
        "qa_prompt": ("holds", f"[agent qa; project {folder}/shop; tags prompt, qa; 3 files]"),
    }
    assert "    never  plain" in out
    assert " in the store: 3 hold, 1 changed, 1 expired\n" in out
    assert out.endswith(
        "  changed: it was made from files that have changed since\n  expired: its time is over\n",
    )


def test_a_pattern_is_a_glob_as_everywhere(store, command):
    for pattern, keys in {
        "qa_*": ["qa_prompt"],
        "*_prompt": ["engineer_prompt", "qa_prompt"],
        "[!a-o]*": ["plain", "qa_prompt"],
        "plain": ["plain"],
    }.items():
        assert list(listed(command("ls", store / "store.db", pattern)[1])) == keys
    assert command("ls", store, "PLAIN*") == (0, "no entries match PLAIN*\n", "")


def test_many_entries_are_read_in_portions_and_each_is_there_once(tmp_path, command, monkeypatch):
    monkeypatch.setattr(inspection, "_PORTION", 3)
    keys = ["b", *[f"b{number}" for number in range(9)], "c"]
    keep(tmp_path / "store", "a", *keys)
    for pattern, wanted in (("*", ["a", *keys]), ("b*", keys[:-1])):
        lines = command("ls", tmp_path / "store", pattern, "--json")[1].splitlines()
        assert [json.loads(line)["key"] for line in lines] == wanted


def test_of_a_store_that_was_moved_the_paths_are_those_of_today(store, folder, command, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    moved = folder.rename(home / "project")
    told = json.loads(command("inspect", moved / "store", "qa_prompt", "--json")[1])
    assert (told["state"], told["project"]) == ("holds", f"{moved}/shop")
    assert [file["path"] for file in told["files"]] == [
        f"{moved}/{name}" for name in ("memories", "CLAUDE.md", "memories/qa.md")
    ]
    (moved / "memories" / "qa.md").write_text("- something else\n")
    assert json.loads(command("inspect", moved / "store", "qa_prompt", "--json")[1])["state"] == "changed"
    assert command("verify", moved / "store")[0] == 0


def test_of_a_store_that_was_moved_without_its_project_entries_are_left_behind(tmp_path, tmp_path_factory, command):
    async def kept():
        async with SharedPromptCache(store=SQLiteStore(tmp_path / "store")) as cache:
            await cache.set_prompt("a", "text", depends_on=tmp_path / "absent.md")
            await cache.set_prompt("b", "text")

    asyncio.run(kept())
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (tmp_path / "store").rename(elsewhere / "store")
    out = command("ls", elsewhere / "store")[1]
    assert listed(out)["a"][0] == "left behind"
    assert "  left behind: the store was moved, and what it was made from has not come along\n" in out
    assert listed(out)["b"][0] == "holds"
    assert command("verify", elsewhere / "store")[0] == 0

    async def found():
        async with SharedPromptCache(store=SQLiteStore(elsewhere / "store")) as cache:
            return set(await cache.get_many(["a", "b"]))

    assert asyncio.run(found()) == {"b"}


def test_in_json_an_entry_is_a_line_too(store, folder, command):
    lines = [json.loads(line) for line in command("ls", store, "--json")[1].splitlines()]
    assert [line["key"] for line in lines] == ["derived", "engineer_prompt", "over", "plain", "qa_prompt"]
    qa = lines[-1]
    assert (qa["state"], qa["agent"], qa["project"]) == ("holds", "qa", f"{folder}/shop")
    assert (qa["tags"], qa["type"], qa["codec"], qa["metadata"]) == (["prompt", "qa"], "str", "str", ["note"])
    assert qa["expires_at"] - qa["created_at"] == pytest.approx(3600, abs=1)
    assert (qa["stamp"]["sequence"], qa["made_from"]) == (0, [])
    assert qa["files"] == [
        {"path": f"{folder}/memories", "kind": "listing", "pattern": "*.md", "holds": True},
        {"path": f"{folder}/CLAUDE.md", "kind": "absent", "pattern": None, "holds": True},
        {"path": f"{folder}/memories/qa.md", "kind": "file", "pattern": None, "holds": True},
    ]
    assert (lines[0]["type"], lines[0]["made_from"], lines[3]["expires_at"]) == ("dict", ["qa_prompt"], None)


def test_one_entry_is_shown_with_each_file_that_it_was_made_from(store, folder, command):
    (folder / "CLAUDE.md").write_text("Be brief.\n")
    status, out, err = command("inspect", store, "qa_prompt")
    assert (status, err) == (0, "")
    lines = dict.fromkeys(line.rstrip() for line in out.splitlines())
    for line in (
        "key        qa_prompt",
        "state      changed: it was made from files that have changed since",
        "agent      qa",
        f"project    {folder}/shop",
        "tags       prompt, qa",
        f"made from  holds    {folder}/memories  (the names that match *.md)",
        f"           changed  {folder}/CLAUDE.md  (was not there)",
        f"           holds    {folder}/memories/qa.md",
        "metadata   note",
    ):
        assert line in lines
    (folder / "memories" / "pm.md").write_text("- a new one\n")
    out = command("inspect", store, "derived")[1]
    assert "made from           the entry of qa_prompt\n" in out
    assert f"           changed  {folder}/memories  (the names that match *.md)\n" in out
    assert "expires    never\n" in command("inspect", store, "plain")[1]
    assert " ago\n" in command("inspect", store, "over")[1].split("expires")[1]


def test_values_are_printed_only_when_they_are_asked_for(store, command):
    for arguments in (["ls"], ["ls", "--json"]):
        assert SECRET_TEXT not in command(*arguments, store)[1]
    for key in ("qa_prompt", "derived"):
        for arguments in ((), ("--json",)):
            assert SECRET_TEXT not in command("inspect", store, key, *arguments)[1]
    out = command("inspect", store, "qa_prompt", "--value")[1]
    assert f"metadata   note: '{SECRET_TEXT}'\n" in out
    assert out.endswith(f"\n\n{SECRET_TEXT}- what qa knows\n\n")
    assert command("inspect", store, "derived", "--value")[1].endswith("'pair': (1, 2)}\n")
    told = json.loads(command("inspect", store, "derived", "--value", "--json")[1])
    assert told["value"] == {"from": f"{SECRET_TEXT}- what qa knows\n", "pair": [1, 2]}


def test_what_json_has_no_words_for_is_told_as_python_does(tmp_path, command):
    async def kept():
        async with SharedPromptCache(store=SQLiteStore(tmp_path / "store")) as cache:
            await cache.set_prompt("a", {1, 2}, {"size": math.inf})

    asyncio.run(kept())
    told = json.loads(command("inspect", tmp_path / "store", "a", "--value", "--json")[1])
    assert (told["value"], told["metadata"]) == ("{1, 2}", {"size": "inf"})


def test_an_entry_that_is_not_there_is_told_by_the_status(store, command):
    assert command("inspect", store, "nobody") == (1, "", "there is no entry of 'nobody'\n")


def test_entries_of_another_key_are_not_ours_and_it_is_said_where_the_key_comes_from(store, command, monkeypatch):
    monkeypatch.setenv(VARIABLE, "the secret of another program")
    status, out, err = command("ls", store)
    assert status == 0
    assert {state for state, _ in listed(out).values()} == {"not ours"}
    assert "in the store: 5 not ours\n" in out
    assert f"none of the 5 entries is sealed with your key, which comes from the environment variable {VARIABLE}" in err
    status, out, err = command("inspect", store, "qa_prompt")
    assert (status, "its checksum does not hold" in out, SECRET_TEXT in out) == (1, True, False)
    assert err == f"note: your key comes from the environment variable {VARIABLE}\n"
    assert json.loads(command("inspect", store, "qa_prompt", "--json")[1])["state"] == "not ours"
    assert command("ls", store, "qa*")[2] == ""  # of the others it is not known


def test_a_user_without_a_key_gets_none_from_looking(store, command, monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("ls", "verify"):
        assert (
            f"which would be in {tmp_path}/state/shared-prompt-cache/key, where there is none"
            in (command(name, store)[2])
        )
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("arguments", [["ls"], ["inspect", "a"], ["verify", "--repair"], ["invalidate", "--all"]])
def test_where_there_is_no_store_none_is_begun(arguments, tmp_path, command):
    name, *more = arguments
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file\n")
    for path in ("nowhere", "folder", "nowhere/store.db"):
        status, out, err = command(name, tmp_path / path, *more)
        assert (status, out, err.startswith("error: there is no store in ")) == (2, "", True)
    assert "is no folder" in command(name, tmp_path / "file", *more)[2]
    assert [path.name for path in tmp_path.rglob("*")] in (["folder", "file"], ["file", "folder"])


@pytest.mark.parametrize("arguments", [["ls"], ["inspect", "a"], ["verify", "--repair"], ["invalidate", "--all"]])
def test_a_folder_that_others_may_write_to_is_refused(arguments, store, command):
    store.chmod(0o770)
    name, *more = arguments
    status, out, err = command(name, store, *more)
    assert (status, out) == (2, "")
    assert "may be written by others; chmod go-w it" in err


def test_an_empty_store_has_no_entries(tmp_path, command):
    keep(tmp_path / "store")
    assert command("ls", tmp_path / "store") == (0, "no entries\n", "")
    (tmp_path / "begun").mkdir(mode=0o700)
    (tmp_path / "begun" / "store.db").touch()
    assert command("ls", tmp_path / "begun") == (0, "no entries\n", "")
    assert command("inspect", tmp_path / "begun", "a")[0] == 1
    assert command("verify", tmp_path / "begun")[0] == 0


def test_looking_changes_no_byte_of_the_database_and_sets_nothing_aside(store, command):
    database = store / "store.db"
    with database.open("r+b") as file:
        file.seek(5 * 8192)
        file.write(b"\xff" * 8192)
    before = database.read_bytes()
    for arguments in (["ls", store], ["inspect", store, "qa_prompt"], ["verify", store]):
        status, out, err = command(*arguments)
        assert status == (1 if arguments[0] == "verify" else 2)
        assert "damaged: " in out + err
    assert database.read_bytes() == before
    assert not list(store.glob("*corrupt*"))


def test_a_key_cannot_do_anything_to_a_terminal(tmp_path, command):
    keep(tmp_path / "store", "red \x1b[31m\n\u202eü")
    assert "  red \\x1b[31m\\n\\u202eü\n" in command("ls", tmp_path / "store")[1]


def test_what_a_terminal_cannot_show_is_no_error(tmp_path, monkeypatch):
    keep(tmp_path / "store", "ü")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert main(["ls", str(tmp_path / "store")]) == 0
    assert b"  \\xfc\n" in shown.getvalue()


def test_whoever_reads_may_go_away(store):
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "shared_prompt_cache", "ls", store],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    process.stdout.close()
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_figures_are_in_the_largest_unit_that_fits():
    assert [size(number) for number in (0, 999, 1000, 999_949, 2.5e6, 3e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "2.5 MB",
        "3000.0 GB",
    ]
    assert [span(seconds) for seconds in (0, 59.4, 90, 7200, 3e5, -90, math.inf)] == [
        "0 s",
        "59 s",
        "2 min",
        "2 h",
        "3 d",
        "-2 min",
        "never",
    ]
    assert moment(1e300) == "1e+300 s after 1970-01-01"
    assert plain("prompt of ü") == "prompt of ü"
