"""The demonstration goes through its steps, and fails if a stale prompt is served or a step does not do what it says.

The planted bugs are here: a proof that always holds, a watch that says nothing.
"""

import subprocess
import sys

import pytest

from shared_prompt_cache import _lookup
from shared_prompt_cache._files import proof
from shared_prompt_cache._files.watch import FileWatch
from shared_prompt_cache.cli import _demo, main


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
        ", 0 stale.",
    ):
        assert line in run.stdout


def test_it_fails_if_something_stale_is_served(monkeypatch, capsys):
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


def test_headings_are_bold_on_a_terminal_alone(monkeypatch, capsys):
    demo = _demo._Demo(project=None)
    demo._head("plain")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    demo._head("bold")
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
