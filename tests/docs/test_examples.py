"""Every example runs as its header says, ends in its assertions, and writes nothing to stderr."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_it_runs(example):
    run = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / example], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert run.stdout


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_its_header_says_what_it_shows_what_it_needs_and_how_to_run_it(example):
    text = (EXAMPLES / example).read_text()
    header = text.split('"""')[1]
    assert "Needs" in header
    assert f"Run it: python examples/{example}" in header
    assert "assert " in text
