"""Scopes with numbers: what falls, what stands, what is in doubt, and what has to be remembered for whom.

Seen to fail on planted bugs: a scope that nobody uses and that is forgotten while a computation may still need it, a
floor that does not rise, a soft invalidation that counts as a hard one, a head that a matching key does not have.
"""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core._entries import Bench
from shared_prompt_cache._core import scopes as module
from shared_prompt_cache._core.conditions import file_condition, glob_condition, head, heads_of_prefix, shapes_condition
from shared_prompt_cache._core.scopes import ALL, Doubt, Scopes, Verdict

TAG = ("tag", "t")


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def scopes(bench):
    return bench.scopes


def test_what_was_made_before_falls_and_what_was_made_after_stands(bench, scopes):
    before = bench.entry("a", ids=[TAG])
    told = object()
    scopes.apply([TAG], told=told)
    after = bench.entry("a", ids=[TAG])
    assert (scopes.judge(before), scopes.judge(after)) == (Verdict.FALLEN, Verdict.STANDS)
    assert (scopes.why(before), scopes.why(after)) == (told, None)


def test_so_it_is_with_conditions(bench, scopes):
    before = bench.entry("plan_1", ids=[ALL])
    told = object()
    scopes.apply([], glob_condition("plan_*"), told)
    after = bench.entry("plan_1", ids=[ALL])
    assert (scopes.judge(before), scopes.judge(after)) == (Verdict.FALLEN, Verdict.STANDS)
    assert (scopes.why(before), scopes.why(after)) == (told, None)


def test_what_stood_when_it_was_judged_is_not_asked_again_by_older_conditions(bench, scopes):
    asked = []
    condition = glob_condition("plan_*")
    condition.matches = lambda subject: asked.append(subject.key)
    scopes.apply([], condition)
    entry = bench.entry("note_1", revision=0)
    assert scopes.judge(entry) is Verdict.STANDS
    entry.judged(scopes.revision)
    scopes.judge(entry)
    assert asked == ["note_1"]


@pytest.mark.parametrize("by", ["scope", "condition"])
def test_soft_moves_the_expiry_and_lets_stand(bench, scopes, by):
    entry = bench.entry("plan_1", ids=[TAG], ttl=100)
    at = bench.clock.monotonic() + 10
    if by == "scope":
        scopes.apply([TAG], soft_at=at)
    else:
        scopes.apply([], glob_condition("plan_*"), soft_at=at)
    assert scopes.judge(entry) is Verdict.STANDS
    assert (entry.expires, scopes.why(entry)) == (at, None)


def test_a_scope_lives_as_long_as_somebody_stands_in_it(bench, scopes):
    entry = bench.entry("a", ids=[TAG])
    assert scopes.figures["scopes"] == 1
    del entry
    gc.collect()
    assert scopes.figures["scopes"] == 0
    scopes.apply([TAG])  # nobody has to know
    assert scopes.figures["scopes"] == 0


def test_while_a_computation_is_under_way_what_it_may_learn_of_is_remembered(scopes):
    computation = object()
    since = scopes.begin(computation)
    scopes.apply([TAG], glob_condition("plan_*"))
    gc.collect()
    assert scopes.touched_since(TAG, since)
    assert scopes.note_late([TAG], since) is None
    ((scope, number),) = scopes.note_late([("tag", "another")], since)
    assert (scope.id, number) == (("tag", "another"), 0)
    assert scopes.figures["remembered"] == 2
    scopes.end(computation)
    gc.collect()
    assert scopes.figures["remembered"] == 0
    assert not scopes.touched_since(TAG, since)


def test_the_oldest_one_under_way_says_how_much(scopes):
    first, second = object(), object()
    scopes.begin(first)
    scopes.apply([TAG])
    scopes.begin(second)
    scopes.apply([TAG])
    scopes.end(first)
    assert scopes.figures["remembered"] == 1
    scopes.end(second)
    scopes.end(second)  # to end twice is as good as once
    assert scopes.figures["remembered"] == 0


def test_what_is_more_than_is_remembered_makes_all_that_is_under_way_useless(scopes, monkeypatch):
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 10)
    computation = object()
    since = scopes.begin(computation)
    for number in range(11):
        scopes.apply([("tag", str(number))])
        assert scopes.figures["remembered"] <= 10
    assert since < scopes.floor == scopes.revision
    assert scopes.note_late([("tag", "never touched")], since) is None
    assert scopes.note_late([("tag", "never touched")], scopes.begin(object())) is not None


def test_a_condition_is_kept_until_all_are_judged_and_none_older_is_under_way(scopes):
    condition, computation = glob_condition("*"), object()
    scopes.begin(computation)
    scopes.apply([], condition)
    scopes.swept(condition)
    assert scopes.figures["conditions"] == 1
    scopes.end(computation)
    assert scopes.figures["conditions"] == 0
    first, second = glob_condition("*"), glob_condition("*")
    scopes.apply([], first)
    scopes.apply([], second)
    scopes.swept(second)
    assert scopes.figures["conditions"] == 1  # some entry may still be under the first alone
    scopes.swept(first)
    assert scopes.figures["conditions"] == 0


def test_doubts_are_answered_the_oldest_first(bench, scopes):
    entry, other = bench.entry("plan_1", ids=[TAG]), bench.entry("note_1", ids=[ALL])
    first, second = Doubt([TAG], [], None), Doubt([], [glob_condition("plan_*")], None)
    scopes.doubt(first)
    scopes.doubt(second)
    assert (scopes.judge(entry), scopes.judge(other)) == (Verdict.DOUBTED, Verdict.STANDS)
    assert scopes.doubts_about(entry) is first
    scopes.settle(first)
    scopes.settle(first)
    assert scopes.doubts_about(entry) is second
    scopes.settle(second)
    assert scopes.judge(entry) is Verdict.STANDS
    assert scopes.doubts_about(other) is None


def test_what_has_fallen_is_not_in_doubt(bench, scopes):
    entry = bench.entry("a", ids=[TAG])
    scopes.doubt(Doubt([TAG], [], None))
    scopes.apply([TAG])
    assert scopes.judge(entry) is Verdict.FALLEN


def test_every_change_moves_the_revision(scopes):
    seen = [scopes.revision]
    for change in (
        lambda: scopes.apply([TAG]),
        lambda: scopes.apply([], glob_condition("*")),
        lambda: scopes.doubt(Doubt([], [], None)),
        scopes.move,
    ):
        change()
        seen.append(scopes.revision)
    assert seen == [0, 1, 2, 3, 4]


def test_what_was_made_from_a_key_goes_with_it_by_pattern_and_shape(bench):
    for condition in (glob_condition("engineer_*"), shapes_condition("engineer", None)):
        assert condition.matches(bench.entry("summary", consumed=[("engineer_1", True)]))
        assert not condition.matches(bench.entry("summary", consumed=[("qa_1", True)]))
    # The consumed value had an agent, so its key is no shape; as a key it still is one.
    assert glob_condition("engineer_*").matches(bench.entry("summary", consumed=[("engineer_1", False)]))
    assert not shapes_condition("engineer", None).matches(bench.entry("summary", consumed=[("engineer_1", False)]))


def test_a_file_selects_what_lies_below_it_and_not_beside(bench):
    entry = bench.entry("a", paths=["/docs/deep/b.md"])
    assert [file_condition(path).matches(entry) for path in ("/docs", "/docs/", "/docs/deep/b.md", "/", "/doc")] == [
        True,
        True,
        True,
        True,
        False,
    ]


LETTERS = st.text(alphabet="aBkK_-:./ *?[!]ſİ", min_size=1, max_size=40) | st.text(min_size=1, max_size=40)


@given(LETTERS, LETTERS)
def test_the_head_of_a_prefix_is_that_of_every_key_with_it(prefix, rest):
    heads = heads_of_prefix(prefix)
    assert heads is None or head(prefix + rest) in heads


@given(LETTERS, st.integers(0, 40))
def test_a_pattern_finds_its_keys_under_its_heads(key, cut):
    condition = glob_condition(key.replace("*", "?")[:cut] + "*")
    if condition.heads is not None and condition.matches(Bench().entry(key)):
        assert head(key) in condition.heads


@given(LETTERS, st.sampled_from(["{}_x", "{}:x", "memory_{}_x", "MEMORY-{}-x"]))
def test_a_shape_finds_its_keys_under_its_heads(agent, shape):
    agent = agent.lower().replace("_", "-")
    condition = shapes_condition(agent, None)
    for key in (shape.format(agent), shape.format(agent.upper()), shape.format(agent.replace("-", "_"))):
        if condition.heads is not None and condition.matches(Bench().entry(key)):
            assert head(key) in condition.heads


def test_a_new_core_is_empty():
    assert Scopes().figures == {"scopes": 0, "conditions": 0, "doubts": 0, "open": 0, "remembered": 0}
