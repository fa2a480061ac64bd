"""The demonstration goes through its steps, and fails if a stale prompt is served or a step does not do what it says.

The planted bugs are here: a proof that always holds, a watch that says nothing, a store from which nothing comes back,
or all does.
"""

import asyncio
import os
import subprocess
import sys

import pytest

from shared_prompt_cache import _lookup
from shared_prompt_cache._files import proof
from shared_prompt_cache._files.watch import FileWatch
from shared_prompt_cache._tier import rows
from shared_prompt_cache._tier.files import StoredFiles
from shared_prompt_cache._tier.reader import Reader
from shared_prompt_cache.cli import _demo, _restart, main
from shared_prompt_cache.cli._project import Project, memory
from shared_prompt_cache.cli._stage import Stage, Wrong
from shared_prompt_cache.stores._secret import VARIABLE


def test_it_shows_every_step_and_serves_nothing_stale():
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "shared_prompt_cache", "demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    for line in (
        "200 prompts served, 10 computed",
        "200 prompts served, 0 computed",
        "agent 'engineer' invalidated, 1 of 10 prompts dropped",
        "200 prompts served, 1 computed",
        "project 'shop' invalidated, 10 of 10 prompts dropped",
        "everything invalidated, 10 of 10 prompts dropped",
        "the file .claude-mpm/memories/engineer_memories.md was modified",
        "made from .claude-mpm/memories/engineer_memories.md",
        "50 prompts served, 0 from the store, 50 computed",
        "50 prompts served, 50 from the store, 0 computed\n",
        "43 from the store, 7 computed: agent-01, agent-02, agent-03, agent-04, agent-05, agent-06, agent-50\n",
        ", 0 stale.",
    ):
        assert line in run.stdout


def test_it_fails_if_something_stale_is_served(monkeypatch, capsys):
    async def shows_nothing(*_):
        pass

    monkeypatch.setattr(_restart, "show", shows_nothing)
    monkeypatch.setattr(proof, "unchanged", lambda *_: True)
    monkeypatch.setattr(_lookup, "unchanged", lambda *_: True)
    assert main(["demo"]) == 1
    assert "is of edition" in capsys.readouterr().out


def test_it_fails_if_no_event_comes(monkeypatch, capsys):
    monkeypatch.setattr(FileWatch, "changed", lambda *_: None)
    monkeypatch.setattr(_demo, "_PATIENCE", 0.2)
    assert main(["demo"]) == 1
    assert "FAILED: no event came within 0.2 s of the edit of .claude-mpm/memories/engineer_memories.md" in (
        capsys.readouterr().out
    )


@pytest.fixture
def restarted(tmp_path, monkeypatch):
    """Show the end of the demonstration, with small files."""
    monkeypatch.setattr(_restart, "_FILE_BYTES", 500)

    def show():
        project = _restart.prepared(tmp_path)
        with _restart.own_key():
            asyncio.run(_restart.show(Stage(), project))
        return project

    return show


def test_it_fails_if_nothing_comes_back_from_the_store(restarted, monkeypatch):
    monkeypatch.setattr(Reader, "_accept", lambda *_: None)
    with pytest.raises(Wrong, match="to be computed were none"):
        restarted()


def test_it_fails_if_what_has_changed_comes_back_from_the_store(restarted, monkeypatch):
    async def compares_nothing(self):
        self.compared = True

    monkeypatch.setattr(StoredFiles, "compare", compares_nothing)
    monkeypatch.setattr(rows, "refreshed", lambda dependencies: dependencies)
    with pytest.raises(Wrong, match=r"to be computed were agent-01, .*, agent-50"):
        restarted()


def test_what_was_deleted_must_not_be_served(tmp_path):
    class Kept:
        files = None

        async def get_or_compute(self, *_, **__):
            return f"# {memory('qa')}, edition 1\n"

    project = Project(tmp_path, ["qa"])
    project.delete(memory("qa"))
    asyncio.run(project.prompt(Kept(), "qa"))
    assert f"qa: {memory('qa')} is of edition 1, and was deleted" in project.stale


def test_the_key_of_the_user_is_neither_used_nor_lost(monkeypatch):
    for before in (None, "what the user has set"):
        monkeypatch.setenv(VARIABLE, before) if before else monkeypatch.delenv(VARIABLE)
        with _restart.own_key():
            assert len(os.environ[VARIABLE]) == 64
            assert os.environ[VARIABLE] != before
        assert os.environ.get(VARIABLE) == before


def test_headings_are_bold_on_a_terminal_alone(monkeypatch, capsys):
    stage = Stage()
    stage.head("plain")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    stage.head("bold")
    assert capsys.readouterr().out == "\n1. plain\n\n\x1b[1m2. bold\x1b[0m\n"


def test_interrupted_it_says_so_by_its_status(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(_demo, "run", interrupted)
    assert main(["demo"]) == 130


@pytest.mark.parametrize("arguments", [[], ["--help"], ["no-such-command"]])
def test_without_a_command_usage_is_shown(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == (0 if arguments == ["--help"] else 2)
    shown = capsys.readouterr()
    assert "python -m shared_prompt_cache" in shown.out + shown.err
