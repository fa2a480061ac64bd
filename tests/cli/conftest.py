"""A store as a program leaves it that has ended, and commands run in this process."""

import asyncio

import pytest

from _stored import fill
from shared_prompt_cache import SharedPromptCache
from shared_prompt_cache.cli import main
from shared_prompt_cache.stores import SQLiteStore


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "memories").mkdir()
    for agent in ("qa", "engineer"):
        (tmp_path / "memories" / f"{agent}.md").write_text(f"- what {agent} knows\n")
    return tmp_path


@pytest.fixture
def store(folder):
    """Return the folder of a store that nobody has open."""

    async def filled():
        async with SharedPromptCache(store=SQLiteStore(folder / "store")) as cache:
            await fill(cache, folder)

    asyncio.run(filled())
    return folder / "store"


@pytest.fixture
def command(capsys):
    """Run a command; return its exit status, what it printed, and what it said of errors."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())

    return run
