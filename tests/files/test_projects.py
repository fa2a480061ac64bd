"""Labels from what callers say, and the names by which a project is known.

Seen to fail on planted bugs: a symlink that is taken for another project, a relative path that is resolved once for
all, metadata that goes before a parameter.
"""

from pathlib import Path

import pytest

from shared_prompt_cache import ConfigError, ConfigTypeError, WatchRule, presets
from shared_prompt_cache._core.filing import Filing
from shared_prompt_cache._core.scopes import Scopes
from shared_prompt_cache._files.projects import Labelling, agent_id, check_project, resolved
from shared_prompt_cache.testing import ManualClock


def labelling(*rules):
    return Labelling(Filing(Scopes(), ManualClock()), rules)


@pytest.fixture
def web(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "link").symlink_to("web")
    return tmp_path / "web"


def names(labelling, project):
    return set(labelling.labels(None, project, (), None).projects)


def test_a_symlink_to_a_project_is_that_project(web):
    known = labelling()
    link = web.parent / "link"
    assert names(known, link) == names(known, web) == {str(web), "*/web"}
    assert set(known.of_target(str(link))) == set(known.of_target(str(web))) == {"", str(web), "web"}


def test_rules_name_the_project_at_their_root_by_whatever_way_that_is_reached(web):
    known = labelling(*presets.claude_mpm(web.parent / "link", project="frontend"))
    for target in (str(web), "frontend"):
        assert {str(web), "web", "frontend", ""} <= set(known.of_target(target))


def test_rules_for_all_projects_name_none(web):
    known = labelling(WatchRule(web, "*.md", "all", anywhere=True))
    assert known.of_target("web") == labelling().of_target("web")


def test_one_name_for_two_roots_means_both(web, tmp_path):
    (tmp_path / "other").mkdir()
    known = labelling(
        WatchRule(web, "*.md", "project", project="site"),
        WatchRule(tmp_path / "other", "*.md", "project", project="site"),
    )
    assert {str(web), str(tmp_path / "other"), "site", "web", "other"} <= set(known.of_target("site"))


def test_what_the_parameters_say_goes_before_the_metadata():
    known = labelling()
    said = {"agent": "qa", "project": "shop"}
    told = known.labels("engineer", None, (), said)
    assert (told.agent, told.project) == ("engineer", "shop")
    told = known.labels(None, "web", (), said)
    assert (told.agent, told.project) == ("qa", "web")


def test_what_has_no_labels_shares_them():
    known = labelling()
    plain = known.labels(None, None, (), None)
    for tags, metadata in (([], None), ((), {}), ((), {"agent": 5, "project": 5}), (set(), {"agent": " "})):
        assert known.labels(None, None, tags, metadata) is plain


def test_with_more_tags_the_rest_stays():
    known = labelling()
    first = known.labels("engineer", "web", ["a"], None)
    more = known.with_more(first, frozenset("b"), None)
    assert (more.agent, more.project, more.tags) == ("engineer", "web", {"a", "b"})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("web", "web"),
        ("/srv/web/", "/srv/web/"),
        ("./web", "{here}/web"),
        ("a/web", "{here}/a/web"),
        (Path("web"), "{here}/web"),
        (Path("/srv/web"), "/srv/web"),
        ("~/web", "{home}/web"),
    ],
)
def test_a_project_is_a_name_or_an_absolute_path(given, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert check_project(given) == text.format(here=tmp_path, home="/home/somebody")


class Raw:
    def __fspath__(self):
        return b"web"


@pytest.mark.parametrize("given", ["", "a\0b", 5, None, b"web", Raw(), ["web"], "/\ud800"])
def test_anything_else_is_refused(given):
    with pytest.raises(ConfigError, match="give a name or a path") as caught:
        check_project(given)
    assert caught.value.field == "project"


def test_names_are_not_looked_for_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("web").symlink_to(tmp_path)
    assert resolved("web") == "web"


def test_an_agent_that_names_nobody_is_refused():
    assert agent_id("Python_Engineer") == "python-engineer"
    with pytest.raises(ConfigError, match="names nobody"):
        agent_id(" ")
    with pytest.raises(ConfigTypeError):
        labelling().labels([], None, (), None)
