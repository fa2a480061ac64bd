"""Every section of the benchmark runs at a tiny size, counts right and reports what it says; times are not judged."""

import asyncio
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
SECTIONS = {
    "hits": 5,
    "stampede": 2,
    "files": 2,
    "memory": 2,
    "imports": 2,
    "events": 2,
    "idle": 1,
    "invalidation": 2,
    "holds": 6,
    "store": 27,
}
"""How many figures each section has, beside those of a peer that may not be installed."""


@pytest.fixture
def bench(monkeypatch) -> ModuleType:
    """The benchmark as the script finds itself: with its folder at the head of the path."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("bench")


@pytest.fixture
def measure(bench) -> ModuleType:
    return importlib.import_module("_measure")


def test_each_section_is_known(bench):
    assert set(bench.SECTIONS) == {*SECTIONS, "peers"}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_reports_its_figures(bench, measure, section):
    findings = bench.SECTIONS[section](measure.TINY)
    assert len([row for row in findings.rows if "diskcache" not in row.what]) == SECTIONS[section]
    assert len({row.what for row in findings.rows}) == len(findings.rows)
    assert all(row.low <= row.value <= row.high for row in findings.rows)
    assert any(row.target is not None for row in findings.rows)
    counts = [row for row in findings.rows if row.unit == "count"]
    assert [row.what for row in counts if not row.met] == []


def test_the_peers_are_compared_and_ours_keeps_its_promises(bench, measure):
    findings = bench.peers(measure.TINY)
    counts = {row.what: row.value for row in findings.rows if row.unit == "count"}
    assert list(counts.values()) == [1, 0, 0]
    heading, *lines = findings.facts
    assert all(len(line) == len(heading) for line in lines)
    by_name = {line[0]: line for line in lines}
    assert by_name["shared-prompt-cache"][3:] == ("1", "no", "are served, 1 computation")
    assert by_name["dict, by hand"][1:] == ("1", "1", "50", "yes", "are served, 10 computations")


def test_a_missed_target_fails_only_if_asked(bench, measure, monkeypatch, capsys):
    findings = measure.Findings(rows=(measure.row("hit", [2.0, 4.0, 3.0], target=2.5, note="on Mondays"),))
    monkeypatch.setitem(bench.SECTIONS, "hits", lambda _size: findings)
    assert bench.main(["--only", "hits"]) == 0
    assert bench.main(["--only", "hits", "--strict"]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"hits +hit +3 +2.5 - 3.5 +2.5 +missed +on Mondays\n", printed)


def test_chunks_take_turns_and_the_first_round_does_not_count(measure):
    called: list[str] = []

    def chunk(name, seconds):
        async def run():
            called.append(name)
            return seconds

        return run

    found = asyncio.run(measure.interleaved({"a": chunk("a", 1.0), "b": chunk("b", 2.0)}, 3))
    assert found == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert all(sorted(called[start : start + 2]) == ["a", "b"] for start in range(0, 8, 2))
    assert measure.ratios(found["b"], found["a"]) == [2.0] * 3


def test_the_zipf_sequence_is_the_same_in_every_run_and_prefers_the_first_keys(measure):
    keys = [str(number) for number in range(100)]
    drawn = next(measure.zipf(keys, 1000))
    assert drawn == next(measure.zipf(keys, 1000))
    assert drawn.count("0") > 5 * drawn.count("20")
