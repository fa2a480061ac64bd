"""What is public, and nothing else: a name that comes or goes is a decision, made here.

Seen to fail on a planted bug: a method without an underscore.
"""

import importlib
import inspect
import pkgutil
import types

import pytest

import shared_prompt_cache
from shared_prompt_cache import SharedPromptCache

VERBS = {
    "aclose",
    "batch",
    "blocking",
    "cached",
    "clear",
    "evict_oldest",
    "explain",
    "flush",
    "from_config",
    "get_many",
    "get_or_compute",
    "get_prompt",
    "get_stats",
    "health",
    "invalidate",
    "invalidate_agent",
    "invalidate_file",
    "invalidate_pattern",
    "invalidate_project",
    "invalidate_tag",
    "lock",
    "set_prompt",
    "start",
    "sync",
    "warm",
}
MODULES = {
    "cache",
    "cli",
    "clock",
    "config",
    "errors",
    "events",
    "integrations",
    "keys",
    "presets",
    "rules",
    "stores",
    "testing",
}
PACKAGES = {
    "integrations.key_value": {"KeyValueStore"},
    "presets": {"agents_md", "claude_code", "claude_mpm", "copilot", "cursor", "detect", "gemini", "windsurf"},
    "stores": {
        "Journal",
        "JournalEntry",
        "Lease",
        "LeaseRequest",
        "MemoryStore",
        "Notice",
        "SQLiteStore",
        "Selection",
        "Stamp",
        "Store",
        "StoreStats",
        "StoredEntry",
        "Swap",
        "Write",
    },
    "testing": {"ChaosStore", "FakeWatcher", "ManualClock", "ShuffleLoop", "StoreContract", "wait_until"},
}


def test_the_names_of_the_package_are_there_and_are_documented():
    assert sorted(shared_prompt_cache.__all__) == sorted(set(shared_prompt_cache.__all__))
    for name in shared_prompt_cache.__all__:
        value = getattr(shared_prompt_cache, name)
        assert inspect.getdoc(value) or isinstance(value, types.UnionType), name


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Cache'"):
        shared_prompt_cache.Cache  # noqa: B018 - to ask is the test


@pytest.mark.parametrize("package", PACKAGES)
def test_so_are_those_of_its_public_packages(package):
    module = importlib.import_module(f"shared_prompt_cache.{package}")
    assert set(module.__all__) == PACKAGES[package]
    assert all(inspect.getdoc(getattr(module, name)) for name in module.__all__)


def test_everything_else_begins_with_an_underscore():
    names = {module.name for module in pkgutil.iter_modules(shared_prompt_cache.__path__)}
    assert {name for name in names if not name.startswith("_")} == MODULES


def test_the_verbs_of_a_cache_are_these_and_are_documented():
    public = {name: member for name, member in inspect.getmembers(SharedPromptCache) if not name.startswith("_")}
    assert set(public) == VERBS
    assert all(inspect.getdoc(member) for member in public.values())
    assert {name for name in vars(SharedPromptCache()) if not name.startswith("_")} == {"events", "files", "name"}
