"""`StoreContract` as an author of a store meets it: in a project with settings of its own, and with a store that errs.

Seen to fail on planted bugs: pytest imported with the testing kit, the mark for asyncio left out, and the registration
of the contract for messages of failed assertions left out.
"""

import os
import re
import subprocess
import sys

import pytest

import shared_prompt_cache.testing

STORES = """
import pytest
from shared_prompt_cache.stores import MemoryStore
from shared_prompt_cache.testing import StoreContract


class Forgiving(MemoryStore):
    async def renew(self, leases, ttl):
        return [True] * len(leases)


class TestRight(StoreContract):
    @pytest.fixture
    def make_store(self):
        return MemoryStore(max_size_mb=self.max_size_mb).connect


class TestWrong(StoreContract):
    @pytest.fixture
    def make_store(self):
        return Forgiving


class TestIncomplete(StoreContract):
    pass
"""


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Return what pytest said in a project that knows nothing of ours; it does nothing there for asyncio by itself."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    (folder / "test_stores.py").write_text(STORES)
    wanted = (
        "(TestRight and lease) or (TestWrong and test_what_is_released_can_be_had_at_once)"
        " or (TestIncomplete and test_what_is_not_there_is_none)"
    )
    return run("-m", "pytest", "-q", "-k", wanted, cwd=folder)


def test_a_right_store_passes_in_a_project_with_the_usual_settings(ended):
    assert "TestRight" not in ended.stdout, ended.stdout + ended.stderr
    assert re.search(r"\b1 failed, \d\d passed, \d+ deselected, 1 error in", ended.stdout), ended.stdout
    assert "warning" not in ended.stdout
    assert "skipped" not in ended.stdout


def test_a_wrong_one_is_told_what_it_did(ended):
    assert "AssertionError: a lease that was released cannot be renewed" in ended.stdout
    assert "assert not True" in ended.stdout, "what was compared is shown"


def test_a_class_without_the_fixture_is_told_which(ended):
    assert "TestIncomplete has no fixture make_store; StoreContract says what it returns" in ended.stdout


def test_what_it_needs_is_imported_when_it_is_asked_for(tmp_path):
    program = (
        "import sys, shared_prompt_cache.testing as kit; "
        "needs = ('pytest', 'pytest_asyncio', 'hypothesis'); "
        "assert not [name for name in needs if name in sys.modules], 'too soon'; "
        "assert kit.StoreContract.__doc__; "
        "assert all(name in sys.modules for name in needs)"
    )
    ended = run("-c", program, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Contract'"):
        shared_prompt_cache.testing.Contract  # noqa: B018 - to ask is the test
