"""A pattern means the same wherever it stands: in a watch rule, in a listing, in what is excluded, and over keys.

`test_rules.py` holds the matcher against one that tries everything; here those who use it are held against each other.
Seen to fail on planted bugs: a walk that does not enter a folder in which a match lies, a listing that matches names
instead of paths, an exclusion that leaves out what lies below, and a `?` that matches nothing.
"""

import os
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_prompt_cache import ConfigError, WatchRule
from shared_prompt_cache._files.reading import glob
from shared_prompt_cache._globs import check, exclusion, read
from shared_prompt_cache.keys import glob_matcher

NAMES = ["a", "b", "ab", ".x", "a*"]
TREE = ["/".join(parts) for depth in (1, 2, 3) for parts in product(NAMES, repeat=depth)]

segments = st.lists(st.sampled_from(["a", "b", ".", "*", "?", "[ab]", "[!a]", "[*]"]), min_size=1, max_size=4).map(
    "".join
)
plain = segments.filter(lambda text: "**" not in text and text not in {".", ".."})
patterns = st.lists(st.one_of(plain, st.just("**")), min_size=1, max_size=4).map("/".join)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a folder with all of the tree in it; each place of three folders' depth is a file."""
    root = tmp_path_factory.mktemp("tree")
    for path in TREE:
        if path.count("/") == 2:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
    return root


@given(patterns)
def test_a_listing_has_what_a_rule_matches(root, pattern):
    rule = WatchRule(root, pattern, "files")
    listed = [os.fspath(path.relative_to(root)) for path in glob(str(root), pattern)[0]]
    assert listed == sorted(path for path in TREE if rule.match(path) is not None)


@given(st.lists(patterns, min_size=1, max_size=3))
def test_what_is_excluded_is_what_is_matched_and_all_below_it(given_patterns):
    excluded = exclusion(tuple(given_patterns), "exclude")
    globs = [read(pattern.removesuffix("/**"), "exclude") for pattern in given_patterns]
    for path in TREE:
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        expected = any(each.regex.fullmatch(place) for each in globs for place in above)
        assert (excluded.fullmatch(path) is not None) is expected


def test_nothing_excluded_is_no_expression():
    assert exclusion((), "exclude") is None


@given(plain, st.text("ab.*]!-", min_size=1, max_size=4))
def test_within_a_segment_it_means_what_it_means_over_keys(pattern, name):
    assert (read(pattern, "pattern").regex.fullmatch(name) is not None) is bool(glob_matcher(pattern)(name))


@pytest.mark.parametrize("pattern", ["[a", "a**", "{a,b}", "[z-a]", "a//b", "/a", "../a", "a\\b"])
def test_what_cannot_be_read_is_refused_by_the_name_of_the_field_everywhere(tmp_path, pattern):
    """T17."""
    for use, field in (
        (lambda: WatchRule(tmp_path, pattern, "files"), "pattern"),
        (lambda: glob(str(tmp_path), pattern), "pattern"),
        (lambda: WatchRule(tmp_path, "*", "files", exclude=[pattern]), "exclude"),
        (lambda: read(check(pattern, "somewhere"), "somewhere"), "somewhere"),
    ):
        with pytest.raises(ConfigError) as caught:
            use()
        assert caught.value.field == field
        assert field in str(caught.value)


def test_a_pattern_is_read_once():
    """P8: a rule is asked for each path of each event."""
    assert read("a/**/b.md", "pattern") is read("a/**/b.md", "pattern")
