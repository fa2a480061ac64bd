"""Keys are unambiguous, the same in every process, and selected by one kind of glob."""

import enum
import fnmatch
import os
import subprocess
import sys
from collections import UserDict, UserString
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shared_prompt_cache import keys
from shared_prompt_cache.errors import CacheKeyError

EXAMPLES = 10_000 if os.environ.get("STRESS") else 250


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Word(enum.StrEnum):
    RED = "red"


class Bits(enum.IntFlag, boundary=enum.KEEP):
    LOW = 1


Odd = enum.Enum("Odd", {"A": 1, "A,i1": 2})


@dataclass
class Point:
    x: object
    y: object = None


@dataclass
class Place:
    x: object
    y: object = None


tokens = [*'si,:{}[]<>"\\1_é\ud83d\ude00😀', "\ud83d\ude00"]
letters = st.lists(st.sampled_from(tokens), max_size=4).map("".join) | st.text(st.characters(), max_size=4)
atoms = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.sampled_from([0.0, -0.0, 1.0, 1.5, float("inf"), float("nan")])
    | letters
    | st.binary(max_size=3)
    | st.dates()
    | st.datetimes(timezones=st.none() | st.sampled_from([UTC, timezone(timedelta(hours=2))]))
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | letters.map(PurePosixPath)
)
parts = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(letters | st.integers(0, 2), inner, max_size=3)
        | st.frozensets(atoms, max_size=3)
    ),
    max_leaves=8,
)


def meaning(part):
    """What a part says, so that two are equal where they ought to share a key: types count, list or tuple does not."""
    if isinstance(part, list | tuple):
        return ("list", *map(meaning, part))
    if isinstance(part, dict):
        return ("dict", frozenset((meaning(name), meaning(value)) for name, value in part.items()))
    if isinstance(part, frozenset):
        return ("set", frozenset(map(meaning, part)))
    return (type(part).__name__, str(part) if isinstance(part, Decimal | PurePosixPath) else repr(part))


def respelled(part):
    """Something that is easily taken for `part`: lists for tuples, numbers for booleans, pairs of surrogates joined."""
    if isinstance(part, list | tuple):
        return [respelled(inner) for inner in part]
    if isinstance(part, dict):
        return {respelled(name): respelled(value) for name, value in reversed(part.items())}
    if isinstance(part, str):
        return part.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return int(part) if isinstance(part, bool) else part


lists = st.lists(parts, min_size=1, max_size=3)


@settings(max_examples=EXAMPLES)
@given(st.tuples(lists, lists) | lists.map(lambda given_parts: (given_parts, respelled(given_parts))))
def test_different_parts_have_different_keys(pair):
    """Seen to fail where a lone pair of surrogates had the key of the character that it stands for."""
    first, second = pair
    assert (keys.of(*first) == keys.of(*second)) == (meaning(first) == meaning(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["a", "b"], ["a,b"]),
        (["a"], [["a"]]),
        ([], [[]]),
        ([1], ["1"]),
        ([1], [True]),
        ([1], [1.0]),
        ([None], ["None"]),
        ([b"a"], ["a"]),
        (["\ud83d\ude00"], ["😀"]),
        ([PurePosixPath("\ud83d\ude00")], [PurePosixPath("😀")]),
        ([{"a": 1, "b": 2}], [{"a": 2, "b": 1}]),
        ([{"a"}], [["a"]]),
        ([date(2026, 1, 1)], [datetime(2026, 1, 1)]),  # noqa: DTZ001
        ([Colour.RED], [Colour.GREEN]),
        ([Colour.RED], ["red"]),
        ([Odd["A,i1"]], [Odd.A, 1]),
        ([Bits(8)], [Bits(16)]),
        ([Point(1)], [Place(1)]),
        ([Point(1, 2)], [Point(2, 1)]),
        ([UUID(int=1)], [str(UUID(int=1))]),
        ([10**5000], [10**5000 + 1]),
    ],
)
def test_parts_that_look_alike_have_different_keys(first, second):
    assert keys.of("head", *first) != keys.of("head", *second)


def test_equal_parts_share_a_key():
    assert keys.of("a", [1, 2]) == keys.of("a", (1, 2))
    assert keys.of({"a": 1, "b": 2}) == keys.of({"b": 2, "a": 1}) == keys.of(UserDict(b=2, a=1))
    assert keys.of({3, 1, 2}) == keys.of(frozenset([2, 3, 1]))
    assert keys.of(Word.RED) == keys.of("red")
    assert keys.of(Point("x")) == keys.of(Point("x"))


def test_subclasses_are_what_their_base_says_not_what_they_print():
    text = type("Text", (str,), {"__str__": object.__repr__, "__repr__": object.__repr__})
    number = type("Number", (int,), {"__repr__": object.__repr__, "__format__": object.__format__})
    ratio = type("Ratio", (float,), {"__repr__": object.__repr__})
    assert keys.of(text("a"), number(3), ratio(0.5)) == keys.of("a", 3, 0.5)


@pytest.fixture(scope="module")
def other_process():
    """Another interpreter with another seed for `hash()`, which answers with the keys of the parts it is sent."""
    code = (
        "import sys, datetime; from decimal import Decimal; from pathlib import PurePosixPath; from uuid import UUID\n"
        "from math import inf, nan; from shared_prompt_cache import keys\n"
        "for line in sys.stdin: print(ascii(keys.of(*eval(line))), flush=True)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def ask(parts):
            process.stdin.write(ascii(parts) + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield ask
        process.stdin.close()
        process.wait(10)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(parts, min_size=1, max_size=3))
def test_the_same_parts_have_the_same_key_in_another_process(other_process, given_parts):
    """Seen to fail with sets written in their own order."""
    assert other_process(given_parts) == ascii(keys.of(*given_parts))


def test_keys_do_not_change_from_release_to_release():
    """A store outlives the program that filled it: who changes one of these drops every stored entry."""
    assert keys.of("a", 1, [2.5, None]) == "a_3f7f87cbf6267b5d39e6c723a76b114d"
    assert keys.agent("engineer", {"task": "review"}, "1.0") == "engineer_a7ef8af98be251374acb9552b4ca9225"
    assert keys.project("shop", "memory") == "project_shop_43dcade90f7efb3670283de996f9ae81"


def test_each_builder_has_keys_of_its_own():
    moment = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
    made = {keys.of("a"), keys.of("a", None, None), keys.agent("a"), keys.project("a"), keys.temporal("a", moment)}
    assert len(made) == 5
    assert keys.agent("project_a").startswith("project_a_")
    assert keys.agent("project_a") != keys.project("a")


@pytest.mark.parametrize(
    ("every", "period", "same", "other"),
    [
        ("minute", "2026-03-04_05-06", timedelta(seconds=59), timedelta(minutes=1)),
        ("hour", "2026-03-04_05", timedelta(minutes=53), timedelta(hours=1)),
        ("day", "2026-03-04", timedelta(hours=18), timedelta(days=1)),
        ("month", "2026-03", timedelta(days=27), timedelta(days=28)),
    ],
)
def test_a_temporal_key_lasts_as_long_as_it_says(every, period, same, other):
    moment = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
    key = keys.temporal("report", moment, every)
    assert key.startswith(f"report_{period}_")
    assert keys.temporal("report", moment + same, every) == key
    assert keys.temporal("report", moment + other, every) != key
    assert keys.temporal("report", moment.replace(tzinfo=None), every) != key


@given(st.text(min_size=1), parts)
def test_what_is_built_can_be_a_key(name, part):
    moment = datetime(2026, 3, 4, tzinfo=UTC)
    for key in (keys.of(name, part), keys.agent(name, part), keys.project(name, part), keys.temporal(name, moment)):
        assert keys.check_key(key) == key
        assert len(key) <= 300


class Bad:
    def __repr__(self):
        raise RuntimeError

    def __iter__(self):
        raise RuntimeError


@dataclass
class Unset:
    x: int = field(init=False)


class BadList(list):
    def __iter__(self):
        raise RuntimeError("broken on the way")


HUGE = pytest.param(10**5000, id="huge")
endless = []
endless.append(endless)


@pytest.mark.parametrize(
    "part", [object(), Bad(), Point, len, lambda: 0, 1j, endless, Unset(), BadList([1]), UserString("a"), {1: object()}]
)
def test_a_part_without_a_stable_text_form_is_refused(part):
    for build in (lambda: keys.of(part), lambda: keys.agent("a", part), lambda: keys.project("a", [part])):
        with pytest.raises(CacheKeyError, match="; give "):
            build()


@pytest.mark.parametrize("name", ["", None, 5, b"a", Bad(), HUGE])
def test_a_name_that_is_no_text_is_refused(name):
    for build in (keys.agent, keys.project, lambda name: keys.temporal(name, datetime.now(UTC))):
        with pytest.raises(CacheKeyError, match="give a non-empty string"):
            build(name)


def test_builders_refuse_what_they_cannot_use():
    with pytest.raises(CacheKeyError, match="at least one"):
        keys.of()
    for every in ("week", None, [], Bad()):
        with pytest.raises(CacheKeyError, match="'minute', 'hour', 'day' or 'month'"):
            keys.temporal("a", datetime.now(UTC), every)
    for at in (date(2026, 1, 1), "now", None, Bad()):
        with pytest.raises(CacheKeyError, match="give a datetime"):
            keys.temporal("a", at)


@pytest.mark.parametrize("key", [None, 5, b"key", "", "x" * 1025, Bad(), HUGE, ["a"]])
def test_what_cannot_be_a_key_is_refused_with_a_remedy(key):
    with pytest.raises(CacheKeyError, match=r"keys\.of|at least one character") as caught:
        keys.check_key(key)
    assert caught.value.key is key
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["a", "x" * 1024, " ", "\0", "\ud800", "engineer_*"])
def test_any_other_string_is_a_key(key):
    assert keys.check_key(key) is key


@pytest.mark.parametrize("pattern", [None, 5, b"*", "", "x" * 3073, Bad()])
def test_what_cannot_be_a_pattern_is_refused_with_a_remedy(pattern):
    with pytest.raises(CacheKeyError, match=r"glob such as|shorten it") as caught:
        keys.check_pattern(pattern)
    assert caught.value.key is pattern


@settings(max_examples=EXAMPLES)
@given(st.text(min_size=1, max_size=50) | st.text(st.sampled_from("*?[]!-a^]"), min_size=1, max_size=20))
def test_an_escaped_key_selects_itself_and_nothing_else(key):
    pattern = keys.check_pattern(keys.glob_escape(key))
    match = keys.glob_matcher(pattern)
    assert match(key)
    for other in (key + "x", key[1:], "x" + key, key.swapcase()):
        assert bool(match(other)) == (other == key)


def test_an_escaped_key_of_the_greatest_length_is_a_pattern():
    assert keys.glob_matcher(keys.check_pattern(keys.glob_escape("*" * 1024)))("*" * 1024)


@settings(max_examples=EXAMPLES)
@given(
    st.text(st.sampled_from("ab*?[]!-^\\\n"), min_size=1, max_size=12), st.text(st.sampled_from("abA-]^\n"), max_size=6)
)
def test_patterns_mean_what_they_mean_in_a_shell(pattern, key):
    """The standard library's own matching is the model; what is pruned by literal prefix is what would not match."""
    selected = bool(keys.glob_matcher(pattern)(key))
    assert selected == fnmatch.fnmatchcase(key, pattern)
    if selected:
        assert key.startswith(keys.literal_prefix(pattern))


@pytest.mark.parametrize(
    ("pattern", "selected", "left"),
    [
        ("engineer_*", ["engineer_", "engineer_a\nb"], ["data_engineer_x", "Engineer_x", "engineer"]),
        ("*_engineer_*", ["data_engineer_x"], ["engineer_x"]),
        ("v?", ["v1"], ["v", "v10"]),
        ("v[12]", ["v1", "v2"], ["v3", "v[12]"]),
        ("v[!1]", ["v2", "v!"], ["v1", "v"]),
        ("v[^1]", ["v^", "v1"], ["v2"]),
        ("v[a-c]", ["vb"], ["vd", "v-"]),
        ("v[", ["v["], ["v"]),
        ("v[z-a]", [], ["v", "vz"]),
        ("a\\*", ["a\\", "a\\b"], ["a*"]),
    ],
)
def test_what_a_pattern_selects(pattern, selected, left):
    match = keys.glob_matcher(pattern)
    assert [key for key in selected + left if match(key)] == selected


@settings(max_examples=EXAMPLES)
@given(st.text(min_size=1, max_size=100))
def test_whatever_the_pattern_only_key_errors_come_out(pattern):
    assume(keys.check_pattern(pattern))
    keys.glob_matcher(pattern)("key")


def test_a_pattern_of_many_stars_is_decided_at_once():
    assert not keys.glob_matcher("a*" * 500 + "b")("a" * 1024)
