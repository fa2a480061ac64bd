"""Strict reads under random edits: nothing stale while they go on, nothing stale for ever after them.

The same harness finds stale reads once strict verification is switched off (here), and it has found these planted
bugs: fingerprints trusted before they have settled, files not compared again after a computation, and callers who join
a flight without a look at what it has read.
"""

import pytest

from _mutations import Harness
from _support import size
from shared_prompt_cache import _lookup
from shared_prompt_cache._files import proof

EDITS = size(300, 5_000)
SEEDS = size(2, 10)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_read_is_stale(open_cache, tmp_path, seed):
    harness = Harness(await open_cache(), tmp_path, seed)
    await harness.run(EDITS)
    again = f"{EDITS} edits at seed {seed}; again: pytest {__file__} -k 'no_read_is_stale and {seed}'"
    assert harness.reads > 100
    assert not harness.stale, f"{len(harness.stale)} stale of {harness.reads} reads, {again}: {harness.stale[:5]}"


async def test_without_strict_verification_the_harness_finds_stale_reads(open_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "unchanged", lambda *_: True)
    monkeypatch.setattr(_lookup, "unchanged", lambda *_: True)
    harness = Harness(await open_cache(), tmp_path, 0)
    await harness.run(200)
    assert [stale for stale in harness.stale if stale.endswith("at the end")]
    assert [stale for stale in harness.stale if not stale.endswith("at the end")]
