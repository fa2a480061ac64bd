"""Processes that share a store: each runs this file, opens a cache of its own and does what it is told, line by line.

What a worker is told is an expression over the names that `Shop` has and `cache`, with a bare `await` where it takes
one; it answers with its value, as JSON. Times are those of the monotonic clock, which is one for all processes.
"""

import ast
import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from shared_prompt_cache import SharedPromptCache, presets
from shared_prompt_cache._tier import leases
from shared_prompt_cache.stores import SQLiteStore
from shared_prompt_cache.testing import wait_until

PATIENCE = 60.0


class Worker:
    """A process of its own, as its parent sees it, which may block."""

    def __init__(self, folder):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._program = subprocess.Popen([sys.executable, "-W", "error", __file__, folder], text=True, **pipes)

    def __call__(self, expression):
        """Return what an expression comes to over there."""
        self.tell(expression)
        return self.answer()

    def tell(self, expression):
        """Have it begin with something; nothing is waited for."""
        self._program.stdin.write(json.dumps(expression) + "\n")
        self._program.stdin.flush()

    def answer(self):
        """Return what it answers next."""
        line = self._program.stdout.readline()
        assert line, self._program.communicate()[1]
        return json.loads(line)

    def kill(self):
        """End it as the system does when there is no memory left; return when that was."""
        now = time.monotonic()
        self._program.kill()
        self._program.communicate()
        return now

    def stop(self):
        """Have it stand still; return when it does."""
        self._program.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._program.pid, os.WSTOPPED)

    def go_on(self):
        """Let it go on."""
        self._program.send_signal(signal.SIGCONT)

    def end(self):
        """Let it end as a program does, without a complaint."""
        _, errors = self._program.communicate(timeout=PATIENCE)
        assert (self._program.returncode, errors) == (0, "")


class Workers:
    """Workers over one folder; they end with the block.

    Attributes:
        folder: Where their store is, and the file in which computations are counted; the project that they watch.
    """

    def __init__(self, folder):
        self.folder = folder
        self._log = folder / "computations"
        self._running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            for worker in self._running:
                worker.go_on()
                worker.end()
        finally:
            for worker in self._running:
                worker.kill()

    def start(self, number):
        """Start workers, all at once; return when each has its cache open."""
        started = [Worker(str(self.folder)) for _ in range(number)]
        self._running += started
        for worker in started:
            assert worker.answer() == "open"
        return started

    def kill(self, worker):
        """Kill one; return when."""
        self._running.remove(worker)
        return worker.kill()

    def computed(self):
        """Return what was computed so far, by all: key, process, and when it began."""
        lines = self._log.read_text().splitlines() if self._log.exists() else ()
        return [(key, int(pid), float(began)) for key, pid, began in (line.split("\t") for line in lines)]

    def computations(self, key):
        """Return who computed a key so far, and when that began."""
        return [(by, began) for name, by, began in self.computed() if name == key]


def all_do(workers, expression):
    """Have all begin with the same at the same moment; return what each answers."""
    for worker in workers:
        worker.tell(expression)
    return [worker.answer() for worker in workers]


class Shop:
    """What a worker works with.

    Attributes:
        told: What its subscribers were told: when, scope, name, kind of the cause.
        gate: What computations wait for.
        begun: How many it has begun.
    """

    def __init__(self, folder):
        self.project = Path(folder)
        self.cache = SharedPromptCache(
            store=SQLiteStore(self.project / ".cache" / "prompts"),
            watch=presets.claude_mpm(folder),
            watcher="watchfiles",
            name=f"worker {os.getpid()}",
        )
        # On a busy machine a store may be slow, which is not the case here: then each would compute.
        self.cache._tier._breaker.reading = self.cache._tier._breaker.writing = PATIENCE
        self.told = []
        self.cache.events.listen(self._note)
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = 0
        self._asked = []
        self._log = os.open(self.project / "computations", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _note(self, event):
        self.told.append((time.monotonic(), event.scope, event.name, type(event.cause).__name__))

    async def _compute(self, key, content):
        self.begun += 1
        os.write(self._log, f"{key}\t{os.getpid()}\t{time.monotonic()}\n".encode())
        await self.gate.wait()
        return content()

    def last(self, seconds):
        """Let leases be this long from now on, and be renewed and asked for five times meanwhile."""
        leases._TTL, leases._TICK = seconds, seconds / 5

    async def forget(self):
        """Keep nothing in memory of what was asked for, nor of what it was told."""
        self.told.clear()
        self.begun = 0
        await self.cache.evict_oldest(1_000_000)

    def begin(self, *keys, callers=1, content=os.getpid, **options):
        """Ask for the values of keys, many times over; they come to what `content` returns then."""
        self._asked += [
            asyncio.create_task(self.cache.get_or_compute(key, lambda key=key: self._compute(key, content), **options))
            for key in keys
            for _ in range(callers)
        ]

    async def answers(self):
        """Return what came of all that was asked for."""
        asked, self._asked = self._asked, []
        return await asyncio.gather(*asked)

    async def ask(self, *keys, **options):
        """Ask, and return what came of it."""
        self.begin(*keys, **options)
        return await self.answers()

    async def memory_of(self, agent, version=0):
        """Return its memory, by a prompt that is made from it past `cache.files`, once so many changes were told."""
        path = self.project / ".claude-mpm" / "memories" / f"{agent}_memories.md"
        await self.hears(version, agent)
        return (await self.ask(f"prompt of {agent}", content=path.read_text, agent=agent))[0]

    async def computing(self):
        """Return when a computation has begun."""
        await wait_until(lambda: self.begun, timeout=PATIENCE)

    async def waiting(self):
        """Return when it waits for what another computes."""
        claims = self.cache._tier._leases
        await wait_until(lambda: claims._waiting and not claims, timeout=PATIENCE)

    async def hears(self, number, agent=None):
        """Return what it was told of an agent, or of anything, once that is so much."""

        def of_it():
            return [event for event in self.told if agent in (None, event[2])]

        await wait_until(lambda: len(of_it()) >= number, timeout=PATIENCE)
        return of_it()

    async def settled(self):
        """Return all that it was told, once nothing is left that it could be told of."""
        await self.cache.sync()
        await self.cache.flush()
        await self.cache._tier._follower.catch_up()
        await self.cache.flush()
        await wait_until(lambda: not self.cache._invalidations._announcements)
        for _ in range(10):
            await asyncio.sleep(0)
        return self.told

    async def timed(self, verb):
        """Return when something began, and when it was done."""
        began = time.monotonic()
        await verb
        return began, time.monotonic()

    async def journal(self):
        """Return how many invalidations were ever journalled."""
        return (await self.cache._tier._store.journal(0)).last

    async def serve(self):
        """Do what is told until nobody tells anything any more."""
        names = {name: getattr(self, name) for name in dir(self) if name[0] != "_"}
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async with self.cache:
            answer = "open"
            while True:
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
                line = await lines.readline()
                if not line:
                    return
                code = compile(json.loads(line), "<told>", "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                answer = eval(code, names)
                if inspect.isawaitable(answer):
                    async with asyncio.timeout(PATIENCE):
                        answer = await answer


if __name__ == "__main__":
    asyncio.run(Shop(sys.argv[1]).serve())
