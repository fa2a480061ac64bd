"""T6: files flip at random moments, within one tick of their clock too; after `sync()` nobody sees an older value.

Each file holds a number of fixed width, so that its size never changes. Seen to fail on a planted bug: a `sync()` that
compares nothing. Young files whose status cannot be trusted are the matter of `test_mutations.py`.
"""

import asyncio
import random
import threading
from functools import partial

import pytest

from _support import replace, size
from shared_prompt_cache import WatchRule

READERS, FILES = 20, 10
FLIPS = size(200, 5_000)


class Editor:
    """Flips files in a thread; `written` is what had been written before it was looked at."""

    def __init__(self, folder, seed):
        self.draw = random.Random(seed)
        self.paths = {f"agent-{number}": folder / f"agent-{number}.md" for number in range(FILES)}
        self.written = dict.fromkeys(self.paths, 0)
        for agent in self.paths:
            self.write(agent, 0)

    def write(self, agent, number):
        text = f"{number:08}"
        if self.draw.random() < 0.5:
            replace(self.paths[agent], text)
        else:
            with self.paths[agent].open("r+" if self.paths[agent].exists() else "w") as file:
                file.write(text)  # in place, at the same size
        self.written[agent] = number

    def flip(self, flips, over):
        pauses = threading.Event()
        for number in range(1, flips + 1):
            self.write(self.draw.choice(list(self.paths)), number)
            if self.draw.random() < 0.2:
                pauses.wait(self.draw.random() / 300)
        over.set()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("freshness", ["strict", "events"])
@pytest.mark.parametrize("seed", range(2))
async def test_after_a_sync_no_reader_sees_an_older_value(open_cache, tmp_path, seed, freshness):
    editor, over = await asyncio.to_thread(Editor, tmp_path, seed), threading.Event()
    rule = WatchRule(tmp_path, "{agent}.md", "agent")
    cache = await open_cache(watch=[rule], freshness=freshness)
    stale, reads = [], 0

    async def by_scope(agent):
        # It reads past the cache: only the rule knows that it was made from the file.
        return await asyncio.to_thread(editor.paths[agent].read_text)

    async def by_file(agent):
        return await cache.files.read_text(editor.paths[agent])

    async def read(draw):
        nonlocal reads
        while not over.is_set():
            agent = draw.choice(list(editor.paths))
            written = editor.written[agent]
            await cache.sync()
            for kind, make in (("scope", by_scope), ("file", by_file)):
                text = await cache.get_or_compute(f"{kind} of {agent}", partial(make, agent), agent=agent)
                reads += 1
                if not text or int(text) < written:  # an in-place write of the same size is never seen half done
                    stale.append(f"{kind} of {agent} is {text!r}, {written} was written")

    flipping = asyncio.create_task(asyncio.to_thread(editor.flip, FLIPS, over))
    async with asyncio.TaskGroup() as readers:
        for number in range(READERS):
            readers.create_task(read(random.Random(number)))
    await flipping
    assert not stale, f"{len(stale)} of {reads} reads at seed {seed}: {stale[:5]}"
    await cache.sync()
    for agent, path in editor.paths.items():
        text = await cache.get_or_compute(f"file of {agent}", partial(by_file, agent), agent=agent)
        assert text == await asyncio.to_thread(path.read_text)
