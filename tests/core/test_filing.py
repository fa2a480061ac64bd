"""Filing and naming agree: what is filed under a label is found by the invalidation that names it, and nothing else.

Seen to fail on planted bugs: an agent that is not filed under its project, labels that are never shared, labels
without a bound.
"""

import itertools

import pytest

from shared_prompt_cache._core import filing as module
from shared_prompt_cache._core.filing import Filing, agent_ids, entry_names, project_ids, target_names
from shared_prompt_cache._core.scopes import ALL, Scopes
from shared_prompt_cache.testing import ManualClock


@pytest.fixture
def filing():
    return Filing(Scopes(), ManualClock())


def labels(filing, agent=None, project="", tags=()):
    return filing.labels(agent, agent, project or None, entry_names(project), frozenset(tags))


@pytest.mark.parametrize(
    ("project", "names"),
    [
        ("", ("",)),
        ("web", ("web",)),
        ("/srv/web", ("/srv/web", "*/web")),
        ("/srv/web/", ("/srv/web/", "*/web")),
        ("/", ("/", "*/")),
    ],
)
def test_the_names_under_which_a_project_is_filed(project, names):
    assert entry_names(project) == names


def test_everything_is_filed_under_all_and_a_project_or_none(filing):
    assert {scope.id for scope in labels(filing).scopes} == {ALL, ("project", "")}
    assert {scope.id for scope in labels(filing, "engineer", "web", ["t", "u"]).scopes} == {
        ALL,
        ("agent", "engineer"),
        ("agent", "engineer", "web"),
        ("project", "web"),
        ("tag", "t"),
        ("tag", "u"),
    }


FILED = ("", "web", "shop", "/srv/web", "/opt/web", "/srv/shop")
REACHED = {
    "web": {"", "web", "/srv/web", "/opt/web"},
    "shop": {"", "shop", "/srv/shop"},
    "/srv/web": {"", "web", "/srv/web"},
    "/opt/web": {"", "web", "/opt/web"},
    "/opt/docs": {""},
}


@pytest.mark.parametrize(("target", "project"), list(itertools.product(REACHED, FILED)))
def test_both_directions_agree(filing, target, project):
    names = target_names(target)
    hit = {scope.id for scope in labels(filing, "engineer", project).scopes}
    for ids in (project_ids(names), agent_ids("engineer", names)):
        assert bool(hit & set(ids)) == (project in REACHED[target])
    assert not hit & set(agent_ids("qa", names))
    assert hit & set(agent_ids("engineer", None))


def test_aliases_are_names_and_folders_of_the_same_project():
    assert set(target_names("/srv/web", ["frontend"])) == {"", "/srv/web", "web", "frontend"}
    assert set(target_names("frontend", ["/srv/web"])) == {"", "frontend", "*/frontend", "/srv/web", "web"}


def test_labels_are_shared(filing):
    first = labels(filing, "engineer", "web", ["t"])
    assert labels(filing, "engineer", "web", ["t"]) is first
    assert filing.find("engineer", "web", frozenset("t")) is first
    assert filing.find("engineer", None, frozenset("t")) is None


def test_they_are_bounded_and_what_is_filed_under_forgotten_ones_stays_filed(monkeypatch):
    monkeypatch.setattr(module, "_MOST_LABELS", 10)
    scopes = Scopes()
    filing = Filing(scopes, ManualClock())
    first = labels(filing, "agent-0")
    for number in range(1, 100):
        labels(filing, f"agent-{number}")
        assert len(filing._labels) <= 10
    again = labels(filing, "agent-0")
    assert again is not first
    assert again.scopes == first.scopes  # of the same numbers, by which both are judged


def test_numbers_are_noted_anew_only_when_one_has_moved(filing):
    scopes = filing._scopes
    own = labels(filing, "engineer")
    first = own.note(scopes.revision)
    assert own.note(scopes.revision) is first
    scopes.apply([("agent", "qa")])
    assert own.note(scopes.revision) is first  # equal pairs are one tuple for all entries
    scopes.apply([("agent", "engineer")])
    assert own.note(scopes.revision) != first
