"""`watch PATH` prints what the files of a real folder invalidate, one line each, until it is interrupted."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared_prompt_cache import ApiCall, FileChange, Invalidation
from shared_prompt_cache.cli import main
from shared_prompt_cache.cli._watch import line


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".claude-mpm" / "memories").mkdir(parents=True)
    (tmp_path / ".claude" / "agents").mkdir(parents=True)
    (tmp_path / "CLAUDE.md").write_text("Be brief.\n")
    return tmp_path


@pytest.fixture
def watching(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project / "home"))

    def run(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "shared_prompt_cache", "watch", project, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    started: list[subprocess.Popen[str]] = []
    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_each_invalidation_is_a_line_and_ctrl_c_ends_it_cleanly(project, watching):
    process = watching("--preset", "claude-mpm")
    assert process.stdout.readline().startswith("watching 1 files in ")
    (project / ".claude-mpm" / "memories" / "qa_memories.md").write_text("- test first\n")
    told = process.stdout.readline().split(maxsplit=3)
    assert told[1:3] == ["agent", "qa"]
    assert told[3] == "the file .claude-mpm/memories/qa_memories.md was added\n"
    (project / "CLAUDE.md").write_text("Be precise.\n")
    told = process.stdout.readline().split(maxsplit=3)
    assert told[1:3] == ["project", project.name]
    assert told[3] == "the file CLAUDE.md was modified\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_whoever_reads_may_go_away(project, watching):
    process = watching()
    process.stdout.readline()
    process.stdout.close()
    (project / "CLAUDE.md").write_text("Be precise.\n")
    assert process.wait(timeout=10) == 0
    assert process.stderr.read() == ""


def test_presets_can_be_named_and_the_watcher_chosen(watching):
    process = watching("--preset", "agents_md", "--watcher", "polling")
    assert process.stdout.readline().startswith("watching 0 files in ")


def test_what_cannot_be_watched_is_an_error_that_says_what_to_do(tmp_path, capsys):
    assert main(["watch", str(tmp_path / "nowhere")]) == 2
    assert main(["watch", str(tmp_path)]) == 2
    with pytest.raises(SystemExit):
        main(["watch", str(tmp_path), "--preset", "emacs"])
    errors = capsys.readouterr().err
    assert f"error: {tmp_path / 'nowhere'} is no folder; give the folder of a project" in errors
    assert f"error: no agent tool has files in {tmp_path}; name one with --preset" in errors
    assert "invalid choice: 'emacs'" in errors


def test_paths_are_told_from_the_root(tmp_path):
    def event(scope, name, cause):
        return Invalidation(
            scope=scope, name=name, cause=cause, origin="here", sequence=1, at=1_767_225_600.0, dropped=0
        )

    inside = event("project", str(tmp_path), FileChange(path=tmp_path / "CLAUDE.md", kind="modified"))
    assert line(inside, tmp_path).split()[1:] == [
        "project",
        tmp_path.name,
        "the",
        "file",
        "CLAUDE.md",
        "was",
        "modified",
    ]
    outside = event("all", None, FileChange(path=Path("/home/me/.claude/CLAUDE.md"), kind="added"))
    assert line(outside, tmp_path).endswith(
        "all                           the file /home/me/.claude/CLAUDE.md was added"
    )
    assert line(event("tag", "t", ApiCall(verb="invalidate_tag")), tmp_path).endswith("invalidate_tag() was called")
